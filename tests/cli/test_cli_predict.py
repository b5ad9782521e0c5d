"""`ffem predict` as its user sees it: the ranking, what stands beside it, and mistakes in one line."""

from __future__ import annotations

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
from made_records import build_record

from ffem_jax.cli import main
from ffem_jax.cli.predict import load_space, shorten
from ffem_jax.cost.cost import compute_cost
from ffem_jax.records.record import append_record
from ffem_jax.records.view import read_arch
from ffem_jax.search.model import prediction
from ffem_jax.search.model.prediction import apply_point
from ffem_jax.specs.trial import DataSpec, RecipeSpec, TrialSpec, to_plain, trial_key

SWEEP = """
# A small space.
hydra:
  sweeper:
    params:
      seed: 0,1
      arch.head_channels: 0,64,128
      arch.embedding_dim: 32,64,96,128
      arch.attention.kind: none,eca
      arch.attention.placement: first,last
    when:
      arch.attention.placement: {arch.attention.kind: eca}
"""
BASE = TrialSpec(data=DataSpec(resolution=32))


def make_trial(point, seed=0, **settings):
    """A record of the point: accuracy grows with both numbers and with attention; bytes do with the numbers."""
    trial = dataclasses.replace(BASE, arch=read_arch(apply_point(to_plain(BASE), point)["arch"]), seed=seed, **settings)
    head, embedding = trial.arch.head_channels, trial.arch.embedding_dim
    level = 0.005 * head + 0.004 * embedding + (trial.arch.attention.kind == "eca") - 0.5
    draw = np.random.default_rng([head, embedding, seed])
    right = round(312 / (1 + math.exp(-level - 0.05 * draw.normal())))
    record = build_record(correct=right, tested=312, params=10_000 * (head + embedding + 100), seed=seed)
    record.spec, record.trial_key = to_plain(trial), trial_key(trial)
    return record


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Every second point of the space trained, one of them with two seeds; all costs known, so that none is traced."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prediction, "COSTED", 0)
    (tmp_path / "small.yaml").write_text(SWEEP)
    points = list(load_space("small", tmp_path))
    for index, point in enumerate(points):
        record = make_trial(point)
        if index % 2:
            record.status, record.accuracy = "over_cap", None
        append_record(tmp_path / "records.jsonl", record)
    append_record(tmp_path / "records.jsonl", make_trial(points[0], seed=1))
    return tmp_path


