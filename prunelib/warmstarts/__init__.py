"""Warm starts: which weights to keep at first; each module is one method and ends in its ``METHOD``.

A method that ranks has a ``saliency``, one whose choice is no ranking a ``choose``, one that reads masks made elsewhere
a ``read``: :class:`prunelib.methods.contract.WarmStart`.
"""
