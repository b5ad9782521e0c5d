"""A trial that starts from another's weights: trained once, kept, found again, and its failure handed on."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from made_trials import TRIAL, run

import ffem_jax.training.trainer
from ffem_jax.data.protocols import load_split
from ffem_jax.records.record import read_records
from ffem_jax.specs.trial import DataSpec, PretrainSpec, ProtocolSpec, trial_key
from ffem_jax.training.pretraining import load_pretrained, start_from
from ffem_jax.training.trainer import Trainer
from ffem_jax.training.weights import name_leaves

OTHERS = DataSpec(name="synthetic", people=4, images_per_person=6, resolution=16, seed=9)
FIRST = PretrainSpec(
    name="others",
    data=OTHERS,
    protocol=ProtocolSpec(test_per_person=1, test_people=2),
    recipe=dataclasses.replace(TRIAL.recipe, epochs=2, weight_averaging=0.9, loss="softmax", optimizer="adamw"),
)
# A program of its own: test_trial measures how long its own takes to compile.
PRETRAINED = dataclasses.replace(
    TRIAL, pretrain=FIRST, recipe=dataclasses.replace(TRIAL.recipe, epochs=1, momentum=0.8)
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    return folder, run(folder, PRETRAINED)[0]


def read_pretrainings(folder):
    return read_records(folder / "pretraining" / "pretraining.jsonl")


@pytest.fixture
def forbid_training(monkeypatch):
    monkeypatch.setattr(ffem_jax.training.trainer, "Trainer", lambda *_: pytest.fail("would train"))


def test_the_pretraining_is_a_trial_with_its_own_record_and_key(finished):
    folder, record = finished
    assert record.status == "done", record.error
    assert record.spec["pretrain"]["name"] == "others"
    (first,) = read_pretrainings(folder)
    assert (first.status, first.people, first.tested, first.train_images) == ("done", 4, 2, 22)
    fingerprints = [load_split(data, TRIAL.protocol)[0].fingerprint for data in (TRIAL.data, OTHERS)]
    assert first.trial_key == trial_key(PRETRAINED.pretraining, fingerprints[1])
    assert record.trial_key == trial_key(PRETRAINED, *fingerprints)
    # Beside the sweep's records and not among them: a frontier of the sweep has nothing to do with it.
    assert read_records(folder / "records.jsonl") == [record]
    assert list(folder.rglob("records.jsonl")) == [folder / "records.jsonl"]


def load(folder):
    (first,) = read_pretrainings(folder)
    checkpoint = folder / "pretraining" / first.trial_key / "checkpoint"
    return load_pretrained(checkpoint, first.trial_key, PRETRAINED.pretraining)


@pytest.mark.parametrize("seeds", [[0], pytest.param([0, 1], marks=pytest.mark.slow)])
def test_the_network_is_taken_over_averaged_and_nothing_else(finished, seeds):
    faces, split = load_split(TRIAL.data, TRIAL.protocol)
    network = ffem_jax.specs.architecture.resolve_network(TRIAL.arch)
    trainer = Trainer(network, PRETRAINED.recipe, seeds, faces.images, faces.labels, split.train, split.test)
    pretrained = load(finished[0])
    fresh = jax.tree.map(np.array, trainer.init())
    state = start_from(trainer.init(), pretrained)
    assert jax.tree.structure(state) == jax.tree.structure(trainer.abstract_state)

    def assert_equal(left, right):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.broadcast_to(b, a.shape)), left, right)

    taken = name_leaves({"params": {"network": state.params["network"]}, "statistics": state.statistics})
    assert {name for name in pretrained if "classifier" not in name} == set(taken)
    assert_equal(taken, {name: pretrained[name] for name in taken})
    assert_equal(state.params["classifier"], fresh.params["classifier"])
    assert_equal(state.optimizer, fresh.optimizer)
    # The compiled program takes it, and the first epoch is not the one from fresh weights.
    history = ffem_jax.training.trainer.History(bad_steps=[""] * len(seeds))
    assert trainer.fit(restored=(0, state, history)).history.loss != trainer.fit().history.loss


def test_other_folds_seeds_and_recipes_find_it_done(finished, monkeypatch):
    folder, _ = finished
    trained = []
    trainer = ffem_jax.training.trainer.Trainer
    monkeypatch.setattr(
        ffem_jax.training.trainer,
        "Trainer",
        lambda network, recipe, *rest, **more: trained.append(recipe) or trainer(network, recipe, *rest, **more),
    )
    (other,) = run(folder, dataclasses.replace(PRETRAINED, protocol=ProtocolSpec(name="kfold", folds=4)), "fold")
    assert other.status == "done"
    assert trained == [PRETRAINED.recipe]
    assert len(read_pretrainings(folder)) == 1


def test_a_finished_trial_asks_for_no_weights(finished, forbid_training):
    folder, record = finished
    shutil.move(folder / "pretraining", folder / "moved")
    try:
        assert run(folder, PRETRAINED, "again") == [record]
    finally:
        shutil.move(folder / "moved", folder / "pretraining")


def test_a_network_over_the_cap_is_not_pretrained(tmp_path, forbid_training):
    (record,) = run(tmp_path, PRETRAINED, cap_mb=0.001)
    assert record.status == "over_cap"
    assert not (tmp_path / "pretraining").exists()


def test_a_failed_pretraining_fails_the_trial_with_the_reason(tmp_path, monkeypatch):
    def break_down(*_):
        raise FloatingPointError("the loss is not finite")

    monkeypatch.setattr(ffem_jax.training.trainer.Trainer, "fit", lambda self, **_: break_down())
    (record,) = run(tmp_path, PRETRAINED)
    assert record.status == "failed"
    (first,) = read_pretrainings(tmp_path)
    wanted = f"pretraining on synthetic ({first.trial_key}) failed: FloatingPointError: the loss is not finite"
    assert record.error == f"PretrainingError: {wanted}"
    assert first.status == "failed"


@pytest.mark.slow
def test_another_network_is_pretrained_anew_and_lost_weights_are_trained_again(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    (first,) = read_pretrainings(folder)
    wide = dataclasses.replace(PRETRAINED, arch=dataclasses.replace(TRIAL.arch, embedding_dim=12))
    assert run(folder, wide, "wide")[0].status == "done"
    assert len({record.trial_key for record in read_pretrainings(folder)}) == 2
    shutil.rmtree(folder / "pretraining" / first.trial_key)
    (folder / "records.jsonl").unlink()
    (again,) = run(folder, PRETRAINED, "again")
    assert (again.status, again.loss) == (finished[1].status, finished[1].loss)
    assert [record.trial_key for record in read_pretrainings(folder)].count(first.trial_key) == 2
