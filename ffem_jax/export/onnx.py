"""ONNX, opset 12 and one image at a time: what the runtimes of phones take, WeChat's `wx.createInferenceSession` too.

Maps are NCHW. float16 and int8 are the weights' alone: the file holds them so, with the operations that turn them back
into float32, which a runtime does once, when it loads the file. Opset 12 has no scale a channel for the quantised
operations; a Cast and a Mul say the same. int8_activations is another kind of file, which calibrate.py writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax import __version__
from ffem_jax.export import ExportError, NotRunError
from ffem_jax.export.layers import (
    INPUT_NAME,
    OUTPUT_NAME,
    Add,
    ChannelConvolution,
    Convolution,
    Depthwise,
    Flatten,
    GlobalAveragePool,
    InterleaveChannels,
    Layer,
    LayerList,
    MaxPool,
    Multiply,
    SliceChannels,
    refuse_layer,
)
from ffem_jax.export.quantize import quantize_per_channel

DTYPES = ("float32", "float16", "int8")
# Of a file that needs faces to be written, by calibrate.py.
CALIBRATED_DTYPES = ("int8_activations",)
LAYOUT = "NCHW"

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
        raise ExportError("writing onnx needs the package onnx: pip install 'ffem-jax[export]'") from error

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
        raise NotRunError("ONNX Runtime is not installed; pip install 'ffem-jax[export]'") from error
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

    def add_layer(self, layer: Layer) -> None:
        rows, columns, channels = self.shapes[layer.name]
        inputs = list(layer.inputs)
        if isinstance(layer, Convolution | Depthwise):
            self.add_convolution(layer)
        elif isinstance(layer, ChannelConvolution):
            # Along a map of C x 1 pixels that the vector becomes.
            kernel = self.add_weight(f"{layer.name}/kernel", layer.kernel.reshape(1, 1, -1, 1))
            column = self.add("Reshape", [inputs[0], self.add_numbers(1, 1, channels, 1)], f"{layer.name}/column")
            reach = len(layer.kernel) // 2
            mixed = self.add("Conv", [column, kernel], f"{layer.name}/mixed", pads=[reach, 0, reach, 0])
            logits = self.add("Reshape", [mixed, self.add_numbers(1, channels, 1, 1)], f"{layer.name}/logits")
            self.add("Sigmoid", [logits], layer.name)
        elif isinstance(layer, MaxPool):
            around, window = [layer.padding] * 4, [layer.size] * 2
            strides = [layer.stride] * 2
            self.add("MaxPool", inputs, layer.name, kernel_shape=window, strides=strides, pads=around)
        elif isinstance(layer, GlobalAveragePool):
            self.add("GlobalAveragePool", inputs, layer.name)
        elif isinstance(layer, Multiply):
            self.add("Mul", inputs, layer.name)
        elif isinstance(layer, Add):
            self.add("Add", inputs, layer.name)
        elif isinstance(layer, SliceChannels):
            places = [self.add_numbers(place) for place in (layer.first, layer.first + layer.count, 1)]
            self.add("Slice", [inputs[0], *places], layer.name)
        elif isinstance(layer, InterleaveChannels):
            both = self.add("Concat", inputs, f"{layer.name}/both", axis=1)
            halves = self.add_numbers(1, 2, channels // 2, rows, columns)
            grouped = self.add("Reshape", [both, halves], f"{layer.name}/grouped")
            turned = self.add("Transpose", [grouped], f"{layer.name}/turned", perm=[0, 2, 1, 3, 4])
            self.add("Reshape", [turned, self.add_numbers(1, channels, rows, columns)], layer.name)
        elif isinstance(layer, Flatten):
            self.add("Flatten", inputs, layer.name, axis=1)
        else:
            raise refuse_layer(layer, "onnx")

    def add_convolution(self, layer: Convolution | Depthwise) -> None:
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
        if layer.activation == "relu":
            self.add("Relu", [linear], name)
        elif layer.activation == "relu6":
            bounds = [self.add_bound("zero", 0), self.add_bound("six", 6)]
            self.add("Clip", [linear, *bounds], name)
        elif layer.activation == "prelu":
            assert layer.slope is not None
            self.add("PRelu", [linear, self.add_weight(f"{name}/slope", layer.slope[:, None, None])], name)
        elif layer.activation == "hard_swish":
            gate = self.add("HardSigmoid", [linear], f"{name}/gate", alpha=1 / 6, beta=0.5)
            self.add("Mul", [linear, gate], name)
        elif layer.activation == "sigmoid":
            self.add("Sigmoid", [linear], name)

    def add_bound(self, name: str, value: float) -> str:
        if all(tensor.name != name for tensor in self.initializers):
            self.add_constant(name, np.array(value, np.float32))
        return name
