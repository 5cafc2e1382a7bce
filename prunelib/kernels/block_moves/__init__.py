"""Block moves: a group of columns gets the best of all its patterns, given the rest of the row."""
