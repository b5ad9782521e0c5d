"""What benchmarks share: rows that are kept, processes that answer or say why not, turns, pages and their templates."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import harness, report
from benchmarks.contests import CONTESTS
from benchmarks.harness import Worker, take_turns
from benchmarks.peers.layers import list_blocks
from ffem_jax.config.presets import PRESETS
from ffem_jax.specs.architecture import resolve_network

RESULTS = Path(__file__).parents[2] / "results"


def count(start):
    def answer(step):
        if step < 0:
            raise ValueError(f"no step of {step} in {os.sep}some{os.sep}folder{os.sep}file")
        return start + step, os.environ["BENCHMARK_NAME"], sorted(os.sched_getaffinity(0))

    return f"begun at {start}", answer


def die(start):
    return None, lambda request: os._exit(3)


def test_a_worker_answers_with_its_own_environment_and_cores():
    core, own = min(os.sched_getaffinity(0)), os.sched_getaffinity(0)
    worker = Worker(count, 5, environment={"BENCHMARK_NAME": "its own"}, cores={core})
    assert "BENCHMARK_NAME" not in os.environ
    assert os.sched_getaffinity(0) == own
    assert worker.start == "begun at 5"
    assert worker.ask(2) == (7, "its own", [core])
    with pytest.raises(RuntimeError, match=r"^ValueError: no step of -1 in file$"):
        worker.ask(-1)
    worker.end()


def test_a_worker_that_dies_says_so():
    worker = Worker(die, 0)
    with pytest.raises(RuntimeError, match=r"its process died \(exit code 3\)"):
        worker.ask("anything")


def test_turns_are_taken_in_order_and_whoever_leaves_is_not_asked_again(monkeypatch):
    monkeypatch.setattr(harness, "PAUSE_SECONDS", 0)
    order = []
    turns = {}

    def make(name, last=99):
        def turn():
            order.append(name)
            if order.count(name) > last:
                del turns[name]
            return len(order)

        return turn

    turns.update(a=make("a"), b=make("b", last=1), c=make("c"))
    told = []
    found, busy = take_turns(turns, 3, pause=0.01, told=lambda index, returned: told.append((index, list(returned))))
    assert "".join(order) == "abcabcac"
    assert found == {"a": [1, 4, 7], "b": [2], "c": [3, 6, 8]}
    assert told == [(0, ["a", "b", "c"]), (1, ["a", "c"]), (2, ["a", "c"])]
    assert len(busy) == 3


def test_rows_are_appended_and_the_last_of_each_counts(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    assert harness.read_lines(path) == []
    harness.append_rows(path, {"a": 1, "b": 1}, {"a": 2, "b": 1})
    harness.append_rows(path, {"a": 1, "b": 2})
    assert harness.read_latest(path, "a") == [{"a": 1, "b": 2}, {"a": 2, "b": 1}]


def test_only_what_the_records_lack_is_measured(tmp_path, capsys):
    path, measured = tmp_path / "rows.jsonl", []

    def measure(cell):
        measured.append(cell["n"])
        return {"good": len(measured) > 2}

    def run(fresh=False):
        measured_before = len(measured)
        cells = {f"number {n}": {"n": n, "of": "a"} for n in (1, 2)}
        harness.measure_missing(path, cells, lambda row: row["good"], measure, fresh)
        return measured[measured_before:]

    harness.append_rows(path, {"n": 1, "of": "another", "good": True})
    assert run() == [1, 2]
    assert run() == [1, 2]  # neither was good
    assert run() == []
    assert "[2/2] number 2: already measured" in capsys.readouterr().err
    assert run(fresh=True) == [1, 2]
    assert harness.read_lines(path)[1] == {"n": 1, "of": "a", "good": False}


def test_options_of_numbers_have_their_defaults_kind_and_help():
    parser = harness.make_parser("About.", "speed", kept=False)
    harness.add_numbers(parser, sizes=([1, 2], "of all"), index_seconds=(2.0, "of each"), rounds=(3, "turns"))
    options = parser.parse_args(["--index-seconds", "0.5", "--sizes", "7", "8"])
    assert (options.sizes, options.index_seconds, options.rounds) == ([7, 8], 0.5, 3)
    assert "of all (default: 1 2)" in parser.format_help()
    assert "--report-only" not in parser.format_help()
    with pytest.raises(SystemExit):
        parser.parse_args(["--rounds", "0.5"])


def test_a_number_that_must_be_above_zero_is_named():
    harness.check_positive(Namespace(rounds=1, sizes=[1, 2]), "rounds", "sizes")
    with pytest.raises(SystemExit, match="--index-sizes 0 must be above 0"):
        harness.check_positive(Namespace(index_sizes=[1, 0]), "index_sizes")
    with pytest.raises(SystemExit, match="--seconds nan must be above 0"):
        harness.check_positive(Namespace(seconds=float("nan")), "seconds")


def test_a_machine_is_described_without_its_name():
    machine = harness.describe_machine()
    assert machine["cores"] >= 1
    assert set(machine["versions"]) <= {"python", *harness.LIBRARIES}
    assert os.uname().nodename not in str(machine)


@pytest.mark.parametrize(
    ("template", "page"),
    [
        ("alignment", "alignment/README.md"),
        ("report_page", "speed/report_page.md"),
        ("roofline", "speed/roofline.md"),
        ("surrogates", "search_quality/surrogates.md"),
    ],
)
def test_pages_of_measurements_that_are_not_kept_have_the_words_of_their_templates(template, page):
    parts = re.split(r"\{[^}]*\}", (report.PAGES / f"{template}.md").read_text(encoding="utf-8"))
    words = "(.+?)".join(map(re.escape, parts))
    assert re.fullmatch(words, (RESULTS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_a_page_has_no_empty_paragraph_and_no_value_that_is_forgotten(tmp_path):
    values = {"command": "the command", "devices": ""}
    assert report.fill_page(tmp_path / "page.md", "gpu", **values).startswith(
        "# Training speed on a GPU\n\n```\nthe command\n```\n\nFFEM-AM"
    )
    with pytest.raises(KeyError, match="devices"):
        report.fill_page(tmp_path / "page.md", "gpu", command="")


def test_tables_and_ranges():
    assert report.write_table(["a", "b"], [["c", "1"]]) == "| a | b |\n|---|---:|\n| c | 1 |"
    assert report.write_table(["a", "b"], [], left=0, spaced=True) == "| a | b |\n| ---: | ---: |"
    assert report.tabulate([{"n": 1}], {"": lambda row: "a", "n": lambda row: row["n"]}) == (
        "| | n |\n|---|---:|\n| a | 1 |"
    )
    assert report.write_range([1.0, 3000.0, 0.0123]) == "1.00 [0.0123, 3,000]"
    assert report.write_range([]) == "-"


def test_every_contestant_is_built_by_a_function_that_is_there():
    for contest in CONTESTS.values():
        assert contest.contestants[0].name == "ours"
        for build in [entry.build for entry in contest.contestants] + [contest.prepare] * bool(contest.prepare):
            module, _, function = build.partition(":")
            source = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
            assert f"\ndef {function}(cell: Cell, folder: Path" in source


def test_the_table_of_layers_is_the_network():
    network = resolve_network(PRESETS["ffem_am"])
    blocks = list_blocks(network)
    layers = [layer for block in blocks for layer in block.layers]
    assert len(blocks) == len(network.blocks) + 1 + bool(network.head_channels)
    assert len({layer.name for layer in layers}) == len(layers)
    for before, after in itertools.pairwise(layers):
        assert before.outputs == after.inputs
    assert np.prod([layer.stride for layer in layers]) == network.stem_stride * np.prod(
        [b.stride for b in network.blocks]
    )
    for other in ("shufflenetv2", "mobilefacenet"):
        with pytest.raises(ValueError, match="has no peer"):
            list_blocks(resolve_network(PRESETS[other]))
