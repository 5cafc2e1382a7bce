"""Methods found in a folder: each module of a package is one method, named after its file, with a ``Settings``."""

import importlib
import pkgutil
from types import ModuleType


def methods(package: ModuleType) -> dict[str, ModuleType]:
    """The modules of a method package (``prunelib.warmstarts``, ``prunelib.refiners``) by name, sorted."""
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
