"""The page in headless Chromium: hover, pin, filter, the cap, CSV, phone width, the dark, and axe (`make test-e2e`)."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_pages import make_records, read_payload
from made_records import build_record

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.records.record import read_records
from ffem_jax.reports.html import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

REPOSITORY = Path(__file__).resolve().parents[3]
AXE = REPOSITORY / "applet" / "web" / "node_modules" / "axe-core" / "axe.min.js"
PLACEMENT = REPOSITORY / "results" / "placement" / "records.jsonl"
ATTACK = "<img src=x onerror='document.title=`broken`'><script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not os.environ.get("FFEM_E2E"):
        pytest.skip("the page in a browser is tested by `make test-e2e`")
    pytest.importorskip("playwright.sync_api", reason="pip install -c constraints.txt -e '.[e2e]'")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        pytest.skip("no Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The placement sweep's page; one of made records with an attack in each text; one of two data sets."""
    folder = tmp_path_factory.mktemp("pages")
    paths = {name: folder / f"{name}.html" for name in ("placement", "attacked", "mixed")}
    write_report(read_records(PLACEMENT), paths["placement"], title="placement")
    attacked = make_records()
    for record in attacked:
        record.arch = record.spec["arch"]["name"] = ATTACK + record.arch
        record.error = ATTACK if record.status == "failed" else ""
        record.device = ATTACK
    write_report(attacked, paths["attacked"], title=ATTACK)
    drawn = [build_record(data={"name": "synthetic"}, seed=seed, correct=50 + seed) for seed in (0, 1)]
    write_report([*make_records(), *drawn], paths["mixed"], mixed=True)
    return paths


@pytest.fixture
def open_page(browser: Browser, files: dict[str, Path]) -> Iterator[Any]:
    """Opens a page as a double click does, and fails on anything asked of a network or complained of."""
    contexts, complaints = [], []

    def open_one(name: str, width: int = 1440, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None)
        page.goto(files[name].as_uri())
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


def find_id(page: Page, label: str) -> int:
    (group,) = read_payload(page.content())["groups"]
    return [network["label"] for network in group["networks"]].index(label)


def point_at(page: Page, network: int) -> tuple[float, float]:
    page.locator("#frontier-chart").scroll_into_view_if_needed()
    box = page.locator("#frontier-chart").bounding_box()
    x, y = page.evaluate("(id) => ffemReport.locate(id)", network)
    assert box
    return box["x"] + x, box["y"] + y


def list_front(page: Page) -> list[list[str]]:
    rows = page.locator("#front-table tbody tr")
    return [[cell.strip() for cell in rows.nth(i).locator("td").all_inner_texts()][1:] for i in range(rows.count())]


def expect_front(cap_mb: float, precision: str, against: str = "bytes") -> list[list[str]]:
    """The frontier of the placement sweep as the package finds it, as the page writes it."""
    question = FrontierQuestion(cap_mb, precision, against)
    summaries = sorted(summarize_records(read_records(PLACEMENT)), key=question.get_cost)
    marks = question.mark_frontier(summaries)
    rows = []
    for n in (n for n, marked in zip(summaries, marks, strict=True) if marked):
        ends = [f"{100 * (rate or 0.0):.1f}" for rate in (n.accuracy, n.accuracy_low, n.accuracy_high)]
        size = f"{question.get_bytes(n) / 1e6:.2f}"
        costs = [size] if against == "bytes" else [f"{question.get_cost(n) / 1e6:.2f}", size]
        rows.append([n.label, *costs, f"{ends[0]} [{ends[1]}, {ends[2]}]", str(len(n.seeds))])
    return rows


def test_every_mark_is_at_its_cost_however_close_others_are(open_page: Any) -> None:
    page = open_page("placement")
    page.locator("#frontier-chart").scroll_into_view_if_needed()
    (group,) = read_payload(page.content())["groups"]
    placed = [page.evaluate("(id) => ffemReport.locate(id)?.[0] ?? null", n) for n in range(len(group["networks"]))]
    sizes = {summary.label: summary.bytes_float32 for summary in summarize_records(read_records(PLACEMENT))}
    known = [(sizes[n["label"]], x) for n, x in zip(group["networks"], placed, strict=True) if x is not None]
    assert len(known) == len(sizes)
    (low, left), *_, (high, right) = sorted(known)
    for size, x in known:
        assert x == pytest.approx(left + (right - left) * (size - low) / (high - low), abs=0.01)


def test_hovering_tells_and_clicking_pins(open_page: Any) -> None:
    page = open_page("placement")
    network = find_id(page, "SE last")
    page.mouse.move(*point_at(page, network))
    page.wait_for_selector("#tip:not([hidden])")
    tip = page.locator("#tip").inner_text()
    assert "SE last" in tip
    assert "73.7 [68.6, 78.3] %" in tip
    assert "2,316,668" in tip
    page.mouse.click(*point_at(page, network))
    card = page.locator(f'.card[data-network="{network}"]')
    card.wait_for()
    text = card.inner_text()
    assert "SE in block 13" in text
    assert "ffem train arch=ffem arch.attention.kind=se arch.attention.placement=last data=lfw52" in text
    assert re.search(r"ffem export SWEEP/ffem-se-last-seed0-\w{16} --format tfjs", text)
    page.locator("#curves-chart").scroll_into_view_if_needed()
    page.wait_for_selector("#curves-legend span")
    assert page.locator("#curves-legend").inner_text().strip() == "SE last"
    page.mouse.click(*point_at(page, network))
    assert page.locator(".card").count() == 0


