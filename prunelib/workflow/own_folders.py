"""The folders that stages write to: no source may lie there, and what is not of the grid is removed from some."""

from pathlib import Path
from typing import TYPE_CHECKING

from prunelib.errors import ParamsError
from prunelib.params import Params
from prunelib.runtime import atomic
from prunelib.runtime.resume import SCRATCH
from prunelib.workflow.paths import ARTIFACTS, REPORTS, RESULTS, TEXTS, layers_file, result_file

if TYPE_CHECKING:
    from prunelib.sources.provenance import Source


def require_sources_elsewhere(params: Params) -> None:
    """Check that no local model, text or task item lies in a folder that stages write to, and DVC removes.

    Raises
    ------
    ParamsError
        If one does; the message gives its key and path.
    """
    sources: dict[str, Source] = {f"models.{name}": source for name, source in params.models.items()}
    sources |= {f"texts.{name}": source for name, source in params.texts.items()}
    for key, source in {**sources, "tasks": params.tasks}.items():
        for path in source.local_paths():
            for folder in (ARTIFACTS, RESULTS, REPORTS, SCRATCH):
                if path.resolve().is_relative_to(folder.resolve()):
                    raise ParamsError(f"{key}: {path} lies in {folder}/, which stages write to; move it elsewhere")


def remove_other_texts(params: Params) -> None:
    """Remove the texts that are not in the grid; DVC's cache holds them until ``dvc gc``.

    The stage ``evaluate`` depends on the folder of all texts, which then is the same in every clone. As for
    :func:`remove_other_results`, nothing is removed from a folder that a link brings in.
    """
    if TEXTS.resolve() == Path.cwd().resolve() / TEXTS:
        for path in TEXTS.glob("[!.]*"):
            if path.name not in params.grid.texts:
                atomic.remove(path)


def remove_other_results(params: Params) -> None:
    """Remove the records of cells that are not in the grid; DVC's cache holds them until ``dvc gc``.

    The stage report depends on the folders of records, which then are the same in every clone. A folder that a link
    brings in from elsewhere is not of this project alone: nothing is removed there.
    """
    own = Path.cwd().resolve() / RESULTS
    cells = params.grid.cells()
    kept = {file(cell) for cell in cells for file in (result_file, layers_file)}
    for folder in ("cells", "layers"):
        for path in (RESULTS / folder).rglob("*.json"):
            if path not in kept and path.parent.resolve().is_relative_to(own):
                path.unlink()
