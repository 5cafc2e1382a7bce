"""Methods found in a folder: each module of a package is one method, named after its file."""

import importlib
import pkgutil
from types import ModuleType
from typing import Annotated, Any, Union, cast

from pydantic import Field

from prunelib.methods.contract import Method, MethodSettings, Refiner, WarmStart


def methods(package: ModuleType) -> dict[str, Method[Any]]:
    """The methods of a package (``prunelib.warmstarts``, ``prunelib.refiners``) by name, sorted."""
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return {name: importlib.import_module(f"{package.__name__}.{name}").METHOD for name in names}


def refiner(package: ModuleType, settings: MethodSettings) -> Refiner[MethodSettings]:
    """The refiner of a package that these settings are of."""
    return cast("Refiner[MethodSettings]", methods(package)[settings.method])


def warmstart(package: ModuleType, settings: MethodSettings) -> WarmStart[MethodSettings]:
    """The warm start of a package that these settings are of."""
    return cast("WarmStart[MethodSettings]", methods(package)[settings.method])


def any_settings(package: ModuleType) -> Any:
    """The type of the settings of any method of a package, told apart by ``method``."""
    choices = tuple(method.settings for method in methods(package).values())
    return Annotated[Union[choices], Field(discriminator="method")]  # noqa: UP007 - members known at run time
