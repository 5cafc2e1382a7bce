"""Export of pruned models: a Hugging Face folder, its model card, and a check of 2:4 sparsity on a GPU."""
