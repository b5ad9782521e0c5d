"""A trial that tests people nobody trained on, from spec to record, and what pools its folds; on drawn faces."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.data import DataError
from ffem_jax.data.protocols import load_split
from ffem_jax.data.recorded import identify_faces
from ffem_jax.records.record import TrialRecord, read_records
from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.architecture import ArchSpec, StageSpec
from ffem_jax.specs.trial import DataSpec, PretrainSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec, trial_key

TRIAL = TrialSpec(
    arch=ArchSpec(
        name="small", stem_channels=8, stages=(StageSpec(1, 8, 1, 2),), head_channels=0, embedding_dim=8,
    ),
    data=DataSpec(name="synthetic", people=6, images_per_person=4, resolution=16),
    protocol=ProtocolSpec(name="open_set", folds=2),
    recipe=RecipeSpec(epochs=2, batch_size=6),
)  # fmt: skip


def run(folder, trial):
    return run_trials(trial, RunSpec(progress=False), folder / f"fold{trial.protocol.fold}", folder / "records.jsonl")


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("open_set")
    trials = [dataclasses.replace(TRIAL, protocol=dataclasses.replace(TRIAL.protocol, fold=fold)) for fold in range(2)]
    return folder, trials, [run(folder, trial)[0] for trial in trials]


def test_a_fold_records_rank_1_and_verification_of_strangers(folds) -> None:
    folder, trials, records = folds
    for trial, record in zip(trials, records, strict=True):
        faces, split = load_split(trial.data, trial.protocol)
        assert (record.status, record.error, record.protocol) == ("done", "", "open_set")
        assert record.trial_key == trial_key(trial, identify_faces(faces, split))
        assert (record.people, record.train_images, record.tested, record.validated) == (3, 12, 12, 0)
        assert record.test_images == split.probes.tolist()
        assert record.test_identities == faces.labels[split.probes].tolist()
        assert (len(record.hits), record.hits.count("1")) == (12, record.correct)
        assert record.accuracy == record.correct / 12 == record.open_set["rank1"]
        assert (record.accuracy_low, record.accuracy_high) == (
            record.open_set["rank1_low"],
            record.open_set["rank1_high"],
        )
        for name in ("rank1", "tar_at_far_1e2", "tar_at_far_1e3", "tar_at_far_1e4", "eer", "auc"):
            low, value, high = (record.open_set[name + end] for end in ("_low", "", "_high"))
            assert 0 <= low <= value <= high <= 1
        assert (record.open_set["images"], record.open_set["people"]) == (12, 3)
        assert record.validation_accuracy == []  # the classifier knows nobody who is tested
        assert (record.accuracy_gallery, record.accepted, record.hits_gallery) == (None, None, "")
        assert record.verification == {}
    assert read_records(folder / "records.jsonl") == records
    assert set(records[0].test_identities).isdisjoint(records[1].test_identities)


def test_folds_are_one_network_and_pair_with_another(folds) -> None:
    _, _, records = folds
    (summary,) = summarize_records(records)
    assert (summary.folds, summary.tested, summary.complete, summary.trials) == ((0, 1), 24, True, 2)
    assert summary.accuracy == pytest.approx(np.mean([record.accuracy for record in records]))
    (auc,) = summarize_records(records, "auc")
    assert auc.accuracy == pytest.approx(np.mean([record.open_set["auc"] for record in records]))
    assert auc.accuracy_low <= auc.accuracy <= auc.accuracy_high

    def change(record: TrialRecord) -> TrialRecord:
        spec = {**record.spec, "arch": {**record.spec["arch"], "embedding_dim": 16}}
        hits = "1" * len(record.hits)
        return dataclasses.replace(record, trial_key=f"other{record.trial_key}", spec=spec, hits=hits, correct=12)

    (row,) = compare_records([*records, *map(change, records)], "arch.embedding_dim").rows
    assert (row.images, row.people, row.pairs, row.test) == (24, 6, 2, "sign flip of people")
    assert row.difference == pytest.approx(1 - summary.accuracy)


def test_a_pretraining_on_people_who_are_tested_is_refused_before_it_trains(folds, tmp_path) -> None:
    first = PretrainSpec(name="same", data=TRIAL.data, protocol=ProtocolSpec(test_per_person=1), recipe=TRIAL.recipe)
    with pytest.raises(DataError, match=r"pretrain\.data=synthetic; choose other faces") as caught:
        run(tmp_path, dataclasses.replace(TRIAL, pretrain=first))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "records.jsonl").exists()
