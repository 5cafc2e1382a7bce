"""User errors: one line with the key or file, the value found and the value expected."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its type."""
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__


def in_one_line(error: BaseException) -> str:
    """Return an error's text with its lines joined, or the name of its type."""
    return " ".join(str(error).split()) or type(error).__name__


class PruneError(Exception):
    """Base of all user errors. Stage scripts print the one line and exit with status 2."""


class ParamsError(PruneError):
    """An invalid value in params.yaml, on the command line or in the environment."""


class SourceError(PruneError):
    """A model, text or task that could not be fetched from the source in params.yaml."""


class ArtifactError(PruneError):
    """A file that is missing, truncated, of another kind, or made from other inputs than those it is used with."""


class ModelError(PruneError):
    """A model whose structure or weights cannot be pruned as requested."""


class PatternError(PruneError, ValueError):
    """A sparsity pattern that is impossible, or does not fit a weight or mask."""


class NumericalError(PruneError, ValueError):
    """A weight, Gram matrix or score with NaN or infinity, or with a shape that does not fit the others."""


class StageError(PruneError):
    """A stage, task or pre-flight check that failed, or work that another process has locked."""
