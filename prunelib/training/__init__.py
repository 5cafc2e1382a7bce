"""Training of pruned models: pruned weights stay +0.0, with full weights and with adapters."""
