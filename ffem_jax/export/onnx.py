"""ONNX, opset 12 and one image at a time: what the runtimes of phones take, WeChat's `wx.createInferenceSession` too.

Maps are NCHW. float16 and int8 are the weights' alone: the file holds them so, with the operations that turn them back
into float32, which a runtime does once, when it loads the file. Opset 12 has no scale a channel for the quantised
operations; a Cast and a Mul say the same. int8_activations is another kind of file, which calibrate.py writes.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax import __version__
from ffem_jax.errors import describe_install
from ffem_jax.export import ExportError, NotRunError, layers
from ffem_jax.export.layers import (
    INPUT_NAME,
    OUTPUT_NAME,
    Convolution,
    Depthwise,
    Layer,
    LayerList,
    refuse_layer,
)
from ffem_jax.export.quantize import quantize_per_channel

DTYPES = ("float32", "float16", "int8")
# Of a file that needs faces to be written, by calibrate.py.
CALIBRATED_DTYPES = ("int8_activations",)
LAYOUT = "NCHW"
_PLACES = {"rows": 2, "columns": 3, "channels": 1}

MODEL_FILE = "model.onnx"
OPSET = 12
# The version of the file's own form that came with opset 12: older runtimes refuse what is newer than they are.
IR_VERSION = 7


def write(network: LayerList, dtype: str, folder: Path, opset: int = OPSET) -> list[Path]:
    """Write `network` with weights of `dtype` into `folder`: one file, passed by onnx's checker."""
    try:
        import onnx
        from onnx import helper
    except ImportError as error:
        raise ExportError(f"writing onnx needs the package onnx: {describe_install('export')}") from error

    graph = _Graph(network, dtype)
    rows, columns, channels = graph.shapes[INPUT_NAME]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "ffem",
            [helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.FLOAT, [1, channels, rows, columns])],
            [helper.make_tensor_value_info(OUTPUT_NAME, onnx.TensorProto.FLOAT, [1, network.embedding_dim])],
            graph.initializers,
        ),
        producer_name="ffem_jax",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    path = folder / MODEL_FILE
    path.write_bytes(model.SerializeToString())
    return [path]


