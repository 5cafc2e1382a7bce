"""The public names of :mod:`prunelib`, which imports this module when one of them is first used."""

# ruff: noqa: F401 - re-exports

from prunelib.algebra.objective import output_energy, pruning_error, row_losses
from prunelib.calibration.gram import gram_matrix
from prunelib.export.hub import push_to_hub
from prunelib.export.semi_structured import SemiStructured, to_semi_structured
from prunelib.export.verification import Verification, verify
from prunelib.masks.allocation import Owl as OwlAllocation
from prunelib.masks.allocation import Table as TableAllocation
from prunelib.masks.packed import read_masks, write_masks
from prunelib.masks.patterns import NOfM, PerLayer, PerRow, parse_pattern, select
from prunelib.methods.contract import ExtraInputs, Refined
from prunelib.model.masked import apply_masks
from prunelib.pruning.in_memory import prune
from prunelib.pruning.result import PruningResult
from prunelib.refiners.sparsefw import Settings as SparseFW
from prunelib.refiners.sparsefw import refine as sparsefw
from prunelib.refiners.sparseswaps import Settings as SparseSwaps
from prunelib.refiners.sparseswaps import refine as sparseswaps
from prunelib.training.keep_masks import KeepMasks
from prunelib.training.lora import merge
from prunelib.warmstarts.magnitude import saliency as magnitude
from prunelib.warmstarts.ria import Settings as RiaSettings
from prunelib.warmstarts.ria import saliency as ria
from prunelib.warmstarts.wanda import saliency as wanda
