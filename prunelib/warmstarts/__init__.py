"""Warm starts, which choose the first mask; each module is one method and defines ``METHOD``.

A method that ranks weights has a ``saliency``, one that chooses a mask in another way a ``choose``, and one that reads
existing masks a ``read``: :class:`prunelib.methods.contract.WarmStart`.
"""
