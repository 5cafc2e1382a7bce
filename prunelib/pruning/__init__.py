"""Warm starts and refiners applied to whole models, layer by layer and block by block.

arguments       the arguments of prunelib.prune, checked
budgets         the pattern of each layer, from a pattern and its allocation
warmstart       the masks of a warm start, from Gram matrices on disk
chains          several refiners in a row, on one layer
refined_layers  one layer refined, and its record
refined_blocks  refined blocks, and their folders on disk
stored_grams    all layers refined from Gram matrices on disk
on_the_fly      all layers calibrated and refined in one pass, without storing Gram matrices
reconstruction  whole blocks refined, after their layers
whole_model     the refinement of a cell: from stored Gram matrices or on the fly, then of blocks
in_memory       prunelib.prune: all of it on a loaded model, without files
result          what prunelib.prune returns
warm_up         kernels compiled before the time is taken
losses          the losses of finished rows, for a progress bar
"""
