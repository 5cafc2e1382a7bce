"""The mathematics of one layer: its pruning error, products, inverses, and least squares."""
