"""benchmarks/rungs.py on records whose order is known by hand."""

import json
import math
from dataclasses import replace

import pytest
from made_records import build_record

from benchmarks.rungs import compute_result, group_records, main, write_table
from ffem_jax.records.record import append_record

FINAL = (50, 52, 60, 61, 70, 72)  # right of 104, of six networks that differ in width


def make_trials(early, final=FINAL, *, split=0, shift=0):
    return [
        build_record(
            arch={"width_multiplier": 0.5 + index / 10},
            params=10**6 + index,
            recipe={"epochs": 2},
            protocol={"split_seed": split},
            correct=right + shift,
            validation_accuracy=[(first + shift) / 104, (right + shift) / 104],
            epochs=2,
        )
        for index, (first, right) in enumerate(zip(early, final, strict=True))
    ]


def compute(records, **options):
    ((title, members),) = group_records(records).items()
    return compute_result(title, members, [1, 2], 3, **options)


def test_an_epoch_in_the_right_order_keeps_all_and_in_the_reverse_nothing():
    (rung,) = compute(make_trials((1, 2, 3, 4, 5, 6))).rungs  # the last epoch is no rung
    assert (rung.epoch, rung.agreement.tau, rung.kept, rung.lost) == (1, 1.0, 1.0, 0.0)
    (rung,) = compute(make_trials((6, 5, 4, 3, 2, 1))).rungs
    assert (rung.agreement.tau, rung.kept) == (-1.0, 0.0)
    assert rung.lost == pytest.approx((72 - 52) / 104)
    # One of the 15 pairs the wrong way round, and the best two of six with one stranger.
    (rung,) = compute(make_trials((1, 2, 3, 5, 4, 6))).rungs
    assert (rung.agreement.tau, rung.kept, rung.lost) == (pytest.approx(13 / 15), 0.5, 0.0)


def test_a_hard_set_of_test_images_makes_no_network_worse():
    easy, hard = make_trials((1, 2, 3, 4, 5, 6), shift=30), make_trials((1, 2, 3, 4, 5, 6), split=1)
    result = compute([*easy, *hard])
    assert (result.trials, result.networks, result.test_sets) == (12, 6, 2)
    assert result.rungs[0].agreement.tau == pytest.approx(1.0)
    assert (result.repeated, result.pairs) == (pytest.approx(1.0), 1)
    assert result.macs.tau == pytest.approx(1.0)


def test_stops_on_the_way_are_a_curve_for_trials_without_one():
    finished = [replace(record, validation_accuracy=[]) for record in make_trials((0,) * 6)]
    early = (1, 2, 3, 5, 4, 6)
    stops = [
        replace(record, status="pruned", epochs=1, accuracy=right / 104)
        for record, right in zip(finished, early, strict=True)
    ]
    (rung,) = compute([*stops, *finished]).rungs
    assert (rung.epoch, rung.agreement.tau) == (1, pytest.approx(13 / 15))
    # A trial without stops has no curve and is not ranked.
    assert compute([*stops[1:], *finished]).trials == 5
    assert group_records(finished) == {}
    # Nor is an epoch ranked at which one of the trials did not stop.
    longer = [replace(record, epochs=3) for record in finished]
    other = [replace(stops[0], epochs=2), *stops[1:]]
    assert compute([*other, *longer]).rungs == ()


def test_what_was_not_trained_to_the_end_has_no_final_order():
    pruned = build_record(status="pruned", recipe={"epochs": 2}, epochs=1, validation_accuracy=[0.9])
    blind = build_record(seed=9, recipe={"epochs": 2}, epochs=2)  # of an older release, or View 2: no curve
    result = compute([*make_trials((1, 2, 3, 4, 5, 6)), pruned, blind])
    assert result.trials == 6
    assert math.isnan(result.repeated)
    assert "another full training | not run twice" in write_table([result], 3)
    assert compute_result("few", make_trials((1, 2, 3, 4, 5, 6))[:4], [1], 3) is None


def test_the_command(tmp_path, capsys):
    path = tmp_path / "records.jsonl"
    for record in make_trials((1, 2, 3, 4, 5, 6)):
        append_record(path, record)
    main([str(path), "--epochs", "1", "--json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["trials"], row["rungs"][0]["agreement"]["tau"], row["repeated"]) == (6, 1.0, None)
    main([str(path), "--epochs", "1"])
    assert "6 trials of 6 networks | 1 | 1.00 [" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: No such file or directory"),
        (["empty.jsonl"], "no group has 5 finished trials with a curve"),
        (["empty.jsonl", "--reduction", "1"], "--reduction 1 must be at least 2"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
