"""How the weights that a model keeps may be shared among its layers: what params.yaml can say of it.

What each layer keeps then is found in :mod:`prunelib.pruning.budgets`.
"""

from typing import Annotated, Literal

from pydantic import Field

from prunelib.settings import Settings


class Owl(Settings):
    """Blocks with more outliers keep more: outlier-weighed layerwise sparsity (Yin et al., 2310.05175, section 3.2).

    Attributes
    ----------
    outlier
        A weight is one if its Wanda score is more than so many times the mean of its block (M).
    spread
        The sparsities of the blocks lie within twice this (lambda).
    """

    method: Literal["owl"] = "owl"
    outlier: Annotated[float, Field(gt=0)] = 5.0
    spread: Annotated[float, Field(ge=0, lt=0.5)] = 0.08


class Table(Settings):
    """Sparsities of the user's.

    Attributes
    ----------
    sparsities
        By layer name, ``*`` for anything: ``{"*.layers.0.*": 0.4, "*.down_proj": 0.5}``; the first that fits counts.
        Layers that none fits share what is left.
    """

    method: Literal["table"] = "table"
    sparsities: Annotated[dict[str, Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]


Allocation = Annotated[Owl | Table, Field(discriminator="method")]

LABELS = {"owl": ", OWL", "table": ", by table"}
