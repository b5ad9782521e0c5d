"""Images per second of a full training step (forward, loss, backward, optimiser), ours against other libraries.

    python -m benchmarks.train_step [--networks ffem_am ...] [--resolutions 48 ...] [--batches 32 128] [--report-only]

From the repository root, with `pip install -e ".[bench]"`. Every contestant trains the same network on the same random
faces, which lie in memory as bytes: a shuffled batch is gathered, normalised to -1 to 1 and stepped on with SGD.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import contest
from benchmarks.contest import Cell, Contest, Contestant
from benchmarks.peers.libraries import import_jax, import_keras, import_torch

IMAGES = 1024
PEOPLE = 52
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4


def make_faces(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images [IMAGES, R, R, 3] and people [IMAGES], each person at least once."""
    return contest.make_images(IMAGES, resolution), np.arange(IMAGES, dtype=np.int32) % PEOPLE


class Ours(Contestant):
    """`ffem_jax.training.trainer.Trainer`, by the call that its `fit` makes about once a second."""

    name, label, libraries, cached = "ours", "ffem_jax", ("jax",), True

    import_libraries = staticmethod(import_jax)

    def __init__(self, cell: Cell, folder: Path):
        from ffem_jax.specs.trial import RecipeSpec
        from ffem_jax.training.trainer import Trainer

        recipe = RecipeSpec(
            name="benchmark",
            epochs=1,
            batch_size=cell.batch,
            optimizer="sgd",
            learning_rate=RATE,
            momentum=MOMENTUM,
            nesterov=True,
            schedule="constant",
            weight_decay=DECAY,
            loss="softmax",
            label_smoothing=0.0,
            flip=False,
        )
        images, people = make_faces(cell.resolution)
        self.trainer = Trainer(cell.network, recipe, [0], images, people, np.arange(IMAGES), np.arange(PEOPLE))
        self.state, self.epoch = self.trainer.init(), 0

    def run(self, steps: int) -> None:
        import jax

        trainer = self.trainer
        while steps:
            sums, last = trainer._zero_sums(), min(steps, trainer.steps_per_epoch)
            schedule = type(trainer.schedule)(*(values[0] for values in trainer.schedule))
            arguments = (sums, *trainer._faces, schedule, self.epoch, 0, last)
            self.state, sums = trainer._program.train_steps(self.state, *arguments)
            jax.device_get(sums)
            self.epoch, steps = self.epoch + 1, steps - last


class Torch(Contestant):
    """PyTorch eager, channels_last."""

    name, label, libraries = "torch", "PyTorch eager", ("torch",)

    import_libraries = staticmethod(import_torch)

    def __init__(self, cell: Cell, folder: Path):
        import torch

        from benchmarks.peers.torch_network import FaceClassifier, normalize_pixels

        images, people = make_faces(cell.resolution)
        self.images, self.people = torch.from_numpy(images), torch.from_numpy(people).long()
        self.batch, self.order = cell.batch, torch.empty(0, dtype=torch.long)
        model = FaceClassifier(cell.network, cell.resolution, PEOPLE).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)

        def compute_loss(images: torch.Tensor, people: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(model(normalize_pixels(images))[1], people)

        self.compute_loss = compute_loss

    def run(self, steps: int) -> None:
        import torch

        for _ in range(steps):
            if len(self.order) < self.batch:
                self.order = torch.randperm(IMAGES)
            chosen, self.order = self.order[: self.batch], self.order[self.batch :]
            self.optimizer.zero_grad()
            loss = self.compute_loss(self.images[chosen], self.people[chosen])
            loss.backward()
            self.optimizer.step()
        loss.item()


class TorchCompile(Torch):
    """PyTorch with torch.compile around the network and its loss."""

    name, label, cached = "torch_compile", "torch.compile", True

    def __init__(self, cell: Cell, folder: Path):
        import torch

        super().__init__(cell, folder)
        self.compute_loss = torch.compile(self.compute_loss)


class Keras(Contestant):
    """Keras 3 on TensorFlow: the compiled step that `model.fit` calls, on a tf.data pipeline as `fit` builds one."""

    name, label, libraries = "keras", "Keras (TensorFlow)", ("keras", "tensorflow")

    import_libraries = staticmethod(import_keras)

    def __init__(self, cell: Cell, folder: Path):
        import keras
        import tensorflow as tf

        from benchmarks.peers.keras_network import build_keras_classifier

        classifier = build_keras_classifier(cell.network, cell.resolution, PEOPLE)
        pixels = keras.Input((cell.resolution, cell.resolution, 3), dtype="uint8")
        _, logits = classifier(keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels))
        self.model = keras.Model(pixels, logits)
        self.model.compile(
            keras.optimizers.SGD(RATE, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile="auto",
        )
        self.model.make_train_function()
        images, people = (tf.constant(array) for array in make_faces(cell.resolution))
        order = tf.data.Dataset.range(IMAGES).shuffle(IMAGES).repeat().batch(cell.batch, drop_remainder=True)
        batches = order.map(lambda chosen: (tf.gather(images, chosen), tf.gather(people, chosen)))
        self.batches = iter(batches.prefetch(tf.data.AUTOTUNE))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            logs = self.model.train_function(self.batches)
        float(logs["loss"])


CONTEST = Contest(
    name="train_step",
    work="a training step",
    step="step",
    notes=(
        "A step gathers a shuffled batch of bytes from memory, normalises it, and goes forward, backward and through "
        f"SGD (Nesterov momentum {MOMENTUM}, weight decay {DECAY:g}; ours decays kernels only), in float32, with "
        f"softmax cross-entropy over {PEOPLE} people. ffem_jax is timed through `Trainer`, as `fit` calls it, and "
        "counts right answers besides; its first step includes compiling the program that evaluates. Keras is timed "
        'through the compiled function that `fit` calls, without what `fit` adds a call; `jit_compile="auto"`, which '
        "means no XLA on a CPU."
    ),
    contestants=(Ours, Torch, TorchCompile, Keras),
    batches=(32, 128),
)

if __name__ == "__main__":
    contest.run(CONTEST)
