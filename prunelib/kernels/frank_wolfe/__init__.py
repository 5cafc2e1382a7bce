"""Frank-Wolfe steps: the direction towards the gradient's vertex, and the curvature along it.

The steps of :mod:`prunelib.relaxation.frankwolfe` need, beside one product, what an engine gives: a module with two
functions of masses m (rows, inputs) float32, on the objective of :mod:`prunelib.relaxation.problem` with the gradient
g = linear (1 - 2 m) - 2 w R, where linear = d w^2 and R = ((1 - m) * w) G::

    direction(weight, linear, residual, mass, fixed, size, keep, threads)      -> Direction
    curvature(weight, linear, toward, change, threads)                         -> (rows,) float64

All are (rows, inputs) float32, fixed bool; groups are ``size`` consecutive places, read row by row, and may span rows.
"""
