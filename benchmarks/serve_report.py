"""results/serve/README.md from results/serve/serve.json.

python -m benchmarks.serve_report
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.serve import CLIENTS, LENGTH, PICTURES, RESULTS

SEARCH_HEAD = (
    "| vectors | exact: median ms [quartiles] | best ms | CPU ms | matches/s | MB | "
    "index: median ms [quartiles] | best ms | CPU ms | matches/s | MB | built | "
    "misses the nearest | and the person |\n" + "|---:" * 14 + "|"
)
METHOD = f"""\
Vectors of {LENGTH} numbers, {PICTURES} a person, are drawn and not a network's. **Exact** is what the server does: one
float32 product over the whole matrix, and the metrics' Eq. 6 in float64 over the rows that rounding leaves in doubt.
**Index** is usearch's HNSW as it comes, asked for ten neighbours; "misses" is how often the true nearest, or anybody
of its person, is not among them. Exact and index take turns, five times, on one core. Other work on the machine
lengthens the medians, and hardly the best or the processor time (CPU).
**Requests** are whole ones over HTTP to a real `ffem serve` on the loopback, key, rate limit, log line and the
database's part included; the clients take their share of the same cores. `start` is from
the command to the first answer, all vectors read from SQLite. `delete` writes the file anew without the person."""


def write_page() -> None:
    """Write the page beside the figures."""
    found = json.loads((RESULTS / "serve.json").read_text())
    searches = [row["search"] for row in found["rows"]]
    requested = [row["requests"] for row in found["rows"] if "requests" in row]
    lines = ["# How many faces a second does the server match?", "", "```", found["command"], "```", ""]
    lines += [f"Machine: {found['machine']}.", ""]
    if "load_before" in found:
        busy = [row["busy_cores"] for row in [*searches, *requested]]
        peak = max(row["busy_cores_peak"] for row in [*searches, *requested])
        lines += [
            f"Load over the minute before: {found['load_before']:.1f}. In the pauses between rounds other work took "
            f"{sum(busy) / len(busy):.2f} cores on average and at most {peak:.2f}.",
            "",
        ]
    reading = RESULTS / "reading.md"
    if reading.exists():
        lines += [reading.read_text().strip(), ""]
    lines += ["## The search alone", "", SEARCH_HEAD]
    lines += [describe_search(row) for row in searches]
    head = "| vectors |" + "".join(
        f" {n} client{'s' * (n > 1)}, matches/s | median ms [quartiles] | 95 % ms | server's CPU ms |" for n in CLIENTS
    )
    head += " enrol, ms | delete, s | start, s | memory, MB |"
    requests = [describe_requests(row) for row in requested]
    if requests:
        lines += ["", "## Whole requests", "", head, "|" + "---:|" * (head.count("|") - 1), *requests]
    lines += ["", "## What is measured", METHOD]
    (RESULTS / "README.md").write_text("\n".join(lines) + "\n")


def describe_search(row: dict[str, Any]) -> str:
    """A row of the first table."""
    exact, index = row["exact"], row.get("index")
    cells = [f"{row['vectors']:,}", *describe_times(exact), f"{row['megabytes']:,.1f}"]
    if index:
        cells += [*describe_times(index), f"{index['megabytes']:,.1f}", f"{index['build_seconds']:,.1f} s"]
        cells += [f"{100 * index['misses_nearest']:.1f} %", f"{100 * index['misses_person']:.1f} %"]
    else:
        cells += [""] * 8
    return "| " + " | ".join(cells) + " |"


def describe_times(row: dict[str, Any]) -> list[str]:
    """Four cells."""
    best, cpu = (f"{row[name]:.2f}" for name in ("milliseconds_best", "cpu_milliseconds"))
    return [describe_median(row), best, cpu, f"{row['matches_per_second']:,.0f}"]


def describe_median(row: dict[str, Any]) -> str:
    """Milliseconds: the median and, where they were kept, its quartiles."""
    spread = ""
    if "milliseconds_low" in row:
        spread = f" [{row['milliseconds_low']:.2f}, {row['milliseconds_high']:.2f}]"
    return f"{row['milliseconds_median']:.2f}{spread}"


def describe_requests(row: dict[str, Any]) -> str:
    """A row of the second table."""
    cells = [f"{row['vectors']:,}"]
    for clients in CLIENTS:
        one = row[f"clients_{clients}"]
        cells += [
            f"{one['matches_per_second']:,.0f}",
            describe_median(one),
            f"{one['milliseconds_95']:.1f}",
            f"{one['server_cpu_milliseconds']:.2f}",
        ]
    cells += [f"{row['enrol_milliseconds']:.0f}", f"{row['delete_seconds']:.2f}", f"{row['start_seconds']:.1f}"]
    cells += [f"{row.get('server_megabytes', 0):,.0f}"]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    write_page()
