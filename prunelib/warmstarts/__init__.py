"""Warm starts, one a file: ``saliency(weight, gram, settings) -> (rows, inputs) float32``; the highest are kept."""
