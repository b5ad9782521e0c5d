"""Settings that an attention of one's own declares: typed like any other, checked, swept, compared, part of the key."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from made_records import build_record
from made_specs import FFEM_AM

from ffem_jax.analysis.pairing import read_settings
from ffem_jax.cli import DONE, main
from ffem_jax.cost.cost import compute_cost
from ffem_jax.records.record import read_records
from ffem_jax.specs import own_code
from ffem_jax.specs.architecture import AttentionSpec, SpecError, resolve_network, select_effective_attention
from ffem_jax.specs.attention import ATTENTIONS, AttentionKind, register_attention
from ffem_jax.specs.own_code import VARIABLE
from ffem_jax.specs.trial import TrialSpec, to_plain, trial_key

FILE = '''
import jax.numpy as jnp
from flax import nnx

from ffem_jax.specs.attention import AttentionKind, register_attention


class Gate(nnx.Module):
    """sigmoid(slope * mean + bias), times 2 where it doubles; groups of channels share a slope."""

    def __init__(self, channels, groups, start, doubled, *, rngs):
        self.slopes = nnx.Param(jnp.full(groups, start))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.repeats, self.doubled = channels // groups, doubled

    def __call__(self, x):
        slopes = jnp.repeat(self.slopes[...], self.repeats)
        gate = nnx.sigmoid(slopes * x.mean(axis=(1, 2), keepdims=True) + self.bias[...])
        return x * gate * (2 if self.doubled else 1)


register_attention(AttentionKind(
    "gate", Gate, label="gate", options={"groups": 1, "start": 0.5, "doubled": False}, size_names=("groups",),
    compute_sizes=lambda channels, spec: tuple(spec.options.values()),
))
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for --config-dir that declares the attention `gate`; forgotten afterwards."""
    folder = tmp_path / "mine"
    (folder / "attention").mkdir(parents=True)
    (folder / "gates.py").write_text(FILE)
    (folder / "attention" / "gate.yaml").write_text("# @package arch.attention\nkind: gate\nplacement: first\n")
    monkeypatch.setenv(VARIABLE, str(folder))
    kinds, loaded = dict(ATTENTIONS.kinds), set(own_code._loaded)
    yield folder
    ATTENTIONS.kinds.clear()
    ATTENTIONS.kinds.update(kinds)
    own_code._loaded.clear()
    own_code._loaded.update(loaded)


def make_trial(**options: object) -> TrialSpec:
    attention = AttentionSpec(kind="gate", placement="first", options=options)
    return TrialSpec(arch=dataclasses.replace(FFEM_AM, attention=attention))


@pytest.mark.usefixtures("mine")
def test_what_is_not_given_is_at_its_default_and_every_value_is_another_trial() -> None:
    trial = make_trial()
    assert trial.arch.attention.options == {"groups": 1, "start": 0.5, "doubled": False}
    assert trial_key(make_trial(start=0.5, groups=1)) == trial_key(trial)
    keys = [trial_key(make_trial(**one)) for one in ({}, {"groups": 2}, {"start": 1}, {"doubled": True})]
    assert len(set(keys)) == 4
    assert make_trial(start=1).arch.attention.options["start"] == 1.0
    assert isinstance(make_trial(start=1).arch.attention.options["start"], float)
    plain = to_plain(trial)["arch"]["attention"]
    assert AttentionSpec(**plain) == trial.arch.attention
    assert select_effective_attention(trial.arch.attention) == {
        "kind": "gate", "placement": "first", "position": "depthwise", "fusion": "scale",
        "options.groups": 1, "options.start": 0.5, "options.doubled": False,
    }  # fmt: skip


@pytest.mark.usefixtures("mine")
def test_its_class_gets_them() -> None:
    few, many = (compute_cost(resolve_network(make_trial(groups=groups).arch), 64).params for groups in (1, 8))
    assert many - few == 7


@pytest.mark.usefixtures("mine")
def test_a_spec_with_them_can_still_be_a_key() -> None:
    assert {make_trial(groups=2): "two"}[make_trial(groups=2)] == "two"


