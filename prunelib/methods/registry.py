"""Discovery of methods: each module of a package is one method, named after its file."""

import importlib
import pkgutil
from types import ModuleType
from typing import Annotated, Any, Union, cast

from pydantic import Field

from prunelib.methods.block_contract import BlockRefiner
from prunelib.methods.contract import Method, MethodSettings, Refiner, WarmStart


def methods(package: ModuleType) -> dict[str, Method[Any]]:
    """Return the methods of a package (``prunelib.warmstarts``, ``prunelib.refiners``, …) by name, sorted."""
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return {name: importlib.import_module(f"{package.__name__}.{name}").METHOD for name in names}


def refiner(package: ModuleType, settings: MethodSettings) -> Refiner[MethodSettings]:
    """Return the refiner of a package to which these settings belong."""
    return cast("Refiner[MethodSettings]", methods(package)[settings.method])


def warmstart(package: ModuleType, settings: MethodSettings) -> WarmStart[MethodSettings]:
    """Return the warm start of a package to which these settings belong."""
    return cast("WarmStart[MethodSettings]", methods(package)[settings.method])


def block_refiner(package: ModuleType, settings: MethodSettings) -> BlockRefiner[MethodSettings]:
    """Return the block refiner of a package to which these settings belong."""
    return cast("BlockRefiner[MethodSettings]", methods(package)[settings.method])


def any_settings(*packages: ModuleType) -> Any:
    """Return the union type of the settings of all methods of these packages, discriminated by ``method``."""
    choices = tuple(method.settings for package in packages for method in methods(package).values())
    return Annotated[Union[choices], Field(discriminator="method")]  # noqa: UP007 - members known at run time
