"""When two trials are the same: what enters the key, and a spec as plain JSON."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from made_specs import FFEM_AM, SHUFFLE, arch_strategy

from ffem_jax.records.record import read_records
from ffem_jax.records.view import read_trial
from ffem_jax.specs.architecture import (
    ArchSpec,
    AttentionSpec,
    resolve_network,
)
from ffem_jax.specs.trial import (
    DataSpec,
    PretrainSpec,
    ProtocolSpec,
    RecipeSpec,
    TeacherSpec,
    TrialSpec,
    select_used,
    to_plain,
    trial_key,
)

TRIAL = TrialSpec(arch=FFEM_AM)
TAUGHT = TrialSpec(
    arch=FFEM_AM, recipe=RecipeSpec(distill_cosine=2.0), teacher=TeacherSpec(name="vectors", path="teacher.npz")
)


def change(trial: TrialSpec, path: str, value: Any) -> TrialSpec:
    """`trial` with the field at the dotted `path` set to `value`."""

    def walk(spec: Any, parts: list[str]) -> Any:
        head, *rest = parts
        return replace(spec, **{head: walk(getattr(spec, head), rest) if rest else value})

    changed = walk(trial, path.split("."))
    assert isinstance(changed, TrialSpec)
    return changed


def test_the_key_is_the_same_in_every_process_and_release() -> None:
    # If this fails, results recorded before are no longer found: raise KEY_VERSION on purpose, or undo the change.
    assert (trial_key(TRIAL), trial_key(TRIAL, "0123456789abcdef")) == ("a9b262c8f6e1b892", "27d57138058c8419")
    script = (
        "from ffem_jax.specs.architecture import ArchSpec, AttentionSpec\n"
        "from ffem_jax.specs.trial import TrialSpec, trial_key\n"
        "print(trial_key(TrialSpec(arch=ArchSpec(name='ffem_am', attention=AttentionSpec(kind='eca')))))\n"
    )
    command = [sys.executable, "-c", script]
    repository = Path(__file__).resolve().parents[2]
    assert subprocess.run(command, capture_output=True, text=True, cwd=repository).stdout == "a9b262c8f6e1b892\n"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("arch.name", "renamed"),
        ("recipe.name", "renamed"),
        ("data.cache_dir", "elsewhere"),
        ("arch.attention.placement", (0, 13)),
        ("arch.attention.placement", [-1, 0]),
        ("arch.attention.reduction", 4),  # SE's, and this is ECA
        ("arch.attention.kernel_size", 9),  # the kernel is adaptive
        ("arch.attention.gamma", 2.1),  # the same kernels at 32 and at 960 channels
        ("arch.depth_multiplier", 0.999),  # rounds up to the same repeats
        ("protocol.folds", 7),  # holdout has none
    ],
)
def test_what_decides_nothing_leaves_the_key(path: str, value: Any) -> None:
    changed = change(TRIAL, path, value)
    assert changed != TRIAL
    assert trial_key(changed) == trial_key(TRIAL)
    assert trial_key(changed, "faces") == trial_key(TRIAL, "faces")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("arch.attention.kind", "none"),
        ("arch.attention.kind", "se"),
        ("arch.attention.placement", "all"),
        ("arch.attention.position", "projection"),
        ("arch.attention.fusion", "residual"),
        ("arch.attention.gamma", 1.0),
        ("arch.stem_stride", 1),
        ("arch.width_multiplier", 0.5),
        ("arch.depth_multiplier", 0.5),
        ("arch.head_channels", 0),
        ("arch.pooling", "global_depthwise"),
        ("arch.activation", "prelu"),
        ("arch.block", "shuffle"),
        ("arch.stem_extra", "max_pool"),
        ("arch.embedding_norm", True),
        ("arch.embedding_dim", 64),
        ("data.resolution", 64),
        ("data.images_per_epoch", 500),  # of the same faces
        ("protocol.test_per_person", 3),
        ("protocol.split_seed", 1),
        ("protocol.name", "kfold"),
        ("protocol.name", "view2"),
        ("protocol.validation_per_person", 1),
        ("recipe.epochs", 31),
        ("recipe.learning_rate", 0.05),
        ("recipe.flip_test", True),
    ],
)
def test_what_decides_a_result_changes_the_key(path: str, value: Any) -> None:
    assert trial_key(change(TRIAL, path, value)) != trial_key(TRIAL)
    assert trial_key(change(TRIAL, path, value), "faces") != trial_key(TRIAL, "faces")


def test_every_recipe_field_but_the_name_decides() -> None:
    choices = {"optimizer": "adamw", "schedule": "constant", "loss": "softmax", "precision": "bfloat16"}
    for field in dataclasses.fields(RecipeSpec):
        now = getattr(TRIAL.recipe, field.name)
        if field.name in choices:
            other: Any = choices[field.name]
        elif isinstance(now, bool):
            other = not now
        elif isinstance(now, int):
            other = now + 1
        elif isinstance(now, float):
            other = now / 2 or 0.5
        else:
            assert field.name == "name"
            continue
        # decay is read by its own schedule alone, and a margin by its own losses.
        base = change(TRIAL, "recipe.schedule", "exponential") if field.name == "decay" else TRIAL
        base = change(TRIAL, "recipe.loss", "arcface") if field.name.startswith("margin") else base
        base = TAUGHT if field.name.startswith("distill") else base
        assert trial_key(change(base, f"recipe.{field.name}", other)) != trial_key(base), field.name


@pytest.mark.parametrize(
    ("chosen", "value", "unused", "other"),
    [
        ("loss", "softmax", "scale", 30.0),
        ("loss", "softmax", "margin", 0.4),
        ("loss", "normalized_softmax", "margin_rise", 0.4),
        ("schedule", "one_cycle", "decay", 0.5),
        ("schedule", "constant", "warmup_fraction", 0.5),
        ("optimizer", "adamw", "nesterov", False),
        ("learning_rate", 1.0, "learning_rate", 1),
    ],
)
def test_what_a_recipe_does_not_read_does_not_decide(chosen: str, value: Any, unused: str, other: Any) -> None:
    base = change(TRIAL, f"recipe.{chosen}", value)
    assert trial_key(change(base, f"recipe.{unused}", other)) == trial_key(base)


PRETRAINED = replace(TRIAL, pretrain=PretrainSpec(name="rest", data=DataSpec(name="lfw_rest")))


def test_a_pretraining_decides_by_what_it_is() -> None:
    key = trial_key(PRETRAINED)
    assert key != trial_key(TRIAL)
    for path, value in (
        ("pretrain.seed", 1),
        ("pretrain.recipe.epochs", 31),
        ("pretrain.protocol.test_people", 9),
        ("pretrain.data.min_images", 3),
        ("arch.width_multiplier", 0.5),
        ("seed", 1),
    ):
        assert trial_key(change(PRETRAINED, path, value)) != key, path
    for path, other in (
        ("pretrain.name", "renamed"),
        ("pretrain.recipe.name", "renamed"),
        ("pretrain.data.cache_dir", "a"),
    ):
        assert trial_key(change(PRETRAINED, path, other)) == key, path
    # Its faces are those there are, wherever they lie.
    moved = change(PRETRAINED, "pretrain.data.root", "elsewhere")
    assert trial_key(moved, "faces", "other people") == trial_key(PRETRAINED, "faces", "other people")
    assert trial_key(PRETRAINED, "faces", "others again") != trial_key(PRETRAINED, "faces", "other people")
    # What none would train on is no matter.
    off = change(PRETRAINED, "pretrain.name", "none")
    assert off.pretraining is None
    assert trial_key(off, "faces") == trial_key(TRIAL, "faces")


def test_a_pretraining_is_a_trial_of_the_same_network() -> None:
    first = PRETRAINED.pretraining
    assert first == TrialSpec(arch=TRIAL.arch, data=PRETRAINED.pretrain.data)
    assert trial_key(change(PRETRAINED, "seed", 7).pretraining or TRIAL) == trial_key(first)


def test_the_number_of_people_tested_decides_under_holdout_alone() -> None:
    assert trial_key(change(TRIAL, "protocol.test_people", 5)) != trial_key(TRIAL)
    kfold = change(TRIAL, "protocol.name", "kfold")
    assert trial_key(change(kfold, "protocol.test_people", 5)) == trial_key(kfold)


def test_the_fold_decides_under_kfold_alone() -> None:
    kfold = change(TRIAL, "protocol.name", "kfold")
    assert trial_key(change(kfold, "protocol.fold", 1)) != trial_key(kfold)
    assert trial_key(change(kfold, "protocol.test_per_person", 5)) == trial_key(kfold)


def test_view2_is_known_by_its_fold_and_what_is_held_out_by_its_seed() -> None:
    view2 = change(TRIAL, "protocol", ProtocolSpec(name="view2", folds=10))
    assert trial_key(change(view2, "protocol.fold", 9)) != trial_key(view2)
    for unread, value in (("split_seed", 1), ("sigma", 0.1), ("far_target", 0.1), ("test_per_person", 5)):
        assert trial_key(change(view2, f"protocol.{unread}", value)) == trial_key(view2)
    held = change(view2, "protocol.validation_per_person", 1)
    assert trial_key(held) != trial_key(view2)
    assert trial_key(change(held, "protocol.split_seed", 1)) != trial_key(held)


@pytest.mark.parametrize(
    ("path", "value"), [("data.root", "another/folder"), ("data.name", "folder"), ("data.people", 5)]
)
def test_the_faces_fingerprint_stands_for_the_faces(path: str, value: Any) -> None:
    changed = change(TRIAL, path, value)
    assert trial_key(changed, "faces") == trial_key(TRIAL, "faces")
    assert trial_key(changed) != trial_key(TRIAL)
    assert trial_key(TRIAL, "faces") != trial_key(TRIAL, "other faces")


@given(arch=arch_strategy)
def test_the_kernel_rule_matters_only_by_its_kernels(arch: ArchSpec) -> None:
    adaptive = replace(arch, attention=AttentionSpec(kind="eca", placement=[0]))
    (kind, position, fusion, size) = resolve_network(adaptive).blocks[0].attention or ("", "", "", 0)
    fixed = replace(arch, attention=AttentionSpec(kind=kind, placement="first", kernel="fixed", kernel_size=size))
    assert (position, fusion) == ("depthwise", "scale")
    assert resolve_network(fixed) == resolve_network(adaptive)
    data = DataSpec(resolution=512)
    assert trial_key(TrialSpec(arch=fixed, data=data)) == trial_key(TrialSpec(arch=adaptive, data=data))


@given(first=arch_strategy, second=arch_strategy)
def test_keys_are_equal_exactly_where_networks_are(first: ArchSpec, second: ArchSpec) -> None:
    data = DataSpec(resolution=512)
    keys = [trial_key(TrialSpec(arch=arch, data=data)) for arch in (first, second)]
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
    assert (keys[0] == keys[1]) == (resolve_network(first) == resolve_network(second))


def test_every_field_of_the_network_decides() -> None:
    # A field added to NetworkSpec or BlockSpec enters the key by itself: this holds that it stays so.
    network = resolve_network(FFEM_AM)
    for spec in (network, network.blocks[0]):
        for field in dataclasses.fields(spec):
            other: Any = replace(spec, **{field.name: "another value"})
            assert select_used(other) != select_used(spec), field.name
    assert select_used(resolve_network(ArchSpec()))["blocks"][0]["attention"] is None


def test_a_field_that_was_added_later_is_in_no_old_key() -> None:
    plain = select_used(resolve_network(SHUFFLE))
    added = {"stem_extra": "max_pool"}
    assert {name: plain.pop(name) for name in added} == added
    assert {block.pop("kind") for block in plain["blocks"]} == {"shuffle"}
    old = select_used(resolve_network(FFEM_AM))
    assert (set(plain), set(plain["blocks"][0])) == (set(old), set(old["blocks"][0]))


def test_a_spec_as_plain_json_keeps_every_field() -> None:
    plain = to_plain(change(TRIAL, "arch.attention.placement", [0, 13]))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["arch"]["attention"]["placement"] == [0, 13]
    assert plain["arch"]["stages"][0] == {"expansion": 1, "channels": 16, "repeats": 1, "stride": 1}
    assert set(plain) == {field.name for field in dataclasses.fields(TrialSpec)} - {"pretrain", "teacher"}
    assert set(plain["data"]) == {field.name for field in dataclasses.fields(DataSpec) if "added" not in field.metadata}


def test_a_field_added_later_is_kept_only_where_it_is_used() -> None:
    # So that records of before and of after, of one trial, say the same.
    later = {"margin", "margin_warmup", "margin_rise", "rotation", "zoom", "weight_averaging"}
    later |= {"distill_cosine", "distill_relation", "distill_centres", "distill_labels", "precision", "class_sampling"}
    assert {field.name for field in dataclasses.fields(RecipeSpec)} - set(to_plain(RecipeSpec())) == later
    used = to_plain(RecipeSpec(loss="cosface", rotation=5.0))
    assert (used["margin"], used["rotation"]) == (0.2, 5.0)
    assert "zoom" not in used
    assert "test_people" not in to_plain(ProtocolSpec())
    assert to_plain(ProtocolSpec(test_people=9))["test_people"] == 9
    assert to_plain(TAUGHT)["teacher"]["name"] == "vectors"
    assert "teacher" not in to_plain(TRIAL)
    assert to_plain(PRETRAINED)["pretrain"]["data"]["name"] == "lfw_rest"
    assert "pretrain" not in to_plain(change(PRETRAINED, "pretrain.name", "none"))


def test_committed_records_have_the_keys_of_their_specs(repository):
    """What was recorded before is found again: of specs and faces' fingerprints, as far as records hold these."""
    found = 0
    for path in (repository / "results" / "placement" / "records.jsonl", repository / "results/search/records.jsonl"):
        for record in read_records(path):
            trial = read_trial(record.spec)
            if not trial.pretraining:
                assert trial_key(trial, record.data_fingerprint) == record.trial_key
                found += 1
    assert found > 150
