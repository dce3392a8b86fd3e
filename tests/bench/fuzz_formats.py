"""Coverage-guided attacks, by hand and for hours, with `pip install atheris`.

    python -m tests.bench.fuzz_formats NAME -max_total_time=3600

NAME is a key of `ATTACKS`, and what follows are options of libFuzzer. A finding is left as a file.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["samt.bench"]):
    from samt.bench.data import load
    from samt.bench.errors import UserError
    from samt.bench.experiments.files import load_experiment

    from .attacks import ATTACKS, Attack, mutated


def read(attack: Attack, folder: Path, number: int) -> None:
    """Run a command; or only its reader where that alone sees the file, which is far quicker."""
    words = attack.commands[0].replace("{}", str(folder)).split()
    with contextlib.suppress(UserError):
        if words[:2] == ["data", "info"]:
            load(words[2], folder)
        elif words[0] == "run":
            load_experiment(Path(words[1]))
        else:
            attack.run(folder, number)


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
            read(attack, Path(folder), len(content))

        atheris.Setup([*sys.argv, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
