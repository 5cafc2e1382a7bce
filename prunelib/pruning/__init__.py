"""Warm starts and refiners applied to whole models, layer by layer and block by block."""
