"""The library's front door and tensors as users have them, or as they slip in."""
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import verdict

os.environ["PRUNELIB_BACKEND"] = "auto"  # the compiled one, as users have it
import torch
from prunelib import PerRow, gram_matrix, pruning_error, select, sparseswaps, wanda
from prunelib.errors import PruneError

torch.manual_seed(0)
pattern, layer = PerRow(sparsity=0.5), torch.nn.Linear(64, 8)
gram = gram_matrix(torch.randn(500, 64) @ torch.randn(64, 64))
weight = layer.weight.detach()
mask = select(wanda(weight, gram), pattern)
huge = weight.clone()
huge[0, 3] = 1e30


def true_optimum():
    """Whether a row that is said to be optimal is: no swap lowers its error by more than a millionth."""
    start = select(wanda(huge, gram), pattern)
    found = sparseswaps(huge, gram, start, pattern)
    if not found.optimal[0]:
        return "not claimed"
    pruned, G = (huge[0] * ~found.mask[0]).double(), gram.double()
    before, best = pruned @ G @ pruned, 0.0
    for u in found.mask[0].nonzero().flatten():
        for j in (~found.mask[0]).nonzero().flatten():
            other = pruned.clone()
            other[u], other[j] = huge[0, u], 0
            best = min(best, float(other @ G @ other - before))
    return f"claimed, but a swap takes {-best / before:.0%} of the error" if best < -1e-6 * before else "true"


CASES = {  # what: (call, whether what it gives is a fault)
    "sparseswaps of a layer's own weight": (lambda: bool(sparseswaps(layer.weight, gram, mask, pattern).optimal.all()), lambda found: found is not True),
    "pruning_error with a mask of one row": (lambda: pruning_error(weight, gram, mask[:1]), lambda found: True),
    "wanda with a Gram matrix of one input": (lambda: wanda(weight, gram[:1, :1]), lambda found: True),
    "select of a vector": (lambda: select(weight[0], pattern), lambda found: True),
    "optimal, with a weight of 1e30 in the row": (true_optimum, lambda found: "but" in found),
}
faults = []
for what, (call, wrong) in CASES.items():
    try:
        found = call()
        faults.append(wrong(found))
        print(f"{'FAULT' if faults[-1] else 'right'}  {what}: {'accepted' if isinstance(found, torch.Tensor) else found}")
    except Exception as error:  # noqa: BLE001 - a refusal is one of the library's own
        faults.append(not isinstance(error, PruneError))
        print(f"{'FAULT' if faults[-1] else 'right'}  {what}: {type(error).__name__}, {str(error).splitlines()[0][:100]}")
verdict(any(faults), "a parameter is taken as its values; shapes that do not fit are refused by the library, in words; "
        "optimal is said only where float64 proves it")
