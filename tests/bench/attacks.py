"""Every file that samt reads, put into the hands of somebody who wants to break it.

`ATTACKS` has a whole file of each format and the commands that read it. Whatever is in its place,
a command ends with 0, 1 or 2, says a mistake in one line, and sends nothing to the terminal that
steers it.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import random
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np

from samt.bench.cli import main

from .data_files import cifar_files, picture, pictures, tar_bytes, write_all, zip_bytes
from .idx_files import idx_bytes
from .stored_cells import first_experiment

# Controls, invisible formats, halves of pairs, ends of lines.
_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
_RANDOM = np.random.default_rng(0)
_IMAGES = _RANDOM.integers(0, 256, (12, 3, 4), dtype=np.uint8)
_LABELS = (np.arange(12) % 2).astype(np.uint8)
_TABLE = "".join(f"{one[0, 0]},{one[0, 1]}.5,{'ab'[at % 2]}\n" for at, one in enumerate(_IMAGES))
_MASK = "".join(f"{int(at < 3)},{int(at > 8)}\n" for at in range(12))
_REPORTED = (
    "data,model,width,method,metric,value,note\n"
    "digits,mlp,300,SAMT,accuracy,93.0,\n"
    'digits,mlp,64,"sgd, plain",accuracy,,not available here\n'
)
_EXPERIMENT = """\
name: small
title: A small one
data: [digits, diabetes]
model: [mlp, cnn]
width: [8, [16, 8]]
methods:
- sgd
- &own {method: samt, label: ours, options: {lr: [0.1, 0.2], step_size: row}}
- {<<: *own, label: theirs, tune: {meta_lr: [0.1, 1e-2]}}
seeds: 2
budget: {epochs: 1.5}
tuning: {seeds: [0], budget: {passes: 40}}
exclude: [{data: digits, seed: 1}]
profiles: {smoke: {seeds: 1, budget: {epochs: 0}}}
"""


@dataclass(frozen=True)
class Attack:
    """A file in the place of which anything may lie.

    Args:
        path: of the file, from the top of a folder.
        whole: as it should be.
        commands: that read it, each in words; `{}` is the folder.
        beside: other files, as they should be.
    """

    path: str
    whole: bytes
    commands: Sequence[str]
    beside: dict[str, bytes] = field(default_factory=dict)

    def prepare(self, folder: Path) -> Path:
        """Write all files as they should be; returns the one that is attacked."""
        write_all(folder, {**self.beside, self.path: self.whole})
        return folder / self.path

    def run(self, folder: Path, number: int) -> str:
        """Run one of the commands; returns what it said.

        Raises:
            AssertionError: it did what it must not do.
        """
        words = shlex.split(self.commands[number % len(self.commands)])
        return samt(*(word.replace("{}", str(folder)) for word in words))


def samt(*words: str) -> str:
    """The command in this process, with what it must keep to whatever the files hold.

    Args:
        words: of the command line.

    Returns:
        What it said.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    err.reconfigure(errors="backslashreplace")  # as Python does it
    code: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as stopped:
            code = stopped.code
    said, complained = (one.buffer.getvalue().decode() for one in (out, err))
    assert code in (0, 1, 2), (words, code)
    lines = complained.splitlines()
    if code == 2:
        assert lines[-1].startswith("samt: error: "), complained
    assert all(line.startswith("samt: ") for line in lines), complained
    steering = {one for one in said + complained if category(one) in _STEERING} - {"\n"}
    assert not steering, (words, steering)
    return said + complained


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=_IMAGES, y=np.array(["a", "b"])[_LABELS])
    return buffer.getvalue()


def _results() -> dict[str, bytes]:
    """The files of a small store."""
    name = "memory://attacks"
    store = first_experiment(name)
    files = store._fs.find(store._root)
    return {f"results/{one.split('attacks/')[1]}": store._fs.cat_file(one) for one in files}


def _run_folder() -> dict[str, bytes]:
    """The files of a run of no epoch."""
    with tempfile.TemporaryDirectory() as folder:
        words = "train --data digits --hidden 4 --epochs 0 --optimizer sgd --device cpu --threads 1"
        samt(*words.split(), "--run-dir", f"{folder}/run")
        return {f"run/{one.name}": one.read_bytes() for one in Path(folder, "run").iterdir()}


