"""Calibration data: token windows, and Gram matrices of the layer inputs over them."""
