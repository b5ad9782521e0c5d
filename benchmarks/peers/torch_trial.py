"""A trial in PyTorch and a sweep in Optuna, as their users write them: one trial after another, in one process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.torch_network import FaceClassifier
from ffem_jax.data import Faces
from ffem_jax.data.protocols import Split
from ffem_jax.specs.architecture import NetworkSpec
from ffem_jax.specs.trial import RecipeSpec

EVALUATION_BATCH = 64


class CosineClassifier(nn.Linear):
    """Scaled cosines between an embedding and each class's weights (NormFace): [N, embedding_dim] -> [N, people]."""

    def __init__(self, embedding_dim: int, people: int, scale: float):
        super().__init__(embedding_dim, people, bias=False)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * functional.linear(functional.normalize(x), functional.normalize(self.weight))


class TorchTrainer:
    """Train a network with `recipe` on uint8 [image, R, R, 3] in memory; `steps` is the length of the schedule.

    Raises ValueError if `recipe` requests something that this peer does not support.
    """

    def __init__(
        self,
        network: NetworkSpec,
        images: np.ndarray,
        labels: np.ndarray,
        recipe: RecipeSpec,
        seed: int,
        steps: int,
        device: str = "cpu",
    ):
        others = ("crop_padding", "brightness", "contrast", "erase", "flip_test", "clip_norm")
        asked = [name for name in others if getattr(recipe, name)]
        if recipe.optimizer != "sgd" or recipe.schedule != "one_cycle" or asked:
            raise ValueError(f"the peer trains with sgd and one_cycle, and without {', '.join(others)}")
        torch.manual_seed(seed)
        people = int(labels.max()) + 1
        model = FaceClassifier(network, images.shape[1], people)
        if recipe.loss == "normalized_softmax":
            model.classifier = CosineClassifier(network.embedding_dim, people, recipe.scale)
        self.model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe, self.device = recipe, device
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(labels.astype(np.int64)).to(device)
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        rate, momentum, nesterov = recipe.learning_rate, recipe.momentum, recipe.nesterov
        # Fused: one more argument than the plain optimiser, and faster.
        self.optimizer = torch.optim.SGD(groups, rate, momentum, nesterov=nesterov, fused=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, rate, total_steps=steps, pct_start=recipe.warmup_fraction, cycle_momentum=False
        )

    def _take(self, chosen: torch.Tensor, mirror: bool) -> torch.Tensor:
        """Return images as pixels [N, 3, R, R] in -1 to 1, channels last in memory."""
        images = self.images[chosen].permute(0, 3, 1, 2)
        if mirror:
            flipped = torch.rand(len(images), 1, 1, 1, device=self.device) < 0.5
            images = torch.where(flipped, images.flip(3), images)
        return images.float().div_(127.5).sub_(1)

    def train_epoch(self, train: torch.Tensor) -> None:
        """Run the steps of one epoch over the images `train`; an incomplete batch is dropped."""
        self.model.train()
        batch = self.recipe.batch_size
        order = train[torch.randperm(len(train), device=self.device)]
        for chosen in order[: len(train) // batch * batch].split(batch):
            _, logits = self.model(self._take(chosen, self.recipe.flip))
            loss = functional.cross_entropy(logits, self.labels[chosen], label_smoothing=self.recipe.label_smoothing)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()

    @torch.inference_mode()
    def evaluate(self, test: torch.Tensor) -> float:
        """Return the share of the images `test` whose person has the highest logit, in 0 to 1."""
        self.model.eval()
        hits = [
            self.model(self._take(chosen, False))[1].argmax(1) == self.labels[chosen]
            for chosen in test.split(EVALUATION_BATCH)
        ]
        return torch.cat(hits).float().mean().item()


def run_study(
    networks: Sequence[NetworkSpec], seeds: Sequence[int], faces: Faces, split: Split, recipe: RecipeSpec, folder: Path
) -> list[float]:
    """Train every network with every seed as an Optuna study in `folder`, testing after each epoch.

    Returns:
        The trials' final accuracies, each in 0 to 1.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    choices = {"network": range(len(networks)), "seed": list(seeds)}
    total = len(networks) * len(seeds)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'study.db'}",
        sampler=optuna.samplers.GridSampler(choices),
        study_name="sweep",
        direction="maximize",
    )
    train, test = torch.from_numpy(split.train), torch.from_numpy(split.test)
    steps = len(train) // recipe.batch_size * recipe.epochs

    def train_trial(trial: optuna.Trial) -> float:
        network = networks[trial.suggest_categorical("network", choices["network"])]
        seed = trial.suggest_categorical("seed", choices["seed"])
        trainer = TorchTrainer(network, faces.images, faces.labels, recipe, seed, steps)
        for epoch in range(recipe.epochs):
            trainer.train_epoch(train)
            accuracy = trainer.evaluate(test)
            trial.report(accuracy, epoch)
        print(f"trial {trial.number + 1} of {total}: {accuracy:.3f}", file=sys.stderr, flush=True)
        return accuracy

    study.optimize(train_trial, n_trials=total)
    return [trial.value for trial in study.trials if trial.value is not None]
