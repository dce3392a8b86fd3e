"""The page as people use it: in a browser, by mouse, by keyboard, on a phone, on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator

from samt.bench.experiments.store import Store
from samt.bench.report.publication import write_report

from ..stored_cells import save_cell, save_experiment
from .conftest import HEAD, HOSTILE, Grid, Open, Opened, save_grid, set_option, write

_WIDTH = "document.documentElement.scrollWidth"


def _plot(opened: Opened, kind: str, index: int = 0) -> Locator:
    plot = opened.page.locator(f".plot[data-plot={kind}]").nth(index)
    plot.scroll_into_view_if_needed()
    plot.locator(".canvas .main-svg").first.wait_for()
    return plot


def _drawn(plot: Locator) -> dict[str, Any]:
    """What plotly shows: traces, axis titles and types."""
    script = """node => ({
        names: node.data.filter(t => t.mode !== "lines" || t.fill === undefined).map(t => t.name),
        traces: node.data.length,
        x: node.layout.xaxis.title.text, y: node.layout.yaxis.title.text,
        xtype: node._fullLayout.xaxis.type, ytype: node._fullLayout.yaxis.type,
        ends: node.data.map(t => t.x[t.x.length - 1]),
        looks: Object.fromEntries(node.data.filter(t => t.mode === "lines+markers").map(t =>
            [t.name, [t.line.color, t.line.dash, t.marker.symbol]])),
        yticks: [...node.querySelectorAll(".ytick text")].map(t => t.textContent),
        low: node._fullLayout.yaxis.range[0],
        dotted: node.data.filter(t => t.line && t.line.dash === "dot").map(t => t.y[0]),
        ink: node._fullLayout.font.color,
    })"""
    drawn: dict[str, Any] = plot.locator(".canvas").evaluate(script)
    return drawn


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 800, 1400])
def test_it_fits_and_complains_of_nothing(
    shown: Path, open_page: Open, width: int, scheme: str
) -> None:
    opened = open_page(shown, width, color_scheme=scheme)
    opened.draw_all()
    assert opened.page.evaluate(_WIDTH) == width
    assert opened.page.locator(".plot").count() == 5
    assert opened.complaints == []


def test_wide_tables_scroll_in_their_own_box(open_page: Open, store: Store, tmp_path: Path) -> None:
    widths: dict[tuple[int, ...], list[float | None]] = {
        (size,): [0.9, 0.91] for size in range(100, 1100, 100)
    }
    label = "samt:step_size=element,meta_lr=0.1,projection=sigmoid,head=dense"
    save_grid(store, "wide", {label: widths}, data="a-data-set-with-a-very-long-name-indeed")
    write_report(store, tmp_path / "report", figures=False)
    opened = open_page(tmp_path / "report", 400)
    opened.draw_all()
    assert opened.page.evaluate(_WIDTH) == 400
    box = opened.page.locator(".table-box", has=opened.page.locator(".numbers")).first
    assert box.evaluate("node => node.scrollWidth > node.clientWidth")
    assert box.get_attribute("tabindex") == "0"


def test_keys_of_the_legend_hide_and_show_methods(shown: Path, open_page: Open) -> None:
    opened = open_page(shown)
    plot = _plot(opened, "curves")
    before = _drawn(plot)
    key = plot.get_by_role("button", name="SAMT")
    assert key.get_attribute("aria-pressed") == "true"
    key.click()
    after = _drawn(plot)
    assert "SAMT" in before["names"]
    assert "SAMT" not in after["names"]
    assert after["traces"] < before["traces"]
    assert plot.get_by_role("button", name="SAMT").get_attribute("aria-pressed") == "false"
    plot.get_by_role("button", name="SAMT").click()
    assert _drawn(plot) == before


def test_axes_and_metrics_switch(shown: Path, open_page: Open) -> None:
    plot = _plot(open_page(shown), "curves")
    epochs = _drawn(plot)
    assert (epochs["x"], epochs["y"]) == ("epochs", "test accuracy in %")
    assert max(epochs["ends"]) == 2
    for axis, title, end in [
        ("passes", "forward and backward passes", 100),
        ("updates", "parameter updates", 40),
        ("seconds", "seconds of training", 1.0),
    ]:
        plot.get_by_role("button", name=axis).click()
        drawn = _drawn(plot)
        assert drawn["x"] == title
        assert max(drawn["ends"]) == end
    plot.get_by_role("button", name="train loss").click()
    drawn = _drawn(plot)
    assert (drawn["y"], drawn["ytype"], drawn["dotted"]) == ("train loss", "log", [])
    assert plot.get_by_role("button", name="train loss").get_attribute("aria-pressed") == "true"
    assert plot.get_by_role("button", name="test metric").get_attribute("aria-pressed") == "false"


def test_published_levels_are_dotted_lines_of_their_place(shown: Path, open_page: Open) -> None:
    plot = _plot(open_page(shown), "curves")
    assert _drawn(plot)["dotted"] == [93, 90]
    plot.locator("[data-control=width]").select_option("64")
    assert _drawn(plot)["dotted"] == [95.5, 97]
    assert "1 of 3 diverged" in plot.locator(".keys").inner_text()
    assert "published only" in plot.locator(".keys").inner_text()


def test_hovering_tells_the_numbers(shown: Path, open_page: Open) -> None:
    plot = _plot(open_page(shown), "curves")
    plot.locator(".nsewdrag").hover()
    texts = plot.locator(".hoverlayer")
    texts.locator("text").first.wait_for()
    assert "92.00 ± 2.00" in " ".join(texts.all_text_contents())


def test_dependences_stand_on_a_logarithmic_axis(shown: Path, open_page: Open) -> None:
    drawn = _drawn(_plot(open_page(shown), "sensitivity"))
    assert (drawn["x"], drawn["y"], drawn["xtype"]) == ("lr", "test RMSE", "log")
    assert drawn["names"] == ["adam"]


def test_step_sizes_of_each_block(shown: Path, open_page: Open) -> None:
    plot = _plot(open_page(shown), "steps")
    assert _drawn(plot)["names"] == ["hidden1"]
    assert _drawn(plot)["ytype"] == "log"
    plot.get_by_role("button", name="linear").click()
    assert _drawn(plot)["ytype"] == "linear"
    plot.locator("[data-control=method]").select_option("sgd")
    assert "sgd" not in _drawn(plot)["names"]  # lines are blocks


def _with_step_sizes(store: Store, sizes: dict[str, list[float]]) -> None:
    """An experiment whose methods took these step sizes, one for each evaluation."""
    cells = save_grid(store, "steps", {label: {(): [0.8, 0.9]} for label in sizes})
    for identity, label in cells.items():
        summary = store.summary(identity)
        assert summary is not None
        both = zip(store.curve(identity).to_dict("records"), sizes[label], strict=True)
        rows = [{**row, "step_sizes": {"hidden1": size}} for row, size in both]
        store.save(identity, summary, rows)


def test_step_sizes_begin_with_a_method_that_moves_them(
    open_page: Open, store: Store, tmp_path: Path
) -> None:
    _with_step_sizes(
        store, {"flat": [0.03] * 3, "moving": [0.06, 0.1, 0.2], "cosine": [0.3, 0.1, 2e-9]}
    )
    write_report(store, tmp_path / "report", figures=False)
    plot = _plot(open_page(tmp_path / "report"), "steps")
    method = plot.locator("[data-control=method]")
    assert method.input_value() == "moving"
    method.select_option("flat")
    assert _drawn(plot)["yticks"] == ["0.005", "0.01", "0.02", "0.05", "0.1", "0.2"]
    method.select_option("cosine")
    assert 1e-5 < 10 ** _drawn(plot)["low"] < 1e-4, "four decades, not nine"
    plot.get_by_role("button", name="linear").click()
    assert _drawn(plot)["ytype"] == "linear"


def test_controls_without_a_choice_are_hidden(
    open_page: Open, store: Store, tmp_path: Path
) -> None:
    save_grid(store, "plain", {"samt": {(): [0.9, 0.92]}})
    write_report(store, tmp_path / "report", figures=False)
    plot = _plot(open_page(tmp_path / "report"), "curves")
    assert plot.locator("[data-control=where]").is_visible()
    assert plot.locator("[data-control=width]").is_hidden()


def test_a_method_looks_the_same_in_every_plot(
    open_page: Open, store: Store, tmp_path: Path
) -> None:
    pair = {"one": ["mine", "SGD", "SAMT-E"], "two": ["SAMT-E", "SGD", "Adam", "fixed step"]}
    for name, labels in pair.items():
        save_grid(store, name, {label: {(16,): [0.8, 0.9]} for label in labels}, host=name)
    values: Grid = {f"SGD:lr={lr}": {(16,): [0.8, 0.9]} for lr in (1, 2, 3)}
    cells = save_grid(store, "varied", {"Adam": {(16,): [0.8, 0.9]}, **values})
    for identity, label in cells.items():
        set_option(store, identity, "lr", float(label.partition("=")[2] or 1))
    write_report(store, tmp_path / "report", figures=False)
    opened = open_page(tmp_path / "report")
    one, two = (_drawn(_plot(opened, "curves", index))["looks"] for index in (0, 1))
    for label in ("SGD", "SAMT-E"):
        assert one[label] == two[label]
    assert len({tuple(look) for look in two.values()}) == len(pair["two"])
    assert _drawn(_plot(opened, "sensitivity"))["looks"]["SGD"] == one["SGD"]
    steps = _plot(opened, "steps")
    steps.locator("[data-control=method]").select_option("SGD")
    assert _drawn(steps)["looks"]["hidden1"][0] == one["SGD"][0], "colour is the method"


def test_themes(shown: Path, open_page: Open) -> None:
    opened = open_page(shown, color_scheme="dark")
    page = opened.page
    ground = "getComputedStyle(document.body).backgroundColor"
    plot = _plot(opened, "curves")
    dark, dark_ink = page.evaluate(ground), _drawn(plot)["ink"]
    button = page.locator("[data-setting=theme]")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    light, light_ink = page.evaluate(ground), _drawn(plot)["ink"]
    assert (dark, light) == ("rgb(22, 24, 27)", "rgb(253, 253, 251)")
    assert dark_ink != light_ink
    assert button.get_attribute("aria-pressed") == "false"
    page.reload()
    assert page.evaluate(ground) == light, "the choice is remembered"
    assert opened.complaints == []


def test_the_system_changes_its_mind(shown: Path, open_page: Open) -> None:
    opened = open_page(shown, color_scheme="light")
    plot = _plot(opened, "curves")
    before = _drawn(plot)["ink"]
    opened.page.emulate_media(color_scheme="dark")
    opened.page.wait_for_function(
        "ink => document.querySelector('.canvas')._fullLayout.font.color !== ink", arg=before
    )


def test_final_and_best(shown: Path, open_page: Open) -> None:
    page = open_page(shown).page
    caption = page.locator(".numbers caption").first
    assert "final test accuracy" in " ".join(caption.inner_text().split())
    page.get_by_role("button", name="best", exact=True).click()
    assert "best test accuracy" in " ".join(caption.inner_text().split())


def test_by_keyboard_alone(shown: Path, open_page: Open) -> None:
    opened = open_page(shown)
    page = opened.page
    focused = "document.activeElement"
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.id") == "content"
    page.keyboard.press("Tab")  # the first table, which can be scrolled
    assert page.evaluate(f"{focused}.className") == "table-box"
    assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
    plot = _plot(opened, "curves")
    plot.get_by_role("button", name="passes").focus()
    page.keyboard.press("Space")
    assert _drawn(plot)["x"] == "forward and backward passes"
    plot.get_by_role("button", name="sgd").focus()
    page.keyboard.press("Enter")
    assert "sgd" not in _drawn(plot)["names"]
    assert page.evaluate(f"{focused}.textContent") == "sgd", "the focus stays where it was"


def test_hostile_names_are_inert(open_page: Open, store: Store, tmp_path: Path) -> None:
    link = '<a href="javascript:alert(1)">%{x}</a>'
    values: Grid = {HOSTILE: {(16,): [0.9, 0.91]}, link: {(16,): [0.8, 0.81]}}
    save_grid(store, "hostile", values, title=HOSTILE, data=HOSTILE)
    write_report(store, tmp_path / "report", figures=False)
    opened = open_page(tmp_path / "report")
    opened.draw_all()
    page = opened.page
    assert page.title() != "hacked"
    assert page.locator("img").count() == 0
    plot = _plot(opened, "curves")
    assert HOSTILE in plot.locator(".keys").inner_text()
    plot.locator(".nsewdrag").hover()
    plot.locator(".hoverlayer text").first.wait_for()
    hover = " ".join(plot.locator(".hoverlayer").all_text_contents())
    assert HOSTILE in hover
    assert link in hover
    assert page.locator(".hoverlayer a").count() == 0
    assert opened.complaints == []


def test_no_text_of_a_result_is_more_than_text(
    open_page: Open, store: Store, tmp_path: Path
) -> None:
    hostile = f"{HOSTILE}\"'&amp;\u2028${{document.title='hacked'}}{{{{7*7}}}}<!--"
    machine = dict.fromkeys(("host", "platform", "cpu", "device"), hostile)
    more: dict[str, Any] = {
        "data": hostile,
        "machine": machine,
        "versions": dict.fromkeys(("samt", "torch", "numpy", "python"), hostile),
        "commit": hostile,
        "started": hostile,
    }
    cells = save_grid(store, "t", {hostile: {(16,): [0.9, 0.91]}, "b": {(16,): [0.8, 0.8]}}, **more)
    cells[save_cell(store, hostile, 9, 0.5, status="failed", **{**more, "error": hostile})] = (
        hostile
    )
    record = dict.fromkeys(("title", "file", "profile", "command"), hostile)
    save_experiment(store, "t", cells, absent={hostile: hostile}, **record)
    (tmp_path / "results" / "cells" / f"{'0' * 16}.json").write_text("<script>")
    field = '"' + hostile.replace('"', '""') + '"'
    write(
        tmp_path / "paper" / "reported" / "t.csv",
        f"{HEAD}{field},mlp,16,{field},accuracy,9,{field}\n",
    )
    write(tmp_path / "paper" / "notes" / "t.md", hostile)
    write_report(store, tmp_path / "report", paper=tmp_path / "paper", figures=False)
    opened = open_page(tmp_path / "report")
    opened.draw_all()
    page = opened.page
    assert opened.complaints == []
    assert page.title() == "Results of SAMT, beside the published ones"
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3  # numbers, plotly, ours
    text = page.locator("main").inner_text()
    assert text.count("</script><script>document.title='hacked'</script>") > 10
    assert "${document.title='hacked'}{{7*7}}<!--" in text


def test_on_paper(shown: Path, open_page: Open, tmp_path: Path) -> None:
    opened = open_page(shown, color_scheme="dark")
    page = opened.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator(".controls").first.is_hidden()
    assert page.locator("main details:not([open])").count() == 0
    assert page.locator(".canvas .main-svg").count() >= 5
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 30, 33)"
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(231, 230, 226)"
    assert page.locator("main details:not([open])").count() > 0
    assert page.pdf().startswith(b"%PDF")
    assert opened.complaints == []


def test_a_wide_table_does_not_shrink_the_paper(
    open_page: Open, store: Store, tmp_path: Path
) -> None:
    sizes = (100, 200, 300, 400, 500, 600, 800)
    widths: dict[tuple[int, ...], list[float | None]] = {(n,): [0.9, 0.91, 0.92] for n in sizes}
    label = "samt:step_size=element,meta_lr=0.1,projection=sigmoid,head=dense"
    save_grid(store, "wide", {label: widths, "mDLAM": widths})
    published = "".join(f"digits,mlp,{n},mDLAM,accuracy,50.1,\n" for n in sizes)
    write(tmp_path / "paper" / "reported" / "wide.csv", HEAD + published)
    write_report(store, tmp_path / "report", paper=tmp_path / "paper", figures=False)
    opened = open_page(tmp_path / "report", 688)  # A4 within our margins
    page = opened.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate(_WIDTH) == 688
    first = page.locator(".numbers tbody th").first
    ground = "node => [getComputedStyle(node).position, getComputedStyle(node).backgroundColor]"
    assert first.evaluate(ground) == ["static", "rgba(0, 0, 0, 0)"], "the rules show"


def test_printed_plots_say_what_they_show(shown: Path, open_page: Open) -> None:
    opened = open_page(shown)
    curves, steps = _plot(opened, "curves"), _plot(opened, "steps")
    curves.locator("[data-control=width]").select_option("64")
    steps.locator("[data-control=method]").select_option("sgd")
    assert curves.locator(".where").is_hidden()
    opened.page.emulate_media(media="print")
    assert curves.locator(".where").inner_text() == "digits, mlp, width 64"
    assert steps.locator(".where").inner_text() == "digits, mlp, width 16, sgd"


def test_a_difference_says_where_the_number_lies(
    open_page: Open, store: Store, tmp_path: Path
) -> None:
    save_grid(store, "t", {name: {(16,): [0.90, 0.91]} for name in ("a", "b", "c")})
    lines = ("a,accuracy,80", "b,accuracy,99", "c,accuracy,90.5")
    published = "".join(f"digits,mlp,16,{line},\n" for line in lines)
    write(tmp_path / "paper" / "reported" / "t.csv", HEAD + published)
    write_report(store, tmp_path / "report", paper=tmp_path / "paper", figures=False)
    page = open_page(tmp_path / "report").page
    cells = page.locator(".numbers .pick-final .verdict").all_inner_texts()
    assert cells == ["+10.50, higher", "−8.50, lower", "±0.00, agrees"]
    gaps = page.locator("[id$=gaps] .verdict").all_inner_texts()
    assert sorted(gaps) == ["+10.50, higher", "−8.50, lower"]


def test_without_scripts_the_tables_are_there(shown: Path, open_page: Open) -> None:
    opened = open_page(shown, 400, java_script_enabled=False)
    page = opened.page
    assert page.locator("noscript p").is_visible()
    assert page.get_by_text("92.00 ± 2.00").first.is_visible()


def test_a_finger_scrolls_and_does_not_zoom(shown: Path, open_page: Open) -> None:
    plot = _plot(open_page(shown, 400, has_touch=True, is_mobile=True), "curves")
    assert plot.locator(".canvas").evaluate("node => node._fullLayout.dragmode") is False


def test_reduced_motion(shown: Path, open_page: Open) -> None:
    page = open_page(shown, reduced_motion="reduce").page
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
