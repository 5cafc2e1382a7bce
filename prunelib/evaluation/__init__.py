"""Quality of pruned models: perplexity on held-out text and accuracy on zero-shot tasks."""
