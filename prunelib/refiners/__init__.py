"""Refiners: better masks, or better kept weights; each module is one method and ends in its ``METHOD``.

The contract is :class:`prunelib.methods.contract.Refine`.
"""
