"""How far records order networks: the taus, by hand and by SciPy, and where they are not told."""

import json

import numpy as np
import pytest
from scipy import stats

from ffem_jax.analysis.agreement import measure_agreement
from ffem_jax.reports.frontier import write_frontier
from ffem_jax.reports.wording import describe_agreement

WIDTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def make_seeds(make_record, *columns, **fields):
    """Networks of rising size; column s holds their right answers under seed s."""
    return [
        make_record(arch={"width_multiplier": width}, params=100_000 * (row + 1), correct=correct, seed=seed, **fields)
        for seed, column in enumerate(columns)
        for row, (width, correct) in enumerate(zip(WIDTHS, column, strict=False))
    ]


def test_each_tau_is_scipys(make_record):
    first, second, third = [50, 60, 55, 70, 80, 75], [52, 50, 66, 60, 71, 77], [40, 45, 43, 50, 44, 60]
    found = measure_agreement(make_seeds(make_record, first, second, third))
    pairs = [(first, second), (first, third), (second, third)]
    assert found.seeds.tau == pytest.approx(np.mean([stats.kendalltau(a, b).statistic for a, b in pairs]))
    means = np.mean([first, second, third], axis=0)
    assert found.macs.tau == pytest.approx(stats.kendalltau(range(6), means).statistic)
    assert found.epoch is None
    assert found.seeds.count == found.macs.count == 6


def test_a_third_of_the_epochs(make_record):
    final, early = [50, 60, 70, 80, 90, 100], [0.2, 0.1, 0.3, 0.5, 0.4, 0.6]
    records = make_seeds(make_record, final)
    for record, rate in zip(records, early, strict=True):
        record.validation_accuracy = [0.0, rate, 0.9, 0.9, 0.9, 0.9]
    found = measure_agreement(records)
    assert (found.rung_epoch, found.epochs) == (2, 6)
    assert found.epoch.tau == pytest.approx(stats.kendalltau(early, final).statistic)
    records[0].validation_accuracy = [0.1] * 9  # of another length: which epoch would compare with which?
    assert measure_agreement(records).epoch is None


def test_folds_of_a_seed_are_one_accuracy(make_record):
    # By fold the two seeds agree on nothing; pooled they are equal.
    records = []
    for row, width in enumerate(WIDTHS):
        for seed in (0, 1):
            for fold in (0, 1):
                correct = 40 + 5 * row + (3 if seed == fold else -3) * (-1) ** row
                protocol = {"name": "kfold", "folds": 2, "fold": fold}
                records.append(
                    make_record(arch={"width_multiplier": width}, seed=seed, protocol=protocol, correct=correct)
                )
    assert measure_agreement(records).seeds.tau == 1.0
    assert measure_agreement([r for r in records if r.spec["protocol"]["fold"] == 0]).seeds is None  # folds are missing


def test_few_networks_order_nothing(make_record, tmp_path):
    records = make_seeds(make_record, [50, 60, 70, 80], [50, 60, 70, 80])
    assert describe_agreement(measure_agreement(records)) == ""
    assert describe_agreement(measure_agreement([])) == ""
    assert write_frontier(records, tmp_path).to_dict()["agreement"]["seed_to_seed"] is None
    assert "Kendall" not in (tmp_path / "frontier.md").read_text()


def test_the_report_says_so(make_record, tmp_path):
    column = [50, 60, 70, 80, 90, 95]
    result = write_frontier(make_seeds(make_record, column), tmp_path)
    text = (tmp_path / "frontier.md").read_text()
    assert "one seed against another not known (one seed per network); MACs alone against accuracy 1.00 [" in text
    saved = json.loads((tmp_path / "frontier.json").read_text())
    assert saved["agreement"] == result.to_dict()["agreement"]
    assert saved["agreement"]["macs_only"]["networks"] == 6
