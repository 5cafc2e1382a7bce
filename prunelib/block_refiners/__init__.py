"""Refiners of whole decoder blocks, the last step of a chain; each module is one method and defines ``METHOD``.

The contract is :class:`prunelib.methods.block_contract.Reconstruct`.
"""
