"""What may be compared: the key taken apart, versions of one data set, and every field of every spec looked at."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from typing import Any

import pytest
from made_records import build_record

from ffem_jax.analysis.comparability import MATCHING, FrontierError, check_comparable, identify, select_comparable
from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.pairing import read_settings
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.records.record import TrialRecord
from ffem_jax.records.view import read_trial
from ffem_jax.reports.frontier import write_frontier
from ffem_jax.reports.html.partition import split_comparable
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec, StageSpec
from ffem_jax.specs.trial import DataSpec, PretrainSpec, ProtocolSpec, RecipeSpec, TrialSpec, to_plain, trial_key

# Specs between them reading every field; every other value of a field is tried on each.
BASES = [
    TrialSpec(
        arch=ArchSpec(attention=AttentionSpec(kind=kind, kernel=kernel)),
        data=DataSpec(name="folder", resolution=64),
        protocol=ProtocolSpec(name=protocol, fold=1, validation_per_person=1),
        recipe=RecipeSpec(loss=loss, schedule=schedule),
        pretrain=PretrainSpec(name="lfw_rest", data=DataSpec(name="lfw_rest", resolution=64)),
    )
    for kind, kernel, protocol, loss, schedule in (
        ("eca", "adaptive", "holdout", "arcface", "one_cycle"),
        ("eca", "fixed", "kfold", "softmax", "exponential"),
        ("se", "adaptive", "view2", "normalized_softmax", "constant"),
        ("none", "adaptive", "holdout", "cosface", "exponential"),
        ("eca", "fixed", "bins", "softmax", "constant"),
    )
]
# Names and paths, which decide nothing; and what another of leads to another pixel or label, which a fingerprint says.
LABELS = ("name", "root", "bins_root", "cache_dir")
OTHERS: dict[str, list[Any]] = {
    "schedule": ["one_cycle", "exponential", "constant"],
    "loss": ["softmax", "normalized_softmax", "arcface", "cosface"],
    "optimizer": ["sgd", "adamw"],
    "placement": ["first", "last", "all", (0, 3)],
    "position": ["depthwise", "projection"],
    "fusion": ["scale", "residual"],
    "kernel": ["adaptive", "fixed", "mobilenetv2"],
    "kernel_size": [3, 7],
    "kind": ["none", "eca", "se"],
    "gamma": [2.0, 0.5],
    "b": [1.0, 9.0],
    "reduction": [16, 2],
    "stages": [(StageSpec(6, 24, 2, 2),)],
    "pooling": ["average", "global_depthwise"],
    "activation": ["relu6", "prelu"],
    "block": ["bottleneck", "shuffle"],
    "stem_extra": ["none", "max_pool"],
    "stem_stride": [1, 2],
    "width_multiplier": [1.0, 0.5],
    "depth_multiplier": [1.0, 0.3],
    "crop": [1.0, 0.5],
    "bins": [(), ("lfw",), ("agedb_30", "lfw")],
}


def vary(spec: Any, path: str = "") -> list[tuple[str, Any]]:
    """(dotted field, the spec with another value there) for every field of nested specs."""
    found = []
    for field in dataclasses.fields(spec):
        value, name = getattr(spec, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            for inner, one in vary(value, f"{name}."):
                with contextlib.suppress(ValueError):  # this value does not go with the others
                    found.append((inner, dataclasses.replace(spec, **{field.name: one})))
            continue
        if isinstance(value, dict):
            others = []  # whose own settings: tests/config/test_attention_options.py
        elif isinstance(value, bool):
            others = [not value]
        elif field.name in OTHERS:
            others = [one for one in OTHERS[field.name] if one != value]
        elif isinstance(value, str):
            others = ["another"] if field.name in LABELS else []
        else:
            others = [value + 1 if isinstance(value, int) else value / 2 + 0.01]
        for other in others:
            with contextlib.suppress(ValueError):
                found.append((name, dataclasses.replace(spec, **{field.name: other})))
    return found


def keep_trial(name: str) -> bool:
    """A name that chooses (of a protocol, a data set) is no label; both resolutions are one."""
    return name not in ("data.name", "protocol.name", "pretrain.name", "pretrain.data.name", "pretrain.protocol.name")


def record_of(trial: TrialSpec) -> TrialRecord:
    return TrialRecord(trial_key(trial, "faces", "first faces"), to_plain(trial), trial.seed, "done")


@pytest.mark.parametrize("base", BASES, ids=lambda base: f"{base.arch.attention.kind}-{base.protocol.name}")
def test_key_and_identity_tell_the_same_trials_apart(base):
    """Whatever changes a trial's key changes setting, network or run, and nothing else does."""
    own, key = identify(record_of(base)), trial_key(base, "faces", "first faces")
    looked = 0
    for name, other in vary(base):
        last = name.rpartition(".")[2]
        if not keep_trial(name) or ("data." in name and last not in LABELS):
            continue  # the data's settings enter the key by their fingerprint: see below
        record = record_of(other)
        changed = record.trial_key != key
        if last in MATCHING:
            assert identify(record) == own, name
        else:
            assert (identify(record) != own) == changed, name
        looked += 1
    assert looked > 45


