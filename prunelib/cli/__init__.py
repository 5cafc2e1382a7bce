"""The subcommands of ``prunelib``; see ``prunelib NAME --help``."""
