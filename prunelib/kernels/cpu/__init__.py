"""The compiled engine for processors: numba, SIMD, rows in parallel over threads; one operation a module."""
