"""Refiners: ``refine(weight, gram, mask, pattern, settings, progress) -> Refined``, one method a file."""
