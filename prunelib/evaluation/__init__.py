"""What a model is worth after pruning: perplexity on held-out text and accuracy on zero-shot tasks."""
