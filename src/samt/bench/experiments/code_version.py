"""The version of the code behind a method: a checksum of the source files that it runs.

Comments, docstrings and layout do not count, so that a better sentence costs no result.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import samt
from samt.bench.method_specs import METHOD_OPTIONS, SOLVERS

_PACKAGE = Path(samt.__file__).parent
# The loop, the networks, and how a method is built from its options.
_BENCH = (
    *("bench/training.py", "bench/models.py", "bench/transformer.py"),
    *("bench/methods.py", "bench/schedules.py"),
    "bench/experiments/budget.py",
)
# A better message must cost no result.
_WORDS = ("errors.py",)
_MODULES = {
    "samt": "alternating/samt.py",
    "auto-samt": "auto/auto_samt.py",
    "dante": "baselines/dante.py",
    "sgd-hd": "baselines/hypergradient.py",
    "sgdn-hd": "baselines/hypergradient.py",
    "adam-hd": "baselines/hypergradient.py",
    # Of torch, whose version stands in a cell's record beside this one.
    "sgd": None,
    "adam": None,
    "prodigy": None,
    "schedule-free": None,
}
_DISTRIBUTIONS = {"prodigy": "prodigyopt", "schedule-free": "schedulefree"}


@cache
def code_version(method: str) -> str:
    """Checksum of the source files that a method's numbers depend on.

    Args:
        method: its name on the command line.

    Returns:
        12 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(_files(method)):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(_meaning(path).encode())
    if method in _DISTRIBUTIONS:
        digest.update(version(_DISTRIBUTIONS[method]).encode())
    return digest.hexdigest()[:12]


def _files(method: str) -> set[Path]:
    """The source files that a method's numbers depend on."""
    files = {_PACKAGE / name for name in _BENCH}
    if "blocks" in METHOD_OPTIONS[method]:
        files |= _closure(_PACKAGE / "partition.py")
    if method in SOLVERS:
        return files | _closure(_path(SOLVERS[method].__module__))
    module = _MODULES[method]
    return files if module is None else files | _closure(_PACKAGE / module)


def _closure(start: Path) -> set[Path]:
    """A module and everything of samt that it imports, directly or not."""
    found, left = set(), [start]
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += _imports(path)
    return found


def _imports(path: Path) -> Iterator[Path]:
    for node in ast.walk(_tree(path)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            # `from samt.package import module` names a module, `from samt.module import f` not.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            # The package's own list of public names runs nothing.
            if not name.startswith("samt."):
                continue
            found = _path(name)
            if found.is_file() and found.name not in _WORDS:
                yield found


def _path(module: str) -> Path:
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _meaning(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return repr(_plain(tree))


def _plain(node: object) -> object:
    """A tree as lists. What is empty is left out, since versions of Python differ in that."""
    if isinstance(node, list):
        return [_plain(one) for one in node]
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = [
        (name, _plain(value)) for name, value in ast.iter_fields(node) if value not in (None, [])
    ]
    return [type(node).__name__, *fields]
