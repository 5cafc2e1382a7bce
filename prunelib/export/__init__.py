"""Pruned models for others: a Hugging Face folder, its model card, and what a GPU makes of it."""
