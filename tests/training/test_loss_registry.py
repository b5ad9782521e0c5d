"""What every loss keeps to, whichever it is: a new entry in LOSSES is tested the day it appears."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_losses import compute_focal

from ffem_jax.config.compose import open_composer, to_specs
from ffem_jax.data import load_faces
from ffem_jax.records.view import read_trial
from ffem_jax.specs.data import DATA_SETS
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.recipe import LOSS_SETTINGS, LOSSES, Loss, RecipeSpec, register_loss, select_effective
from ffem_jax.specs.trial import TrialSpec, to_plain, trial_key
from ffem_jax.training.classifier import IdentityClassifier, compute_loss

CLASSES = 5
SETTINGS = sorted(name for group in LOSS_SETTINGS.values() for name in group)


@pytest.fixture(params=[*LOSSES.names, "focal"])
def recipe(request):
    """A recipe of each loss: those of the package, and one that somebody registered."""
    if request.param == "focal":
        register_loss("focal", source="Lin et al., ICCV 2017")(compute_focal)
    yield RecipeSpec(loss=request.param, scale=8.0, margin=0.3)
    LOSSES.kinds.pop("focal", None)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def make_logits(recipe: RecipeSpec, count: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Logits as a classifier gives them, cosines within 0.9 of either end, and labels."""
    values = np.random.default_rng(3).uniform(-0.9, 0.9, (count, CLASSES))
    return values * (recipe.scale if LOSSES[recipe.loss].has_scale else 4.0), np.arange(count) % CLASSES


def test_it_is_one_finite_number_of_the_logits_type(recipe):
    logits, labels = make_logits(recipe)
    loss = compute_loss(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), jnp.float32(0.3), recipe)
    assert (loss.shape, loss.dtype) == ((), jnp.float32)
    assert np.isfinite(loss)
    assert loss > 0


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_its_gradient_is_that_of_finite_differences(float64, recipe, margin):
    logits, labels = make_logits(recipe)

    def compute(values):
        return compute_loss(values, jnp.asarray(labels), jnp.float64(margin), recipe)

    found = np.asarray(jax.grad(compute)(jnp.asarray(logits)))
    compute = jax.jit(compute)
    wanted, step = np.zeros_like(logits), 1e-6
    for place in np.ndindex(*logits.shape):
        shift = np.zeros_like(logits)
        shift[place] = step
        wanted[place] = (compute(logits + shift) - compute(logits - shift)) / (2 * step)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-8)
    assert (np.abs(found).sum(axis=1) > 0).all()  # every image teaches something


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e4, -1e4])
def test_loss_and_gradient_are_finite_at_extremes(recipe, value):
    """Of cosines the extremes are -1 and 1; a dense layer has none."""
    spec = LOSSES[recipe.loss]
    value = float(np.clip(value, -1, 1)) * recipe.scale if spec.has_scale else value
    for sign in (1, -1):
        logits = np.full((3, CLASSES), value, np.float32)
        logits[np.arange(3), np.arange(3)] *= sign
        compute = jax.value_and_grad(lambda x: compute_loss(x, jnp.arange(3), jnp.float32(0.5), recipe))
        loss, gradient = compute(jnp.asarray(logits))
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_a_perfect_classifier_is_better_than_a_guessing_one_and_that_than_a_wrong_one(recipe, margin):
    size = recipe.scale if LOSSES[recipe.loss].has_scale else 10.0
    labels = jnp.arange(CLASSES)
    right = size * (2 * jnp.eye(CLASSES) - 1)
    losses = [compute_loss(x, labels, jnp.float32(margin), recipe) for x in (right, jnp.zeros_like(right), -right)]
    assert losses[0] < losses[1] < losses[2]


def test_the_order_of_images_and_of_classes_does_not_matter(recipe):
    logits, labels = make_logits(recipe)
    order, classes = np.random.default_rng(0).permutation(len(labels)), np.roll(np.arange(CLASSES), 2)
    first, second = (
        compute_loss(jnp.asarray(x, jnp.float32), jnp.asarray(y), jnp.float32(0.3), recipe)
        for x, y in ((logits, labels), (logits[order][:, classes], np.argsort(classes)[labels[order]]))
    )
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_the_classifier_gives_what_it_takes(recipe):
    classifier = IdentityClassifier(4, CLASSES, recipe, rngs=nnx.Rngs(0))
    embeddings = 100 * jax.random.normal(jax.random.key(0), (6, 4))
    logits = classifier(embeddings)
    assert logits.shape == (6, CLASSES)
    assert (classifier.bias is None) == LOSSES[recipe.loss].has_scale
    if LOSSES[recipe.loss].has_scale:
        assert float(abs(logits).max()) <= recipe.scale * 1.0001
    assert np.isfinite(compute_loss(logits, jnp.arange(6) % CLASSES, jnp.float32(0.3), recipe))


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_it_reads_decides_and_what_it_does_not_read_changes_no_key(recipe, setting):
    trial = TrialSpec(recipe=recipe)
    changed = dataclasses.replace(trial, recipe=dataclasses.replace(recipe, **{setting: 0.45}))
    reads = setting in LOSSES[recipe.loss].settings
    assert (trial_key(changed) != trial_key(trial)) == reads
    assert (setting in select_effective(recipe)) == reads