def test_each_part_holds_what_is_its_own():
    base = BASES[1]
    own = identify(record_of(base))

    def changed(**fields: Any) -> set[str]:
        other = identify(record_of(dataclasses.replace(base, **fields)))
        return {name for name in own._fields if getattr(other, name) != getattr(own, name)}

    assert changed(seed=5) == {"run"}
    assert changed(protocol=dataclasses.replace(base.protocol, fold=3, split_seed=2)) == {"run"}
    assert changed(pretrain=dataclasses.replace(base.pretrain, seed=4)) == {"run"}
    assert changed(protocol=dataclasses.replace(base.protocol, folds=7)) == {"setting"}
    assert changed(data=dataclasses.replace(base.data, people=7)) == {"setting"}
    assert changed(recipe=dataclasses.replace(base.recipe, epochs=7)) == {"network"}
    elsewhere = dataclasses.replace(base.pretrain, data=dataclasses.replace(base.pretrain.data, root="/mnt/lfw"))
    assert changed(pretrain=elsewhere, data=dataclasses.replace(base.data, root="/home/faces", cache_dir="x")) == set()


def test_a_record_reads_back_as_the_trial_it_is_of():
    for base in BASES:
        for _, trial in [("", base), *vary(base)]:
            assert read_trial(json.loads(json.dumps(to_plain(trial)))) == read_trial(to_plain(trial))
            assert trial_key(read_trial(to_plain(trial)), "f", "p") == trial_key(trial, "f", "p")


# ------------------------------------------------------------------------------------- versions


def of_version(make_record, version: str, seed: int = 0, started: str = "", **more: Any) -> TrialRecord:
    """A record of a folder whose faces are of a version; another version is another key."""
    fields = {"data": {"name": "folder"}, "data_fingerprint": f"{version}-px", "pictures_fingerprint": version}
    record = make_record(seed=seed, started_at=started, **{**fields, **more})
    record.trial_key += version
    return record


@pytest.fixture
def edited(make_record) -> list[TrialRecord]:
    """A folder that got one picture more: two networks with its old faces, two with its new ones."""
    attentions = ({"kind": "none"}, {"kind": "eca"})
    return [
        of_version(make_record, version, started=f"2026-11-0{day}", attention=attention, correct=correct)
        for (day, version, correct) in ((1, "old", 50), (2, "new", 80))
        for attention in attentions
    ]


def test_of_an_edited_folder_the_newest_faces_count_and_the_others_are_named(edited):
    kept, (note,) = select_comparable(edited)
    assert [record.pictures_fingerprint for record in kept] == ["new", "new"]
    assert "2 trials of others are left out, by fingerprint: old (2); --faces old uses those instead" in note
    # In whichever order the lines stand.
    assert {r.pictures_fingerprint for r in select_comparable(edited[::-1])[0]} == {"new"}


def test_one_version_can_be_chosen(edited):
    for faces in ("old", "old-px", "ol"):
        kept, notes = select_comparable(edited, faces=faces)
        assert [record.pictures_fingerprint for record in kept] == ["old", "old"]
        assert notes == [f"2 trials of other faces are left out because of --faces {faces}"]
    with pytest.raises(FrontierError, match="--faces gone: no recorded trial used these; choose one of: old, new"):
        select_comparable(edited, faces="gone")


def test_a_new_version_that_nothing_finished_on_does_not_hide_the_old(make_record, edited):
    begun = of_version(make_record, "newer", started="2026-11-09", status="failed", error="stopped")
    kept, (note,) = select_comparable([*edited, begun])
    assert {record.pictures_fingerprint for record in kept} == {"new"}
    assert "old (2), newer (1)" in note


