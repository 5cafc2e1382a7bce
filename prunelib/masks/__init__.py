"""Which weights stay: patterns, budgets, and the artifacts that hold masks and moved weights."""
