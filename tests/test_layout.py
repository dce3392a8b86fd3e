"""The source: what may import what, what an import needs, and how the files are laid out."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeGuard

import pytest

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "samt"
FILES = sorted(SOURCE.rglob("*.py"))
PACKAGES = sorted({path.parent for path in FILES})
MOST_LINES = 410
MOST_FLAT_FILES = 10


def name_of(path: Path) -> str:
    """The dotted name of a module, such as `samt.bench.cli`; of a package without `__init__`."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def is_type_checking(node: ast.AST) -> TypeGuard[ast.If]:
    """Whether a statement is an `if TYPE_CHECKING:`, which does not run."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def import_statements(node: ast.AST, everywhere: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a file that run; of those inside functions only if they are asked for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif is_type_checking(child):
            yield from import_statements(ast.Module(child.orelse, []), everywhere)
        elif everywhere or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from import_statements(child, everywhere)


def imports_in(text: str, module: str, is_package: bool, everywhere: bool) -> set[str]:
    """The names of the modules that a text imports; `from a import b` is `a.b` if that is one."""
    found: set[str] = set()
    for statement in import_statements(ast.parse(text), everywhere):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
            continue
        parent = module.split(".")
        parent = parent[: len(parent) + is_package - statement.level] if statement.level else []
        source = ".".join([*parent, *(statement.module or "").split(".")]).strip(".")
        for alias in statement.names:
            inner = f"{source}.{alias.name}"
            found.add(inner if inner in MODULES else source)
    return found


def imports_of(module: str, everywhere: bool = True) -> set[str]:
    """The names of the modules of samt that a module imports."""
    path = MODULES[module]
    found = imports_in(path.read_text(), module, path.name == "__init__.py", everywhere)
    return {name for name in found if name in MODULES}


def part_of(module: str) -> str:
    """The part that a module belongs to: `samt.bench.cli` to `bench`, `samt` to itself."""
    return [*module.split("."), ""][1]


def wrong_imports(parts: set[str], allowed: set[str], denied: set[str]) -> list[str]:
    """The imports of modules in some parts that are denied, or that no list allows."""
    return [
        f"{module} imports {other}"
        for module in MODULES
        if part_of(module) in parts
        for other in sorted(imports_of(module))
        if part_of(other) in denied or (allowed and part_of(other) not in allowed)
    ]


ALL_PARTS = {part_of(module) for module in MODULES}
OUTER = {"bench", "integrations", "baselines"}


def test_the_parts_are_there_and_imports_are_found() -> None:
    assert {"alternating", "auto", "tensors", "errors", "", *OUTER} <= ALL_PARTS
    text = """
import os, samt.errors
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from samt import history
else:
    from samt import checkpoint
from samt.tensors import finite
from ..options import check
from . import sweep
class A:
    from samt.partition import blocks
def f():
    if True:
        import samt.bench.cli
"""
    at_import = {
        "os", "typing", "samt.errors", "samt.checkpoint", "samt.tensors.finite", "samt.options",
        "samt.alternating.sweep", "samt.partition",
    }  # fmt: skip
    arguments = text, "samt.alternating.oagd", False
    assert imports_in(*arguments, everywhere=False) == at_import
    assert imports_in(*arguments, everywhere=True) == {*at_import, "samt.bench.cli"}
    assert imports_in("from .oagd import f", "samt.alternating", True, True) == {
        "samt.alternating.oagd"
    }
    assert "samt.alternating.sweep" in imports_of("samt.alternating.samt")
    found = wrong_imports({"baselines"}, set(), {"alternating"})
    assert "samt.baselines.dante imports samt.alternating.sweep" in found
    assert "samt.baselines.dante imports samt.errors" not in found
    assert wrong_imports({"baselines"}, ALL_PARTS - {"options"}, set())


def test_the_core_imports_nothing_that_is_built_on_it() -> None:
    assert wrong_imports(ALL_PARTS - OUTER - {""}, set(), OUTER) == []
    assert wrong_imports({""}, set(), OUTER - {"baselines"}) == []


def test_the_two_methods_do_not_import_each_other() -> None:
    assert wrong_imports({"alternating"}, set(), {"auto"}) == []
    assert wrong_imports({"auto"}, set(), {"alternating"}) == []


def test_what_works_on_tensors_imports_errors_alone() -> None:
    assert wrong_imports({"tensors"}, {"tensors", "errors"}, set()) == []


def test_nothing_but_the_bench_imports_the_bench() -> None:
    assert wrong_imports(ALL_PARTS - {"bench"}, set(), {"bench"}) == []


def assert_no_cycle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_no_modules_import_each_other_in_a_circle() -> None:
    """An import inside a function counts as well: it only hides a circle."""
    graph = {module: imports_of(module) - {module} for module in MODULES}
    assert sum(map(len, graph.values())) > 100
    assert_no_cycle(graph)
    graph["samt.errors"] = {"samt.alternating.samt"}
    with pytest.raises(AssertionError, match=r"samt\.errors imports samt\.alternating\.samt"):
        assert_no_cycle(graph)


def test_importing_samt_needs_torch_alone() -> None:
    """Every other distribution of this environment is made unimportable."""
    program = """
import sys, torch
torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # torch imports more on first use
class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("samt", "torch"):
            raise ImportError(f"samt imported {name}")
sys.meta_path.insert(0, Refuse())
import samt, samt.baselines
assert not any(name.startswith("samt.bench") for name in sys.modules)
model = torch.nn.Linear(3, 2)
optimizer = samt.SAMT(samt.blocks(model))
loss = torch.nn.functional.mse_loss
optimizer.step(samt.closure(model, loss, torch.ones(4, 3), torch.zeros(4, 2)))
print("stepped", optimizer.passes)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.stdout == "stepped Passes(forward=2, backward=2)\n", result.stderr


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_a_package_says_what_it_is(folder: Path) -> None:
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


def test_no_file_is_long() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert max(lines.values()) > 100
    long = {name: count for name, count in lines.items() if count > MOST_LINES}
    assert {name: count for name, count in long.items() if part_of(name) != "bench"} == {}


def test_no_file_has_a_name_that_says_nothing() -> None:
    names = {path.stem for path in FILES} | {folder.name for folder in PACKAGES}
    assert names & {"utils", "helpers", "core"} == set()


def test_few_files_lie_beside_the_packages() -> None:
    flat = sorted(path.name for path in SOURCE.glob("*.py") if path.name != "__init__.py")
    assert "errors.py" in flat
    assert len(flat) <= MOST_FLAT_FILES, flat


def imports_of_tests_in(text: str) -> list[str]:
    """The statements of a text that import a file of tests, or something out of one."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for names in [[getattr(node, "module", None) or "", *(a.name for a in node.names)]]
        if any(part.startswith("test_") for name in names for part in name.split("."))
    ]


def test_no_file_of_tests_is_imported() -> None:
    """What files of tests share is in `tests/support`, or in another file without tests."""
    for statement in (
        "from .test_store import ONE",
        "from ..bench.test_store import ONE",
        "from . import test_store",
        "import tests.bench.test_store",
    ):
        assert imports_of_tests_in(f"def f():\n    {statement}") == [statement]
    assert imports_of_tests_in("from .support.batches import test\nimport pytest") == []
    files = sorted(TESTS.rglob("*.py"))
    assert {TESTS, TESTS / "bench", TESTS / "bench" / "report"} <= {path.parent for path in files}
    found = {
        str(path.relative_to(TESTS)): statements
        for path in files
        if (statements := imports_of_tests_in(path.read_text(encoding="utf-8")))
    }
    assert found == {}