@pytest.mark.parametrize("name", ["folder", "lfw", "lfw52"])
def test_every_data_set_is_known_by_its_faces(make_record, name):
    records = [of_version(make_record, v, seed=i, data={"name": name}) for i, v in enumerate(("a", "b"))]
    assert len(select_comparable(records)[0]) == 1
    with pytest.raises(FrontierError, match="versions of one data set.*--faces a"):
        check_comparable(records)


def test_pictures_seen_at_two_resolutions_are_one_version(make_record):
    sizes = [of_version(make_record, "a", data={"name": "folder", "resolution": r}) for r in (48, 96)]
    for record in sizes:
        record.data_fingerprint = f"pixels at {record.resolution}"
    assert select_comparable(sizes) == (sizes, [])


def test_pixels_of_the_same_pictures_may_change_too(make_record):
    """Another release of the decoder: the key says another trial, and so does this."""
    records = [of_version(make_record, "a", seed=seed, started=f"2026-11-0{seed + 1}") for seed in (0, 1)]
    records[1].data_fingerprint = "decoded anew"
    kept, (note,) = select_comparable(records)
    assert (kept, "pixels of the faces changed" in note) == ([records[1]], True)


def test_settings_that_make_the_same_faces_are_alike(make_record):
    """The key says one trial, too."""
    records = [
        of_version(make_record, "a", seed=seed, data={"name": "folder", "min_images": seed + 2}) for seed in (0, 1)
    ]
    assert select_comparable(records) == (records, [])
    records[1] = of_version(make_record, "b", seed=1, data={"name": "folder", "min_images": 3})
    with pytest.raises(FrontierError, match=r"settings of folder: data.min_images \(2, 3\)"):
        select_comparable(records)


def test_faces_of_a_pretraining_have_versions_too(make_record):
    pretrain = PretrainSpec(name="lfw_rest", data=DataSpec(name="lfw_rest", resolution=64, root="/a"))
    elsewhere = dataclasses.replace(pretrain, data=dataclasses.replace(pretrain.data, root="/b"))
    records = [make_record(seed=seed, pretrain=vars(one)) for seed, one in enumerate((pretrain, elsewhere, pretrain))]
    (summary,) = summarize_records(records)
    assert (summary.trials, summary.seeds) == (3, (0, 1, 2))
    for record, fingerprint, day in zip(records, ("old", "new", ""), (1, 2, 3), strict=True):
        record.pretraining_fingerprint, record.started_at = fingerprint, f"2026-11-0{day}"
    kept, (note,) = select_comparable(records)
    assert kept == records[1:]
    assert "the faces of the pretraining changed" in note


def test_pretrainings_of_several_seeds_are_trainings_of_one_network(make_record):
    records = [
        make_record(seed=0, correct=correct, pretrain={"name": "lfw_rest", "data": DataSpec(resolution=64), "seed": s})
        for s, correct in enumerate((50, 60, 70))
    ]
    (summary,) = summarize_records(records)
    assert (summary.trials, summary.accuracy) == (3, pytest.approx(60 / 104))
    assert summary.seed_deviation == pytest.approx(10 / 104)


def test_two_folders_to_pretrain_on_are_no_versions_of_one(make_record):
    records = [
        make_record(
            pretrain={"name": name, "data": DataSpec(name="folder", resolution=64)},
            pretraining_fingerprint=name,
            trial_key=name,  # which hashes the faces
        )
        for name in ("celebs", "colleagues")
    ]
    assert select_comparable(records) == (records, [])
    assert len(summarize_records(records)) == 2


def test_an_edited_pretraining_folder_is_seen_whatever_the_recipe(make_record):
    records = [
        make_record(
            pretrain={"name": "own", "data": DataSpec(name="folder", resolution=64), "recipe": RecipeSpec(epochs=e)},
            pretraining_fingerprint=fingerprint,
            started_at=f"2026-11-0{day}",
        )
        for day, (e, fingerprint) in enumerate(((30, "old"), (90, "new")), 1)
    ]
    alone = make_record(seed=3)
    kept, (note,) = select_comparable([*records, alone])
    assert (kept, "the faces of the pretraining changed" in note) == ([records[1], alone], True)
    # What the note proposes keeps the networks that have no such pretraining.
    kept, _ = select_comparable([*records, alone], faces="old")
    assert kept == [records[0], alone]


def test_pixels_stand_for_their_images_at_every_resolution(make_record):
    sizes = [of_version(make_record, "a", data={"name": "folder", "resolution": r}) for r in (48, 96)]
    for record in sizes:
        record.data_fingerprint = f"pixels at {record.resolution}"
    assert select_comparable(sizes, faces="pixels at 48") == (sizes, [])


