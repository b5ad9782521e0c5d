"""One training step, in the order in which it happens, and the state that it changes.

Draw the batch, augment it, forward, loss, gradients, update, metrics. `program` compiles the step and repeats it.

No random state is carried from step to step: each step's draws depend only on (seed, epoch, step). A trial that resumes
from a checkpoint therefore repeats exactly the steps of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from ffem_jax.data.augment import augment_images
from ffem_jax.models.draws import build_at_once, plan_draws
from ffem_jax.models.vectors import cut, join
from ffem_jax.specs.architecture import NetworkSpec
from ffem_jax.specs.trial import RecipeSpec
from ffem_jax.training.class_sampling import ClassSampling, warn_of_full
from ffem_jax.training.classifier import FaceClassifier, compute_loss
from ffem_jax.training.precision import Precision, warn_of_slow
from ffem_jax.training.recipes import Schedule
from ffem_jax.training.teaching import compute_teaching_loss

# The mesh axis that a batch is split over. On a CPU each core is a device (machine/devices.py).
BATCH_AXIS = "batch"


class TrainState(NamedTuple):
    """Everything that a step changes. With several seeds each leaf has a leading axis [seed].

    Checkpoints and weights files use these field names.

    Args:
        params: the trainable parameters.
        statistics: BatchNorm's running means and variances.
        optimizer: the optimiser's state, for all parameters as one vector.
        average: the moving average of (params, statistics), or () if the recipe has none.
    """

    params: Any
    statistics: Any
    optimizer: Any
    average: Any = ()

    @property
    def evaluated(self) -> tuple[Any, Any]:
        """The params and batch statistics of the trained network: averaged if the recipe averages weights."""
        return self.average or (self.params, self.statistics)


class EpochMetrics(NamedTuple):
    """Metrics accumulated over the steps of an epoch. With several seeds each field has a leading axis [seed].

    Args:
        loss: float32, the sum of the batch losses.
        correct: int32, the number of images classified correctly.
        bad_step: int32, the first step whose loss was not finite, or -1.
    """

    loss: jax.Array
    correct: jax.Array
    bad_step: jax.Array

    @classmethod
    def zero(cls, shape: tuple[int, ...] = ()) -> EpochMetrics:
        """Return the metrics before the first step, each of `shape`."""
        return cls(jnp.zeros(shape), jnp.zeros(shape, jnp.int32), jnp.full(shape, -1, jnp.int32))

    def add(self, loss: jax.Array, correct: jax.Array, step: jax.Array) -> EpochMetrics:
        """Return these metrics with those of one more step added."""
        bad_step = jnp.where((self.bad_step < 0) & ~jnp.isfinite(loss), step, self.bad_step)
        return EpochMetrics(self.loss + loss, self.correct + correct, bad_step)


class TrainingFaces(NamedTuple):
    """All faces, or those of one batch: NumPy arrays on the host, then arrays on the device.

    Args:
        images: uint8 [image, R, R, 3].
        labels: int32 [image].
        train_indices: int32 [image], the training images; padded to one length for all folds.
        train_count: the number of valid entries at the start of `train_indices`.
        targets: float32 [image, feature], the teacher's embedding of each image; None without a teacher.
        centres: float32 [num_classes, feature], L2-normalised mean target of each class; None without a teacher.
    """

    images: Any
    labels: Any
    train_indices: Any
    train_count: Any
    targets: Any = None
    centres: Any = None


class PureClassifier:
    """A FaceClassifier as pure functions of arrays, for JAX's transformations.

    Attributes:
        params, statistics: the shapes of its state.
        sampling: chooses the classes of a step; the methods below accept parameters with any number of classes.
    """

    def __init__(
        self, network: NetworkSpec, resolution: int, num_classes: int, recipe: RecipeSpec, teacher_features: int = 0
    ):
        self._build = lambda rngs: FaceClassifier(network, resolution, num_classes, recipe, teacher_features, rngs=rngs)
        planned, self._draws = plan_draws(self._build)
        self._graph, self.params, self.statistics = _split(planned)
        self._precision = Precision(recipe.precision, planned, self.params)
        self.sampling = ClassSampling(recipe, self.params, num_classes)

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """Return initial params and batch statistics, drawn with `key`."""
        return _split(build_at_once(self._build, key, self._draws))[1:]

    def apply(
        self, params: Any, statistics: Any, pixels: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Pixels [N, R, R, 3] -> embeddings [N, embedding_dim], logits [N, num_classes], updated batch statistics.

        With `train` BatchNorm normalises by the batch, over all devices of BATCH_AXIS, and the network computes in the
        recipe's precision. Otherwise it uses the running statistics and float32. The results are always float32.
        """
        model = nnx.merge(self._graph, self._precision.round_params(params) if train else params, statistics)
        model.train() if train else model.eval()
        model.set_attributes(nnx.BatchNorm, axis_name=BATCH_AXIS)
        if train:
            self._precision.prepare(model)
        embeddings, logits = model(pixels)
        return embeddings, logits, _split(model)[2]

    def classify(self, params: Any, statistics: Any, embeddings: jax.Array) -> jax.Array:
        """Embeddings [N, embedding_dim] -> logits [N, num_classes]."""
        return nnx.merge(self._graph, params, statistics).classifier(embeddings)

    def project(self, params: Any, statistics: Any, embeddings: jax.Array) -> jax.Array:
        """Embeddings [N, embedding_dim] -> vectors [N, feature] in the teacher's space."""
        return nnx.merge(self._graph, params, statistics).project(embeddings)