def run(folder: Path, pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """Embeddings [N, D] of pixels [N, R, R, 3] by ONNX Runtime, one image at a time as a phone does."""
    try:
        import onnxruntime
    except ImportError as error:
        raise NotRunError(f"ONNX Runtime is not installed; {describe_install('export')}") from error
    options = onnxruntime.SessionOptions()
    # Weights that are turned back into float32 are no news.
    options.log_severity_level = 3
    # A phone's session is small, and threads that wait for each other are slow beside other work.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / MODEL_FILE, options, providers=["CPUExecutionProvider"])
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
    embeddings = [session.run([OUTPUT_NAME], {INPUT_NAME: image[None]})[0][0] for image in images]
    return np.asarray(embeddings), f"onnxruntime {onnxruntime.__version__}"


class _Graph:
    """The nodes and the constants, as they are collected."""

    def __init__(self, network: LayerList, dtype: str):
        self.dtype = dtype
        self.shapes = network.compute_shapes()
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.numbers: dict[tuple[int, ...], str] = {}
        for layer in network.layers:
            self.add_layer(layer)

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def add_constant(self, name: str, values: np.ndarray) -> str:
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add_numbers(self, *numbers: int) -> str:
        """A constant of int64 that says a shape or a place; equal ones are stored once."""
        if numbers not in self.numbers:
            name = "_".join(["numbers", *map(str, numbers)])
            self.numbers[numbers] = self.add_constant(name, np.array(numbers, np.int64))
        return self.numbers[numbers]

    def add_weight(self, name: str, values: np.ndarray) -> str:
        """A constant of float32 that no dtype stores as integers."""
        from onnx import TensorProto

        if self.dtype != "float16":
            return self.add_constant(name, values)
        stored = self.add_constant(f"{name}_float16", values.astype(np.float16))
        return self.add("Cast", [stored], name, to=TensorProto.FLOAT)

    def add_kernel(self, name: str, kernel: np.ndarray) -> str:
        """A kernel [row, column, in, out] as ONNX has it, [out, in, row, column], stored in the graph's dtype."""
        from onnx import TensorProto

        if self.dtype != "int8":
            return self.add_weight(name, kernel.transpose(3, 2, 0, 1))
        quantized = quantize_per_channel(kernel)
        stored = self.add_constant(f"{name}_int8", quantized.values.transpose(3, 2, 0, 1))
        scale = self.add_constant(f"{name}_scale", quantized.scale.reshape(-1, 1, 1, 1))
        cast = self.add("Cast", [stored], f"{name}_cast", to=TensorProto.FLOAT)
        return self.add("Mul", [cast, scale], name)

    @functools.singledispatchmethod
    def add_layer(self, layer: Layer) -> None:
        """Write `layer`. Raises ExportError for a kind that is not known."""
        raise refuse_layer(layer, "onnx")

    @add_layer.register
    def _(self, layer: layers.ChannelConvolution) -> None:
        # Along a map of C x 1 pixels that the vector becomes.
        name, channels, half = layer.name, self.shapes[layer.name][2], len(layer.kernel) // 2
        kernel = self.add_weight(f"{name}/kernel", layer.kernel.reshape(1, 1, -1, 1))
        column = self.add("Reshape", [layer.inputs[0], self.add_numbers(1, 1, channels, 1)], f"{name}/column")
        mixed = self.add("Conv", [column, kernel], f"{name}/mixed", pads=[half, 0, half, 0])
        logits = self.add("Reshape", [mixed, self.add_numbers(1, channels, 1, 1)], f"{name}/logits")
        self.add("Sigmoid", [logits], name)

    @add_layer.register
    def _(self, layer: layers.Activation) -> None:
        self.add_activation(layer.function, layer.inputs[0], layer.name)

    @add_layer.register
    def _(self, layer: layers.MaxPool) -> None:
        around, window = [layer.padding] * 4, [layer.size] * 2
        strides = [layer.stride] * 2
        self.add("MaxPool", [*layer.inputs], layer.name, kernel_shape=window, strides=strides, pads=around)

    @add_layer.register
    def _(self, layer: layers.GlobalAveragePool) -> None:
        self.add("GlobalAveragePool", [*layer.inputs], layer.name)

    @add_layer.register
    def _(self, layer: layers.Reduce) -> None:
        op, axes = {"mean": "ReduceMean", "max": "ReduceMax"}[layer.operation], [_PLACES[axis] for axis in layer.axes]
        self.add(op, [*layer.inputs], layer.name, axes=axes, keepdims=1)

    @add_layer.register
    def _(self, layer: layers.Multiply) -> None:
        self.add("Mul", [*layer.inputs], layer.name)

    @add_layer.register
    def _(self, layer: layers.Add) -> None:
        self.add("Add", [*layer.inputs], layer.name)

    @add_layer.register
    def _(self, layer: layers.Concatenate) -> None:
        self.add("Concat", [*layer.inputs], layer.name, axis=_PLACES[layer.axis])

    @add_layer.register
    def _(self, layer: layers.SliceChannels) -> None:
        places = [self.add_numbers(place) for place in (layer.first, layer.first + layer.count, 1)]
        self.add("Slice", [*layer.inputs, *places], layer.name)

    @add_layer.register
    def _(self, layer: layers.Slice) -> None:
        places = (layer.first, layer.first + layer.count, _PLACES[layer.axis])
        self.add("Slice", [*layer.inputs, *map(self.add_numbers, places)], layer.name)

    @add_layer.register
    def _(self, layer: layers.SwapAxes) -> None:
        self.add("Transpose", [*layer.inputs], layer.name, perm=[0, 1, 3, 2])

    @add_layer.register
    def _(self, layer: layers.InterleaveChannels) -> None:
        rows, columns, channels = self.shapes[layer.name]
        both = self.add("Concat", [*layer.inputs], f"{layer.name}/both", axis=1)
        halves = self.add_numbers(1, 2, channels // 2, rows, columns)
        grouped = self.add("Reshape", [both, halves], f"{layer.name}/grouped")
        turned = self.add("Transpose", [grouped], f"{layer.name}/turned", perm=[0, 2, 1, 3, 4])
        self.add("Reshape", [turned, self.add_numbers(1, channels, rows, columns)], layer.name)

    @add_layer.register
    def _(self, layer: layers.Flatten) -> None:
        self.add("Flatten", [*layer.inputs], layer.name, axis=1)

    @add_layer.register(Convolution)
    @add_layer.register(Depthwise)
    def _(self, layer: Convolution | Depthwise) -> None:
        name, channels = layer.name, len(layer.bias)
        depthwise = isinstance(layer, Depthwise)
        kernel = layer.kernel[:, :, None] if depthwise else layer.kernel
        weights = [self.add_kernel(f"{name}/kernel", kernel), self.add_weight(f"{name}/bias", layer.bias)]
        linear = self.add(
            "Conv",
            [layer.inputs[0], *weights],
            name if layer.activation == "linear" else f"{name}/linear",
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
            group=channels if depthwise else 1,
        )
        if layer.activation == "prelu":
            assert layer.slope is not None
            self.add("PRelu", [linear, self.add_weight(f"{name}/slope", layer.slope[:, None, None])], name)
        elif layer.activation != "linear":
            self.add_activation(layer.activation, linear, name)

    def add_activation(self, function: str, x: str, name: str) -> None:
        """An activation without weights."""
        if function == "relu6":
            self.add("Clip", [x, self.add_bound("zero", 0), self.add_bound("six", 6)], name)
        elif function == "hard_swish":
            gate = self.add("HardSigmoid", [x], f"{name}/gate", alpha=1 / 6, beta=0.5)
            self.add("Mul", [x, gate], name)
        else:
            self.add({"linear": "Identity", "relu": "Relu", "sigmoid": "Sigmoid"}[function], [x], name)

    def add_bound(self, name: str, value: float) -> str:
        if all(tensor.name != name for tensor in self.initializers):
            self.add_constant(name, np.array(value, np.float32))
        return name
