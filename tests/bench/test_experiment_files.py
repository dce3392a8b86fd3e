"""Experiment files: what is valid, and what one line says about what is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from samt.bench.errors import ExperimentError
from samt.bench.experiments.files import load_experiment, locate
from samt.bench.experiments.spec import Budget, Experiment

from .broken_files import BROKEN, LONG, SMALL, more

WHOLE = """\
# Every field.
name: all.fields-1
title: >
  One line
  for people
data: [digits, ./own.csv]
model: [mlp, "cnn:8,16", resnet18]
width: [32, [64, 32], []]
seeds: [3, 1]
batch_size: 16
dropout: 0.25
budget: {passes: 1000}
evaluate: 0.5
validation: 2e-1
split: seed
tuning:
  seeds: 2
  budget: {epochs: 1.5}
timeout: 60
exclude:
- {data: digits, method: sgd, seed: 1}
- {width: [64, 32], model: mlp}
methods:
- adam
- &sgd
  method: sgd:momentum=0.9
  label: " SGD\\twith momentum"
  options: {nesterov: true, lr: [1e-2, 0.1]}
- method: samt
  options: {blocks: null}
  budget: {epochs: 3}
  tune: {step_size: [row, element], relative: [true, 2]}
- {<<: *sgd, label: again}
profiles:
  paper: {seeds: 4}
  smoke: {budget: {seconds: 1e0}, seeds: 1}