@pytest.mark.parametrize("setting", ["scale", "label_smoothing", "margin"])
def test_what_it_does_not_read_changes_no_loss(recipe, setting):
    """The declaration is checked against the function: nothing is read that no key tells."""

    # The classifier reads the scale.
    def compute(recipe, margin):
        logits, labels = make_logits(recipe)
        return compute_loss(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), jnp.float32(margin), recipe)

    other = dataclasses.replace(recipe, **{setting: 0.45})
    now, then = compute(recipe, recipe.margin), compute(other, other.margin)
    assert (float(now) != float(then)) == (setting in LOSSES[recipe.loss].reads)


def test_its_trial_is_read_from_a_record(recipe):
    trial = TrialSpec(recipe=recipe)
    again = read_trial(to_plain(trial))
    assert trial_key(again, "faces") == trial_key(trial, "faces")
    assert select_effective(again.recipe) == select_effective(recipe)


def test_its_source_is_named(recipe):
    assert LOSSES[recipe.loss].source


# ------------------------------------------------------------------------------ registering


@pytest.fixture
def registered():
    before = dict(LOSSES.kinds)
    yield
    LOSSES.kinds.clear()
    LOSSES.kinds.update(before)


def test_the_package_knows_its_four():
    assert LOSSES.names == ("softmax", "normalized_softmax", "arcface", "cosface")


def test_an_unknown_loss_is_one_line_that_names_those_there_are_own_ones_too(registered):
    register_loss("focal")(compute_focal)
    known = "softmax, normalized_softmax, arcface, cosface, focal"
    with pytest.raises(SpecError, match=f"recipe.loss='sphereface' is not known; choose one of: {known}$"):
        RecipeSpec(loss="sphereface")


def test_a_loss_of_somebody_s_own_enters_the_key_with_its_file(registered, monkeypatch):
    register_loss("focal")(compute_focal)
    trial = TrialSpec(recipe=RecipeSpec(loss="focal"))
    key = trial_key(trial, "faces")
    monkeypatch.setattr("ffem_jax.specs.recipe.compute_code_digest", lambda module: "another file")
    assert trial_key(trial, "faces") != key


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda: register_loss("arcface")(compute_focal), "recipe.loss=arcface is already registered"),
        (lambda: register_loss("focal loss")(compute_focal), "a name is letters, digits and _"),
        (lambda: register_loss("focal", reads=("gamma",))(compute_focal), "scale, label_smoothing, margin"),
        (lambda: register_loss("focal", reads="scale")(compute_focal), "scale, label_smoothing, margin"),
        (
            lambda: register_loss("focal")(lambda logits, labels: 0.0),
            "its function is called with (logits, labels, margin, recipe)",
        ),
        (lambda: register_loss("focal")(3.0), "its function is called with (logits, labels, margin, recipe)"),
    ],
)
def test_a_wrong_registration_is_one_line_that_says_what_is_right(registered, register, message):
    with pytest.raises(SpecError) as caught:
        register()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_same_registration_twice_is_one(registered):
    for _ in range(2):
        LOSSES.register(Loss("focal", compute_focal, ()))
    assert LOSSES.names[-1] == "focal"


OWN = """
import jax.numpy as jnp
import numpy as np
from ffem_jax.data import Faces
from ffem_jax.specs.data import register_data_set
from ffem_jax.specs.recipe import register_loss

@register_loss("from_file", reads=("scale",))
def compute(logits, labels, margin, recipe):
    return -jnp.take_along_axis(logits, labels[:, None], axis=1).mean()

@register_data_set("noise_from_file")
def load(spec):
    images = np.random.default_rng(0).integers(0, 256, (6, spec.resolution, spec.resolution, 3)).astype(np.uint8)
    numbers = tuple(map(str, range(6)))
    return Faces(images, np.arange(6, dtype=np.int32) // 3, ("a", "b"), numbers, numbers)
"""


def test_a_file_under_config_dir_adds_a_loss_and_a_data_set(registered, tmp_path, monkeypatch):
    monkeypatch.setenv("FFEM_PLUGINS", "")
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "noise_from_file.yaml").write_text("name: noise_from_file\n")
    try:
        with open_composer(tmp_path) as composer:
            config = composer.compose(["recipe.loss=from_file", "data=noise_from_file", "data.resolution=32"])
            trial, _ = to_specs(config)
        assert LOSSES[trial.recipe.loss].own_code
        assert load_faces(trial.data).people == ("a", "b")
        assert float(compute_loss(jnp.eye(2), jnp.arange(2), jnp.float32(0), trial.recipe)) == -1.0
    finally:
        DATA_SETS.kinds.pop("noise_from_file", None)


@pytest.mark.parametrize("give", [lambda logits: logits.mean(axis=1), lambda logits: logits.argmax(), lambda _: None])
def test_a_loss_that_is_not_one_number_is_told_in_one_line(registered, give):
    register_loss("odd")(lambda logits, labels, margin, recipe: give(logits))
    with pytest.raises(SpecError, match=r"recipe.loss=odd returns .*; it must return one float") as caught:
        compute_loss(jnp.zeros((2, 3)), jnp.arange(2), jnp.float32(0), RecipeSpec(loss="odd"))
    assert "\n" not in str(caught.value)
