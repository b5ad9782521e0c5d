"""How fast a page of 5,000 trials opens and filters in Chromium. The trials are made up: only their number matters.

    python -m benchmarks.report_page              writes results/speed/report_page.md; needs the extra e2e and Chromium

Times are CPU time of the page's main thread and elapsed time: other work on the machine delays what a reader sees, but
adds nothing to the page's CPU time. The page also reports the load from other work.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness, report
from ffem_jax.latency.turns import measure_busy_cores
from ffem_jax.metrics import compute_wilson_interval
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.html import write_report
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec, StageSpec
from ffem_jax.specs.trial import DataSpec, TrialSpec, to_plain

TRIALS, TESTED, EPOCHS, ROUNDS = 5000, 312, 30, 5
FILTERS = (("#filter-text", "eca last"), ("#filter-text", "0.5"), ("#filter-rate", "60"), ("#filter-text", ""))
APPLY = """async ([selector, value]) => {
  document.querySelector(selector).value = value;
  const started = performance.now();
  await ffemReport.applyFilter();
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  return performance.now() - started;
}"""


def make_record(draw: random.Random, number: int) -> TrialRecord:
    """Make up a trial of a new network, with curves over EPOCHS epochs; a few are over the cap, a few failed."""
    stages = tuple(
        StageSpec(draw.choice((2, 4, 6)), draw.choice((16, 24, 32, 48)) * place, draw.choice((1, 2, 3)), 2)
        for place in (1, 2, 3, 4)
    )
    attention = AttentionSpec(draw.choice(("none", "eca", "se")), draw.choice(("first", "last", "first_last", "all")))
    width, depth = draw.choice((0.25, 0.35, 0.5, 0.75, 1.0)), draw.choice((0.5, 1.0, 1.4))
    arch = ArchSpec(stages=stages, width_multiplier=width, depth_multiplier=depth, attention=attention)
    data = DataSpec(name="synthetic", resolution=draw.choice((48, 64, 96)))
    params = int(draw.lognormvariate(14, 0.6))
    status = "failed" if draw.random() < 0.02 else "done" if 4 * params < 10e6 else "over_cap"
    record = TrialRecord(f"{number:016x}", to_plain(TrialSpec(arch, data)), 0, status, synthetic=True, data=data.name)
    record.params, record.macs = params, 20 * params
    record.bytes_float32, record.bytes_float16, record.bytes_int8 = 4 * params, 2 * params, params
    record.error = "FloatingPointError: the loss is not finite" if status == "failed" else ""
    if status == "done":
        correct = min(TESTED, int(TESTED * (0.45 + 0.25 * draw.gauss(1, 0.2))))
        record.accuracy, record.correct, record.tested = correct / TESTED, correct, TESTED
        record.accuracy_low, record.accuracy_high = compute_wilson_interval(correct, TESTED)
        record.loss = [4 * 0.9**epoch + draw.random() / 10 for epoch in range(EPOCHS)]
        record.train_accuracy = [record.accuracy * (1 - 0.9**epoch) for epoch in range(EPOCHS)]
        record.validation_accuracy = [0.9 * value for value in record.train_accuracy]
        record.epochs, record.wall_seconds = EPOCHS, 100.0
    return record


def read_cpu(session: Any) -> float:
    """Return the milliseconds of CPU that the page's main thread has used."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return 1000 * next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def measure(path: Path) -> tuple[dict[str, list[tuple[float, float]]], list[float]]:
    """Return (CPU ms, elapsed ms) of each opening and each filter, and the cores that other work used in between."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SystemExit("Chromium is not installed; on Debian and Ubuntu: apt install chromium")
    times: dict[str, list[tuple[float, float]]] = {"opening": [], "a filter": []}
    busy = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        for _ in range(ROUNDS):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto(path.as_uri())
            page.wait_for_selector("body[data-ready]", timeout=60_000)
            times["opening"].append((read_cpu(session), page.evaluate("ffemReport.ready")))
            page.wait_for_timeout(500)
            for one in FILTERS:
                before = read_cpu(session)
                passed = page.evaluate(APPLY, list(one))
                times["a filter"].append((read_cpu(session) - before, passed))
            page.close()
            busy.append(measure_busy_cores(1.0))
        browser.close()
    return times, busy


def main(words: Sequence[str] | None = None) -> None:
    """Write the page, measure it, and write the table."""
    options = harness.make_parser(__doc__, "speed/report_page.md", kept=False).parse_args(words)
    draw = random.Random(1)
    records = [make_record(draw, number) for number in range(TRIALS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        started = time.process_time()
        write_report(records, path)
        seconds, size = time.process_time() - started, path.stat().st_size
        times, busy = measure(path)
    rows = [
        [name, *(f"{statistics.median(own):.0f} ({max(own):.0f})" for own in zip(*measured, strict=True))]
        for name, measured in times.items()
    ]
    head = ["", "CPU of the page's main thread, ms: median (maximum)", "elapsed, ms: median (maximum)"]
    page = report.fill_page(
        options.out,
        "report_page",
        trials=TRIALS,
        epochs=EPOCHS,
        openings=ROUNDS,
        filters=ROUNDS * len(FILTERS),
        busy=statistics.mean(busy),
        cores=os.cpu_count(),
        peak=max(busy),
        seconds=seconds,
        megabytes=size / 1e6,
        table=report.write_table(head, rows, left=3),
    )
    print(page)


if __name__ == "__main__":
    main()