_RESULTS = _results()
_RUN = _run_folder()
_KILLED = (name for name, content in _RESULTS.items() if b'"status": "killed"' in content)
_CELL = next(_KILLED)
_CURVE = next(name for name in _RESULTS if "/curves/" in name)
_NOTE = json.dumps({"host": "h", "pid": 1, "time": 1e9, "name": "a cell", "share": 0.5}).encode()
_SHOWN = (
    "results list --results {}/results",
    "results show first --results {}/results",
    f"results show {Path(_CELL).stem} --results {{}}/results",
    "results export -o {}/cells.csv --results {}/results",
    "results export -o {}/curves.json --curves --results {}/results",
    "results export -o {}/cells.parquet --results {}/results",
    "results merge {}/results --results {}/merged",
    "results prune --dry-run --results {}/results",
    "report {}/results -o {}/report --no-figures",
)


def _stored(path: str, whole: bytes | None = None) -> Attack:
    return Attack(path, whole or _RESULTS[path], _SHOWN, _RESULTS)


def _info(path: str, whole: bytes, **beside: bytes) -> Attack:
    return Attack(path, whole, [f"data info {{}}/{path}"], beside)


def _named(name: str, path: str, whole: bytes, beside: dict[str, bytes]) -> Attack:
    return Attack(path, whole, [f"data info {name} --data-dir {{}}"], beside)


_IDX, _IDX_LABELS = idx_bytes(_IMAGES), idx_bytes(_LABELS)
_FOUR = {
    f"mnist/{part}-{kind}-ubyte": content
    for part in ("train", "t10k")
    for kind, content in (("images-idx3", _IDX), ("labels-idx1", _IDX_LABELS))
}
_CIFAR10 = {f"cifar-10-batches-bin/{name}": content for name, content in cifar_files().items()}
_RESUME = ("train --run-dir {}/run --resume --data digits --device cpu",)
ATTACKS = {
    "idx images": _named("mnist", "mnist/train-images-idx3-ubyte", _IDX, _FOUR),
    "idx labels": _named("mnist", "mnist/t10k-labels-idx1-ubyte", _IDX_LABELS, _FOUR),
    "idx gzip": _named("mnist", "mnist/train-images-idx3-ubyte.gz", gzip.compress(_IDX), _FOUR),
    "cifar10 archive": _named(
        "cifar10",
        "cifar10/cifar-10-binary.tar.gz",
        tar_bytes(cifar_files(count=2), "cifar-10-batches-bin"),
        {},
    ),
    "cifar10 batch": _named(
        "cifar10",
        "cifar-10-batches-bin/data_batch_3.bin",
        _CIFAR10["cifar-10-batches-bin/data_batch_3.bin"],
        _CIFAR10,
    ),
    "cifar100 archive": _named(
        "cifar100",
        "cifar-100-binary.tar.gz",
        tar_bytes(cifar_files(coarse=True, count=2), "cifar-100-binary"),
        {},
    ),
    "npz": _info("data.npz", _npz()),
    "table": _info("table.csv", _TABLE.encode()),
    "table gzip": _info("table.csv.gz", gzip.compress(_TABLE.encode())),
    "table tabs": _info("table.tsv", _TABLE.replace(",", "\t").encode()),
    "table of numbers": _named(
        "bike",
        "uci/bike/data.csv",
        _TABLE.replace("a", "1.5").replace("b", "2").encode(),
        {"uci/bike/test_mask.csv": _MASK.encode()},
    ),
    "table mask": _named(
        "bike",
        "uci/bike/test_mask.csv",
        _MASK.encode(),
        {"uci/bike/data.csv": _TABLE.replace("a", "1.5").replace("b", "2").encode()},
    ),
    "zip of images": _info("album.zip", zip_bytes(pictures(5))),
    "jpeg": Attack(
        "album/train/cat/0.jpg",
        picture(5),
        ["data info {}/album"],
        {f"album/{name}": content for name, content in pictures(5).items()},
    ),
    "png": Attack(
        "album/train/cat/x.png",
        picture(5, mode="RGBA"),
        ["data info {}/album"],
        {f"album/{name}": content for name, content in pictures(5).items()},
    ),
    "experiment": Attack(
        "small.yaml", _EXPERIMENT.encode(), ["run {}/small.yaml --dry-run --results {}/results"]
    ),
    "cell": _stored(_CELL),
    "curve": _stored(_CURVE),
    "experiment record": _stored("results/experiments/first.json"),
    "heartbeat": _stored("results/running/0123456789abcdef.json", _NOTE),
    "run settings": Attack("run/settings.json", _RUN["run/settings.json"], _RESUME, _RUN),
    "run checkpoint": Attack("run/checkpoint.pt", _RUN["run/checkpoint.pt"], _RESUME, _RUN),
    "published numbers": Attack(
        "paper/reported/first.csv",
        _REPORTED.encode(),
        ["report {}/results -o {}/report --no-figures --paper {}/paper"],
        _RESULTS,
    ),
    "notes": Attack(
        "paper/notes/first.md",
        b"One reason.\n\nAnother.\n",
        ["report {}/results -o {}/report --no-figures --paper {}/paper"],
        _RESULTS,
    ),
}

