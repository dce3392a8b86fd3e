"""A store with numbers that are easy to check by hand, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, sync_playwright

from samt.bench.experiments.store import Store
from samt.bench.report.publication import write_report

from ..stored_cells import save_cell, save_experiment

Grid = Mapping[str, Mapping[tuple[int, ...], Sequence[float | None]]]  # label, width, seeds

HOSTILE = "</script><script>document.title='hacked'</script><img src=x onerror=alert(1)>"
HEAD = "data,model,width,method,metric,value,note\n"
# Mean and deviation: SAMT 92 ± 2 and 96 ± 1, sgd 81 ± 1 and one seed that diverged.
ACCURACIES: Grid = {
    "SAMT": {(16,): [0.90, 0.92, 0.94], (64,): [0.95, 0.96, 0.97]},
    "sgd": {(16,): [0.80, 0.81, 0.82], (64,): [0.85, None, 0.87]},
}
PUBLISHED = HEAD + (
    "digits,mlp,16,SAMT,accuracy,93.0,\n"
    "digits,mlp,16,sgd,accuracy,90.0,read off a figure\n"
    "digits,mlp,64,SAMT,accuracy,,not available here\n"
    "digits,mlp,64,sgd,accuracy,95.5,\n"
    "digits,mlp,64,theirs,accuracy,97.0,\n"
    "mnist,mlp,64,SAMT,accuracy,98.3,\n"
)


def save_grid(
    store: Store,
    name: str,
    values: Grid,
    **more: Any,
) -> dict[str, str]:
    """An experiment of methods, widths and seeds; None is a diverged seed.

    Returns:
        The label of each cell, by identity.
    """
    record = {key: more.pop(key) for key in ("title", "absent", "order", "file") if key in more}
    cells = {}
    for label, widths in values.items():
        for width, numbers in widths.items():
            for seed, value in enumerate(numbers):
                status = "finished" if value is not None else "diverged"
                identity = save_cell(
                    store, label, seed, value, status=status, width=width, error=None, **more
                )
                cells[identity] = label
    save_experiment(store, name, cells, **record)
    return cells


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(str(tmp_path / "results"))


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A folder with published numbers and notes for the experiment `table`."""
    folder = tmp_path / "paper"
    write(folder / "reported" / "table.csv", PUBLISHED)
    write(folder / "notes" / "table.md", "The first reason.\n\nThe *second*\nreason.\n")
    return folder


@pytest.fixture
def filled(store: Store) -> Store:
    """With the experiment `table`."""
    save_grid(store, "table", ACCURACIES, absent={"mnist": "its files are not here"})
    return store


def write(path: Path, text: str) -> Path:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def chromium() -> str | None:
    """Path of a Chromium of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    path = chromium()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("CI has no Chromium: .ci/run must install it")
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        # Its sandbox does not start as root, and the only pages here are ours.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page with everything that it did and should not have done.

    Attributes:
        page: of playwright.
        complaints: console messages, errors, dialogs and requests.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []

        def dismiss(dialog: Dialog) -> None:
            self.complaints.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        def request(request: Request) -> None:
            if request.url.split("#")[0] != url and not request.url.startswith(("data:", "blob:")):
                self.complaints.append(f"request: {request.url}")

        page.on("console", lambda message: self.complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", dismiss)
        page.on("request", request)
        page.goto(url)

    def draw_all(self) -> None:
        """Scroll through the page, so that every plot is drawn."""
        for plot in self.page.locator(".plot").all():
            plot.scroll_into_view_if_needed()
            plot.locator(".canvas .main-svg").first.wait_for()


Open = Callable[..., Opened]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a report: `open_page(folder, width=1400, **more)`, `more` for the browser's context."""
    contexts = []

    def opened(folder: Path, width: int = 1400, **more: Any) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        context.set_default_timeout(20_000)
        contexts.append(context)
        return Opened(context.new_page(), (folder / "index.html").resolve().as_uri())

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="package")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two experiments, without figures."""
    folder = tmp_path_factory.mktemp("shown")
    store = Store(str(folder / "results"))
    save_grid(store, "table", ACCURACIES, absent={"mnist": "its files are not here"})
    errors: Grid = {
        f"adam:lr={lr}": {(16,): [value, value + 2]}
        for lr, value in {"0.001": 60.0, "0.01": 54.0, "0.1": 58.0}.items()
    }
    cells = save_grid(store, "tuning", errors, data="diabetes", metric="rmse")
    for identity, label in cells.items():
        set_option(store, identity, "lr", float(label.split("=")[1]))
    write(folder / "paper" / "reported" / "table.csv", PUBLISHED)
    write_report(store, folder / "report", paper=folder / "paper", figures=False)
    return folder / "report"


def set_option(store: Store, identity: str, option: str, value: float) -> None:
    """Change an option of a cell, and nothing else."""
    summary = store.summary(identity)
    assert summary is not None
    summary["cell"]["options"][option] = value
    curve = store.curve(identity).to_dict("records")
    rows = [{**row, "step_sizes": dict(row["step_sizes"])} for row in curve]
    store.save(identity, summary, rows)
