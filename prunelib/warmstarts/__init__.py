"""Warm starts: which weights to keep at first, one method a file.

A method that ranks has ``saliency(weight, gram, settings) -> (rows, inputs) float32``; the highest of each group of the
pattern are kept. One whose choice is no ranking has ``choose(weight, gram, pattern, settings) -> (rows, inputs) bool``,
True = kept. One that does not look at a layer by itself has ``masks(settings, layers, pattern, model)``, which gives
such a mask for each layer's name; ``model`` is the model's identity.
"""
