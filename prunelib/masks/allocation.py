"""Settings in params.yaml that allocate the kept weights of a model to its layers.

The budget of each layer is computed in :mod:`prunelib.pruning.budgets`.
"""

from typing import Annotated, Literal

from pydantic import Field

from prunelib.settings import Settings


class Owl(Settings):
    """Blocks with more outliers keep more: outlier-weighed layerwise sparsity (Yin et al., 2310.05175, section 3.2).

    Attributes
    ----------
    outlier
        A weight is an outlier if its Wanda score exceeds this multiple of the mean of its block (M).
    spread
        The sparsities of the blocks lie within twice this (lambda).
    """

    method: Literal["owl"] = "owl"
    outlier: Annotated[float, Field(gt=0)] = 5.0
    spread: Annotated[float, Field(ge=0, lt=0.5)] = 0.08


class SparsityTable(Settings):
    """Sparsities set by the user.

    Attributes
    ----------
    sparsities
        Sparsity by layer name, with ``*`` as a wildcard: ``{"*.layers.0.*": 0.4, "*.down_proj": 0.5}``; the first match
        is used. Layers without a match share the remaining budget.
    """

    method: Literal["table"] = "table"
    sparsities: Annotated[dict[str, Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]


Allocation = Annotated[Owl | SparsityTable, Field(discriminator="method")]

LABELS = {"owl": ", OWL", "table": ", by table"}
