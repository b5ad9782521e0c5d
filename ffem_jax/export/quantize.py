"""Weights as few bytes: the one place where the integers of a file and their scales come from. Writers only store them.

Kernels are quantised; biases and slopes, a number a channel, and ECA's few taps stay float32, since they are 2 % of the
bytes and an error in them moves a whole channel. Everything here takes NumPy's arrays and JAX's alike, so that
fine-tuning (finetune.py) rounds as the file will.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# An array of NumPy or of JAX.
Array = Any

# A kernel is unbalanced where `compute_imbalance` is above this: three bits lost. Nearly all kernels
# of the trained networks looked at lie at 1 to 15 (results/quantisation), and do well with one scale.
UNBALANCED = 64.0

# Of integers from 0 to 255, how large two weights of one sign may be together: 255 * 128 fits into 16 bits with a sign.
PAIR_LIMIT = 32767 // 255


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """Integers that stand for (values - zero_point) * scale.

    scale: float32 [1] for the whole tensor or [out], one an output channel (the last axis). zero_point: float32 [1], a
    whole number.
    """

    values: Array
    scale: Array
    zero_point: Array

    def restore(self) -> Array:
        """The float32 weights that the integers stand for."""
        return (self.values.astype("float32") - self.zero_point) * self.scale


def quantize_per_channel(kernel: Array) -> QuantizedWeight:
    """int8 in -127 to 127 around 0, a scale for each output channel (the last axis)."""
    xp = kernel.__array_namespace__()
    largest = xp.max(xp.abs(kernel), axis=tuple(range(kernel.ndim - 1)))
    # A channel of zeros has any scale.
    scale = xp.where(largest > 0, largest / 127, 1).astype("float32")
    return QuantizedWeight(xp.rint(kernel / scale).astype("int8"), scale, xp.zeros(1, "float32"))


def quantize_for_pairs(kernel: Array) -> QuantizedWeight:
    """int8 around 0, a scale per output channel, such that two products with maps of uint8 never exceed 16 bits.

    x86-64 without VNNI multiplies uint8 by int8 and adds the products in pairs. A sum that does not fit into 16 bits
    becomes the nearest number that does (the instruction vpmaddubsw). Which weights meet in a pair is the runtime's
    choice. So the two largest weights of one sign in a channel sum to 128 at most. The largest weight is then 64 to
    127, where `quantize_per_channel` makes it 127: at most one bit is lost.
    """
    xp = kernel.__array_namespace__()
    ordered = xp.sort(kernel.reshape(-1, kernel.shape[-1]), axis=0)
    pairs = (xp.sum(xp.maximum(ordered[-2:], 0), axis=0), xp.sum(xp.maximum(-ordered[:2], 0), axis=0))
    together = xp.maximum(*pairs)
    # Rounding adds half a step to either weight: one below the limit, the integers' sum is at most the limit.
    scale = xp.where(together > 0, together / (PAIR_LIMIT - 1), 1).astype("float32")
    return QuantizedWeight(xp.rint(kernel / scale).astype("int8"), scale, xp.zeros(1, "float32"))


def quantize_per_tensor(kernel: Array) -> QuantizedWeight:
    """uint8 over the tensor's range, 0 included and met exactly: the one scale and zero point TensorFlow.js has."""
    xp = kernel.__array_namespace__()
    low, high = xp.minimum(xp.min(kernel), 0), xp.maximum(xp.max(kernel), 0)
    scale = ((high - low) / 255).astype("float32").reshape(1)
    scale = xp.where(scale > 0, scale, 1).astype("float32")
    zero_point = xp.rint(-low / scale).astype("float32")
    values = xp.clip(xp.rint(kernel / scale) + zero_point, 0, 255).astype("uint8")
    return QuantizedWeight(values, scale, zero_point)


def compute_imbalance(kernel: Array) -> Array:
    """Error of one scale for all channels, as a multiple of that of one scale per channel: a number, 1 or so at best.

    Squared errors relative to the squares of the channel they are in, averaged over channels: a small channel that is
    rounded away counts as much as a large one would.
    """
    xp, others = kernel.__array_namespace__(), tuple(range(kernel.ndim - 1))
    power = xp.maximum(xp.sum(kernel**2, axis=others), 1e-20)
    whole, each = (
        xp.mean(xp.sum((quantize(kernel).restore() - kernel) ** 2, axis=others) / power)
        for quantize in (quantize_per_tensor, quantize_per_channel)
    )
    return whole / xp.maximum(each, 1e-20)


def is_unbalanced(kernel: Array) -> Array:
    """Whether the channels of `kernel` differ so much in size that one scale for all will not do."""
    return compute_imbalance(kernel) > UNBALANCED


def quantize_for_one_scale(kernel: Array) -> QuantizedWeight:
    """uint8 for a format with one scale a tensor: `quantize_per_tensor`, or, of an unbalanced kernel, its channels
    scaled to one range, 1 to 255 around 128, with the scales [out] that the graph is to multiply them by."""
    if not is_unbalanced(kernel):
        return quantize_per_tensor(kernel)
    xp, each = kernel.__array_namespace__(), quantize_per_channel(kernel)
    values = (each.values.astype("int16") + 128).astype("uint8")
    return QuantizedWeight(values, each.scale, xp.full(1, 128, "float32"))


def round_for_one_scale(kernel: Array) -> Array:
    """What `quantize_for_one_scale` restores to, as one expression that JAX can trace."""
    xp = kernel.__array_namespace__()
    each, whole = quantize_per_channel(kernel).restore(), quantize_per_tensor(kernel).restore()
    return xp.where(is_unbalanced(kernel), each, whole)


# dtype -> the float32 kernel that a file with integers of it stands for. int8 has a scale per channel everywhere.
ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "int8": lambda kernel: quantize_per_channel(kernel).restore(),
    "uint8": round_for_one_scale,
}
