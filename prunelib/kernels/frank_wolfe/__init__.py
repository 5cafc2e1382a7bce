"""Frank-Wolfe steps: the direction towards the gradient's vertex, and the curvature along it.

With masses m in [0, 1] in place of a mask, the objective of :mod:`prunelib.relaxation.problem` has the gradient

    g = linear (1 - 2 m) - 2 w R        linear = d w^2,   R = ((1 - m) * w) G

A step goes from m towards the vertex v of the polytope with the least <g, v>. A backend has the two functions that the
steps of :mod:`prunelib.relaxation.frankwolfe` need in addition to a matrix product::

    direction(weight, linear, residual, mass, fixed, size, keep, threads)      -> Direction
    curvature(weight, linear, toward, change, threads)                         -> (rows,) float64

residual is R. All tensors are (rows, inputs) float32, fixed bool. Groups are ``size`` consecutive entries, read row by
row, and may span rows; the masses of each sum to at most ``keep``. Fixed entries are 1 in every vertex.
"""
