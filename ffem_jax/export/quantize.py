"""Weights as few bytes: the one place where the integers of a file and their scales come from. Writers only store them.

Kernels are quantised; biases and slopes, a number a channel, and ECA's few taps stay float32, since they are 2 % of the
bytes and an error in them moves a whole channel. A network whose channels are better balanced quantises better: what
changes the weights for that makes a LayerList of a LayerList, before any writer sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """Integers that stand for (values - zero_point) * scale.

    scale: float32 [1] for the whole tensor or [out], one an output channel (the last axis).
    """

    values: np.ndarray
    scale: np.ndarray
    zero_point: int = 0

    def restore(self) -> np.ndarray:
        """The float32 weights that the integers stand for."""
        return (self.values.astype(np.float32) - np.float32(self.zero_point)) * self.scale


def quantize_per_channel(kernel: np.ndarray) -> QuantizedWeight:
    """int8 in -127 to 127 around 0, a scale for each output channel (the last axis)."""
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    # A channel of zeros has any scale.
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return QuantizedWeight(np.rint(kernel / scale).astype(np.int8), scale)


def quantize_per_tensor(kernel: np.ndarray) -> QuantizedWeight:
    """uint8 over the tensor's range, 0 included and met exactly: the one scale and zero point TensorFlow.js has."""
    low, high = min(float(kernel.min()), 0.0), max(float(kernel.max()), 0.0)
    scale = np.float32((high - low) / 255 or 1)
    zero_point = int(np.rint(-low / scale))
    values = np.clip(np.rint(kernel / scale) + zero_point, 0, 255).astype(np.uint8)
    return QuantizedWeight(values, scale.reshape(1), zero_point)
