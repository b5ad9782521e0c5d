"""Training on one engine and on another, one training after another, and under settings of JAX's that are not ours."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from ffem_jax.kernels import EngineError, calls, load_library
from ffem_jax.models.convolutions import use_convolution_form
from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec, StageSpec, resolve_network
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec
from ffem_jax.training.program import _compile_program
from ffem_jax.training.trainer import History, Trainer

ARCH = ArchSpec(
    stem_channels=8,
    stages=(StageSpec(2, 8, 1, 2),),
    head_channels=0,
    embedding_dim=8,
    attention=AttentionSpec(kind="eca", placement="all"),
)
RECIPE = RecipeSpec(epochs=4, batch_size=8, crop_padding=0.1, learning_rate=0.02)
TRIAL = TrialSpec(
    arch=ARCH,
    data=DataSpec(name="synthetic", people=3, images_per_person=8, resolution=16),
    protocol=ProtocolSpec(test_per_person=2),
    recipe=dataclasses.replace(RECIPE, epochs=2, batch_size=6),
)
ONE_ULP = 2.0**-23


@pytest.fixture(autouse=True)
def _one_core(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


def draw_faces():
    random, labels = np.random.default_rng(0), np.arange(40) % 4
    images = random.integers(0, 255, (4, 16, 16, 3))[labels] // 2 + random.integers(0, 128, (40, 16, 16, 3))
    return images.astype(np.uint8), labels, np.arange(32), np.arange(32, 40)


def train(form, arch=ARCH, moved=0):
    """The loss of every epoch. moved: not 0, the seed by which every parameter starts an ulp up or down."""
    with use_convolution_form(form):
        trainer = Trainer(resolve_network(arch), RECIPE, [0], *draw_faces())
        state = trainer.init()
        if moved:
            random = np.random.default_rng(moved)

            def move(leaf):
                ulps = (ONE_ULP * random.choice([-1, 1], leaf.shape)).astype(np.float32)
                return jax.device_put(leaf * (1 + ulps), leaf.sharding)

            state = state._replace(params=jax.tree.map(move, state.params))
        return np.ravel(trainer.fit(restored=(0, state, History(bad_steps=[""]))).history.loss)


@pytest.mark.slow
@pytest.mark.skipif(not calls.are_there(), reason="no compiled kernels")
def test_the_losses_of_the_engines_are_as_close_as_those_of_starts_an_ulp_apart():
    kernels = train("kernels")
    assert kernels[-1] < kernels[0]
    apart = max(np.abs(train("kernels", moved=seed) - kernels).max() for seed in (1, 2, 3))
    plain = train("shifted")
    # An ulp per operation and not one per training: some ten times as much.
    assert 0 < apart < 1e-4
    np.testing.assert_allclose(plain, kernels, rtol=0, atol=20 * apart)


@pytest.mark.slow
def test_a_training_after_another_is_the_same_as_alone():
    """Nothing of the first network stays in the process: neither in what was compiled nor in the kernels."""
    form = "kernels" if calls.are_there() else "shifted"
    wide = dataclasses.replace(ARCH, stages=(StageSpec(2, 12, 1, 2),))
    first, after_another = train(form), train(form, wide)
    _compile_program.cache_clear()
    jax.clear_caches()
    np.testing.assert_array_equal(train(form, wide), after_another)
    assert not np.array_equal(first, after_another)


def run(folder):
    return run_trials(TRIAL, RunSpec(progress=False, checkpoint=False), folder / "trial", folder / "records.jsonl")


@pytest.mark.slow
def test_a_trial_in_a_process_of_64_bit_numbers_is_that_of_any_other(tmp_path):
    (wanted,) = run(tmp_path / "32")
    with jax.enable_x64(True):
        (found,) = run(tmp_path / "64")
    assert (found.status, found.error) == ("done", "")
    assert (found.loss, found.macs, found.peak_activation_bytes) == (
        wanted.loss,
        wanted.macs,
        wanted.peak_activation_bytes,
    )


def test_an_engine_that_is_none_is_the_requests_mistake_and_no_trial_fails_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FFEM_ENGINE", "nonsense")
    load_library.cache_clear()
    calls.are_there.cache_clear()
    with pytest.raises(EngineError, match="FFEM_ENGINE=nonsense is not known"):
        run(tmp_path)
    assert not (tmp_path / "records.jsonl").exists()