# ----------------------------------------------------------------------------------- people tested


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({"test_people": 2}, {}, r"test_people=2 .* test_people=0"),
        ({"validation_per_person": 1}, {}, r"validation_per_person=1 .* validation_per_person=0"),
        ({"name": "kfold"}, {"name": "kfold", "folds": 7}, r"folds=5 .* folds=7"),
    ],
)
def test_other_people_or_images_tested_share_no_axis(make_record, tmp_path, one, other, told):
    records = [make_record(protocol=one), make_record(protocol=other, attention={"kind": "eca"})]
    for refuse in (
        lambda: write_frontier(records, tmp_path),
        lambda: compare_records(records, "attention.kind"),
        lambda: summarize_records(records),
    ):
        with pytest.raises(FrontierError, match=f"mix protocols: .*{told}"):
            refuse()
    assert len(split_comparable(records)) == 2


def test_a_training_recorded_under_two_thresholds_counts_once(make_record):
    """Eq. 7's threshold is in the key, and no accuracy depends on it."""
    records = [make_record(protocol={"sigma": sigma}) for sigma in (0.4, 0.5)]
    assert records[0].trial_key != records[1].trial_key
    kept, (note,) = select_comparable(records)
    assert (kept, "protocol.sigma" in note) == ([records[1]], True)
    assert summarize_records(records)[0].trials == 1


def test_seeds_with_splits_of_their_own_count_the_images_they_tested(make_record):
    images = ([0, 1, 2, 3], [2, 3, 4, 5], [5, 6, 7, 8])
    records = [
        make_record(correct=2, tested=4, seed=i, protocol={"split_seed": i}, test_images=own, hits="1100")
        for i, own in enumerate(images)
    ]
    (summary,) = summarize_records(records)
    assert summary.tested == len(set(itertools.chain(*images))) == 9


# ------------------------------------------------------------------------------------- attention


def test_an_attention_that_is_declared_nowhere_raises(make_record):
    """Nothing tells which of its settings it reads: no width, no pair and no equality is made up."""
    from ffem_jax.specs import architecture

    with pytest.raises(
        architecture.SpecError, match=r"arch.attention.kind='imagined' is not known; choose one of: none, eca, se"
    ):
        AttentionSpec(kind="imagined")
    records = [make_record(arch={"width_multiplier": w}, attention={"kind": "se"}) for w in (0.5, 1.0)]
    for record, reduction in zip(records, (4, 16), strict=True):
        record.spec["arch"]["attention"] |= {"kind": "imagined", "reduction": reduction}
    with pytest.raises(FrontierError, match="attention.kind=imagined, which this version cannot read"):
        compare_records(records, "arch.width_multiplier")
    # Each is a network of its own all the same.
    assert len(summarize_records(records)) == 2


def test_what_an_attention_reads_is_what_its_size_depends_on(make_record):
    """A field that a kind reads tells two trials apart in a comparison; one that it does not read never does."""
    values = {"gamma": (2.0, 0.3), "b": (1.0, 9.0), "kernel_size": (3, 7), "reduction": (16, 2)}
    for attention in ({"kind": "eca"}, {"kind": "eca", "kernel": "fixed"}, {"kind": "se"}, {"kind": "none"}):
        for field, pair in values.items():
            records = [make_record(attention={**attention, field: value}) for value in pair]
            same_network = len({identify(record).network for record in records}) == 1
            assert same_network == (len({json.dumps(read_settings(record)) for record in records}) == 1)


def test_fits_of_the_same_pictures_stand_on_one_axis_only_where_they_are_compared() -> None:
    fits = {"crop": 80, "pad": 70, "stretch": 75}
    records = [
        build_record(correct=right, data={"name": "folder", "fit": fit}, seed=seed, data_fingerprint=fit,
                     pictures_fingerprint="same", hits="1" * right + "0" * (104 - right), test_images=list(range(104)))
        for fit, right in fits.items()
        for seed in range(2)
    ]  # fmt: skip
    assert "fit" not in records[0].spec["data"]  # the default is in no key and no record
    with pytest.raises(FrontierError, match=r'data\.fit \("crop", "pad", "stretch"\)'):
        check_comparable(records)
    check_comparable(records, varying="data.fit")
    found = compare_records(records, "data.fit", against="crop")
    assert {(row.first, row.second, round(row.difference * 104)) for row in found.rows} == {
        ("crop", "pad", -10),
        ("crop", "stretch", -5),
    }