"""


def load(folder: Path, text: str | bytes, profile: str | None = None) -> Experiment:
    path = folder / "e.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_experiment(path, profile)


def refused(folder: Path, text: str | bytes) -> str:
    """The message about a file, without its path."""
    with pytest.raises(ExperimentError) as caught:
        load(folder, text)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(folder / "e.yaml") in message
    return message.replace(f"{folder / 'e.yaml'}, ", "")


def test_every_field(tmp_path: Path) -> None:
    found = load(tmp_path, WHOLE)
    assert found.name == "all.fields-1"
    assert found.title == "One line for people"
    assert found.data == ["digits", "./own.csv"]
    assert found.model == ["mlp", "cnn:8,16", "resnet18"]
    assert found.width == [[32], [64, 32], []]
    assert found.seeds == [0, 1, 2, 3]  # of the profile paper
    assert (found.batch_size, found.dropout) == (16, 0.25)
    assert found.budget.model_dump(exclude_none=True) == {"passes": 1000}
    assert (found.evaluate, found.validation, found.split) == (0.5, 0.2, "seed")
    assert found.tuning.seeds == [0, 1]
    assert found.tuning.budget == Budget(epochs=1.5)
    assert found.timeout == 60.0
    assert found.exclude[1] == {"width": [64, 32], "model": "mlp"}
    adam, sgd, samt, again = found.methods
    assert adam.method == "adam"
    assert sgd.label == "SGD with momentum"
    assert sgd.options == {"nesterov": True, "lr": [0.01, 0.1]}
    assert samt.options == {"blocks": None}
    assert samt.tune == {"step_size": ["row", "element"], "relative": [True, 2]}
    assert (again.label, again.options) == ("again", sgd.options)
    assert (samt.budget, sgd.budget) == (Budget(epochs=3), None)


def test_what_is_not_written_has_a_default(tmp_path: Path) -> None:
    found = load(tmp_path, SMALL)
    assert (found.title, found.model, found.width, found.seeds) == ("", ["mlp"], [[300]], [0])
    assert (found.batch_size, found.dropout, found.evaluate) == (64, 0.0, 1.0)
    assert (found.validation, found.split, found.timeout, found.exclude) == (0.1, 0, None, [])
    assert (found.tuning.seeds, found.tuning.budget) == ([0], None)


def test_a_profile_replaces_fields(tmp_path: Path) -> None:
    smoke = load(tmp_path, WHOLE, "smoke")
    assert (smoke.seeds, smoke.budget) == ([0], Budget(seconds=1.0))
    paper = load(tmp_path, WHOLE)
    assert smoke.model == paper.model
    assert (smoke.name, smoke.title) == ("all.fields-1-smoke", "One line for people (smoke)")
    assert load(tmp_path, WHOLE, "paper") == paper
    assert load(tmp_path, f"{SMALL}profiles: {{a: {{seeds: 2}}}}\n").seeds == [0]
    with pytest.raises(ExperimentError, match="no profile 'smok': did you mean 'smoke'"):
        load(tmp_path, WHOLE, "smok")
    with pytest.raises(ExperimentError, match="no profile 'smoke': the file has none"):
        load(tmp_path, SMALL, "smoke")


@pytest.mark.parametrize(("text", "line", "name", "cure"), BROKEN.values(), ids=BROKEN)
def test_a_mistake_is_one_line_that_says_where_it_is_and_what_to_do(
    tmp_path: Path, text: str, line: int, name: str, cure: str
) -> None:
    message = refused(tmp_path, text)
    assert message.startswith(f"line {line}, {name}: ")
    assert cure in message


def test_several_mistakes_are_counted(tmp_path: Path) -> None:
    message = refused(tmp_path, more("split: x\nbatch_size: 0\ndropout: 2\n"))
    assert message.startswith("line 6, batch_size: ")
    assert message.endswith("(and 2 more)")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "hello\n", "--- \n"])
def test_a_file_without_fields(tmp_path: Path, text: str) -> None:
    assert "holds no fields: write name, data" in refused(tmp_path, text)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    message = refused(tmp_path, SMALL.encode() + "title: café\n".encode("latin-1"))
    assert message == "line 5, the file: this is not UTF-8: save the file as UTF-8"
    refused(tmp_path, SMALL.encode("utf-16"))
    assert load(tmp_path, SMALL.encode("utf-8-sig")).name == "t"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"Is a directory\): check the file"):
        load_experiment(tmp_path)
    with pytest.raises(ExperimentError, match=r"No such file or directory\): check the file"):
        load_experiment(tmp_path / "none.yaml")
    assert "is it an experiment file?" in refused(tmp_path, "# " + "x" * (2 << 20))


@pytest.mark.parametrize("form", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_aliases_that_grow_without_end_are_refused_at_once(tmp_path: Path, form: str) -> None:
    """Each of 30 levels holds the one below ten times."""
    levels = "".join(
        f"x{n}: &x{n} {form.format(', '.join([f'*x{n - 1}'] * 10))}\n" for n in range(1, 31)
    )
    assert "shorten it" in refused(tmp_path, more(f"x0: &x0 {{a: 1}}\n{levels}"))


@pytest.mark.parametrize("brackets", ["[]", ("{a: ", "}")], ids=["lists", "mappings"])
def test_a_file_that_is_nested_too_deeply(tmp_path: Path, brackets: str) -> None:
    text = brackets[0] * 5000 + brackets[1] * 5000
    assert "nested too deeply: write it flat" in refused(tmp_path, more(f"title: {text}\n"))


# Pieces of files, right and wrong ones.
PIECES = (
    *("\n", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "<<: *sgd\n", "!!int ", "!!map ", "? "),
    *(
        "null",
        "~",
        "true",
        ".nan",
        "-.inf",
        "1e999",
        "0x1",
        "-1",
        "99999999999999999999",
        "2020-01-01",
    ),
    *("'", '"', '"\\ud800"', '"\\0"', "%", "|\n", ">\n", "\t", "\x00", "\u2028", "é", "---\n", "#"),
    *(
        "seeds",
        "width",
        "tune",
        "options",
        "exclude",
        "profiles",
        "method",
        "budget",
        "samt",
        "x/y",
    ),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random") / "e.yaml"


def assert_experiment_or_error(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        found = load_experiment(file)
    except ExperimentError as error:
        message = str(error)
    else:
        assert Experiment.model_validate_json(found.model_dump_json()) == found
        return
    assert message.startswith(str(file))
    assert len(message.splitlines()) == 1


@settings(max_examples=200, deadline=None)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 30), st.sampled_from(PIECES)),
        max_size=4,
    )
)
def test_whatever_is_changed_in_a_file_it_is_valid_or_refused(
    file: Path, edits: list[tuple[int, int, str]]
) -> None:
    text = WHOLE
    for position, removed, piece in edits:
        text = text[:position] + piece + text[position + removed :]
    assert_experiment_or_error(file, text.encode())


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode()))
def test_whatever_a_file_holds_it_is_valid_or_refused(file: Path, content: bytes) -> None:
    assert_experiment_or_error(file, content)
    assert_experiment_or_error(file, SMALL.encode() + content)


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["method", "lr", "epochs", "seeds", "data"])
    return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    _nested,
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from([*Experiment.model_fields, "profiles"]), value=VALUES)
def test_whatever_a_field_holds_it_is_valid_or_refused(file: Path, name: str, value: Any) -> None:
    content = yaml.safe_load(SMALL) | {name: value}
    assert_experiment_or_error(file, yaml.safe_dump(content, allow_unicode=True).encode())


def write(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(SMALL)


def test_experiments_are_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = {path.stem for path in locate("paper")}
    assert "smoke" in packaged
    write(tmp_path / "paper", "smoke.yaml", "mine.yaml", "notes.md")
    assert locate("smoke") == [Path("paper/smoke.yaml")]  # the one here wins
    assert locate("mine") == [Path("paper/mine.yaml")]
    paths = locate("paper")
    assert [path.stem for path in paths] == [*sorted(packaged), "mine"]
    assert Path("paper/smoke.yaml") in paths
    write(tmp_path, "file.yaml", "other.txt")
    assert locate("file.yaml") == [Path("file.yaml")]
    assert locate(str(tmp_path / "other.txt")) == [tmp_path / "other.txt"]


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("smok", "did you mean 'smoke'"),
        ("", "give the path"),
        ("tabel2", "or did you mean 'table2'?"),
        ("siute", "or did you mean 'suite'?"),
        ("folder", "give the path"),
        ("folder.yaml", "check the path"),
        ("none.yaml", "check the path"),
        (LONG, "check the path"),
        ("~nobody-here/x.yaml", "check the path"),
    ],
)
def test_a_name_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, cure: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "folder.yaml"):
        (tmp_path / folder).mkdir()
    with pytest.raises(ExperimentError, match=re.escape(cure)) as caught:
        locate(name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("path", locate("paper"), ids=lambda path: path.stem)
def test_the_experiments_of_the_paper_are_valid(path: Path) -> None:
    assert load_experiment(path).name == path.stem
    for profile in yaml.safe_load(path.read_text()).get("profiles", {}):
        load_experiment(path, profile)
