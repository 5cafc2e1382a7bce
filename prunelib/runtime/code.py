"""What source code computes, and what it imports: comments, docstrings and layout do not count."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from prunelib.runtime.hashing import sha256_file, sha256_json

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_DATA = {".html", ".js"}


class Code(NamedTuple):
    """The hash of what a file computes, and the dotted names that it imports, at its top or inside functions.

    A name may be that of a module, or of something in one.
    """

    identity: str
    imported: frozenset[str]


def read_code(file: Path) -> Code:
    """Read a Python source; any other file imports nothing, and is hashed as it is."""
    if file.suffix in _DATA:
        return Code(sha256_file(file), frozenset())
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return Code(sha256_json(_as_json(tree)), frozenset(_imported(tree)))


def files_of(name: str, package: Path) -> set[Path]:
    """Return the files that an imported name stands for, if it is of a package in the folder ``package``.

    Of a folder that is itself imported, or a name in its ``__init__.py``, all files count: it may import them by names
    that are put together. An ``__init__.py`` that only runs on the way to a module counts for nothing, nor does that of
    the package, which loads what it offers when that is used.
    """
    if not name.startswith(f"{package.name}."):
        return set()
    path = package.parent / name.replace(".", "/")
    if path.is_dir():
        return {file for file in path.rglob("*") if file.suffix in {".py", *_DATA}}
    module = path.with_suffix(".py")
    return {module} if module.is_file() else files_of(name.rpartition(".")[0], package)


def _as_json(node: Any) -> Any:
    """Return a tree without its empty fields: which of them there are depends on the version of Python."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return [type(node).__name__, *([name, _as_json(value)] for name, value in fields)]
    return [_as_json(each) for each in node] if isinstance(node, list) else repr(node)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
