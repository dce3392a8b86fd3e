"""`samt run` while system calls of it, its nursery or its cells are disturbed, and its clock."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from samt.bench.experiments.store import Store

from .faults import NONE, Disturbed, Fault, Victims, victims
from .grids import assert_same, numbers, stamps, write_grid

_GRID = "width: 8\nbudget: {epochs: 4}\nmethods: [auto-samt, sgd]\n"
_TEN_YEARS = 315_360_000
# Some calls by default; all of them by hand:
# SAMT_TEST_FAULTS=all pytest tests/bench/test_runner_faults.py
_EVERY = os.environ.get("SAMT_TEST_FAULTS") == "all"


@dataclass
class Scene:
    running: Victims
    file: Path
    results: Path
    whole: Path
    calls: tuple[str, ...] = ()

    def run(self, fault: Fault = NONE, results: Path | None = None) -> Disturbed:
        words = ("--checkpoint", "0", "--jobs", "1", "--results", results or self.results)
        return self.running.run(results or self.results, ("run", self.file, *words), fault)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("runner-faults")
    file = write_grid(folder / "grid.yaml", _GRID)
    with victims(folder) as running:
        scene = Scene(running, file, folder / "results", folder / "whole")
        done = scene.run(results=scene.whole)
        assert done.code == 0, done
        scene.calls = done.calls
        assert len(numbers(scene.whole)) == 2
        yield scene


def disturb(scene: Scene, fault: Fault) -> Disturbed:
    """Run with one fault, and again without; returns what the first one left."""
    shutil.rmtree(scene.results, ignore_errors=True)
    done = scene.run(fault)
    assert "Traceback" not in done.out + done.err, done
    assert done.code in (0, 2, -9), done
    if done.code == 2:
        done.is_user_error()
    store = Store(str(scene.results))
    assert all(one["status"] == "finished" for one in store.summaries().values()), done
    assert not store.damaged
    finished = stamps(scene.results)
    again = scene.run()
    assert again.code == 0, again
    assert finished.items() <= stamps(scene.results).items()
    assert_same(numbers(scene.results), numbers(scene.whole))
    left = [path.relative_to(scene.results) for path in scene.results.rglob("*.tmp")]
    assert [path for path in left if path.parts[0] != "running"] == []
    assert list((scene.results / "checkpoints").glob("*")) == []
    return done


def position(scene: Scene, words: str) -> int:
    """Number of the first call of a kind, from 1."""
    return 1 + next(index for index, call in enumerate(scene.calls) if call.startswith(words))


@pytest.mark.parametrize("mode", ["before", "full", *(["dead"] if _EVERY else [])])
def test_a_disturbed_run_loses_nothing_and_goes_on(scene: Scene, mode: str) -> None:
    share = {"before": 0.5, "full": 0.7, "dead": 0.3}[mode]
    some = [max(1, int(share * len(scene.calls)))]
    for at in range(1, len(scene.calls) + 1, 3) if _EVERY else some:
        disturb(scene, Fault(mode, at, errno.ENOSPC if mode == "full" else errno.EIO))


def test_a_checkpoint_that_cannot_be_written_does_not_make_a_cell_a_failed_one(
    scene: Scene,
) -> None:
    opened = position(scene, "open /checkpoints/")
    done = disturb(scene, Fault("fail", opened, errno.ENOSPC))
    done.is_user_error("checkpoints/", "free some space")


@pytest.mark.parametrize("years", [10, -10])
def test_a_clock_that_jumps_changes_nothing(scene: Scene, years: int) -> None:
    at = position(scene, "open /checkpoints/")
    done = disturb(scene, Fault("clock", at, years // 10 * _TEN_YEARS))
    assert done.code == 0, done
