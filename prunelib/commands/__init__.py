"""Commands beside the stages: ``python -m prunelib.commands.NAME --help``."""
