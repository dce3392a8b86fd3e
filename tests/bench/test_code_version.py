"""The version of the code behind a method: what changes it, and what does not."""

from __future__ import annotations

import ast
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

import samt
from samt.bench.data import load
from samt.bench.experiments import code_version as code
from samt.bench.method_specs import METHOD_OPTIONS, SOLVERS, parse_spec
from samt.bench.settings import Settings
from samt.bench.training import Trainer

PACKAGE = Path(samt.__file__).parent


def forget() -> None:
    for cached in (code.code_version, code._tree, code._meaning):
        cached.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, whose files are those that count."""
    copy = tmp_path / "samt"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "_PACKAGE", copy)
    forget()
    yield copy
    forget()


def version(method: str) -> str:
    forget()
    return code.code_version(method)


def files(method: str) -> set[str]:
    return {path.relative_to(PACKAGE).as_posix() for path in code._files(method)}


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_every_method_has_a_version(method: str) -> None:
    found = code.code_version(method)
    assert len(found) == 12
    assert set(found) <= set("0123456789abcdef")
    assert all((PACKAGE / path).is_file() for path in files(method))


HD = {"sgd-hd", "sgdn-hd", "adam-hd"}
COMMON = {
    *("bench/training.py", "bench/models.py", "bench/methods.py", "bench/schedules.py"),
    "bench/transformer.py",
}
TENSORS = {
    f"tensors/{name}.py" for name in ("finite", "precision", "process_groups", "refusals", "shards")
}
BLOCKS = {
    *("block_optimizer.py", "checkpoint.py", "history.py", "options.py", "partition.py"),
    *("eta_model.py", "step_size.py"),
    *TENSORS,
}
ALTERNATING = {
    *BLOCKS,
    "closures.py",
    *("alternating/evaluation.py", "alternating/oagd.py", "alternating/replay.py"),
    *("alternating/state.py", "alternating/surroundings.py", "alternating/sweep.py"),
}
RATES = {*BLOCKS, "baselines/hypergradient.py", "baselines/hypergradient_base.py"}
OPTIONS = {"options.py", "eta_model.py", "step_size.py"}
CONTAINED = {
    "samt": {*ALTERNATING, "alternating/samt.py", "alternating/compiled.py"},
    "auto-samt": {
        *BLOCKS,
        *("auto/auto_samt.py", "auto/gradients.py", "auto/held.py", "auto/modes.py"),
        *("auto/advance.py", "auto/rates.py", "auto/state.py", "auto/step.py", "auto/together.py"),
        "auto/totals.py",
    },
    "dante": {*ALTERNATING, "baselines/dante.py"},
    **dict.fromkeys(HD, RATES),
    "sgd": set(),
    "adam": set(),
    "prodigy": set(),
    "schedule-free": set(),
    **{
        name: {
            *OPTIONS,
            *("baselines/layerwise.py", "baselines/proximal.py", f"baselines/{module}.py"),
        }
        for name, module in zip(SOLVERS, ("dladmm", "mdlam", "bcd", "scaled_admm"), strict=True)
    },
}  # fmt: skip


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_a_version_covers_the_files_of_the_method_and_no_other(method: str) -> None:
    contained = CONTAINED[method] | COMMON
    assert contained <= files(method)
    strangers = set().union(*CONTAINED.values()) - contained
    assert not files(method) & strangers


# What runs and is no part of a version: it changes no number, or something else of a cell's record
# stands for it.
ELSEWHERE = {
    *("errors.py", "bench/errors.py", "bench/results.py", "bench/settings.py"),
    "bench/method_specs.py",  # the options
    "bench/data/dataset.py",  # the checksum of the data
}
EXTRA = {
    "samt": "meta_batch=fresh,order=random,step_size=element,radius=1,relative=true",
    "sgd": "schedule=cosine",
    "sgd-hd": "blocks=none,momentum=0.9",
    "dante": "fresh_batches=true",
}


@pytest.mark.parametrize("extra", [False, True], ids=["plain", "extra"])
@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_whatever_runs_in_a_training_is_part_of_the_version(method: str, extra: bool) -> None:
    ran: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        ran.add(frame.f_code.co_filename)

    spec = parse_spec(f"{method}:{EXTRA[method]}" if extra and method in EXTRA else method)
    data = load("digits", None)
    chosen = Settings(spec, "digits", hidden=(6,), batch_size=400, device="cpu", threads=1)
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        trainer = Trainer(chosen, data)
        _, loss = trainer.train(0, 3, lambda *_: None)
        trainer.measure(1, loss)
    finally:
        sys.setprofile(before)
    assert math.isfinite(loss)
    inside = {
        Path(name).relative_to(PACKAGE).as_posix() for name in ran if name.startswith(str(PACKAGE))
    }
    assert "bench/training.py" in inside
    # That each block is a module changes no number of SGD and Adam.
    unneeded = {"partition.py"} if CONTAINED[method] == set() else set()
    assert inside - ELSEWHERE - unneeded <= files(method)


def edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)


def without_layout(text: str) -> str:
    """The same program without comments, with other lines and quotes."""
    return ast.unparse(ast.parse(text))


def with_other_docstrings(text: str) -> str:
    return text.replace('"""The loop', '"""A loop').replace('"""Take some steps.', '"""Steps.')


UNCHANGED: dict[str, Callable[[str], str]] = {
    "comment": lambda text: text.replace("\n\n\n", "\n\n\n# A remark.\n", 1) + "# The end.\n",
    "blank lines": lambda text: text.replace("\n\n", "\n\n\n\n"),
    "layout": without_layout,
    "docstrings": with_other_docstrings,
    "no docstring": lambda text: text[text.index('"""\n') + 4 :],
    "line ends": lambda text: text.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("change", UNCHANGED.values(), ids=UNCHANGED)