@pytest.mark.parametrize(("cap", "precision"), [(10, "float32"), (9, "float32"), (4.43, "float16"), (2.0, "int8")])
def test_the_cap_and_the_precision_move_the_frontier(open_page: Any, cap: float, precision: str) -> None:
    page = open_page("placement")
    page.click(f'#precision [data-value="{precision}"]')
    page.fill("#cap", str(cap))
    wanted = expect_front(cap, precision)
    page.wait_for_function("(n) => document.querySelectorAll('#front-table tbody tr').length === n", arg=len(wanted))
    assert list_front(page) == wanted
    fitting = sum(
        n.accuracy is not None and FrontierQuestion(cap, precision).fits(n)
        for n in summarize_records(read_records(PLACEMENT))
    )
    assert page.locator("#verdict").inner_text().startswith(f"{fitting} of 8 trained networks")


def test_another_cost_is_another_frontier(open_page: Any) -> None:
    page = open_page("placement")
    page.click('#against [data-value="params"]')
    page.wait_for_function("document.querySelector('#front-table th.number').textContent.includes('parameters')")
    assert list_front(page) == expect_front(10, "float32", "params")


def test_a_filter_holds_for_table_charts_and_csv(open_page: Any, tmp_path: Path) -> None:
    page = open_page("placement")
    page.select_option("#filters select >> nth=1", "se")
    page.fill("#filter-text", "last")
    page.wait_for_function("document.querySelector('#table-count').textContent.startsWith('4 of 18')")
    assert {row[0].partition(" ")[0] for row in list_front(page)} == {"SE"}
    assert page.locator("#frontier .filtered").inner_text().startswith("Filtered: 2 of 9 networks.")
    with page.expect_download() as download:
        page.click("#csv")
    download.value.save_as(tmp_path / "trials.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text(encoding="utf-8-sig"))))
    by_key = {record.trial_key: record for record in read_records(PLACEMENT)}
    assert len(rows) == 4
    for row in rows:
        record = by_key[row["trial_key"]]
        assert (int(row["seed"]), row["attention.kind"]) == (record.seed, "se")
        assert "last" in row["attention.placement"]
        assert int(row["bytes_int8"]) == record.bytes_int8
        assert (
            row["accuracy"] == "" if record.accuracy is None else abs(float(row["accuracy"]) - record.accuracy) < 1e-6
        )
    page.locator("#frontier .clear").click()
    page.wait_for_function("document.querySelector('#table-count').textContent.startsWith('18 of 18')")


def test_the_table_sorts_by_the_keyboard(open_page: Any) -> None:
    page = open_page("placement")
    page.focus('[data-sort="accuracy"]')
    page.keyboard.press("Enter")
    first = page.locator("#trial-table tbody tr").first.inner_text()
    best = max((r for r in read_records(PLACEMENT) if r.accuracy), key=lambda r: r.accuracy or 0.0)
    assert best.trial_key in first
    assert page.evaluate("document.activeElement.dataset.sort") == "accuracy"
    page.locator("#trial-table tbody [data-pin]").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".card").count() == 1
    assert page.evaluate("document.activeElement.dataset.pin") is not None


def test_text_of_records_stays_text(open_page: Any) -> None:
    page = open_page("attacked")
    page.locator("#front-table [data-pin]").first.click()
    page.locator("#trials").scroll_into_view_if_needed()
    page.mouse.move(*point_at(page, 2))
    page.wait_for_timeout(300)
    assert "broken" not in page.evaluate("document.title").replace(ATTACK, "")
    assert page.locator("img").count() == 0
    assert ATTACK in page.locator("#untrained").inner_text()


def test_data_sets_are_shown_one_at_a_time(open_page: Any) -> None:
    page = open_page("mixed")
    assert page.locator("#groups button").count() == 2
    assert page.locator("#table-count").inner_text() == "10 of 10 trials"
    page.click("#groups button >> nth=1")
    page.wait_for_function("document.querySelector('#table-count').textContent === '2 of 2 trials'")
    assert page.locator("#front-table tbody tr").count() == 1


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_and_axe_finds_nothing_serious(open_page: Any, width: int, dark: bool) -> None:
    if not AXE.is_file():
        pytest.skip("no axe-core: npm install in applet/web")
    page = open_page("placement", width, dark)
    page.locator("#front-table [data-pin]").last.click()
    for part in page.locator("main > section").all():
        part.scroll_into_view_if_needed()
        page.wait_for_timeout(150)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations)")
    told = [(one["id"], one["impact"], [node["html"][:120] for node in one["nodes"]][:3]) for one in found]
    assert told == [], json.dumps(told, indent=1)
    if folder := os.environ.get("FFEM_E2E_SHOTS"):
        page.screenshot(path=f"{folder}/report-{width}-{'dark' if dark else 'light'}.png", full_page=True)


def test_printed_it_shows_every_chart(open_page: Any) -> None:
    page = open_page("placement")
    charts = ("#curves-chart", "#coordinates-chart", "#progress-chart", "#level-0", "#level-1")
    drawn = {chart: page.locator(f"{chart} svg").count() for chart in charts}
    assert 0 in drawn.values(), "all charts are drawn before printing: this test shows nothing"
    page.pdf()
    assert [page.locator(f"{chart} svg").count() for chart in charts] == [1] * len(charts)
