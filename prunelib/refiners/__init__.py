"""Refiners, which improve masks or kept weights; each module is one method and ends in its ``METHOD``.

The contract is :class:`prunelib.methods.contract.Refine`.
"""
