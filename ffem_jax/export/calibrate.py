"""int8 of the maps as well as of the weights, in ONNX: the range of each map is measured on training faces.

ONNX Runtime's own quantiser writes the file: kernels int8 with one scale per output channel, maps uint8 over the range
that they have on the calibration faces, lowest to highest. Percentiles and entropy were measured and are no better
(results/quantisation). A scale a channel needs opset 13, one more than the other files have.

The file computes the same on every processor. On x86-64 with AVX2 or AVX-512 and no VNNI, ONNX Runtime adds products of
uint8 and int8 in pairs, in 16 bits, where 255 * 127 + 255 * 127 does not fit. `choose_scales` keeps every such sum in
range, whichever two weights meet. Weights of uint8 never leave the range either, but where there is VNNI they take half
as long again, and ONNX Runtime 1.23 and 1.24 multiply them wrongly there (results/quantisation).
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.protocols import Split
from ffem_jax.errors import describe_install
from ffem_jax.export import ExportError, onnx
from ffem_jax.export.layers import INPUT_NAME, INPUT_OFFSET, INPUT_SCALE, OUTPUT_NAME, LayerList
from ffem_jax.export.quantize import quantize_for_pairs
from ffem_jax.training.weights import FinishedTrial, load_trained_faces

DTYPE = "int8_activations"
IMAGES = 64
OPSET = 13


def load_training_faces(finished: FinishedTrial, data_root: str = "") -> np.ndarray:
    """The uint8 faces [N, R, R, 3] that the trial trained on. data_root: where they lie now, where that is not where
    they were. Raises ExportError where they are not here, or have changed."""
    try:
        faces, split = load_trained_faces(finished, data_root)
    except (DataError, OSError) as error:
        raise ExportError(f"this needs the faces that the trial trained on: {error}") from error
    return select_training_faces(faces, split)


def select_training_faces(faces: Faces, split: Split) -> np.ndarray:
    """The uint8 faces of the training side, in the order of their indices, so that those of a person are together."""
    return faces.images[np.sort(split.train)]


def choose_images(images: np.ndarray, count: int = IMAGES) -> np.ndarray:
    """`count` of the images, evenly over them and so over the people."""
    return images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]


def write_calibrated(network: LayerList, images: np.ndarray, folder: Path, full_range: bool = False) -> list[Path]:
    """Write `network` with weights and maps of 8 bits into `folder`, calibrated on uint8 faces [N, R, R, 3].

    full_range: leave out `choose_scales`, to measure what it costs; such a file is wrong on x86-64 without VNNI.
    """
    try:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise ExportError(f"calibrating needs ONNX Runtime: {describe_install('export')}") from error
    path = folder / onnx.MODEL_FILE
    with tempfile.TemporaryDirectory() as scratch:
        (plain,) = onnx.write(shorten_names(network), "float32", Path(scratch), OPSET)
        scales = {} if full_range else choose_scales(plain)
        level = logging.root.manager.disable
        # It advises to fold BatchNorm first, by name of a function; there is none left here.
        logging.disable(logging.WARNING)
        try:
            quantize_static(
                plain,
                path,
                _Faces(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"TensorQuantOverrides": scales},
            )
        finally:
            logging.disable(level)
    return [path]


def choose_scales(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The scale of each output channel of the kernels in an ONNX file whose products a runtime may add in 16 bits.

    In the form that `quantize_static` takes. Depthwise kernels are left out: ONNX Runtime adds their products in 32
    bits on every processor.
    """
    from onnx import load, numpy_helper
    from onnxruntime.quantization import QuantType

    graph = load(path).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    scales = {}
    for node in graph.node:
        groups = [attribute.i for attribute in node.attribute if attribute.name == "group"]
        if node.op_type != "Conv" or max(groups, default=1) > 1:
            continue
        kernel = numpy_helper.to_array(weights[node.input[1]])
        found = quantize_for_pairs(np.moveaxis(kernel, 0, -1)).scale
        same = {"axis": 0, "quant_type": QuantType.QInt8, "zero_point": np.int8(0)}
        scales[node.input[1]] = [{**same, "scale": scale} for scale in found]
    return scales


def shorten_names(network: LayerList) -> LayerList:
    """The same layers with names of a few letters: each map's stands in the file a dozen times, an eighth of it."""
    names = {layer.name: f"n{index}" for index, layer in enumerate(network.layers)}
    names |= {INPUT_NAME: INPUT_NAME, OUTPUT_NAME: OUTPUT_NAME}
    layers = [
        dataclasses.replace(layer, name=names[layer.name], inputs=tuple(names[name] for name in layer.inputs))
        for layer in network.layers
    ]
    return LayerList(network.resolution, tuple(layers))


class _Faces:
    """ONNX Runtime's CalibrationDataReader: one image after another, then None."""

    def __init__(self, images: np.ndarray):
        self.images = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self.images, None)
        if image is None:
            return None
        pixels = image[None].astype(np.float32) * np.float32(INPUT_SCALE) + np.float32(INPUT_OFFSET)
        return {INPUT_NAME: pixels.transpose(0, 3, 1, 2)}
