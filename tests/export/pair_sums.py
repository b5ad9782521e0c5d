"""How x86-64 without VNNI multiplies uint8 maps by int8 weights, in NumPy, on the weights and maps of an ONNX file.

Nothing here asks the processor: onnx's reference evaluator, which is NumPy too, computes the maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator

from ffem_jax.export.layers import INPUT_NAME


@dataclass(frozen=True, eq=False)
class Product:
    """A convolution of an ONNX file in integers.

    kernel: int8 [out, in, row, column]. maps: the name of its uint8 input. zero_point: of the maps, which pads them.
    """

    name: str
    kernel: np.ndarray
    maps: str
    zero_point: int
    stride: int
    padding: int
    depthwise: bool

    def fold_kernel(self) -> np.ndarray:
        """The weights [out, K], a channel's in the order in which ONNX Runtime adds them: row, column, in."""
        return self.kernel.transpose(0, 2, 3, 1).reshape(len(self.kernel), -1)

    def fold_maps(self, maps: np.ndarray) -> np.ndarray:
        """What each pixel's weights are multiplied by: uint8 maps [N, in, R, R] as [pixel, K] in the same order."""
        around = [(0, 0), (0, 0), *[(self.padding, self.padding)] * 2]
        padded = np.pad(maps, around, constant_values=self.zero_point)
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.kernel.shape[2:], (2, 3))
        windows = windows[:, :, :: self.stride, :: self.stride]
        return windows.transpose(0, 2, 3, 4, 5, 1).reshape(-1, self.fold_kernel().shape[1])


def read_products(path: Path) -> list[Product]:
    """The convolutions of the file, each read back from its QuantizeLinear and DequantizeLinear nodes."""
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}

    def read(node: Any) -> Product:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        maps, kernel = (makers[name] for name in node.input[:2])
        return Product(
            name=node.name,
            kernel=constants[kernel.input[0]],
            maps=maps.input[0],
            zero_point=int(constants[maps.input[2]]),
            stride=given.get("strides", [1, 1])[0],
            padding=given.get("pads", [0])[0],
            depthwise=given.get("group", 1) > 1,
        )

    return [read(node) for node in graph.node if node.op_type == "Conv"]


def compute_maps(path: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The uint8 maps that the convolutions of the file take, by name, for pixels [N, R, R, 3] given one by one."""
    model = onnx.load(path)
    names = sorted({product.maps for product in read_products(path)})
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names)
    # It has no DequantizeLinear of the file's own opset; later ones do the same.
    evaluator = ReferenceEvaluator(version_converter.convert_version(model, 21))
    found = [evaluator.run(None, {INPUT_NAME: image[None]}) for image in pixels.transpose(0, 3, 1, 2)]
    return {name: np.concatenate(maps) for name, maps in zip(names, zip(*found, strict=True), strict=True)}


def multiply_in_pairs(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """uint8 [pixel, K] times int8 [out, K] -> int32 [pixel, out]: pairs along K are added in 16 bits that saturate."""
    odd = [(0, 0), (0, maps.shape[1] % 2)]
    maps, weights = np.pad(maps, odd).astype(np.int32), np.pad(weights, odd).astype(np.int32)
    sums = sum(maps[:, None, start::2] * weights[None, :, start::2] for start in (0, 1))
    return np.clip(sums, -(2**15), 2**15 - 1).sum(axis=2)


def multiply(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same without saturation."""
    return maps.astype(np.int32) @ weights.astype(np.int32).T


def iterate_saturated(path: Path, pixels: np.ndarray) -> Iterator[tuple[Product, float]]:
    """Each convolution whose products are added in pairs, and the share of its sums that come out wrong."""
    maps = compute_maps(path, pixels)
    for product in read_products(path):
        if not product.depthwise:
            folded, weights = product.fold_maps(maps[product.maps]), product.fold_kernel()
            yield product, float((multiply_in_pairs(folded, weights) != multiply(folded, weights)).mean())
