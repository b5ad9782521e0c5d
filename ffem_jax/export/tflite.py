"""TensorFlow Lite (LiteRT): one flatbuffer, written from the list of layers by the schema in LiteRT's own package.

No TensorFlow and no converter: an operation here is an operation in the file. One image at a time. float16 and int8
are the weights' alone, int8 with one scale per output channel; DEQUANTIZE operations turn them back into float32 when
the interpreter is made.
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
    AXES,
    INPUT_NAME,
    OUTPUT_NAME,
    Convolution,
    Depthwise,
    Layer,
    LayerList,
    compute_same_padding,
    refuse_layer,
)
from ffem_jax.export.quantize import quantize_per_channel

DTYPES = ("float32", "float16", "int8")
LAYOUT = "NHWC"

MODEL_FILE = "model.tflite"
SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
# What no map holds, for the rim of a max pooling.
_LOWEST = np.float32(-65504)
_FUSED = {"linear": "NONE", "relu": "RELU", "relu6": "RELU6"}
# As an operation of its own.
_OPERATIONS = {
    "relu": "RELU",
    "relu6": "RELU6",
    "prelu": "PRELU",
    "hard_swish": "HARD_SWISH",
    "sigmoid": "LOGISTIC",
}


def write(network: LayerList, dtype: str, folder: Path) -> list[Path]:
    """Write `network` with weights of `dtype` into `folder`: one file."""
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise ExportError(f"writing tflite needs the package ai-edge-litert: {describe_install('export')}") from error
    graph = _Graph(network, dtype, schema)
    builder = flatbuffers.Builder(1024)
    builder.Finish(graph.make_model().Pack(builder), FILE_IDENTIFIER)
    path = folder / MODEL_FILE
    path.write_bytes(bytes(builder.Output()))
    return [path]


def run(folder: Path, pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """Embeddings [N, D] of pixels [N, R, R, 3] by LiteRT's interpreter."""
    try:
        from importlib.metadata import version

        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise NotRunError(f"LiteRT is not installed; {describe_install('export')}") from error
    interpreter = Interpreter(model_path=str(folder / MODEL_FILE), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    embeddings = []
    for image in np.ascontiguousarray(pixels, np.float32):
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        embeddings.append(interpreter.get_tensor(target)[0].copy())
    return np.asarray(embeddings), f"ai-edge-litert {version('ai-edge-litert')}"


class _Graph:
    """Tensors, their buffers and the operations, as they are collected."""

    def __init__(self, network: LayerList, dtype: str, schema: Any):
        self.dtype = dtype
        self.schema = schema
        self.shapes = network.compute_shapes()
        self.tensors: list[Any] = []
        # By custom the first buffer is empty: that of every tensor that is computed.
        self.buffers: list[Any] = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: dict[str, int] = {}
        self.places: dict[str, int] = {}
        self.input = self.add_tensor(INPUT_NAME, (1, *self.shapes[INPUT_NAME]))
        for layer in network.layers:
            self.add_layer(layer, (1, *self.shapes[layer.name]), *(self.places[x] for x in layer.inputs))
        self.output = self.places[OUTPUT_NAME]

    def make_model(self) -> Any:
        s = self.schema
        graph, model = s.SubGraphT(), s.ModelT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = [self.input], [self.output]
        graph.name = "ffem"
        model.version, model.description = SCHEMA_VERSION, f"ffem_jax {__version__}"
        model.subgraphs, model.buffers = [graph], self.buffers
        model.operatorCodes = [self._make_code(name) for name in self.codes]
        return model

    def _make_code(self, name: str) -> Any:
        code, number = self.schema.OperatorCodeT(), getattr(self.schema.BuiltinOperator, name)
        # 127 in the older field points to the newer one.
        code.deprecatedBuiltinCode, code.builtinCode = min(number, 127), number
        code.version = _VERSIONS.get(name, 1)
        return code

    def add_tensor(self, name: str, shape: tuple[int, ...], kind: str = "FLOAT32", buffer: int = 0) -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), buffer
        tensor.type = getattr(self.schema.TensorType, kind)
        self.tensors.append(tensor)
        self.places[name] = len(self.tensors) - 1
        return self.places[name]

    def add_constant(self, name: str, values: np.ndarray) -> int:
        if name in self.places:
            return self.places[name]
        buffer = self.schema.BufferT()
        # A copy in C order: a transposed view's bytes would come in the wrong order.
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.buffers.append(buffer)
        return self.add_tensor(name, values.shape, values.dtype.name.upper(), len(self.buffers) - 1)

    def add_numbers(self, *numbers: int | tuple[int, int]) -> int:
        """A constant of int32 that says a shape, axes, a place or pairs of paddings; equal ones are stored once."""
        values = np.array(numbers, np.int32)
        return self.add_constant("numbers_" + "_".join(map(str, values.ravel())) + "_" * values.ndim, values)

    def add_weight(self, name: str, values: np.ndarray) -> int:
        """A constant of float32 that no dtype stores as integers."""
        if self.dtype != "float16":
            return self.add_constant(name, values)
        stored = self.add_constant(f"{name}_float16", values.astype(np.float16))
        return self.add("DEQUANTIZE", name, values.shape, [stored])

    def add_kernel(self, name: str, layer: Convolution | Depthwise) -> int:
        """A kernel as TensorFlow Lite has it: [out, row, column, in], or [1, row, column, out] where depthwise."""
        depthwise = isinstance(layer, Depthwise)

        def turn(kernel: np.ndarray) -> np.ndarray:
            return kernel[None] if depthwise else kernel.transpose(3, 0, 1, 2)

        if self.dtype != "int8":
            return self.add_weight(name, turn(layer.kernel))
        quantized = quantize_per_channel(layer.kernel)
        values = turn(quantized.values)
        stored = self.add_constant(f"{name}_int8", values)
        how = self.schema.QuantizationParametersT()
        how.scale, how.zeroPoint = quantized.scale, np.zeros(len(quantized.scale), np.int64)
        how.quantizedDimension = 3 if depthwise else 0
        self.tensors[stored].quantization = how
        return self.add("DEQUANTIZE", name, values.shape, [stored])

    def add(self, op: str, name: str, shape: tuple[int, ...], inputs: list[int], **options: Any) -> int:
        """An operation and the tensor that it makes; `options` are the fields of its table in the schema."""
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault(op, len(self.codes))
        kind = _OPTIONS.get(op)
        if kind:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(self.schema, f"{kind}T")()
            for field, value in options.items():
                setattr(operator.builtinOptions, field, value)
        operator.inputs, operator.outputs = inputs, [self.add_tensor(name, shape)]
        self.operators.append(operator)
        return operator.outputs[0]

    @functools.singledispatchmethod
    def add_layer(self, layer: Layer, shape: tuple[int, ...], *inputs: int) -> None:
        """Write `layer`, which makes a tensor of `shape` of the tensors `inputs`. Raises ExportError for a kind that is
        not known."""
        raise refuse_layer(layer, "tflite")

    @add_layer.register
    def _(self, layer: layers.ChannelConvolution, shape: tuple[int, ...], x: int) -> None:
        # Along a map of C x 1 pixels that the vector becomes.
        name, taps, channels = layer.name, len(layer.kernel), shape[3]
        column, options = (1, channels, 1, 1), {"strideH": 1, "strideW": 1, "padding": self.schema.Padding.SAME}
        kernel = self.add_weight(f"{name}/kernel", layer.kernel.reshape(1, taps, 1, 1))
        bias = self.add_weight(f"{name}/bias", np.zeros(1, np.float32))
        turned = self.add("RESHAPE", f"{name}/column", column, [x, self.add_numbers(*column)])
        mixed = self.add("CONV_2D", f"{name}/mixed", column, [turned, kernel, bias], **options)
        logits = self.add("RESHAPE", f"{name}/logits", shape, [mixed, self.add_numbers(*shape)])
        self.add("LOGISTIC", name, shape, [logits])

    @add_layer.register
    def _(self, layer: layers.Activation, shape: tuple[int, ...], x: int) -> None:
        self.add(_OPERATIONS[layer.function], layer.name, shape, [x])

    @add_layer.register
    def _(self, layer: layers.MaxPool, shape: tuple[int, ...], x: int) -> None:
        lowest = self.add_constant("lowest", np.array([_LOWEST]))
        padded = self.add_padding(layer, "PADV2", x, [lowest])
        strides = {"strideH": layer.stride, "strideW": layer.stride, "padding": self.schema.Padding.VALID}
        window = {"filterHeight": layer.size, "filterWidth": layer.size}
        self.add("MAX_POOL_2D", layer.name, shape, [padded], **strides, **window)

    @add_layer.register
    def _(self, layer: layers.GlobalAveragePool, shape: tuple[int, ...], x: int) -> None:
        self.add("MEAN", layer.name, shape, [x, self.add_numbers(1, 2)], keepDims=True)

    @add_layer.register
    def _(self, layer: layers.Reduce, shape: tuple[int, ...], x: int) -> None:
        axes = self.add_numbers(*(1 + AXES.index(axis) for axis in layer.axes))
        self.add({"mean": "MEAN", "max": "REDUCE_MAX"}[layer.operation], layer.name, shape, [x, axes], keepDims=True)

    @add_layer.register
    def _(self, layer: layers.Multiply, shape: tuple[int, ...], *inputs: int) -> None:
        self.add("MUL", layer.name, shape, list(inputs))

    @add_layer.register
    def _(self, layer: layers.Add, shape: tuple[int, ...], *inputs: int) -> None:
        self.add("ADD", layer.name, shape, list(inputs))

    @add_layer.register
    def _(self, layer: layers.Concatenate, shape: tuple[int, ...], *inputs: int) -> None:
        self.add("CONCATENATION", layer.name, shape, list(inputs), axis=1 + AXES.index(layer.axis))

    @add_layer.register
    def _(self, layer: layers.SliceChannels, shape: tuple[int, ...], x: int) -> None:
        self.add("SLICE", layer.name, shape, [x, self.add_numbers(0, 0, 0, layer.first), self.add_numbers(*shape)])

    @add_layer.register
    def _(self, layer: layers.Slice, shape: tuple[int, ...], x: int) -> None:
        begin = self.add_numbers(0, *(layer.first if axis == layer.axis else 0 for axis in AXES))
        self.add("SLICE", layer.name, shape, [x, begin, self.add_numbers(*shape)])

    @add_layer.register
    def _(self, layer: layers.SwapAxes, shape: tuple[int, ...], x: int) -> None:
        self.add("TRANSPOSE", layer.name, shape, [x, self.add_numbers(0, 2, 1, 3)])

    @add_layer.register
    def _(self, layer: layers.InterleaveChannels, shape: tuple[int, ...], *inputs: int) -> None:
        pairs = (*shape[:3], shape[3] // 2, 2)
        packed = self.add("PACK", f"{layer.name}/pairs", pairs, list(inputs), valuesCount=2, axis=4)
        self.add("RESHAPE", layer.name, shape, [packed, self.add_numbers(*shape)])

    @add_layer.register
    def _(self, layer: layers.Flatten, shape: tuple[int, ...], x: int) -> None:
        flat = (1, shape[3])
        self.add("RESHAPE", layer.name, flat, [x, self.add_numbers(*flat)])

    @add_layer.register(Convolution)
    @add_layer.register(Depthwise)
    def _(self, layer: Convolution | Depthwise, shape: tuple[int, ...], x: int) -> None:
        name, padding = layer.name, self.schema.Padding.VALID
        sizes = self.shapes[layer.inputs[0]][:2]
        same = [compute_same_padding(size, layer.kernel.shape[0], layer.stride) for size in sizes]
        if layer.padding and same == [(layer.padding, layer.padding)] * 2:
            padding = self.schema.Padding.SAME
        elif layer.padding:
            x = self.add_padding(layer, "PAD", x, [])
        options = {"strideH": layer.stride, "strideW": layer.stride, "padding": padding}
        if isinstance(layer, Depthwise):
            options["depthMultiplier"] = 1
        fused = _FUSED.get(layer.activation, "NONE")
        options["fusedActivationFunction"] = getattr(self.schema.ActivationFunctionType, fused)
        weights = [self.add_kernel(f"{name}/kernel", layer), self.add_weight(f"{name}/bias", layer.bias)]
        op = "DEPTHWISE_CONV_2D" if isinstance(layer, Depthwise) else "CONV_2D"
        own = name if layer.activation in _FUSED else f"{name}/linear"
        y = self.add(op, own, shape, [x, *weights], **options)
        if layer.activation not in _FUSED:
            slopes = [] if layer.slope is None else [self.add_weight(f"{name}/slope", layer.slope[None, None])]
            self.add(_OPERATIONS[layer.activation], name, shape, [y, *slopes])

    def add_padding(self, layer: Convolution | Depthwise | layers.MaxPool, op: str, x: int, value: list[int]) -> int:
        rows, columns, channels = self.shapes[layer.inputs[0]]
        rim = (layer.padding, layer.padding)
        shape = (1, rows + 2 * layer.padding, columns + 2 * layer.padding, channels)
        return self.add(op, f"{layer.name}/padded", shape, [x, self.add_numbers((0, 0), rim, rim, (0, 0)), *value])


# Operation -> the table of the schema that has its options.
_OPTIONS = {
    "ADD": "AddOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "HARD_SWISH": "HardSwishOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PACK": "PackOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "REDUCE_MAX": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "SLICE": "SliceOptions",
    "TRANSPOSE": "TransposeOptions",
}
# The version of an operation that first took what is written here, where it is not 1: DEQUANTIZE of float16 (3) and of
# int8 by channels (5).
_VERSIONS = {"DEQUANTIZE": 5}
