"""A language model: what can be pruned in it, its weights, and its forward block by block."""
