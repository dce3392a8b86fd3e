"""Coverage-guided attacks by hand, for hours: python -m tests.bench.fuzz_formats NAME [libFuzzer's options]

NAME is a key of `ATTACKS`. It needs `pip install atheris`. A finding is left as a file crash-*.
"""  # noqa: E501

from __future__ import annotations

import os
import random
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["samt.bench"]):
    from .attacks import ATTACKS, mutated


def main() -> None:
    """Attack one format until libFuzzer is told to stop."""
    name = sys.argv.pop(1)
    attack = ATTACKS[name]
    warnings.simplefilter("error")
    os.environ.pop("SAMT_DATA_DIR", None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SAMT_CACHE_DIR"] = f"{folder}/cache"
        path = attack.prepare(Path(folder))
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        (corpus / "whole").write_bytes(attack.whole)
        for seed in range(30):
            (corpus / str(seed)).write_bytes(mutated(attack.whole, random.Random(seed)))

        def one(content: bytes) -> None:
            path.write_bytes(content)
            attack.run(Path(folder), len(content))

        atheris.Setup([*sys.argv, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
