"""The loop: it learns, repeats itself, goes on where it stopped, trains seeds side by side and sees a NaN."""

import copy
import dataclasses
import itertools

import jax
import numpy as np
import optax
import pytest
from made_trainers import NETWORK, PEOPLE, PER_PERSON, RECIPE, SHORT, assert_same, draw_faces

from ffem_jax.models.convolutions import list_forms, use_convolution_form
from ffem_jax.specs.architecture import SpecError
from ffem_jax.training.checkpoint import TrialCheckpoint
from ffem_jax.training.step import TrainState
from ffem_jax.training.trainer import Throughput, Trainer


@pytest.fixture(scope="module")
def trainer():
    return Trainer(NETWORK, RECIPE, [0], *draw_faces())


@pytest.fixture(scope="module")
def trained(trainer):
    return trainer.fit()


def test_it_learns_to_tell_four_people_apart(trained):
    history = trained.history
    assert len(history.loss) == len(history.train_accuracy) == len(history.validation_accuracy) == RECIPE.epochs
    assert history.loss[-1][0] < history.loss[0][0]
    assert history.validation_accuracy[-1][0] >= 0.75
    assert trained.images_per_second > 0
    assert trained.compile_seconds > 0


ADAMW = dataclasses.replace(
    SHORT, optimizer="adamw", learning_rate=0.003, clip_norm=0.5, loss="softmax", schedule="exponential"
)
EVERYTHING = dataclasses.replace(
    SHORT, loss="arcface", margin_warmup=0.0, weight_averaging=0.9, flip_test=True, crop_padding=0.1, brightness=0.2,
    contrast=0.2, erase=0.3, rotation=10.0, zoom=0.1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "seeds", "losses"),
    [
        pytest.param(SHORT, [0], [[7.287610371907552], [5.102089564005534]], id="sgd"),
        pytest.param(ADAMW, [3], [[1.3605012893676758], [1.3326579729715984]], id="adamw", marks=pytest.mark.slow),
        pytest.param(
            EVERYTHING,
            [0, 7],
            [[8.204261779785156, 7.240498860677083], [6.895242691040039, 6.731201807657878]],
            id="everything-two-seeds",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_steps_are_those_that_records_were_made_with(recipe, seeds, losses):
    """Six steps. Another loss here is another result for the same key: `specs.trial.KEY_VERSION` is then to be raised.

    Processors, and the forms of a convolution, round otherwise: up to 4e-6 of the loss after six steps, 1.1e-5 where
    LLVM does not optimise.
    """
    found = Trainer(NETWORK, recipe, seeds, *draw_faces()).fit().history.loss
    np.testing.assert_allclose(found, losses, rtol=2e-5)


def test_every_parameter_moves(trainer, trained):
    fresh = trainer.init()
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(fresh.params)]
    leaves = zip(names, jax.tree.leaves(fresh.params), jax.tree.leaves(trained.state.params), strict=True)
    assert not [name for name, old, new in leaves if np.array_equal(old, new)]


def test_the_same_seed_gives_the_same_network_and_another_gives_another(trainer, trained, monkeypatch):
    again = trainer.fit()
    assert_same(trained.state.params, again.state.params)
    assert trained.history == again.history
    # The program is the same for every seed; only the key differs.
    monkeypatch.setattr(trainer, "keys", jax.random.key(1))
    assert trainer.fit().history.loss != trained.history.loss


@pytest.mark.slow
def test_all_forms_and_any_number_of_cores_train_alike(monkeypatch):
    """A few steps of plain SGD from one start: the same losses and weights within rounding."""
    recipe = dataclasses.replace(RECIPE, epochs=1, optimizer="sgd", learning_rate=0.05, flip=True, crop_padding=0.1)
    faces = draw_faces()

    def train(form, cores):
        monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:cores])
        with use_convolution_form(form):
            trainer = Trainer(NETWORK, recipe, [0], *faces)
        training = trainer.fit()
        assert len(trainer.faces.images.sharding.device_set) == cores
        return training.history.loss[0][0], training.state

    reference_loss, reference = train("xla", 1)
    for form, cores in itertools.product(list_forms()[1:], (1, 2)):
        loss, state = train(form, cores)
        assert loss == pytest.approx(reference_loss, rel=1e-4)
        for (path, left), right in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(reference), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=2e-4, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("feed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fewer_devices_make_the_same_steps(feed):
    """Of two devices one: the very losses of the golden training, within rounding."""
    trainer = Trainer(NETWORK, SHORT, [0], *draw_faces(), feed=feed, devices=1)
    assert (trainer.device_count, trainer.idle) == (1, "")
    np.testing.assert_allclose(trainer.fit().history.loss, [[7.287610371907552], [5.102089564005534]], rtol=1e-5)


def test_devices_that_are_not_there_are_refused_in_one_line():
    with pytest.raises(SpecError, match=r"run\.devices=3 is more than the 2 there are here"):
        Trainer(NETWORK, SHORT, [0], *draw_faces(), devices=3)


def test_trials_that_differ_in_seed_rate_or_fold_alone_share_one_program():
    images, labels, train, test = draw_faces()
    trainer = Trainer(NETWORK, RECIPE, [0], images, labels, train, test)
    recipe = dataclasses.replace(RECIPE, name="other", learning_rate=0.01, schedule="exponential", epochs=2)
    other = Trainer(NETWORK, recipe, [5], images, labels, np.concatenate([train[1:], test[:1]]), test[1:])
    assert other._program is trainer._program
    assert other.compile_seconds < 0.5
    assert (
        Trainer(NETWORK, dataclasses.replace(RECIPE, momentum=0.5), [0], *draw_faces())._program is not other._program
    )


def test_without_validation_images_none_is_measured_and_training_is_the_same(trained):
    images, labels, train, _ = draw_faces()
    recipe = dataclasses.replace(RECIPE, epochs=2)
    alone = Trainer(NETWORK, recipe, [0], images, labels, train, np.zeros(0, np.intp)).fit()
    assert alone.history.validation_accuracy == []
    beside = Trainer(NETWORK, recipe, [0], images, labels, train, train[:8]).fit()
    assert alone.history.loss == beside.history.loss
    assert len(beside.history.validation_accuracy) == 2


def test_the_classifier_knows_those_who_train_and_nobody_else():
    images, labels, train, _ = draw_faces()
    train = train[np.isin(labels[train], [1, 3])]
    trainer = Trainer(NETWORK, RECIPE, [0], images, labels, train, train)
    training = trainer.fit()
    embeddings, logits = trainer.embed(training.state, np.arange(len(labels)))
    assert logits.shape == (len(labels), 2)
    assert np.isfinite(embeddings).all()
    right = (logits[train].argmax(-1) == np.where(labels[train] == 3, 1, 0)).mean()
    assert training.history.validation_accuracy[-1] == [right]
    assert right >= 0.75


@pytest.mark.slow
def test_a_margin_s_value_and_an_average_s_length_are_no_part_of_the_program():
    faces = draw_faces()
    recipe = dataclasses.replace(RECIPE, loss="arcface", margin=0.3, weight_averaging=0.9, epochs=3)
    first = Trainer(NETWORK, recipe, [0], *faces)
    other = dataclasses.replace(recipe, margin=0.1, margin_warmup=0.0, margin_rise=1.0, weight_averaging=0.5)
    assert Trainer(NETWORK, other, [0], *faces)._program is first._program
    # The first epoch is without a margin, the others judge the same network more severely.
    harsh = dataclasses.replace(recipe, margin=1.0, margin_warmup=1 / 3, margin_rise=0.0, learning_rate=0.0)
    loss = [epoch[0] for epoch in Trainer(NETWORK, harsh, [0], *faces).fit().history.loss]
    assert min(loss[1:]) > loss[0] + 1


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["arcface", "cosface"])
def test_without_its_margin_a_loss_is_the_normalized_softmax(trainer, loss):
    faces = draw_faces()
    never = dataclasses.replace(RECIPE, epochs=2, loss=loss, margin_warmup=1.0)
    plain = dataclasses.replace(RECIPE, epochs=2)
    found, wanted = (Trainer(NETWORK, recipe, [0], *faces).fit() for recipe in (never, plain))
    np.testing.assert_allclose(found.history.loss, wanted.history.loss, rtol=1e-3)
    # Nor has an evaluation a margin.
    state = wanted.state._replace(optimizer=trainer.init().optimizer)
    evaluated = Trainer(NETWORK, never, [0], *faces).embed(state, np.arange(9))
    for left, right in zip(evaluated, trainer.embed(state, np.arange(9)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_averaged_weights_are_the_average_of_the_steps_and_what_is_evaluated(trainer, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=5, batch_size=36, weight_averaging=0.5)  # a step an epoch
    averaging = Trainer(NETWORK, recipe, [0], *draw_faces())
    checkpoint, states = TrialCheckpoint(tmp_path / "checkpoint", ["key"]), []

    def save(done, state, history):
        checkpoint.save(done, state, history)
        states.append(jax.tree.map(np.array, state))

    training = averaging.fit(on_epoch=save)
    checkpoint.close()
    weights = 0.5 ** np.arange(5)[::-1]

    def compute_average(*steps):
        return sum(weight * step for weight, step in zip(weights, steps, strict=True)) / weights.sum()

    wanted = jax.tree.map(compute_average, *[(state.params, state.statistics) for state in states])
    for left, right in zip(jax.tree.leaves(training.state.average), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)

    everything = np.arange(PEOPLE * PER_PERSON)
    embeddings, logits = averaging.embed(training.state, everything)
    as_raw = TrainState(*training.state.average, trainer.init().optimizer)
    np.testing.assert_allclose(trainer.embed(as_raw, everything)[0], embeddings, rtol=1e-4, atol=1e-4)
    assert not np.allclose(trainer.embed(training.state._replace(average=()), everything)[0], embeddings, atol=1e-3)
    right = np.mean(logits[averaging.validation].argmax(-1) == averaging.labels_host[averaging.validation])
    assert training.history.validation_accuracy[-1] == [right]

    restored = TrialCheckpoint(tmp_path / "checkpoint", ["key"]).restore(averaging.abstract_state)
    assert_same(restored[1], states[-1])


def test_without_averaging_a_state_holds_no_average(trained):
    assert jax.tree.leaves(trained.state.average) == []
    assert trained.state.evaluated == (trained.state.params, trained.state.statistics)


def test_validation_accuracy_is_the_share_of_images_classified_right(trainer, trained):
    _, logits = trainer.embed(trained.state, trainer.validation)
    right = np.mean(logits.argmax(-1) == trainer.labels_host[trainer.validation])
    assert trained.history.validation_accuracy[-1] == [right]


def test_embeddings_do_not_depend_on_the_batch_they_are_in(trainer, trained):
    embeddings, _ = trainer.embed(trained.state, np.arange(PEOPLE * PER_PERSON))
    alone, _ = trainer.embed(trained.state, np.asarray([5]))
    np.testing.assert_allclose(alone[0], embeddings[5], rtol=1e-5, atol=1e-5)


def test_a_checkpoint_goes_on_to_the_very_same_network(trainer, trained, tmp_path):
    """Stopped after two epochs, restored by another object, finished: nothing differs from the run in one go."""

    class Stop(Exception):
        pass

    first = TrialCheckpoint(tmp_path / "checkpoint", ["key"])

    def save_then_stop(done, state, history):
        first.save(done, state, history)
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        trainer.fit(on_epoch=save_then_stop)
    first.close()

    second = TrialCheckpoint(tmp_path / "checkpoint", ["key"])
    restored = second.restore(trainer.abstract_state)
    second.close()
    assert restored is not None
    assert restored[0] == 2
    assert len(restored[2].loss) == 2
    finished = trainer.fit(restored=restored)
    assert_same(finished.state, trained.state)
    assert finished.history == trained.history


@pytest.mark.parametrize(
    ("seeds", "feed"),
    [([0], False), *(pytest.param(*other, marks=pytest.mark.slow) for other in [([0], True), ([0, 5], False)])],
)
def test_a_checkpoint_within_an_epoch_goes_on_to_the_very_same_network(seeds, feed, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    monkeypatch.setattr(Throughput, "steps_per_call", property(lambda _: 1, lambda *_: None))
    trainer = Trainer(NETWORK, SHORT, seeds, *draw_faces(), feed=feed)
    whole = trainer.fit()
    first = TrialCheckpoint(tmp_path / "checkpoint", ["key"])

    def save_then_stop(position):
        first.save(*position)
        if (position.epochs, position.step) == (1, 2):
            raise Stop

    with pytest.raises(Stop):
        trainer.fit(on_steps=save_then_stop, on_epoch=first.save)
    first.close()
    second = TrialCheckpoint(tmp_path / "checkpoint", ["key"])
    restored = second.restore(trainer.abstract_state)
    second.close()
    assert (restored.epochs, restored.step, len(restored.history.loss)) == (1, 2, 1)
    # An epoch that is begun is finished: there is no way back to its start.
    for stop_epoch in (0, 1):
        finished = trainer.fit(restored=copy.deepcopy(restored), stop_epoch=stop_epoch)
        assert_same(finished.state, whole.state)
        assert finished.history == whole.history


def test_every_saved_epoch_is_the_epoch_as_it_was(trainer, tmp_path):
    """Saving goes on while training overwrites its buffers: the disk must not see that."""
    states = []
    checkpoint = TrialCheckpoint(tmp_path / "checkpoint", ["key"])

    def save(done, state, history):
        checkpoint.save(done, state, history)
        states.append(jax.tree.map(np.array, state))

    trainer.fit(on_epoch=save)
    checkpoint.close()
    restored = TrialCheckpoint(tmp_path / "checkpoint", ["key"]).restore(trainer.abstract_state)
    assert restored[0] == RECIPE.epochs
    assert_same(restored[1], states[-1])


def test_somebody_elses_checkpoint_is_not_taken(trainer, trained, tmp_path):
    mine = TrialCheckpoint(tmp_path / "checkpoint", ["mine"])
    mine.save(RECIPE.epochs, trained.state, trained.history)
    mine.close()
    other = TrialCheckpoint(tmp_path / "checkpoint", ["other"])
    assert other.restore(trainer.abstract_state) is None
    other.close()


def test_a_checkpoint_laid_out_otherwise_is_begun_anew(trainer, trained, tmp_path):
    """As one is that another version of the package left half-trained."""
    earlier = TrialCheckpoint(tmp_path / "checkpoint", ["key"])
    earlier.save(1, trained.state._replace(optimizer={"trace": np.zeros(3)}), trained.history)
    earlier.close()
    now = TrialCheckpoint(tmp_path / "checkpoint", ["key"])
    assert now.restore(trainer.abstract_state) is None
    now.save(2, trained.state, trained.history)
    now.close()
    assert TrialCheckpoint(tmp_path / "checkpoint", ["key"]).restore(trainer.abstract_state)[0] == 2


def test_a_checkpoint_laid_out_otherwise_where_there_are_no_arrays_is_begun_anew(trainer, trained, tmp_path):
    """A transformation without a state of its own, which an optimiser of before had in another place."""
    parts = trained.state.optimizer
    masked = optax.MaskedState(optax.EmptyState())
    other = tuple(part if jax.tree.leaves(part) else masked for part in parts)
    assert masked in other
    earlier = TrialCheckpoint(tmp_path / "checkpoint", ["key"])
    earlier.save(1, trained.state._replace(optimizer=other), trained.history)
    earlier.close()
    now = TrialCheckpoint(tmp_path / "checkpoint", ["key"])
    assert now.restore(trainer.abstract_state) is None
    now.close()


def test_a_loss_that_is_not_finite_stops_with_its_step(trainer, monkeypatch):
    rates = trainer.schedule.rate.copy()
    rates[1:, 2] = np.nan
    monkeypatch.setattr(trainer, "schedule", trainer.schedule._replace(rate=rates))
    training = trainer.fit()
    # The third step of the second epoch makes the parameters NaN, and the fourth sees it.
    assert training.history.bad_steps == ["epoch 2, step 4"]
    assert len(training.history.loss) == 2


def test_seeds_side_by_side_are_the_seeds_one_by_one(trained):
    together = Trainer(NETWORK, RECIPE, [0, 1], *draw_faces()).fit()
    assert np.shape(together.history.loss) == (RECIPE.epochs, 2)
    # As one program the sums come in another order: equal within rounding, which training slowly widens.
    np.testing.assert_allclose(together.history.loss[0][0], trained.history.loss[0][0], rtol=1e-3)
    assert together.history.validation_accuracy[-1][0] >= 0.75
    assert together.history.loss[0][0] != together.history.loss[0][1]


def test_a_batch_larger_than_the_training_side_is_refused_in_one_line():
    with pytest.raises(SpecError, match="batch_size=64 is more than the 36 training images") as caught:
        Trainer(NETWORK, dataclasses.replace(RECIPE, batch_size=64), [0], *draw_faces())
    assert "\n" not in str(caught.value)
