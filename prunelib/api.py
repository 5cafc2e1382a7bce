"""The front door's names: prunelib has them, and loads this module when one is first used."""

from prunelib.gram import gram_matrix as gram_matrix
from prunelib.objective import output_energy as output_energy
from prunelib.objective import pruning_error as pruning_error
from prunelib.objective import row_losses as row_losses
from prunelib.patterns import NOfM as NOfM
from prunelib.patterns import PerLayer as PerLayer
from prunelib.patterns import PerRow as PerRow
from prunelib.patterns import select as select
from prunelib.refined import Refined as Refined
from prunelib.refiners.sparsefw import Settings as SparseFW
from prunelib.refiners.sparsefw import refine as sparsefw
from prunelib.refiners.sparseswaps import Settings as SparseSwaps
from prunelib.refiners.sparseswaps import refine as sparseswaps
from prunelib.warmstarts.magnitude import saliency as magnitude
from prunelib.warmstarts.ria import Settings as RiaSettings
from prunelib.warmstarts.ria import saliency as ria
from prunelib.warmstarts.wanda import saliency as wanda
