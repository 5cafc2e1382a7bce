"""A hash of source code that ignores comments, docstrings and layout."""

import ast
from collections.abc import Iterable
from pathlib import Path

from prunelib.runtime.store import sha256_json

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_identity(files: Iterable[Path]) -> str:
    """Hash Python sources, sorted by path, without comments, docstrings and layout."""
    return sha256_json([[file.name, _computed(file)] for file in sorted(files)])


def _computed(file: Path) -> str:
    """Return the syntax tree of a file without its docstrings, as text."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
