"""The process that tests of faults fork their victims from: it has imported everything.

Reads orders, JSON in lines, from its standard input; answers with exit codes. The environment of an
order arms the library `faults.c`, which is preloaded here and in all that a victim starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import traceback
from typing import Any

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


def main() -> None:
    """Serve until the standard input ends."""
    import torch
    import torch._dynamo

    # What commands import when they are called.
    import samt.bench.cli
    import samt.bench.report.figures
    import samt.bench.report.publication  # noqa: F401
    from samt.bench.data import load

    load("digits", None)
    torch.set_num_threads(1)
    # Those that a killed victim has started become children of this process.
    assert ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0) == 0
    for line in sys.stdin:
        order = json.loads(line)
        victim = os.fork()
        if victim == 0:
            _live(order)
        _, status = os.waitpid(victim, 0)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _live(order: dict[str, Any]) -> None:
    """The life of a victim; never returns."""
    code = 70
    try:
        for number, path in enumerate((os.devnull, order["out"], order["err"])):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, flags), number)
        os.environ.update(order["environment"])
        ctypes.CDLL(None).fault_arm()
        code = _do(order["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _do(arguments: list[Any]) -> int:
    """A command line of samt."""
    from samt.bench.cli import main as samt

    try:
        samt(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    raise AssertionError("samt always ends with a code")


if __name__ == "__main__":
    main()
