"""A stage's function run from the command line: its options, params, and one-line errors."""

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from prunelib.params import Params, known_name, load_params
from prunelib.runtime.console import one_line
from prunelib.runtime.machine import machine
from prunelib.workflow.own_library import require_own_library


def run(stage: Callable[..., None]) -> None:
    """Run a stage's function with the params and the options from the command line.

    The function's first parameter receives the :class:`Params`. Each further one is an ``--option``, required unless
    it has a default: a path or an integer if annotated as one, else a name from the section of params.yaml named by
    its plural (``model``: models). A user error prints one line and exits with status 2.
    """
    parser = argparse.ArgumentParser(description=inspect.getdoc(sys.modules[stage.__module__]), allow_abbrev=False)
    options = list(inspect.signature(stage).parameters.values())[1:]
    for option in options:
        parser.add_argument(f"--{option.name}", required=option.default is option.empty, **_kind(option))
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    arguments = vars(parser.parse_args())
    with one_line(show_traceback=arguments.pop("traceback")):
        require_own_library()
        params = load_params()
        torch.set_num_threads(machine().threads)
        check_names(params, arguments)
        stage(params, **arguments)


def check_names(params: Params, options: Mapping[str, Any]) -> None:
    """Check that each option that is text is a name in the section of its plural, as :func:`run` has them.

    Raises
    ------
    ParamsError
        If one is not; the message gives the option, the name and the known names.
    """
    for name, value in options.items():
        if isinstance(value, str):
            known_name(f"--{name}", value, getattr(params, f"{name}s"))


def _kind(option: inspect.Parameter) -> dict[str, Any]:
    if option.annotation is Path:
        return {"type": Path, "metavar": "PATH"}
    if option.annotation in (int, int | None):
        return {"type": int, "metavar": "N", "help": f"as in grid.{option.name}s of params.yaml"}
    return {"metavar": "NAME", "help": f"a name under {option.name}s in params.yaml"}
