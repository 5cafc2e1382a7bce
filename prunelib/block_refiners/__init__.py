"""Refiners of whole decoder blocks, the last step of a chain; each module is one method and ends in its ``METHOD``.

The contract is :class:`prunelib.methods.block_contract.Reconstruct`.
"""