def predict(capsys, folder, *words):
    status = main(["predict", str(folder), "--space", "small", "--config-dir", str(folder), *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_cap_is_the_one_that_the_trials_were_run_under(folder, capsys):
    path = folder / "records.jsonl"
    rows = [json.loads(line) | {"cap_mb": 0.9, "cap_precision": "float16"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = json.loads(predict(capsys, folder, "--json")[1])
    assert (found["cap_mb"], found["precision"]) == (0.9, "float16")
    given = json.loads(predict(capsys, folder, "--json", "--cap-mb", "1.5", "--precision", "int8")[1])
    assert (given["cap_mb"], given["precision"]) == (1.5, "int8")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_keeps_the_choices_readable(folder, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    status, out, err = predict(capsys, folder, "--top", "3")
    assert status == 0
    assert max(map(len, (*out.splitlines(), *err.splitlines()))) <= width
    assert "placement=last" in out  # not a letter per line


def test_the_ranking_and_what_it_is_worth(folder, capsys):
    status, out, err = predict(capsys, folder, "--json", "--top", "6", "--out", str(folder / "deep" / "list.csv"))
    found = json.loads(out)
    assert (status, found["drawn"], found["whole"], found["learnt_from"]) == (0, 36, True, 18)
    rates = [network["accuracy"] for network in found["networks"]]
    assert rates == sorted(rates, reverse=True)
    assert len(rates) == 6
    best = found["networks"][0]
    assert best["point"]["arch.attention.kind"] == "eca"
    assert best["accuracy_low"] < best["accuracy"] < best["accuracy_high"]
    assert best["first_rank"] == 1 <= best["last_rank"] <= 36
    assert found["left_out"]["tau"] > 0.6
    assert 0.8 <= found["covered"] <= 1
    assert found["agreement"]["macs_only"]["networks"] == 18
    assert all(size <= 10_000_000 for size in [network["bytes"] for network in found["networks"]])
    rows = list(csv.DictReader((folder / "deep" / "list.csv").read_text().splitlines()))
    assert [float(row["accuracy"]) for row in rows] == rates
    assert rows[0]["arch.attention.placement"] in ("first", "last")
    assert "Traceback" not in err


def test_the_cap_holds_exactly(folder, capsys):
    # 4 bytes a parameter: of head + embedding, at most 100 fit.
    found = json.loads(predict(capsys, folder, "--json", "--cap-mb", "8", "--top", "40")[1])
    points = {tuple(network["point"].items()) for network in found["networks"]}
    fitting = [
        point for point in load_space("small", folder)
        if int(point["arch.head_channels"]) + int(point["arch.embedding_dim"]) <= 100
    ]  # fmt: skip
    assert points == {tuple(point.items()) for point in fitting}
    assert all(network["bytes"] <= 8_000_000 for network in found["networks"])
    recorded = [network["recorded"] for network in found["networks"]]
    assert any(rate is None for rate in recorded)
    assert any(rate is not None for rate in recorded)
    status, out, err = predict(capsys, folder, "--cap-mb", "0.1")
    assert (status, out) == (0, "")
    assert "no network was found that fits 0.1 MB at float32; raise the cap" in err


def test_the_limit_of_macs_holds_exactly(folder, capsys):
    every = json.loads(predict(capsys, folder, "--json", "--top", "40")[1])["networks"]
    limit = sorted(network["macs"] for network in every)[len(every) // 2]
    found = json.loads(predict(capsys, folder, "--json", "--cap-mmacs", str(limit / 1e6), "--top", "40")[1])
    assert {str(n["point"]) for n in found["networks"]} == {str(n["point"]) for n in every if n["macs"] <= limit}
    assert 0 < found["ranked"] < len(every)
    assert " under 10 MB and 0.001 M MACs, " in predict(capsys, folder, "--cap-mmacs", "0.001")[2]
    status, _, err = predict(capsys, folder, "--cap-mmacs", "-1")
    assert (status, "--cap-mmacs -1.0 must be" in err) == (2, True)


def test_the_page_claims_no_order_within_the_intervals(folder, capsys):
    _, out, err = predict(capsys, folder, "--top", "4")
    assert "head_channels" in out + err
    assert "these records do not order them" in err
    assert "Kendall's tau [95 %] of predicted with recorded accuracy, each network left out in turn: 0." in err
    assert "one seed against another not known" in err


def test_a_worthless_ranking_says_so(folder, capsys):
    assert "NOT YET USABLE" not in predict(capsys, folder)[2]
    records = [make_trial(point) for point in load_space("small", folder)]
    (folder / "records.jsonl").unlink()
    for record, other in zip(records[:14], np.random.default_rng(0).permutation(14), strict=True):
        record.accuracy = records[other].accuracy
        append_record(folder / "records.jsonl", record)
    assert "THE RANKING IS NOT YET USABLE" in predict(capsys, folder, "--cap-mb", "5")[2]


def test_choices_are_short_in_the_table():
    point = {
        "arch.pooling": "average",
        "arch.stages.1.expansion": "6",
        "arch.stages.1.repeats": "2",
        "arch.stages.3.stride": "1",
        "arch.attention.kind": "eca",
        "arch.attention.placement": "last",
        "data.resolution": "48",
    }
    assert shorten(point) == "pooling=average data.resolution=48; stages 1:t6n2 3:s1; attention eca placement=last"
    assert shorten({}) == ""


def test_what_is_not_recorded_is_traced(folder, capsys, monkeypatch):
    lines = (folder / "records.jsonl").read_text().splitlines()
    kept = [line for line in lines if '"status": "over_cap"' not in line]
    (folder / "records.jsonl").write_text("\n".join(kept))
    found = json.loads(predict(capsys, folder, "--json", "--top", "3", "--cap-mb", "11")[1])
    exact = [network for network in found["networks"] if network["recorded"] is None]
    assert exact
    for network in exact:
        cost = compute_cost(read_arch(apply_point(to_plain(BASE), network["point"])["arch"]), 32)
        assert (network["bytes"], network["macs"]) == (cost.bytes_float32, cost.macs)


def test_mistakes_are_one_line(folder, capsys):
    few = folder / "few"
    for point in list(load_space("small", folder))[:5]:
        append_record(few / "records.jsonl", make_trial(point))
    outside = make_trial({"arch.head_channels": "640"})
    append_record(few / "records.jsonl", outside)
    other = folder / "other"
    for index, point in enumerate(list(load_space("small", folder))[:12]):
        append_record(other / "records.jsonl", make_trial(point, recipe=RecipeSpec(epochs=5 if index else 6)))
    sizes = folder / "sizes"
    for index, point in enumerate(list(load_space("small", folder))[:12]):
        append_record(sizes / "records.jsonl", make_trial(point, data=DataSpec(resolution=32 if index else 48)))
    mixed = folder / "mixed"
    for index in range(12):
        append_record(mixed / "records.jsonl", build_record(data={"name": "lfw" if index else "synthetic"}, seed=index))
    (folder / "plain.yaml").write_text("data: {resolution: 32}")
    for words, message in [
        ([str(few)], "5 trained networks of the space are too few to predict others from; train 8 or more (1 others"),
        ([str(other)], "the records differ in recipe.epochs (6 and 5), which is not a choice of the space"),
        ([str(mixed)], "the records mix"),
        ([str(sizes)], "the records differ in data.resolution (48 and 32), which is not a choice of the space"),
        ([str(folder / "nowhere")], "does not exist"),
        ([str(folder), "--space", "smal"], "there is no sweep 'smal'; did you mean small?"),
        ([str(folder), "--space", "plain"], "defines no space: it has no hydra.sweeper"),
        ([str(folder), "--cap-mb", "nan"], "--cap-mb: nan must be a size above 0"),
        ([str(folder), "--top", "0"], "--top 0 must be at least 1"),
    ]:
        words = words if "--space" in words else [*words, "--space", "small"]
        status = main(["predict", *words, "--config-dir", str(folder)])
        captured = capsys.readouterr()
        errors = [line for line in captured.err.splitlines() if line.startswith("ffem: error:")]
        assert (status, captured.out, len(errors)) == (2, "", 1)
        assert message in errors[0]