_NUMBERS = [0, 1, 2, 3, 127, 255, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1]
_PIECES = [
    *(b"\x00", b"\xff" * 4, b"\x1b[2J", b"\n", b"\r\n", b'"', b",", b"=cmd|", b"\xe2\x80\xa8"),
    *(b"[/red]", b"1e999", b"nan", b"-", b"9" * 400, b"\xed\xa0\x80", b": ", b"- ", b"<<: *own"),
]
_TEXTS = [
    *("", "a", "[/red]", "\x1b[2J", "\ud800", "\u2028", "<script>", "$x_{$", "=1+1", "a" * 3000),
    *("../../x", "~nobody/x", "\0", "digits", "accuracy", "rmse", "failed", "0123456789abcdef"),
]
_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 2**31, 2**63, 2**64, 10**400, 0.5, 1e308, -1e308),
    *(float("nan"), float("inf"), [], {}, [[]], [None], ["a"], {"a": 1}, {"": {}}, [1, 2]),
    *_TEXTS,
]


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """The file with a few things wrong, as bytes or as the JSON that it is.

    Args:
        whole: as it should be.
        chance: of which everything here comes.
    """
    try:
        record = json.loads(whole)
    except ValueError:
        record = None
    if isinstance(record, dict) and chance.random() < 0.85:
        for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
            _change_record(record, chance)
        return json.dumps(record).encode()
    content = bytearray(whole)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        _change_bytes(content, chance)
    return bytes(content)


def _change_record(record: Any, chance: random.Random) -> None:
    """Put something else, nothing, or something more into a place of a record."""
    while True:
        below = list(record.keys() if isinstance(record, dict) else range(len(record)))
        if not below:
            return
        at = chance.choice(below)
        inside = record[at]
        if isinstance(inside, dict | list) and inside and chance.random() < 0.75:
            record = inside
            continue
        kind = chance.random()
        if kind < 0.1:
            del record[at]
        elif kind < 0.2 and isinstance(record, dict):
            record[chance.choice(_TEXTS)] = record.pop(at)
        else:
            record[at] = copy.deepcopy(chance.choice(_VALUES))
        return


def _change_bytes(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content) + 1)
    end = min(len(content), at + chance.choice([1, 2, 4, 8, 64]))
    number = chance.choice(_NUMBERS).to_bytes(8, "little")
    ways: list[Callable[[], Any]] = [
        lambda: content.__setitem__(slice(at, at + 1), bytes([chance.randrange(256)])),
        lambda: content.__setitem__(slice(at, at), chance.choice(_PIECES)),
        lambda: content.__delitem__(slice(at, end)),
        lambda: content.__delitem__(slice(at, None)),
        lambda: content.__setitem__(slice(at, at), bytes(content[at:end]) * chance.randrange(1, 9)),
        lambda: content.__setitem__(slice(at, at + 4), number[:4]),
        lambda: content.__setitem__(slice(at, at + 4), number[3::-1]),
    ]
    chance.choice(ways)()
