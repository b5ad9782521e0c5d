"""Main effects: a case worked by hand, coverage where the truth is known, what depends on a choice, page and figure."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from made_records import build_record

from ffem_jax.cli import main
from ffem_jax.cli.predict import load_space
from ffem_jax.records.record import TrialRecord, append_record
from ffem_jax.records.view import read_arch
from ffem_jax.search.model.effects import compute_contrast
from ffem_jax.search.model.encoding import embed_codes, encode_points
from ffem_jax.search.model.prediction import apply_point
from ffem_jax.search.model.surrogate import ADDITIVE, Surrogate
from ffem_jax.search.space import Choice, Point, SearchSpace
from ffem_jax.specs.trial import DataSpec, TrialSpec, to_plain, trial_key

NAS_BENCH_MACRO = Path(__file__).resolve().parents[4] / "shared/data/nas_bench_macro/nas-bench-macro_cifar10.json"
SWEEP = """
hydra:
  sweeper:
    params:
      seed: 0,1
      arch.head_channels: 0,64,128
      arch.embedding_dim: 32,64,96,128
      arch.activation: relu6,relu
      arch.attention.kind: none,eca
      arch.attention.placement: first,last
    when:
      arch.attention.placement: {arch.attention.kind: eca}
"""
BASE = TrialSpec(data=DataSpec(resolution=32))


def make_record(point: Point, noise: float = 0.0) -> TrialRecord:
    """Accuracy: 5 points by the head of 64 and as many by that of 128, 10 by attention, 2 more where it is last; the
    activation does nothing. Bytes: head and embedding."""
    trial = dataclasses.replace(BASE, arch=read_arch(apply_point(to_plain(BASE), point)["arch"]))
    head, embedding, attention = trial.arch.head_channels, trial.arch.embedding_dim, trial.arch.attention
    level = 0.4 + 0.05 * head / 64 + 0.1 * (attention.kind == "eca")
    level += 0.02 * (attention.kind == "eca" and attention.placement == "last") + noise
    record = build_record(correct=round(10_000 * level), tested=10_000, params=1000 * (head + embedding + 100))
    record.spec, record.trial_key = to_plain(trial), trial_key(trial)
    return record


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Half of the points of the space trained, chance in each."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SWEEP)
    draw = np.random.default_rng(0)
    points = list(load_space("small", tmp_path))
    for index in draw.permutation(len(points))[: len(points) // 2]:
        append_record(tmp_path / "records.jsonl", make_record(points[index], 0.004 * draw.normal()))
    return tmp_path


def run(*words: str) -> int:
    return main(["effects", "records.jsonl", "--space", "small", "--config-dir", ".", *words])


def test_each_effect_is_found_within_its_interval(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    found = json.loads(capsys.readouterr().out)
    rows = {(row["choice"], row["value"]): row for row in found["effects"]}
    truth = {
        ("arch.head_channels", "64"): 0.05,
        ("arch.head_channels", "128"): 0.1,
        ("arch.embedding_dim", "128"): 0.0,
        ("arch.activation", "relu"): 0.0,
        # The placements, half and half, come with it.
        ("arch.attention.kind", "eca"): 0.11,
        ("arch.attention.placement", "last"): 0.02,
    }
    for key, expected in truth.items():
        estimate = rows[key]["accuracy"]
        assert estimate["low"] < estimate["difference"] < estimate["high"]
        assert estimate["difference"] == pytest.approx(expected, abs=0.006), key
        assert (estimate["p_corrected"] < 0.05) == (expected > 0), key
    assert rows["arch.head_channels", "0"]["accuracy"] is None
    assert sum(rows["arch.head_channels", head]["networks"] for head in ("0", "64", "128")) == found["networks"] == 36
    assert rows["arch.head_channels", "128"]["bytes_factor"] > rows["arch.head_channels", "64"]["bytes_factor"] > 1
    assert rows["arch.activation", "relu"]["bytes_factor"] == pytest.approx(1, abs=0.02)
    # The frontier: attention, and without a head or an embedding that does nothing.
    assert rows["arch.attention.kind", "none"]["on_frontier"] == 0
    assert (
        sum(row["on_frontier"] for row in found["effects"] if row["choice"] == "arch.activation")
        == (found["on_frontier"])
    )
    assert found["explained"] > 0.95


def test_the_page_says_what_is_significant(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out", "page") == 0
    out = capsys.readouterr().out
    assert "\nsignificant, all else equal: attention.kind eca against none +1" in out
    assert re.search(r"^ *attention.kind +eca +none .*\+1\d\.\d \[", out, re.MULTILINE)
    page = Path("page/effects.md").read_text(encoding="utf-8")
    assert "| head_channels | 64 | " in page
    assert "activation" not in out.partition("significant")[2]
    written = sorted(path.name for path in Path("page").iterdir())
    assert written == ["effects.json", "effects.md", "effects.png", "effects.svg"]
    before = Path("page/effects.svg").read_bytes()
    assert run("--out", "page") == 0
    assert Path("page/effects.svg").read_bytes() == before


def test_to_look_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert run() == 0
    assert capsys.readouterr().out
    assert sorted(folder.iterdir()) == before


def test_synthetic_faces_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path("records.jsonl").read_text(encoding="utf-8").splitlines()
    made = [json.loads(line) | {"synthetic": True, "data": "synthetic"} for line in lines]
    Path("records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made), encoding="utf-8")
    assert run("--out", "effects") == 0
    out = capsys.readouterr().out
    assert out.startswith("SYNTHETIC FACES, what each choice does")
    assert "\nSYNTHETIC FACES, significant" in out
    assert "**Synthetic faces: drawn, not photographed." in Path("effects/effects.md").read_text(encoding="utf-8")
    assert "SYNTHETIC FACES" in Path("effects/effects.svg").read_text(encoding="utf-8")


def test_too_few_networks_are_refused_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path("records.jsonl").read_text(encoding="utf-8").splitlines()
    Path("records.jsonl").write_text("\n".join(lines[:5]) + "\n", encoding="utf-8")
    assert run() == 2
    assert (
        "5 trained networks of the space are too few to estimate effects from; train 8 or more"
        in capsys.readouterr().err
    )


def test_a_contrast_changes_one_choice_and_what_hangs_on_it(folder: Path) -> None:
    space = load_space("small", folder)
    names = [choice.name for choice in space.choices]

    def embed(**values: str) -> np.ndarray:
        point = {f"arch.{name.replace('__', '.')}": value for name, value in values.items()}
        base = {"arch.head_channels": "0", "arch.embedding_dim": "64", "arch.activation": "relu"}
        return embed_codes(space, encode_points(space, [space.get_active({**base, **point})]))[0]

    heads = compute_contrast(space, names.index("arch.head_channels"), 2)
    np.testing.assert_allclose(
        heads, embed(head_channels="128", attention__kind="none") - embed(attention__kind="none"), atol=1e-6
    )
    eca = [embed(attention__kind="eca", attention__placement=place) for place in ("first", "last")]
    kinds = compute_contrast(space, names.index("arch.attention.kind"), 1)
    np.testing.assert_allclose(kinds, np.mean(eca, axis=0) - embed(attention__kind="none"), atol=0.02)
    np.testing.assert_allclose(
        compute_contrast(space, names.index("arch.attention.placement"), 1), eca[1] - eca[0], atol=1e-6
    )


def test_intervals_hold_what_they_promise_where_effects_add_up() -> None:
    """Of 95 % intervals between 92 and 98 hold the truth, noise twice as large in one half of the space."""
    space = SearchSpace(tuple(Choice(f"c{i}", ("0", "1", "2")) for i in range(6)))
    held = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        codes = draw.integers(3, size=(80, 6)).astype(np.int16)
        truth = draw.normal(size=(6, 3))
        noise = np.where(codes[:, 0] == 0, 1.0, 0.5) * draw.normal(size=80)
        model = Surrogate(embed_codes(space, codes), truth[np.arange(6), codes].sum(axis=1) + noise, kernels=ADDITIVE)
        for index in range(6):
            means, deviations = model.compute_contrasts([compute_contrast(space, index, code) for code in (1, 2)])
            held += list(abs(means - truth[index, 1:] + truth[index, 0]) <= 1.96 * deviations)
    assert 0.92 <= np.mean(held) <= 0.98, np.mean(held)


@pytest.mark.slow
@pytest.mark.skipif(not NAS_BENCH_MACRO.exists(), reason="NAS-Bench-Macro's table is not there")
def test_intervals_on_a_table_whose_effects_are_known() -> None:
    """Layers there do much together: 95 % intervals of 150 networks hold the effect in 89 % of the cases, as the page
    says; plain means of the networks are twice as far off."""
    rows = json.loads(NAS_BENCH_MACRO.read_text(encoding="utf-8"))
    space = SearchSpace(tuple(Choice(f"layer{i}", ("0", "1", "2"), ordered=True) for i in range(8)))
    codes = np.array([[int(digit) for digit in name] for name in sorted(rows)], dtype=np.int16)
    accuracies = np.array([rows[name]["test_acc"] for name in sorted(rows)]) / 100
    features, rates = embed_codes(space, codes), accuracies.mean(axis=1)
    pairs = [(index, code) for index in range(8) for code in (1, 2)]
    contrasts = np.array([compute_contrast(space, *pair) for pair in pairs])
    truth = np.array([rates[codes[:, i] == c].mean() - rates[codes[:, i] == 0].mean() for i, c in pairs])
    held, errors, plain = [], [], []
    for seed in range(40):
        draw = np.random.default_rng(seed)
        picked = draw.choice(len(codes), 150, replace=False)
        values, chosen = accuracies[picked, draw.integers(3, size=150)], codes[picked]
        means, deviations = Surrogate(features[picked], values, kernels=ADDITIVE).compute_contrasts(contrasts)
        held.append(np.abs(means - truth) <= 1.96 * deviations)
        errors.append((means - truth) ** 2)
        by_hand = [values[chosen[:, i] == c].mean() - values[chosen[:, i] == 0].mean() for i, c in pairs]
        plain.append((np.array(by_hand) - truth) ** 2)
    assert 0.86 <= np.mean(held) <= 0.95, np.mean(held)
    assert math.sqrt(np.mean(errors)) < 0.65 * math.sqrt(np.mean(plain))
