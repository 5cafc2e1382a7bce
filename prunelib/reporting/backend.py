"""matplotlib, whichever backend the environment names: the figures are SVG and need none.

The kernel of a notebook sets ``MPLBACKEND`` for all that is started from it, also for environments in which its backend
is not installed; importing matplotlib fails there.
"""

import contextlib
import os

named = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib
finally:
    if named is not None:
        os.environ["MPLBACKEND"] = named
if named:
    with contextlib.suppress(ValueError):  # as matplotlib does when it is imported, where the backend is installed
        matplotlib.rcParams["backend"] = named
