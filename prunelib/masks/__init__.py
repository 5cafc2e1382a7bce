"""Sparsity patterns, allocations, and the artifacts of masks and updated weights."""
