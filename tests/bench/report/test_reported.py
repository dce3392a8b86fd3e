"""Published numbers and notes are read from files, and mistakes in them are explained."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from samt.bench.errors import ReportError
from samt.bench.report.reported import folders, notes, published_numbers, read_published

from .conftest import HEAD, write


def test_numbers_with_and_without_a_value(paper: Path) -> None:
    first, _, third, *_ = published_numbers("table", [paper])
    assert (first.data, first.model, first.width, first.method) == ("digits", "mlp", "16", "SAMT")
    assert (first.metric, first.value, first.note) == ("accuracy", 93.0, "")
    assert math.isnan(third.value)
    assert not third.is_number
    assert third.note == "not available here"


def test_a_method_with_commas_is_quoted(tmp_path: Path) -> None:
    text = HEAD + 'digits,mlp,16,"samt:a=1,b=2",rmse,3.5,"a note, with a comma"\n'
    (one,) = read_published(write(tmp_path / "one.csv", text))
    assert one.method == "samt:a=1,b=2"
    assert one.note == "a note, with a comma"


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    text = "\ufeff" + HEAD + "digits,mlp,16,samt,accuracy,93.0,\n"
    (one,) = read_published(write(tmp_path / "one.csv", text.replace("\n", "\r\n")))
    assert one.value == 93.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data,model\na,b\n", ["no column width", "data,model,width,method,metric,value,note"]),
        ("", ["no column data"]),
        (HEAD + "d,m,16,samt:a=1,b=2,rmse,3.5,\n", ["line 2", "quotation marks"]),
        (HEAD + "d,m,16,samt\n", ["line 2", "7 fields"]),
        (HEAD + "d,m,16,samt,loss,3.5,\n", ["line 2", "'loss'", "accuracy or rmse"]),
        (HEAD + "d,m,16,samt,rmse,3.5,\nd,m,16,sgd,rmse,x,\n", ["line 3", "'x'"]),
        (HEAD + "d,m,16,samt,rmse,inf,\n", ["line 2", "finite"]),
        (HEAD + "d,m,16,samt,rmse,-1,\n", ["line 2", "below zero"]),
        (HEAD + "d,m,16,samt,accuracy,0.93,\n", ["line 2", "per cent"]),
        (HEAD + "d,m,16,samt,accuracy,193,\n", ["line 2", "per cent"]),
        (HEAD + "d,m,16,samt,rmse,1,\nd,m,16,samt,rmse,2,\n", ["line 3", "stands twice"]),
    ],
)
def test_mistakes_name_the_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path / "one.csv", text)
    with pytest.raises(ReportError) as caught:
        read_published(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match="cannot read"):
        read_published(path)


def test_no_file_is_no_number(tmp_path: Path) -> None:
    assert published_numbers("table", [tmp_path]) == []
    assert notes("table", [tmp_path]) == []


def test_paragraphs_of_notes(paper: Path) -> None:
    assert notes("table", [paper]) == ["The first reason.", "The *second* reason."]


def test_the_folder_of_the_experiment_file_comes_first(tmp_path: Path) -> None:
    places = folders(str(tmp_path / "here" / "table.yaml"))
    assert places[0] == tmp_path / "here"
    assert Path("paper") in places
    assert folders("paper/table.yaml", tmp_path) == [tmp_path]
    assert Path("paper") in folders(None)
