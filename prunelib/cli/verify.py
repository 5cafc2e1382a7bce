"""Check that a model's folder is still pruned by its masks: after fine-tuning, quantisation or conversion.

Tensors are read one at a time. Exit status 0: every pruned weight is zero, and no group of the pattern has more than it
keeps. 2: some layers are broken, named with their counts, or the files do not fit.
"""

import argparse
import sys
from pathlib import Path

from prunelib.export.verification import verify
from prunelib.masks.pruned import MASKS_FILE
from prunelib.runtime.console import one_line


def main() -> None:
    """Run the command line; a user error prints one line and exits with status 2."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the pruned model, safetensors")
    parser.add_argument(
        "--masks", metavar="FILE", type=Path, help=f"a file of masks, or a folder with {MASKS_FILE}; default: FOLDER"
    )
    parser.add_argument("--pattern", metavar="TEXT", help="such as 2:4; default: the one that the masks were made with")
    arguments = parser.parse_args()
    with one_line():
        found = verify(arguments.folder, arguments.masks or arguments.folder, arguments.pattern)
    print(found)  # noqa: T201 - output for the user
    sys.exit(0 if found.intact else 2)


if __name__ == "__main__":
    main()