def test_what_means_the_same_is_the_same_version(
    package: Path, change: Callable[[str], str]
) -> None:
    before = version("sgd")
    edit(package / "bench/training.py", change)
    assert version("sgd") == before


CHANGED: dict[str, tuple[str, str]] = {
    "number": ("_EVALUATION_CHUNK = 2048", "_EVALUATION_CHUNK = 2049"),
    "number of another type": ("seen, step = 0, start", "seen, step = 0.0, start"),
    "operator": ("total += loss", "total -= loss"),
    "condition": ("math.isfinite(test_loss)", "not math.isfinite(test_loss)"),
    "statement": ("total += loss * len(order[index])", "pass"),
    "default": ("= None\n    ) -> tuple", "= bool\n    ) -> tuple"),
    "name": ("self.model.eval()", "self.model.train()"),
    "text": ('"classification"', '"regression"'),
}


@pytest.mark.parametrize(("old", "new"), CHANGED.values(), ids=CHANGED)
def test_what_means_something_else_is_another_version(package: Path, old: str, new: str) -> None:
    before = version("sgd")
    edit(package / "bench/training.py", lambda text: text.replace(old, new, 1))
    assert version("sgd") != before


AFFECTED = {
    "bench/models.py": set(METHOD_OPTIONS),
    "bench/data/splits.py": set(),  # the checksum of the data stands for it
    "eta_model.py": {"samt", "auto-samt", "dante", *HD, *SOLVERS},  # its words are options
    "baselines/hypergradient.py": HD,
    "baselines/mdlam.py": {"mdlam"},
}


def test_a_changed_file_changes_the_methods_that_import_it_and_no_other(package: Path) -> None:
    before = {method: code.code_version(method) for method in METHOD_OPTIONS}
    for path, affected in AFFECTED.items():
        edit(package / path, lambda text: text + "\nCHANGED = 1\n")
        forget()
        after = {method: code.code_version(method) for method in METHOD_OPTIONS}
        assert {name for name in METHOD_OPTIONS if after[name] != before[name]} == affected, path
        before = after


def test_imports_are_found_wherever_they_stand(package: Path) -> None:
    (package / "hidden.py").write_text("VALUE = 1\n")
    statement = "\n\ndef late() -> None:\n    {}\n"
    for text in ("from samt import hidden", "import samt.hidden", "from samt.hidden import VALUE"):
        original = (PACKAGE / "partition.py").read_text()
        (package / "partition.py").write_text(original + statement.format(text))
        before = version("sgd-hd")
        edit(package / "hidden.py", lambda old: old + "VALUE += 1\n")
        assert version("sgd-hd") != before


def test_no_import_is_relative() -> None:
    """They would not be found."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_a_version_does_not_depend_on_that_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer ones have more fields, which are empty where nothing new is written."""

    def plain() -> object:
        (function,) = ast.parse("def f(x=None): return [x]").body
        function.type_params = []  # type: ignore[attr-defined]
        function.another = None  # type: ignore[attr-defined]
        return code._plain(function)

    before = plain()
    monkeypatch.setattr(ast.FunctionDef, "_fields", (*ast.FunctionDef._fields, "another"))
    if "type_params" not in ast.FunctionDef._fields:
        fields = (*ast.FunctionDef._fields, "type_params")
        monkeypatch.setattr(ast.FunctionDef, "_fields", fields)
    assert plain() == before
