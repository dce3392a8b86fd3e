"""Tables: CSV of the UCI kind and of the user's own."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from samt.bench.data import load
from samt.bench.data.tables import read_split_table, read_table
from samt.bench.errors import DataError

from .data_files import damaged, outcome, quick

ROWS = "".join(f"{index},{index * index / 7},{index / 2}\n" for index in range(20))


def write(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@quick
@given(
    values=arrays(
        np.float64,
        array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6),
        elements=st.floats(-1e30, 1e30, allow_subnormal=False),
    ),
    packed=st.booleans(),
    named=st.booleans(),
    separator=st.sampled_from(",;\t"),
)
def test_reads_back_what_was_written(
    tmp_path: Path, values: np.ndarray, packed: bool, named: bool, separator: str
) -> None:
    lines = [separator.join(map(repr, map(float, row))) for row in values]
    head = [separator.join(f"name{index}" for index in range(values.shape[1]))] if named else []
    text = "\n".join([*head, *lines])
    raw = read_table(write(tmp_path, text, "table.csv.gz" if packed else "table.csv"))
    # pandas reads to the last bit but one.
    np.testing.assert_allclose(raw.train.inputs, values[:, :-1], rtol=1e-15)
    assert raw.task == "regression"
    np.testing.assert_allclose(raw.train.targets[:, 0], values[:, -1], rtol=1e-15)


@pytest.mark.parametrize(
    ("targets", "task", "classes"),
    [
        (["cat", "dog", "cat"], "classification", ("cat", "dog")),
        (["10", "9", "10"], "classification", ("9", "10")),
        (["1.0", "2.0", "1.0"], "regression", ()),
        (["NA", "nan", "NA"], "classification", ("NA", "nan")),
        ([str(index) for index in range(101)], "regression", ()),
    ],
)
def test_the_last_column_decides_the_task(
    tmp_path: Path, targets: list[str], task: str, classes: tuple[str, ...]
) -> None:
    text = "".join(f"{index}.5,{target}\n" for index, target in enumerate(targets))
    raw = read_table(write(tmp_path, text))
    assert (raw.task, raw.classes) == (task, classes)
    if classes:
        assert [raw.classes[target] for target in raw.train.targets] == targets


def test_a_table_of_many_pieces_is_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{index},{'cdab'[index % 4]}\n" for index in range(50)]
    whole = read_table(write(tmp_path, "".join(lines)))
    monkeypatch.setattr("samt.bench.data.tables._FIELDS", 14)  # 7 rows
    pieces = read_table(write(tmp_path, "".join(lines)))
    np.testing.assert_array_equal(whole.train.inputs, pieces.train.inputs)
    np.testing.assert_array_equal(whole.train.targets, pieces.train.targets)
    assert [pieces.classes[target] for target in pieces.train.targets[:4]] == list("cdab")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty first line"),
        ("\n\n", "empty first line"),
        ("a,b,c\n", "no rows"),
        ("1\n2\n", "single column"),
        (ROWS + "1,,3\n", "row 21 has '' in column 2"),
        (ROWS + "1,red,3\n", "row 21 has 'red' in column 2"),
        (ROWS + "1,inf,3\n", "row 21 has 'inf' in column 2"),
        (ROWS + "1,2,\n", "row 21 has no target"),
        (ROWS + "1,2\n", "row 21 has no target"),
        (ROWS + "1,2,3,4\n", "not a table in CSV.*line 21"),
        ("1,2,cat\n3,4,cat\n", "all rows have the class 'cat'"),
        ("".join(f"{i},word{i}\n" for i in range(1001)), "more than 1000 different"),
        (b"\xff\xfe1,2\n", "not a table in CSV|no finite number"),
        (b"1,2\n\xff\xfe,3\n", "not a table in CSV"),
        (b"\0" * 100, "not a table in CSV"),
        (b"x" * (2 << 20), "not a table in CSV"),
        ("1," * 30_000 + "2\n", "30001 columns"),
        ('1,2,3\n4,"5,6\n', "not a table in CSV|no finite number|no target"),
    ],
)
def test_wrong_tables_are_one_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        read_table(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samt.bench.data.packed._ALWAYS_ALLOWED", 1 << 20)
    path = write(tmp_path, "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0\n" * (1 << 18), "table.csv.gz")
    assert path.stat().st_size < 1 << 15
    with pytest.raises(DataError, match="decompression bomb"):
        read_table(path)


@quick
@given(content=damaged(ROWS.encode()) | damaged(gzip.compress(ROWS.encode())) | st.binary())
def test_any_bytes_give_a_table_or_the_named_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    raw = outcome(read_table, path)
    if raw is not None:
        assert np.isfinite(raw.train.inputs).all()
        assert len(raw.train.inputs) == len(raw.train.targets)


class TestPublishedSplits:
    """A table with a mask: a column for each split."""

    def files(self, folder: Path, rows: int = 20) -> tuple[Path, Path]:
        mask = "".join(f"{int(i % 10 == 0)},{int(i % 10 == 1)}\n" for i in range(rows))
        return write(folder, ROWS, "data.csv.gz"), write(folder, mask, "test_mask.csv.gz")

    @pytest.mark.parametrize("split", [0, 1])
    def test_the_column_marks_the_test_rows(self, tmp_path: Path, split: int) -> None:
        raw = read_split_table(*self.files(tmp_path), split)
        assert raw.test is not None
        assert raw.test.inputs[:, 0].tolist() == [split, 10 + split]
        assert len(raw.train) == 18
        assert raw.published_split == split

    def test_scalers_see_training_rows_only(self, tmp_path: Path) -> None:
        self.files(tmp_path)
        data = load(str(tmp_path), None, split_seed=1)
        torch.testing.assert_close(data.train.inputs.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
        assert data.split_seed == 1
        kept = [i / 2 for i in range(20) if i % 10 != 1]
        assert data.target_scale == pytest.approx(np.std(kept))

    @pytest.mark.parametrize("split", [2, -1])
    def test_a_split_that_was_not_published_is_refused(self, tmp_path: Path, split: int) -> None:
        with pytest.raises(DataError, match="split seed from 0 to 1"):
            read_split_table(*self.files(tmp_path), split)

    def test_a_mask_of_another_table_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"19 rows, but data[.]csv[.]gz has 20"):
            read_split_table(*self.files(tmp_path, 19), 0)

    @pytest.mark.parametrize("mask", ["0\n" * 20, "1\n" * 20, "2\n" + "0\n" * 19])
    def test_a_mask_without_test_rows_is_refused(self, tmp_path: Path, mask: str) -> None:
        table, _ = self.files(tmp_path)
        with pytest.raises(DataError, match="does not mark test rows"):
            read_split_table(table, write(tmp_path, mask, "mask.csv"), 0)


@pytest.mark.parametrize(
    ("name", "rows", "features", "tested"),
    [
        ("bike", 17_379, 17, 1737),
        ("pol", 15_000, 26, 1500),
        ("keggdirected", 48_827, 20, 4882),
        ("keggundirected", 63_608, 27, 6360),
    ],
)
def test_real_tables(real_data_dir: Path, name: str, rows: int, features: int, tested: int) -> None:
    data = load(name, real_data_dir)
    assert data.sample_shape == (features,)
    assert (len(data.train) + len(data.test), len(data.test)) == (rows, tested)
    assert data.fingerprint != load(name, real_data_dir, split_seed=9).fingerprint
