"""The stores of the suite: `python -m samt.bench.suite export | merge`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from samt.bench.errors import UserError
from samt.bench.suite.store import Store, export, load
from samt.bench.terminal import complain, say


def main() -> int:
    """Copy runs out of a store, or into one."""
    parser = argparse.ArgumentParser("python -m samt.bench.suite", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    out = actions.add_parser("export", help="write all runs of STORE into FILE (.jsonl, .jsonl.gz)")
    out.add_argument("store", type=Path)
    out.add_argument("file", type=Path)
    into = actions.add_parser("merge", help="add the runs of FILES, exported or stores, to STORE")
    into.add_argument("store", type=Path)
    into.add_argument("files", type=Path, nargs="+")
    words = parser.parse_args()
    try:
        with Store(words.store, writing=words.action == "merge") as store:
            if words.action == "export":
                say(f"{export(store, words.file)} runs in {words.file}")
                return 0
            for file in words.files:
                say(f"{load(store, file)} runs of {file}")
            say(f"{len(store.rows())} runs in {words.store}")
            return 0
    except (UserError, OSError) as error:
        complain(f"samt: error: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
