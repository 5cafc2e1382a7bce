"""The plain engine: torch in float64, on any device, the specification of the others; one operation a module."""
