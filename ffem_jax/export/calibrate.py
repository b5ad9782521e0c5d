"""int8 of the maps as well as of the weights, in ONNX: the range of each map is measured on training faces.

ONNX Runtime's own quantiser writes the file: kernels int8 with a scale an output channel, maps uint8 over the range
that they have on the calibration faces, lowest to highest. Percentiles and entropy were measured and are no better
(results/quantisation). A scale a channel needs opset 13, one more than the other files have.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.protocols import Split, load_split
from ffem_jax.export import ExportError, onnx
from ffem_jax.export.layers import INPUT_NAME, INPUT_OFFSET, INPUT_SCALE, OUTPUT_NAME, LayerList
from ffem_jax.weights import FinishedTrial

DTYPE = "int8_activations"
IMAGES = 64
OPSET = 13


def load_training_faces(finished: FinishedTrial) -> np.ndarray:
    """The uint8 faces [N, R, R, 3] that the trial trained on. Raises ExportError where they are not here."""
    try:
        faces, split = load_split(finished.trial.data, finished.trial.protocol)
    except (DataError, OSError) as error:
        raise ExportError(f"this needs the faces that the trial trained on: {error}") from error
    return select_training_faces(faces, split)


def select_training_faces(faces: Faces, split: Split) -> np.ndarray:
    """The uint8 faces of the training side, in the order of their indices, so that those of a person are together."""
    return faces.images[np.sort(split.train)]


def choose_images(images: np.ndarray, count: int = IMAGES) -> np.ndarray:
    """`count` of the images, evenly over them and so over the people."""
    return images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]


def write_calibrated(network: LayerList, images: np.ndarray, folder: Path) -> list[Path]:
    """Write `network` with weights and maps of 8 bits into `folder`, calibrated on uint8 faces [N, R, R, 3]."""
    try:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise ExportError("calibrating needs ONNX Runtime: pip install 'ffem-jax[export]'") from error
    path = folder / onnx.MODEL_FILE
    with tempfile.TemporaryDirectory() as scratch:
        (plain,) = onnx.write(shorten_names(network), "float32", Path(scratch), OPSET)
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
            )
        finally:
            logging.disable(level)
    return [path]


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
