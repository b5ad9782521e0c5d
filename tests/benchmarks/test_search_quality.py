"""The replays of `benchmarks.search_quality`: who trains what, what is spent, what the page says."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from made_records import build_record

from benchmarks.search_quality import ASKERS, align, count_to_reach, replay, replay_halving, summarize, write_report
from benchmarks.search_table import Memory, Table, read_nas_bench_macro, read_recorded
from ffem_jax.analysis.hypervolume import compute_hypervolume
from ffem_jax.records.record import append_record
from ffem_jax.search.space import Choice, SearchSpace


def make_table(whole=True, curves=False):
    space = SearchSpace((*(Choice(f"c{n}", ("0", "1", "2"), ordered=True) for n in range(3)), Choice("k", ("a", "b"))))
    points = list(space) if whole else list(space)[::2]
    numbers = np.array([[float(p[f"c{n}"]) for n in range(3)] + [p["k"] == "b"] for p in points])
    truth = 1 / (1 + np.exp(1 - numbers @ [0.8, 0.4, 0.1, 0.2]))
    rises = np.linspace(0.2, 1, 9) if curves else None
    return Table(
        name="made",
        title="made (synthetic)",
        space=space,
        points=points,
        costs=10 + numbers @ [1.0, 2.0, 3.0, 0.5],
        cost_name="macs",
        trainings=[np.array([rate - 0.01, rate + 0.01]) for rate in truth],
        whole=whole,
        curves=None if rises is None else truth[:, None] * rises,
    )


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("method", ASKERS)
def test_every_search_trains_each_network_once_and_ends_with_all(method, whole):
    if method in ("tpe", "nsga2"):
        pytest.importorskip("optuna")
    table = make_table(whole)
    curve = replay(table, method, 0, len(table.points))
    assert [spent for spent, _ in curve] == list(range(1, len(table.points) + 1))
    # All are known, but by one noisy training each: what is shown is not quite the best.
    assert 0.97 < curve[-1][1] <= 1
    assert replay(table, method, 0, 5) == curve[:5] or method == "grid"  # whose steps follow from its budget


def test_what_is_shown_is_scored_by_the_truth():
    table = make_table()
    seen = {0: 0.9, 5: 0.95, 7: 0.2}  # 7 costs more than 0 and looks worse: not shown
    truth = [float(table.truth[index]) for index in (0, 5)]
    area = compute_hypervolume(table.costs[[0, 5]], truth, *table.reference)
    best = compute_hypervolume(table.costs, table.truth, *table.reference)
    assert table.score(seen) == pytest.approx(area / best)


def test_halving_pays_by_the_epoch_and_ends_few():
    table, memory = make_table(curves=True), Memory()
    order = [int(network) for network in np.random.default_rng(0).permutation(54)]
    curve = replay_halving(table, iter(order), memory, table.truth, 20)
    assert [table.score(memory.seen)] == [share for _, share in curve[-1:]]
    # Each began with one epoch of nine; the few that ended cost nine.
    lowest = (len(memory.started) + 8 * len(memory.seen)) / 9
    assert lowest <= 20 + 1
    assert all(earlier < later for (earlier, _), (later, _) in itertools.pairwise(curve))
    assert curve[-1][0] <= 20 + 6 / 9
    assert 4 * len(memory.seen) < len(memory.started)
    # Which went to the end was decided by rank against both: no random few are so good.
    every = replay(table, "random", 0, len(memory.seen))
    assert curve[-1][1] > every[-1][1]


@pytest.mark.parametrize("method", ["random+halving", "surrogate+halving"])
def test_with_halving_a_budget_that_begins_every_recorded_network_ends(method):
    table = make_table(whole=False, curves=True)
    curve = replay(table, method, 0, len(table.points))
    assert curve[-1][0] < len(table.points)
    assert 0.9 < curve[-1][1] <= 1


def test_counting_to_a_target():
    shares = align([[(0.5, 0.2), (1.9, 0.4), (3.0, 0.9)], [(4.0, 0.5)]], 4)
    assert shares.tolist() == [[0.2, 0.4, 0.9, 0.9], [0, 0, 0, 0.5]]
    assert count_to_reach(shares, 0.6).tolist() == [3, math.inf]


def test_the_page_says_whether_the_goal_is_met(tmp_path):
    table = make_table()
    slow, fast = ([(float(n), min(1.0, n * step)) for n in range(1, 31)] for step in (0.03, 0.2))
    path = tmp_path / "made.json"

    def write(**curves):
        path.write_text(json.dumps(summarize(table, curves, 30, "the command")))
        return write_report(path)

    text = write(random=[slow] * 3, surrogate=[fast] * 3)
    assert text == (tmp_path / "made.md").read_text()
    assert "`the command`" in text
    assert "is met: the median for the surrogate is 5 of 30" in text
    assert "| surrogate | 100.0 | 100.0 | 100.0 | 100.0 to 100.0 | 5 (5 to 5) | 0.17 |" in text
    assert {path.name for path in tmp_path.iterdir()} == {"made.md", "made.json", "made.png", "made.svg"}
    assert json.loads(path.read_text())["methods"]["random"]["trainings_to_reach_random"] == [30] * 3
    worse = write(random=[fast] * 3, surrogate=[slow] * 3)
    assert "the goal of a third is missed" in worse


def test_tables_are_read(tmp_path):
    rows = {
        f"{a}{b}": {"test_acc": [80.0 + a, 81.0 + b], "flops": 100 + a + 3 * b, "params": 7}
        for a in range(3)
        for b in range(3)
    }
    (tmp_path / "table.json").write_text(json.dumps(rows))
    table = read_nas_bench_macro(tmp_path / "table.json")
    assert table.points[5] == {"layer0": "1", "layer1": "2"}
    assert (table.costs[5], table.truth[5]) == (107, pytest.approx(0.82))
    with pytest.raises(SystemExit, match="choose macs or params"):
        read_nas_bench_macro(tmp_path / "table.json", "bytes_int8")


def test_records_are_a_table(tmp_path):
    path = tmp_path / "records.jsonl"
    for width in range(12):
        for kind in ("none", "eca"):
            for seed in (0, 1):
                arch, rate = {"width_multiplier": 0.25 + width / 10, "name": f"n{width}"}, 50 + 2 * width + seed
                record = build_record(arch=arch, attention={"kind": kind}, seed=seed, correct=rate, params=1000 + width)
                record.validation_accuracy = [0.1, 0.2, rate / 104]
                append_record(path, record)
    table = read_recorded([path])
    assert {choice.name: choice.ordered for choice in table.space.choices} == {
        "arch.attention.kind": False,
        "arch.width_multiplier": True,
    }
    assert len(table.points) == 24
    assert table.curves.shape == (24, 3)
    assert sorted(table.truth)[0] == pytest.approx(50.5 / 104)
    assert not table.whole
    path.write_text("\n".join(path.read_text().splitlines()[:20]))
    with pytest.raises(SystemExit, match="10 trained networks are too few"):
        read_recorded([path])
