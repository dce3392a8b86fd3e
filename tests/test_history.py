"""What a history makes of what it recorded: a table, a picture, TensorBoard."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import samt
from samt.errors import MissingPackageError

from .support.batches import batch
from .support.models import mlp
from .support.optimizers import OPTIMIZERS

mpl.use("Agg")
LOSS = nn.functional.cross_entropy
STEPS = 12


@pytest.fixture(params=[("auto-samt", {}), ("samt", {"step_size": "row"})])
def history(request: pytest.FixtureRequest) -> samt.History:
    """The history of a short training that changes the step sizes."""
    kind, options = request.param
    model = mlp()
    optimizer = OPTIMIZERS[kind](samt.blocks(model), **options)
    history = samt.History(optimizer, every=3)
    for step in range(STEPS):
        optimizer.step(samt.closure(model, LOSS, *batch("mlp", step)))
    return history


def curve(history: samt.History, block: str) -> list[float]:
    """The mean over the block's weight and bias."""
    rows = [row for row in history.rows if row["block"] == block]
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return [(weight["eta"] + bias["eta"]) / 2 for weight, bias in pairs]


def test_the_table_holds_the_rows(history: samt.History) -> None:
    assert history.frame().to_dict("records") == history.rows
    assert len(history.frame()) == 4 * 6


def test_an_empty_table_has_its_columns() -> None:
    history = samt.History(samt.AutoSAMT(samt.blocks(mlp())))
    frame = history.frame()
    assert len(frame) == 0
    assert frame.columns[-1] == "eta_max"


def test_the_picture_has_a_line_for_each_block(history: samt.History) -> None:
    figure, ax = plt.subplots()
    assert history.plot(ax) is ax
    assert ax.get_yscale() == "log"
    assert [line.get_label() for line in ax.get_lines()] == ["0", "2", "4"]
    for line in ax.get_lines():
        expected = curve(history, str(line.get_label()))
        assert len(set(expected)) > 1
        assert np.asarray(line.get_xdata()).tolist() == [0, 3, 6, 9]
        assert np.asarray(line.get_ydata()).tolist() == pytest.approx(expected, rel=1e-6)
    figure.canvas.draw()
    plt.close(figure)


def test_the_picture_makes_its_own_figure(history: samt.History) -> None:
    ax = history.plot()
    assert len(ax.get_lines()) == 3
    plt.close("all")


def test_tensorboard_reads_what_was_written(history: samt.History, tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        history.to_tensorboard(writer)
        events = EventAccumulator(str(tmp_path)).Reload()  # already before it is closed
    assert set(events.Tags()["scalars"]) == {"step_size/0", "step_size/2", "step_size/4", "loss"}
    for block in ("0", "2", "4"):
        found = events.Scalars(f"step_size/{block}")
        assert [event.step for event in found] == [0, 3, 6, 9]
        assert [event.value for event in found] == pytest.approx(curve(history, block), rel=1e-6)
    first = [row["loss"] for row in history.rows if row["parameter"] == "0.weight"]
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize(
    ("package", "call"), [("pandas", samt.History.frame), ("matplotlib.pyplot", samt.History.plot)]
)
def test_a_missing_package_is_named(
    package: str, call: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = samt.History(samt.AutoSAMT(samt.blocks(mlp())))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=f"pip install {package.partition('.')[0]}"):
        call(history)  # type: ignore[operator]
