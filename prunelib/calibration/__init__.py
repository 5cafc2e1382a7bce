"""What pruning knows of the data: windows of text, and Gram matrices of layer inputs over them."""
