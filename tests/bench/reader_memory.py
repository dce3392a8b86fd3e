"""Measures what readers of files take: run as `python -m tests.bench.reader_memory FOLDER`.

For each format a process is forked from this one, in which everything is imported; it reads the
whole file once, and then measures each file that somebody made to hurt. Prints lines of JSON.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from .attacks import ATTACKS, Attack, mutated

_UNPACKED = 96 << 20  # of a bomb
_LARGE = 4 << 20  # of a text
_MUTATED = 1


def _zip(name: str, head: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(name, head + bytes(_UNPACKED))
    return buffer.getvalue()


def _npy(shape: str) -> bytes:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(_UNPACKED))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def hurting(attack: Attack) -> Iterator[tuple[str, bytes]]:
    """Files that take much memory, or seem to, in the place of one."""
    path, whole = attack.path, attack.whole
    for seed in range(_MUTATED):
        yield f"mutated {seed}", mutated(whole, random.Random(seed))
    if path.endswith(".gz"):
        yield "gzip of zeros", gzip.compress(bytes(_UNPACKED), 1)
        yield "gzip of short lines", gzip.compress(b"1,2\n" * (_UNPACKED // 3), 9)
    if path.endswith((".zip", ".npz", ".pt")):
        inside = {"zip": "train/a/0.png", "npz": "x.npy", "pt": "checkpoint/data.pkl"}
        ending = path.rpartition(".")[2]
        yield "zip of zeros", _zip(inside[ending], _npy("(12582912,)") if ending == "npz" else b"")
    if path.endswith(".npz"):
        yield "lying header", _zip("x.npy", _npy("(9999999999999,)"))
    if path.endswith((".png", ".jpg")):
        yield "picture of zeros", _png(8192, 8192)
    if path.endswith((".json", ".yaml")):
        yield "empty lists", b"[" + b"[]," * (_LARGE // 6) + b"[]]"
        yield "one text", b'"' + b"a" * _LARGE + b'"'
    if path.endswith((".csv", ".tsv", ".md")):
        yield "commas", b"," * _LARGE
        yield "short lines", b"1,2\n" * (_LARGE // 4)
        yield "one text", b"a" * _LARGE
    if "ubyte" in path or path.endswith((".bin", ".parquet")):
        yield "zeros", bytes(_LARGE)
        yield "whole, then zeros", whole + bytes(_LARGE)


def _resident(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split(field + ":")[1].split()[0]) * 1024


def _measure(name: str, folder: Path) -> None:
    attack = ATTACKS[name]
    path = attack.prepare(folder)
    for number in range(len(attack.commands)):
        attack.run(folder, number)
    files = [("whole", attack.whole), *hurting(attack)]
    for kind, content in files:
        path.write_bytes(content)
        size = len(content)
        del content
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
        attack.run(folder, 0)
        print(json.dumps([name, kind, _resident("VmHWM") - before, size]), flush=True)  # noqa: T201


def main() -> None:
    """Measure every format."""
    warnings.simplefilter("error")
    for name in ATTACKS:
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0, name
            continue
        folder = Path(sys.argv[1], name.replace(" ", "-"))
        folder.mkdir()
        os.environ["SAMT_CACHE_DIR"] = str(folder / "cache")
        os.environ.pop("SAMT_DATA_DIR", None)
        _measure(name, folder)
        os._exit(0)


if __name__ == "__main__":
    main()
