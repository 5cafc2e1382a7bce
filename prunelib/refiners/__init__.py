"""Refiners, which improve masks or kept weights; each module is one method and defines ``METHOD``.

The contract is :class:`prunelib.methods.contract.Refine`.
"""
