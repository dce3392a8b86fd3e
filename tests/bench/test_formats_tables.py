"""Tables as pandas, R and Excel write them: read as what they are, or one line says why not."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from samt.bench.data import Dataset, load
from samt.bench.errors import DataError

ROWS = "".join(f"{index},{index * index / 7},{index / 2}\n" for index in range(20))
RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(60, 3)).round(3)
VALUES = (FEATURES @ [1, 2, 3]).round(3)
CLASSES = (FEATURES[:, 0] > 0).astype(int)
WORDS = np.array(["Paris, FR", "Rome, IT"])[CLASSES]
FRAME = pd.DataFrame(FEATURES, columns=list("abc"))


def write(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def read(folder: Path, text: str | bytes, name: str = "table.csv") -> Dataset:
    return load(str(write(folder, text, name)), None)


def rows(*head: list[str], target: Any = CLASSES, **how: Any) -> str:
    """The features and a target, as the csv module writes them."""
    buffer = io.StringIO()
    lines = [[*map(str, row), str(one)] for row, one in zip(FEATURES, target, strict=True)]
    csv.writer(buffer, lineterminator="\n", **how).writerows([*head, *lines])
    return buffer.getvalue()


PLAIN = rows()
# Each is a table of 60 rows with the same three features.
WRITTEN: dict[str, tuple[str, bool]] = {
    "plain": (PLAIN, True),
    "named": (rows(["a", "b", "c", "label"]), True),
    "DataFrame of an array, values": (
        pd.DataFrame(np.c_[FEATURES, VALUES]).to_csv(index=False),
        False,
    ),
    "DataFrame of an array, classes": (
        pd.DataFrame(FEATURES).assign(label=CLASSES).set_axis(range(4), axis=1).to_csv(index=False),
        True,
    ),
    "names 0, 1, 2, label": (rows(["0", "1", "2", "label"]), True),
    "names 0, 1, 2, label, of words": (rows(["0", "1", "2", "label"], target=WORDS), True),
    "years": (rows(["2019", "2020", "2021", "price"], target=VALUES), False),
    "years alone": (rows(["2019", "2020", "2021", "2022"], target=VALUES), False),
    "wave lengths": (rows(["400.5", "401", "401.5", "label"]), True),
    "a word, years and a word": (rows(["size", "2020", "2021", "kind"], target=WORDS), True),
    "index of pandas": (FRAME.assign(label=CLASSES).to_csv(), True),
    "shuffled index of pandas": (FRAME.assign(label=CLASSES).sample(frac=1).to_csv(), True),
    "index that was reset": (FRAME.assign(label=CLASSES).reset_index().to_csv(index=False), True),
    "index twice": (
        FRAME.assign(label=CLASSES).reset_index(names="Unnamed: 0").to_csv(index=False),
        True,
    ),
    "row names of R": (
        "".join(
            (f'"{at}",' if at else "") + f"{line}\n"
            for at, line in enumerate(rows(["a", "b", "c", "label"]).splitlines())
        ),
        True,
    ),
    "all quoted": (rows(quoting=csv.QUOTE_ALL), True),
    "all quoted, named": (rows(["a", "b", "c", "label"], quoting=csv.QUOTE_ALL), True),
    "separator in class names": (rows(target=WORDS), True),
    "separator in a name": (rows(["length, cm", "b", "c", "label"]), True),
    "semicolons, commas in names": (
        rows(["length, cm", "b, cm", "c, cm", "label"], delimiter=";"),
        True,
    ),
    "decimal commas": (rows(delimiter=";", target=VALUES).replace(".", ","), False),
    "decimal commas, named": (
        rows(["a, cm", "b", "c", "d"], delimiter=";", target=VALUES).replace(".", ","),
        False,
    ),
    "tabs": (rows(["a", "b", "c", "label"], delimiter="\t"), True),
    "classes of truth": (PLAIN.replace(",0\n", ",False\n").replace(",1\n", ",True\n"), True),
    "spaces behind separators": (PLAIN.replace(",", ", "), True),
    "line ends and mark of Windows": (
        "\ufeff" + rows(["a", "b", "c", "d"]).replace("\n", "\r\n"),
        True,
    ),
    "empty lines": ("\n" + PLAIN.replace("\n", "\n\n"), True),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_table_is_read_as_what_it_is(tmp_path: Path, name: str) -> None:
    text, is_classes = WRITTEN[name]
    plain = read(tmp_path, PLAIN if is_classes else rows(target=VALUES), "plain.csv")
    data = read(tmp_path, text)
    assert len(data.train) + len(data.test) == 60
    assert (data.task, data.sample_shape) == (plain.task, (3,))
    if "shuffled" in name:
        return
    for part, split in plain.parts.items():
        for expected, found in zip(split.tensors(), data.parts[part].tensors(), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["table.tsv", "table.csv.gz", "table.tsv.gz", "TABLE.CSV"])
def test_endings(tmp_path: Path, name: str) -> None:
    plain = read(tmp_path, PLAIN)
    data = read(tmp_path, PLAIN, name)
    assert data.train.inputs.equal(plain.train.inputs)
    (tmp_path / name).write_text(PLAIN)  # as browsers leave it that unpack a .gz
    assert load(str(tmp_path / name), None).train.inputs.equal(plain.train.inputs)


def test_features_of_truth_are_numbers(tmp_path: Path) -> None:
    data = read(tmp_path, "".join(f"{at % 3 > 0},{at}.5,{at % 2}\n" for at in range(30)))
    assert (len(data.train) + len(data.test), data.sample_shape) == (30, (2,))
    assert len(data.train.inputs[:, 0].unique()) == 2


def test_what_was_understood_is_noted(tmp_path: Path) -> None:
    assert read(tmp_path, PLAIN).notes == ()
    notes = read(tmp_path, FRAME.assign(label=CLASSES).to_csv()).notes
    assert notes == (
        "The first line holds names.",
        "The first column is an index, which is left out.",
    )


def test_the_digits_of_numbers_stay(tmp_path: Path) -> None:
    numbers = RANDOM.normal(size=(40, 3)) * 10.0 ** RANDOM.integers(-20, 20, (40, 3))
    text = "".join(",".join(map(repr, map(float, row))) + "\n" for row in numbers)
    np.savez(tmp_path / "same.npz", x=numbers[:, :2], y=numbers[:, 2])
    data, expected = read(tmp_path, text), load(str(tmp_path / "same.npz"), None)
    torch.testing.assert_close(data.train.inputs, expected.train.inputs, rtol=1e-6, atol=0)
    assert data.target_scale == pytest.approx(expected.target_scale, rel=1e-12)


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        (["cat", "dog"], ("cat", "dog")),
        (["10", "9"], ("9", "10")),
        (["1", "2", "2b"], ("1", "2", "2b")),
        (["NA", "EU"], ("EU", "NA")),
        (["True", "False"], ("False", "True")),
        (["1.0", "2.0"], ()),
        ([str(index) for index in range(101)], ()),
    ],
)
def test_the_last_column_decides_the_task(
    tmp_path: Path, targets: list[str], classes: tuple[str, ...]
) -> None:
    data = read(tmp_path, "".join(f"{index}.5,{one}\n" for index, one in enumerate(targets * 5)))
    assert data.task == ("classification" if classes else "regression")
    assert data.classes == classes


def test_a_class_keeps_its_rows(tmp_path: Path) -> None:
    text = "".join(f"{index},{'cdab'[index % 4]}\n" for index in range(40))
    data = read(tmp_path, text)
    order = data.train.inputs[:, 0].argsort()
    found = [data.classes[target] for target in data.train.targets[order].tolist()]
    scaled = data.train.inputs[order, 0]
    step = (scaled[1:] - scaled[:-1]).min()  # of neighbours that are both there
    places = ((scaled - scaled[0]) / step).round().long().tolist()
    shift = "cdab".index(found[0])
    assert found == ["cdab"[(place + shift) % 4] for place in places]


WRONG: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "no rows"),
    "empty lines": ("\n\n", "no rows"),
    "names alone": ("a,b,c\n", "no rows"),
    "one column": ("1\n2\n", "no features beside its target"),
    "an index and a target": (",y\n0,1\n1,0\n", "no features beside its target"),
    "a gap": (ROWS + "1,,3\n", "row 21 has '' in column 2"),
    "a word": (ROWS + "1,red,3\n", "row 21 has 'red' in column 2"),
    "infinite": (ROWS + "1,inf,3\n", "row 21 has 'inf' in column 2"),
    "no target": (ROWS + "1,2,\n", "row 21 has no target"),
    "short row": (ROWS + "1,2\n", "row 21 has no target"),
    "long row": (ROWS + "1,2,3,4\n", "line 21, saw 4"),
    "long rows": ("a,b\n" + ROWS.replace("\n", ",1\n"), "2 fields, but the next one has 4"),
    "gap among values": (ROWS + "1,2,NA\n", "row 21 has the target 'NA', but others are numbers"),
    "gap among classes": (PLAIN + "1.5,2.5,3.5,?\n", "row 61 has the target '\\?'"),
    "infinite target": (ROWS + "1,2,inf\n", "row 21 has 'inf' in column 3"),
    "a gap in the first row": ("1.5,,0\n" + "2.5,3.5,0\n4.5,5.5,1\n" * 5, "row 1 has ''"),
    "one class": ("1,2,cat\n3,4,cat\n", "all rows have the class 'cat'"),
    "a class of one row": (rows(target=WORDS) + "1,2,3,Oslo\n", "'Oslo' has a single row"),
    "whole values": ("".join(f"{at}.5,{3 * at}\n" for at in range(60)), "write 3.0 for 3"),
    "text": ("".join(f"{at},word{at}\n" for at in range(1001)), "more than 1000 different"),
    "counting numbers above whole ones": ("0,1,2\n" + "5,3,1\n7,2,0\n" * 5, "may hold names"),
    "whole numbers above decimals": ("3,9,4,0\n" + PLAIN, "may hold names.*1.0 for 1"),
    "a word and numbers": ("5.1,red,1.4,2\n" + PLAIN, "may hold names"),
    "a class that does not come again": (f"1.5,2.5,3.5,{'Oslo'}\n" + rows(target=WORDS), "names"),
    "commas in thousands": ("1,234;1.5\n" * 5 + "1,235;2.5\n" * 5, "row 1 has '1,234' in col"),
    "spaces": (PLAIN.replace(",", " "), "commas, semicolons or tabs"),
    "UTF-16": (PLAIN.encode("utf-16"), "not what its name says"),
    "Latin 1": (PLAIN.encode() + b"1,2,3,K\xf6ln\n" * 2, "not what its name says"),
    "zeros": (b"\0" * 100, "table.csv"),
    "quote without an end": ('1,2,3\n4,"5,6\n', "fields"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tables_are_one_line(tmp_path: Path, name: str) -> None:
    text, words = WRONG[name]
    with pytest.raises(DataError, match=words) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS * 50, "table.csv.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged") as error:
        load(str(path), None)
    assert "\n" not in str(error.value)


def test_a_table_that_does_not_fit_into_memory_is_refused(
    tmp_path: Path, small_machine: Callable[[], None]
) -> None:
    path = write(tmp_path, PLAIN * 10)
    small_machine()
    with pytest.raises(DataError, match="GiB of memory"):
        load(str(path), None)


class TestPublishedSplits:
    """A table with a mask: a column for each split."""

    def files(self, folder: Path, count: int = 20, mask: str = "") -> Path:
        lines = (f"{int(at % 10 == 0)},{int(at % 10 == 1)}\n" for at in range(count))
        write(folder, ROWS, "data.csv.gz")
        write(folder, mask or "".join(lines), "test_mask.csv")
        return folder

    @pytest.mark.parametrize("split", [0, 1])
    def test_the_column_marks_the_test_rows(self, tmp_path: Path, split: int) -> None:
        data = load(str(self.files(tmp_path)), None, split_seed=split)
        assert (len(data.train), len(data.test), data.split_seed) == (18, 2, split)
        torch.testing.assert_close(data.train.inputs.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
        kept = np.array([at for at in range(20) if at % 10 != split])
        assert data.target_scale == pytest.approx(np.std(kept / 2))
        first = (np.array([split, 10 + split]) - kept.mean()) / kept.std()
        torch.testing.assert_close(data.test.inputs[:, 0], torch.tensor(first).float())

    @pytest.mark.parametrize(
        ("count", "mask", "split", "words"),
        [
            (20, "", 2, "split seed from 0 to 1"),
            (20, "", -1, "split seed from 0 to 1"),
            (19, "", 0, "19 rows, but data.csv.gz has 20"),
            (20, "0\n" * 20, 0, "does not mark test rows"),
            (20, "1\n" * 20, 0, "does not mark test rows"),
            (20, "2\n" + "0\n" * 19, 0, "does not mark test rows"),
        ],
    )
    def test_a_mask_that_does_not_fit_is_refused(
        self, tmp_path: Path, count: int, mask: str, split: int, words: str
    ) -> None:
        with pytest.raises(DataError, match=words):
            load(str(self.files(tmp_path, count, mask)), None, split_seed=split)


@pytest.mark.parametrize(
    ("name", "count", "features", "tested"),
    [
        ("bike", 17_379, 17, 1737),
        ("pol", 15_000, 26, 1500),
        ("keggdirected", 48_827, 20, 4882),
        ("keggundirected", 63_608, 27, 6360),
    ],
)
def test_real_tables(
    real_data_dir: Path, name: str, count: int, features: int, tested: int
) -> None:
    data = load(name, real_data_dir)
    assert data.sample_shape == (features,)
    assert (len(data.train) + len(data.test), len(data.test)) == (count, tested)
    assert data.fingerprint != load(name, real_data_dir, split_seed=9).fingerprint
