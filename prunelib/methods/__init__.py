"""The contract of a method: what a warm start or refiner declares, takes and gives, and how methods are found."""
