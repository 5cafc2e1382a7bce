"""Language models: their prunable layers, their weights, and their forward pass block by block."""
