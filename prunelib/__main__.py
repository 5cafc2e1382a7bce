"""``python -m prunelib``: the command ``prunelib`` (:mod:`prunelib.cli.app`)."""

from prunelib.cli.app import main

if __name__ == "__main__":
    main()