def _split(model: nnx.Module) -> tuple[Any, Any, Any]:
    parts: Any = nnx.split(model, nnx.Param, ...)
    return parts[0], nnx.as_pure(parts[1]), nnx.as_pure(parts[2])


def shuffle_epoch(key: jax.Array, faces: TrainingFaces, epoch: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return an epoch's key and the training images' indices in that epoch's order, int32 [image], padding last."""
    epoch_key = jax.random.fold_in(key, epoch)
    draws = jax.random.uniform(epoch_key, faces.train_indices.shape)
    trains = jnp.arange(draws.size) < faces.train_count
    return epoch_key, faces.train_indices[jnp.argsort(jnp.where(trains, draws, 2.0))]


def make_train_step(
    model: PureClassifier, optimizer: optax.GradientTransformation, recipe: RecipeSpec, share: int
) -> Callable[..., tuple[TrainState, EpochMetrics]]:
    """Return the training step as it runs on one device of BATCH_AXIS.

    Args:
        model: the model to train.
        optimizer: returns updates without the learning rate and its sign (`recipes.make_optimizer`).
        recipe: the training settings; its rates come with the schedule.
        share: the number of images per batch on each device.

    Returns:
        train_step(state, metrics, epoch_key, faces, order, schedule, step) -> state, metrics. In `state` the params are
        one vector, and so are both parts of `average`: more than a hundred small arrays would dominate the compiled
        program. epoch_key and order come from `shuffle_epoch`; schedule is the epoch's, each field [step].
    """
    sampling = model.sampling
    warn_of_slow(recipe.precision)
    warn_of_full(recipe, sampling.num_classes)

    def train_step(
        state: TrainState,
        metrics: EpochMetrics,
        epoch_key: jax.Array,
        faces: TrainingFaces,
        order: jax.Array,
        schedule: Schedule,
        step: jax.Array,
    ) -> tuple[TrainState, EpochMetrics]:
        # Draw this device's share of the batch.
        first = lax.axis_index(BATCH_AXIS) * share
        chosen = lax.dynamic_slice(order, (step * recipe.batch_size + first,), (share,))
        images, labels = faces.images[chosen], faces.labels[chosen]
        rate, margin, averaging = jax.tree.map(lambda values: values[step], schedule)

        # Augment it.
        step_key = jax.random.fold_in(epoch_key, step)
        pixels = augment_images(step_key, images, recipe, recipe.batch_size, first)

        # Take the classifier's columns for all classes or for a sample of them.
        classes = sampling.draw(step_key, labels, BATCH_AXIS)
        part, part_state = sampling.take((state.params, state.optimizer), classes)
        own = sampling.renumber(labels, classes)
        centres = faces.centres if faces.centres is None or classes is None else faces.centres[classes]

        # Forward, and the loss.
        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            embeddings, logits, statistics = model.apply(params, state.statistics, pixels, train=True)
            loss = compute_loss(logits, own, margin, recipe)
            if faces.targets is not None:
                vectors = model.project(params, state.statistics, embeddings)
                loss += compute_teaching_loss(vectors, faces.targets[chosen], centres, own, recipe, BATCH_AXIS)
            return loss, (embeddings, logits, statistics)

        # Gradients: the mean over the devices is the gradient of the whole batch.
        params = cut(part, sampling.shapes)
        (loss, (embeddings, logits, statistics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        loss, gradient = lax.pmean((loss, join(grads)), BATCH_AXIS)

        # Update the parameters, and the average if the recipe has one.
        updates, part_state = optimizer.update(gradient, part_state, part)
        part = optax.apply_updates(part, -rate * updates)
        vector, optimizer_state = sampling.put((state.params, state.optimizer), (part, part_state), classes)
        average = state.average
        if recipe.weight_averaging:
            latest = vector, join(statistics)
            average = jax.tree.map(lambda old, new: old + averaging * (new - old), average, latest)

        # Metrics: the accuracy is over all classes. The unsampled columns are read from the updated vector, since
        # reading them from the old one would make XLA keep a copy of the whole classifier.
        if classes is None:
            found = jnp.argmax(logits, axis=-1)
        else:
            found = sampling.predict(
                lambda classifier: model.classify({**params, "classifier": classifier}, state.statistics, embeddings),
                vector, logits, classes,
            )  # fmt: skip
        correct = lax.psum(jnp.sum(found == labels), BATCH_AXIS)
        return TrainState(vector, statistics, optimizer_state, average), metrics.add(loss, correct, step)

    return train_step