def test_kinds_without_any_are_recorded_as_before() -> None:
    assert "options" not in to_plain(FFEM_AM.attention)
    assert AttentionSpec(kind="none", options={"groups": 2}).options == {}


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("gate", {"gruops": 2}, "arch.attention.options.gruops is not a setting of arch.attention.kind=gate; did you "
         "mean groups? its settings are: groups, start, doubled"),
        ("eca", {"groups": 2}, "arch.attention.options.groups is not a setting of arch.attention.kind=eca; it has no "
         "settings of its own"),
        ("gate", {"groups": 2.5}, "arch.attention.options.groups=2.5 must be a whole number"),
        ("gate", {"groups": True}, "arch.attention.options.groups=True must be a whole number"),
        ("gate", {"doubled": 1}, "arch.attention.options.doubled=1 must be true or false"),
        ("gate", {"start": "half"}, "arch.attention.options.start='half' must be a number"),
        ("gate", {"start": float("nan")}, "arch.attention.options.start=nan must be a number"),
        ("gate", {"start": {"a": 1}}, "arch.attention.options.start={'a': 1} must be a number"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("mine")
def test_what_does_not_fit_is_said_in_a_line(kind: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError) as error:
        AttentionSpec(kind=kind, options=options)
    assert str(error.value) == said


@pytest.mark.parametrize(
    "words",
    ["compare swept --factor attention.options.groups", "frontier swept", "list swept", "answer swept", "report swept",
     "show gate swept", "groups swept", "effects swept", "settings attention", "cost attention=gate"],
)  # fmt: skip
def test_every_command_that_reads_trials_finds_the_file_in_config_dir(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    attention = {"kind": "gate", "placement": "first"}
    records = [build_record(attention=attention | {"options": {"groups": groups}}) for groups in (1, 2)]
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "records.jsonl").write_text("".join(record.to_json() + "\n" for record in records))
    monkeypatch.delenv(VARIABLE)
    del ATTENTIONS.kinds["gate"]
    own_code._loaded.clear()
    main([*words.split(), "--config-dir", str(mine)])  # two trials are too few for some
    assert "gate" in ATTENTIONS.kinds


def test_without_it_the_line_names_it(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE)
    assert main(["cost", "arch.attention.kind=gate"]) == 2
    assert "--config-dir DIR" in capsys.readouterr().err
    assert main(["list", "--config-dir", str(mine / "nowhere")]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_settings_lists_them(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "attention.options.", "--json", "--config-dir", str(mine)]) == DONE
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["arch.attention.options.start"]["default"] == 0.5
    assert rows["arch.attention.options.doubled"]["meaning"] == "Read by arch.attention.kind=gate."


@pytest.mark.parametrize("options", [{"list": [1]}, {"nothing": None}, {"two words": 1}])
def test_a_declaration_of_what_cannot_be_typed_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="attention odd: options has"):
        register_attention(AttentionKind("odd", object, options=options))


@pytest.mark.slow
def test_they_are_swept_recorded_and_compared(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = [
        "data=synthetic", "data.resolution=16", "data.people=4", "data.images_per_person=6", "recipe.epochs=1",
        "recipe.batch_size=8", "arch.stem_stride=1", "arch.stages=[{expansion:1,channels:8,repeats:1,stride:1}]",
        "arch.head_channels=0", "arch.embedding_dim=16", "run.progress=false", "hydra.sweep.dir=swept",
    ]  # fmt: skip
    words = ["train", "-m", "--config-dir", str(mine), "attention=gate", "arch.attention.options.groups=1,2", *small]
    assert main(words) == DONE
    records = read_records(tmp_path / "swept" / "records.jsonl")
    assert [record.status for record in records] == ["done", "done"]
    settings = [read_settings(record) for record in records]
    assert sorted(one["arch.attention.options.groups"] for one in settings) == ["1", "2"]
    capsys.readouterr()
    assert main(["compare", "swept", "--factor", "attention.options.groups"]) == DONE
    out = capsys.readouterr().out
    assert "2 - 1" in out
    assert main(["list", "swept", "--where", "attention.options.groups=2", "--json"]) == DONE
    assert main(["settings", "attention.options"]) == DONE
