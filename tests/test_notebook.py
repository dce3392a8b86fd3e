"""The notebook's cells run from top to bottom, learn, and are stored light."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "step_sizes.ipynb"


def cells() -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


@pytest.mark.parametrize("data", ["digits", "fashion-mnist"])
def test_the_cells_run(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if data == "digits":
        monkeypatch.delenv("SAMT_DATA_DIR", raising=False)
    elif not (
        Path(os.environ.get("SAMT_DATA_DIR", "")) / data / "t10k-labels-idx1-ubyte.gz"
    ).exists():
        pytest.skip("SAMT_DATA_DIR names no folder with Fashion-MNIST")
    mpl.use("Agg")
    drawn: list[Any] = []
    monkeypatch.setattr(plt, "show", lambda: drawn.append(plt.gca()))
    names: dict[str, Any] = {}
    for cell in cells():
        exec(cell, names)
    plt.close("all")
    assert names["name"] == data
    printed = capsys.readouterr().out
    accuracies = [float(part.split()[0]) for part in printed.split("test accuracy: ")[1:]]
    assert len(accuracies) == 2
    assert min(accuracies) > 0.7, printed
    for ax in drawn:  # the step sizes of all three blocks moved
        for line in ax.get_lines():
            assert len(set(line.get_ydata())) > 5
    assert [len(ax.get_lines()) for ax in drawn] == [3, 3]


def test_the_stored_outputs_are_light() -> None:
    assert NOTEBOOK.stat().st_size < 200_000
