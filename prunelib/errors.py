"""The faults that a user can mend: each message is one line naming the key or file, its value, and what is right."""


class PruneError(Exception):
    """Base of every fault that is the user's to mend. Stage scripts print its one line and exit with status 2."""


class ParamsError(PruneError):
    """A value in params.yaml, on the command line or in the environment is not usable."""


class SourceError(PruneError):
    """A model, text or task could not be had from where params.yaml says it is."""


class ArtifactError(PruneError):
    """A file is missing, truncated, foreign, or does not belong with the others it is used with."""


class ModelError(PruneError):
    """A model has a structure or weights that cannot be pruned as asked."""


class PatternError(PruneError, ValueError):
    """A sparsity pattern is impossible, or does not fit a weight or mask."""


class NumericalError(PruneError, ValueError):
    """A weight, Gram matrix or score holds NaN or infinity, or has a shape that does not fit the others."""


class StageError(PruneError):
    """A stage that was run on the user's behalf has failed; it has said why."""
