"""Memory: reading a file takes a few times what it holds when it is decoded, and no more."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .conftest import ENVIRONMENT
from .data_files import cifar_files, encoded, tar_bytes, write_all, zip_bytes
from .idx_files import write_images

# Each set is loaded in a process that is forked after everything heavy was imported, so that the
# growth of its largest resident size is what loading took.
MEASURE = """
import json, os, sys
from pathlib import Path
import pandas, sklearn.model_selection, sklearn.preprocessing
from samt.bench.data import load

def resident(field):
    text = Path("/proc/self/status").read_text()
    return int(text.split(field + ":")[1].split()[0]) * 1024

for name in sys.argv[2:]:
    sys.stdout.flush()
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        continue
    for small in ("small.csv", "small.npz"):  # pages of libraries, which a fork does not inherit
        load(str(Path(sys.argv[1]) / small), None)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    data = load(name, Path(sys.argv[1]))
    size = sum(t.numel() * t.element_size() for part in data.parts.values() for t in part.tensors())
    print(json.dumps([name, resident("VmHWM") - before, size]))
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_loading_takes_a_few_times_the_data(tmp_path: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    numbers = random.normal(size=(120_000, 20))
    np.savez(tmp_path / "small.npz", x=numbers[:50], y=numbers[:50, 0])
    (tmp_path / "small.csv").write_text("1.5,2.5,a\n3.5,4.5,b\n" * 50)
    np.savez_compressed(tmp_path / "arrays.npz", x=numbers, y=numbers[:, 0])
    np.savez(tmp_path / "images.npz", x=random.integers(0, 255, (20_000, 28, 28), dtype=np.uint8),
             y=np.arange(20_000) % 10)  # fmt: skip
    lines = [",".join(f"{value:.6g}" for value in row) for row in numbers]
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode(), 1))
    write_images(tmp_path / "mnist", train=30_000, test=5000, size=28)
    archive = tar_bytes(cifar_files(count=800), "cifar-10-batches-bin")
    write_all(tmp_path / "cifar10", {"cifar-10-binary.tar.gz": archive})
    pictures = {}
    for index in range(60):
        image = Image.fromarray(random.integers(0, 255, (256, 256, 3), dtype=np.uint8))
        name = f"{'train' if index % 3 else 'test'}/{'ab'[index % 2]}/{index}.jpg"
        pictures[name] = encoded(image, "JPEG")
    write_all(tmp_path, {"album.zip": zip_bytes(pictures)})
    own = ("arrays.npz", "images.npz", "table.csv.gz", "album.zip")
    names = ["mnist", "cifar10", *(str(tmp_path / name) for name in own)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), *names],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(measured) == len(names)
    for name, grown, tensors in measured:
        # Numbers stand in these two files as float64, or become it; the tensors are float32.
        decoded = 2 * tensors if name.endswith(("arrays.npz", "table.csv.gz")) else tensors
        assert decoded > 8 << 20, name  # so that what the interpreter does beside it is small
        # A measured 0 would mean that nothing was measured.
        most = 5 if name.endswith(".csv.gz") else 3  # pandas has columns of its own beside them
        assert 0.5 < grown / decoded < most, (name, grown, decoded)
