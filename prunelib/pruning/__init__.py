"""Whole models through warm starts and refiners, layer by layer and block by block."""
