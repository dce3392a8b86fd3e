"""The problems of the suite: the same every time, trainable, and cut into parts that differ."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from samt.bench.data import Split, cifar
from samt.bench.errors import DataError
from samt.bench.suite import families, graphs, texts, words
from samt.bench.suite.families import FAMILIES, PROBLEMS, UnknownProblemError, problem
from samt.bench.suite.pretraining import pretrained
from samt.bench.suite.problem import Part, Problem, Task
from samt.bench.suite.problems.finetuning import Adapted
from samt.bench.suite.problems.units import StoredInUnits
from samt.bench.suite.samples import EVALUATED, Parts, divided, generator, loaded
from samt.bench.suite.tasks import Batches, classification, drawn_from, regression

PARTS: tuple[Part, ...] = ("validation", "test")
OF_PHOTOGRAPHS = ("cnn", "resnet")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with noise in the form of CIFAR-10, which few machines have unpacked."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "cifar10").mkdir()
    chance = np.random.default_rng(0)
    for name in (*cifar.CIFAR10.train, cifar.CIFAR10.test):
        records = chance.integers(0, 256, (200, 1 + 3 * 32 * 32), dtype=np.uint8)
        records[:, 0] = np.arange(200) % 10
        (folder / "cifar10" / name).write_bytes(records.tobytes())
    return folder


def made(one: Problem, photographs: Path) -> Task:
    """The task of seed 0; the test is skipped where there is no folder with real data."""
    real = os.environ.get("SAMT_DATA_DIR")
    folder = Path(real) if real and one.name not in OF_PHOTOGRAPHS else photographs
    try:
        return one.make(0, folder)
    except DataError as error:
        if not real:
            pytest.skip(str(error))
        raise


def weights(task: Task) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in task.model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def losses(task: Task, count: int) -> list[float]:
    """The first losses, with the same dropout every time."""
    torch.manual_seed(5)
    return [task.loss(step).item() for step in range(count)]


@pytest.mark.parametrize("one", PROBLEMS.values(), ids=lambda one: one.name)
def test_a_problem_is_the_same_every_time_and_can_be_trained(
    one: Problem, photographs: Path
) -> None:
    first = made(one, photographs)
    before = torch.get_rng_state()
    second = made(one, photographs)
    values = [second.evaluate(part) for part in PARTS]
    assert torch.get_rng_state().equal(before)
    assert all(math.isfinite(value) and value > 0 for value in values)
    assert second.model.training
    assert same(weights(first), weights(second))
    assert losses(first, 3) == losses(second, 3)
    assert all(map(math.isfinite, losses(first, 3)))

    learnt = [p for p in first.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1e-3)
    for step in range(5):
        optimizer.zero_grad()
        first.loss(step).backward()
        assert all(p.grad is not None for p in learnt)
        optimizer.step()
    assert all(math.isfinite(first.evaluate(part)) for part in PARTS)
    assert all(p.grad is None for p in first.model.parameters() if not p.requires_grad)
    assert math.isfinite(first.loss(first.steps + 1).item())


@pytest.mark.parametrize("name", ["digits", "graph", "smooth", "least-squares", "sines", "words"])
def test_another_seed_draws_other_weights_and_the_same_samples(name: str) -> None:
    one, other = (PROBLEMS[name].make(seed, None) for seed in (0, 1))
    assert not same(weights(one), weights(other))
    assert losses(one, 3) != losses(other, 3)
    other.model.load_state_dict(weights(one))
    assert [one.evaluate(part) for part in PARTS] == [other.evaluate(part) for part in PARTS]


def test_problems_without_files_of_their_own_say_what_is_missing(tmp_path: Path) -> None:
    for name in ("fashion", "bike", "cnn", "finetune-lora", "autoencoder"):
        with pytest.raises(DataError, match=r"^no .* in .*: run samt data prepare"):
            PROBLEMS[name].make(0, tmp_path)


def test_there_are_five_families_whose_files_name_their_own_problems() -> None:
    assert list(FAMILIES) == ["classic", "units", "finetuning", "architectures", "regimes"]
    for family, members in FAMILIES.items():
        assert {one.family for one in members} == {family}
    assert len(PROBLEMS) == sum(map(len, FAMILIES.values())) >= 34
    assert {one.seeds for one in PROBLEMS.values()} == {5, 10}


def test_about_half_of_each_family_is_held_out_and_the_listing_says_which() -> None:
    assert families.__doc__ is not None
    for family, members in FAMILIES.items():
        names = {
            chosen: [one.name for one in members if one.chosen_on is chosen]
            for chosen in (True, False)
        }
        assert abs(len(names[True]) - len(names[False])) <= 1
        listed = " ".join(families.__doc__.split())
        chosen, held_out = (", ".join(names[one]) for one in (True, False))
        assert f"- {family}: chosen on {chosen}; held out {held_out}." in listed


def test_an_unknown_problem_has_a_named_error() -> None:
    assert problem("mnist") is PROBLEMS["mnist"]
    with pytest.raises(UnknownProblemError, match=r"'fashon' of the suite: .*fashion"):
        problem("fashon")


def rows(split: Split) -> set[bytes]:
    return {row.numpy().tobytes() for row in split.inputs}


def assert_apart(parts: Parts) -> None:
    """No sample stands in two parts."""
    train, validation, test = map(rows, (parts.train, parts.validation, parts.test))
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_parts_share_no_sample() -> None:
    assert_apart(loaded("digits", None))
    assert_apart(graphs.drawn().parts)
    assert_apart(words.lines_of_code())
    assert_apart(divided(torch.arange(50)[:, None], torch.zeros(50), 10, 15))


def test_parts_of_a_text_do_not_touch() -> None:
    place = "".join(f"{number:05d}" for number in range(10_000))
    parts = texts.continued((place,))
    first, last = (
        {bytes(row.tolist()) for row in part.inputs} for part in (parts.train, parts.test)
    )
    assert not first & last
    for split in (parts.train, parts.validation, parts.test):
        assert split.inputs[:, 1:].equal(split.targets[:, :-1])
        assert split.inputs.shape[1] == texts.LENGTH
    ends = [
        max(place.find("".join(map(chr, row.tolist()))) for row in part.targets)
        for part in (parts.train, parts.validation, parts.test)
    ]
    assert ends[0] + texts.LENGTH <= 40_000
    assert ends[1] + texts.LENGTH <= 45_000


def test_no_more_samples_are_evaluated_than_is_fast() -> None:
    parts = loaded("digits", None)
    assert max(map(len, (parts.validation, parts.test))) <= EVALUATED
    few = parts.at_most(7, 3)
    assert (len(few.train), len(few.validation), len(few.test)) == (7, 3, 3)


def test_a_mini_batch_depends_on_its_number_alone() -> None:
    samples = Split(torch.arange(10.0), torch.arange(10))
    forwards, backwards = Batches(samples, 3, seed=1), Batches(samples, 3, seed=1)
    seen = [forwards(step)[1].tolist() for step in range(7)]
    assert [backwards(step)[1].tolist() for step in reversed(range(7))] == seen[::-1]
    for epoch in (seen[:3], seen[3:6]):
        assert len({number for batch in epoch for number in batch}) == 9
    assert seen[:3] != seen[3:6]
    whole = Batches(samples, 10, seed=1)
    assert whole(4)[1].equal(samples.targets)


def test_measures_are_those_of_a_whole_part() -> None:
    inputs = torch.randn(700, 3, generator=generator(1))
    model = nn.Linear(3, 2)
    classes = divided(inputs, (inputs[:, 0] > 0).long(), 300, 301)
    task = classification(model, classes, 0, steps=1)
    wrong = (model(classes.test.inputs).argmax(1) != classes.test.targets).double().mean()
    assert task.evaluate("test") == pytest.approx(100 * float(wrong), rel=1e-5)

    values = divided(inputs, inputs[:, :2], 300, 301).with_targets(lambda y: 50 * y, unit=50.0)
    task = regression(model, values, 0, steps=1)
    error = (model(values.validation.inputs) - values.validation.targets).square().mean().item()
    assert task.evaluate("validation") == pytest.approx(math.sqrt(error) / 50, rel=1e-5)


def test_the_unit_of_stored_weights_changes_no_output() -> None:
    outputs = []
    for unit in (1.0, 1e-4, 1e4):
        with drawn_from(3):
            layer = StoredInUnits(5, 4, unit)
        largest = layer.weight.detach().abs().max().item()
        assert largest == pytest.approx(unit * 0.44, rel=0.05)
        outputs.append(layer(torch.ones(2, 5)))
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(outputs[2], outputs[0])


def test_an_adapter_begins_as_the_layer_that_it_adapts() -> None:
    layer = nn.Linear(6, 4)
    adapted, x = Adapted(layer, rank=2), torch.randn(3, 6)
    assert adapted(x).equal(layer(x))
    assert [name for name, p in adapted.named_parameters() if p.requires_grad] == ["down", "up"]


def test_pretraining_is_done_once_and_a_damaged_file_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMT_CACHE_DIR", str(tmp_path))
    steps: list[int] = []

    def make(data_dir: Path | None) -> tuple[Task, Split]:
        parts = divided(torch.ones(60, 2), torch.zeros(60, 1), 10, 10)
        with drawn_from(1):
            task = regression(nn.Linear(2, 1), parts, 0, steps=20, batch_size=10)

        def loss(step: int) -> Tensor:
            steps.append(step)
            return task.loss(step)

        return Task(task.model, task.steps, loss, task.evaluate), parts.train

    def fresh() -> dict[str, Tensor]:
        pretrained.cache_clear()
        return pretrained("line", make, None)

    weights = fresh()
    assert steps == list(range(20))
    (path,) = (tmp_path / "suite").iterdir()
    assert same(fresh(), weights)
    assert len(steps) == 20
    path.write_bytes(path.read_bytes()[:100])
    assert same(fresh(), weights)
    assert len(steps) == 40
    assert same(fresh(), weights)
    assert len(steps) == 40
