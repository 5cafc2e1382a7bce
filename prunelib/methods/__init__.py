"""The interface of warm starts and refiners, and the registry of methods."""
