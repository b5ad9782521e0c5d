"""Optimisers and schedules, from a RecipeSpec.

The optimiser returns updates without the learning rate, and the training step multiplies them by the step's rate. One
compiled program therefore serves every schedule, length and peak rate.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import optax

from ffem_jax.specs.trial import RecipeSpec


class Schedule(NamedTuple):
    """The values that change per step: each field is [epochs, steps], [steps] of one epoch, or one step's value.

    Args:
        rate: the learning rate.
        margin: the margin of the loss.
        averaging: the rate at which the averaged weights move to the step's weights.
    """

    rate: Any
    margin: Any
    averaging: Any


def make_optimizer(recipe: RecipeSpec, kernels: Any) -> optax.GradientTransformation:
    """Return the optimiser of `recipe` for one parameter vector, without the learning rate and its sign.

    Args:
        kernels: a vector that is 1 at kernel entries and 0 elsewhere. Weight decay applies to kernels only, not to
            biases, slopes or BatchNorm.

    References:
        AdamW's decoupled weight decay: Loshchilov and Hutter, ICLR 2019.
    """
    clip = optax.clip_by_global_norm(recipe.clip_norm) if recipe.clip_norm else optax.identity()
    decay = optax.stateless(lambda grads, params: grads + recipe.weight_decay * kernels * params)
    if recipe.optimizer == "adamw":
        return optax.chain(clip, optax.scale_by_adam(b1=recipe.momentum), decay)
    if not recipe.momentum:
        return optax.chain(clip, decay)
    return optax.chain(clip, decay, optax.trace(recipe.momentum, nesterov=recipe.nesterov))


def compute_schedule(recipe: RecipeSpec, steps_per_epoch: int) -> Schedule:
    """Return the schedule of a whole training, each field float32 [epochs, steps_per_epoch]."""
    functions = compute_learning_rates, compute_margins, compute_averaging_shares
    return Schedule(*(compute(recipe, steps_per_epoch) for compute in functions))


def compute_margins(recipe: RecipeSpec, steps_per_epoch: int) -> np.ndarray:
    """Return the margin at every step, float32 [epochs, steps_per_epoch]: 0, a linear rise, then recipe.margin."""
    steps = recipe.epochs * steps_per_epoch
    risen = np.arange(steps) / steps - recipe.margin_warmup
    share = np.clip(risen / recipe.margin_rise, 0, 1) if recipe.margin_rise else (risen >= 0).astype(float)
    return (recipe.margin * share).astype(np.float32).reshape(recipe.epochs, steps_per_epoch)


def compute_averaging_shares(recipe: RecipeSpec, steps_per_epoch: int) -> np.ndarray:
    """Return the rate at which the averaged weights move to each step's weights, float32 [epochs, steps_per_epoch].

    (1 - decay) / (1 - decay ** step): a bias-corrected moving average. Step 1 replaces the initial weights, and a
    training shorter than the average's memory yields nearly the plain mean of its steps.

    References:
        The bias correction of Adam: Kingma and Ba, ICLR 2015.
    """
    steps, decay = np.arange(1, recipe.epochs * steps_per_epoch + 1), recipe.weight_averaging
    shares = (1 - decay) / (1 - decay**steps)
    return shares.astype(np.float32).reshape(recipe.epochs, steps_per_epoch)


def compute_learning_rates(recipe: RecipeSpec, steps_per_epoch: int) -> np.ndarray:
    """Return the learning rate of every step, float32 [epochs, steps_per_epoch].

    exponential: learning_rate * decay ** epoch. one_cycle: a cosine up to learning_rate over warmup_fraction of the
    steps, then a cosine down to 0. constant: learning_rate.

    References:
        exponential: Xiao et al., Electronics 2024, 13, 201, section 3. one_cycle: Smith and Topin, 2017.
    """
    steps = recipe.epochs * steps_per_epoch
    if recipe.schedule == "one_cycle":
        position = np.arange(steps) / max(1, steps - 1)
        warmup = recipe.warmup_fraction
        rising = (1 - np.cos(np.pi * position / warmup)) / 2 if warmup else np.ones(steps)
        falling = (1 + np.cos(np.pi * (position - warmup) / (1 - warmup))) / 2
        # Starts at 1/25 of the peak, as PyTorch's OneCycleLR does.
        shape = np.where(position < warmup, 1 / 25 + (1 - 1 / 25) * rising, falling)
    elif recipe.schedule == "exponential":
        shape = recipe.decay ** np.repeat(np.arange(recipe.epochs), steps_per_epoch)
    else:
        shape = np.ones(steps)
    return (recipe.learning_rate * shape).astype(np.float32).reshape(recipe.epochs, steps_per_epoch)
