"""TensorFlow.js: a graph model, `model.json` and one weight file, written with NumPy alone.

The graph form runs faster than the layers form, and convolution, bias and activation are one node in it. Names are
short, since each stands in the file several times: under a size limit of some MB they would be felt. The uint8 of
this format are TensorFlow.js' own: one scale a tensor, weights turned back into float32 when the model is loaded. A
kernel whose channels differ too much for one scale is stored with its channels of one size, and the graph holds theirs.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax import __version__
from ffem_jax.export import ExportError, NotRunError, layers
from ffem_jax.export.layers import (
    AXES,
    INPUT_NAME,
    OUTPUT_NAME,
    Convolution,
    Depthwise,
    Layer,
    LayerList,
    Shape,
    compute_same_padding,
    refuse_layer,
)
from ffem_jax.export.quantize import quantize_for_one_scale

DTYPES = ("float32", "float16", "uint8")
LAYOUT = "NHWC"

MODEL_FILE = "model.json"
WEIGHTS_FILE = "weights.bin"

# What a convolution's own node can do besides; the rest are nodes of their own.
_FUSED = {"linear": (), "relu": ("Relu",), "relu6": ("Relu6",), "prelu": ("Prelu",)}
_OPERATIONS = {"linear": "Identity", "relu": "Relu", "relu6": "Relu6", "sigmoid": "Sigmoid"}
# What no map holds, for the rim of a max pooling: the lowest of float16, with which some backends compute.
_LOWEST = -65504.0


def write(network: LayerList, dtype: str, folder: Path) -> list[Path]:
    """Write `network` with weights of `dtype` into `folder`; the files, model.json first."""
    graph = _Graph(network, dtype)
    model = {
        "format": "graph-model",
        "generatedBy": f"ffem_jax {__version__}",
        "convertedBy": None,
        "signature": graph.make_signature(),
        "modelTopology": {"node": graph.nodes, "versions": {"producer": 440}},
        "weightsManifest": [{"paths": [WEIGHTS_FILE], "weights": graph.manifest}],
    }
    paths = [folder / MODEL_FILE, folder / WEIGHTS_FILE]
    paths[0].write_text(json.dumps(model, separators=(",", ":")))
    paths[1].write_bytes(b"".join(graph.data))
    return paths


def run(folder: Path, pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """Embeddings [N, D] of pixels [N, R, R, 3] by TensorFlow.js' wasm backend in Node, as a browser computes them."""
    node, packages = shutil.which("node"), find_node_packages()
    if node is None:
        raise NotRunError("Node is not installed; it runs TensorFlow.js outside a browser")
    if packages is None:
        raise NotRunError(
            f"TensorFlow.js is not installed for Node; run `npm install` in {NODE_FOLDER}, or let {PACKAGES_VARIABLE} "
            "name a folder that has it in node_modules"
        )
    with tempfile.TemporaryDirectory() as scratch:
        images, embeddings = Path(scratch) / "images", Path(scratch) / "embeddings"
        images.write_bytes(np.ascontiguousarray(pixels, "<f4").tobytes())
        shape = [str(size) for size in pixels.shape]
        files = [NODE_FOLDER / "run_tfjs.cjs", packages, folder / MODEL_FILE, images, embeddings]
        command = [node, *map(str, files), *shape]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ExportError(f"TensorFlow.js does not run {folder / MODEL_FILE}: {reason}")
        values = np.frombuffer(embeddings.read_bytes(), "<f4").reshape(len(pixels), -1)
    return values, result.stdout.strip()


# Where package.json names what Node needs, and what else may name a folder with node_modules.
NODE_FOLDER = Path(__file__).parent / "node"
PACKAGES_VARIABLE = "FFEM_NODE_PACKAGES"


def find_node_packages() -> Path | None:
    """The folder whose node_modules holds TensorFlow.js: FFEM_NODE_PACKAGES, ours or the one worked in; else None."""
    named = os.environ.get(PACKAGES_VARIABLE)
    for folder in [Path(named)] if named else [NODE_FOLDER, Path.cwd()]:
        if (folder / "node_modules/@tensorflow/tfjs-backend-wasm/package.json").exists():
            return folder.resolve()
    return None


class _Graph:
    """The nodes, the weights' entries and their bytes, as they are collected."""

    def __init__(self, network: LayerList, dtype: str):
        self.dtype = dtype
        self.network = network
        self.shapes = network.compute_shapes()
        self.nodes: list[dict[str, Any]] = []
        self.manifest: list[dict[str, Any]] = []
        self.data: list[bytes] = []
        self.numbers: dict[tuple[Any, ...], str] = {}
        self.values: set[str] = set()
        # Tensor -> its node. The output alone keeps its name, and the input.
        self.names = {INPUT_NAME: INPUT_NAME, OUTPUT_NAME: OUTPUT_NAME}
        self.add("Placeholder", INPUT_NAME, [], dtype=_FLOAT, shape={"shape": _describe_shape(self.shapes[INPUT_NAME])})
        for index, layer in enumerate(network.layers):
            name = self.names.setdefault(layer.name, f"n{index}")
            self.add_layer(layer, name, [self.names[x] for x in layer.inputs])

    def make_signature(self) -> dict[str, Any]:
        def describe(name, shape):
            return {name: {"name": f"{name}:0", "dtype": "DT_FLOAT", "tensorShape": _describe_shape(shape)}}

        return {
            "inputs": describe(INPUT_NAME, self.shapes[INPUT_NAME]),
            "outputs": describe(OUTPUT_NAME, (self.network.embedding_dim,)),
        }

    def add(self, op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        node: dict[str, Any] = {"name": name, "op": op}
        if inputs:
            node["input"] = inputs
        if attributes:
            node["attr"] = attributes
        self.nodes.append(node)
        return name

    def add_weight(self, name: str, values: np.ndarray) -> str:
        """A constant of float32 that no dtype stores as integers."""
        entry: dict[str, Any] = {"name": name, "shape": list(values.shape), "dtype": "float32"}
        if self.dtype != "float16":
            return self.add_constant(entry, values.astype("<f4"), _FLOAT)
        entry["quantization"] = {"dtype": "float16"}
        return self.add_constant(entry, values.astype("<f2"), _FLOAT)

    def add_kernel(self, name: str, layer: Convolution | Depthwise) -> str:
        """A kernel, stored in the graph's dtype. That of a depthwise convolution has a last axis of one more."""
        last = (1,) if isinstance(layer, Depthwise) else ()
        shape = (*layer.kernel.shape, *last)
        if self.dtype != "uint8":
            return self.add_weight(name, layer.kernel.reshape(shape))
        quantized = quantize_for_one_scale(layer.kernel)
        whole = len(quantized.scale) == 1
        scale, stored = (float(quantized.scale[0]), name) if whole else (1.0, f"{name}q")
        how = {"dtype": "uint8", "min": -float(quantized.zero_point[0]) * scale, "scale": scale}
        entry = {"name": stored, "shape": list(shape), "dtype": "float32", "quantization": how}
        self.add_constant(entry, quantized.values, _FLOAT)
        if whole:
            return stored
        # A multiplication of weights and not of maps, and only where one scale for all channels would not hold.
        return self.add("Mul", name, [stored, self.add_weight(f"{name}c", quantized.scale.reshape(-1, *last))])

    def add_value(self, name: str, value: float) -> str:
        """A single float32, stored once and in full."""
        if name not in self.values:
            self.values.add(name)
            self.add_constant({"name": name, "shape": [], "dtype": "float32"}, np.array(value, "<f4"), _FLOAT)
        return name

    def add_numbers(self, *numbers: int | tuple[int, int]) -> str:
        """A constant of int32 that says a shape, axes, a place or pairs of paddings; equal ones are stored once."""
        if numbers not in self.numbers:
            name = self.numbers[numbers] = f"i{len(self.numbers)}"
            values = np.array(numbers, "<i4")
            entry = {"name": name, "shape": list(values.shape), "dtype": "int32"}
            self.add_constant(entry, values, {"type": "DT_INT32"})
        return self.numbers[numbers]

    def add_constant(self, entry: dict[str, Any], stored: np.ndarray, kind: dict[str, str]) -> str:
        self.manifest.append(entry)
        self.data.append(stored.tobytes())
        return self.add("Const", entry["name"], [], dtype=kind)

    @functools.singledispatchmethod
    def add_layer(self, layer: Layer, name: str, inputs: list[str]) -> None:
        """Write `layer` as the node `name`, which reads the nodes `inputs`. Raises ExportError for a kind unknown."""
        raise refuse_layer(layer, "tfjs")

    @add_layer.register
    def _(self, layer: layers.ChannelConvolution, name: str, inputs: list[str]) -> None:
        # Along a map of C x 1 pixels that the vector becomes.
        channels = self.shapes[layer.name][2]
        kernel = self.add_weight(f"{name}k", layer.kernel.reshape(-1, 1, 1, 1))
        column = self.add("Reshape", f"{name}c", [inputs[0], self.add_numbers(-1, channels, 1, 1)])
        strides, same = _integers(1, 1, 1, 1), _string("SAME")
        mixed = self.add("Conv2D", f"{name}m", [column, kernel], strides=strides, padding=same, dilations=strides)
        logits = self.add("Reshape", f"{name}r", [mixed, self.add_numbers(-1, 1, 1, channels)])
        self.add("Sigmoid", name, [logits])

    @add_layer.register
    def _(self, layer: layers.Activation, name: str, inputs: list[str]) -> None:
        self.add_activation(layer.function, name, inputs[0])

    @add_layer.register
    def _(self, layer: layers.MaxPool, name: str, inputs: list[str]) -> None:
        rim = (layer.padding, layer.padding)
        around = self.add_numbers((0, 0), rim, rim, (0, 0))
        padded = self.add("PadV2", f"{name}p", [inputs[0], around, self.add_value("lowest", _LOWEST)])
        window, strides = _integers(1, layer.size, layer.size, 1), _integers(1, layer.stride, layer.stride, 1)
        self.add("MaxPool", name, [padded], ksize=window, strides=strides, padding=_string("VALID"))

    @add_layer.register
    def _(self, layer: layers.GlobalAveragePool, name: str, inputs: list[str]) -> None:
        self.add("Mean", name, [inputs[0], self.add_numbers(1, 2)], keep_dims={"b": True})

    @add_layer.register
    def _(self, layer: layers.Reduce, name: str, inputs: list[str]) -> None:
        axes = self.add_numbers(*(1 + AXES.index(axis) for axis in layer.axes))
        self.add({"mean": "Mean", "max": "Max"}[layer.operation], name, [inputs[0], axes], keep_dims={"b": True})

    @add_layer.register
    def _(self, layer: layers.Multiply, name: str, inputs: list[str]) -> None:
        self.add("Mul", name, inputs)

    @add_layer.register
    def _(self, layer: layers.Add, name: str, inputs: list[str]) -> None:
        self.add("AddV2", name, inputs)

    @add_layer.register
    def _(self, layer: layers.Concatenate, name: str, inputs: list[str]) -> None:
        self.add("ConcatV2", name, [*inputs, self.add_numbers(1 + AXES.index(layer.axis))])

    @add_layer.register
    def _(self, layer: layers.SliceChannels, name: str, inputs: list[str]) -> None:
        begin, size = self.add_numbers(0, 0, 0, layer.first), self.add_numbers(-1, *self.shapes[layer.name])
        self.add("Slice", name, [inputs[0], begin, size])

    @add_layer.register
    def _(self, layer: layers.Slice, name: str, inputs: list[str]) -> None:
        begin = self.add_numbers(0, *(layer.first if axis == layer.axis else 0 for axis in AXES))
        self.add("Slice", name, [inputs[0], begin, self.add_numbers(-1, *self.shapes[layer.name])])

    @add_layer.register
    def _(self, layer: layers.SwapAxes, name: str, inputs: list[str]) -> None:
        self.add("Transpose", name, [inputs[0], self.add_numbers(0, 2, 1, 3)])

    @add_layer.register
    def _(self, layer: layers.InterleaveChannels, name: str, inputs: list[str]) -> None:
        # Packing pairs of channels says the same in two operations, and takes wasm ten times as long.
        shape = self.shapes[layer.name]
        both = self.add("ConcatV2", f"{name}p", [*inputs, self.add_numbers(3)])
        rows = self.add("Reshape", f"{name}r", [both, self.add_numbers(-1, 2, shape[2] // 2)])
        turned = self.add("Transpose", f"{name}t", [rows, self.add_numbers(0, 2, 1)])
        self.add("Reshape", name, [turned, self.add_numbers(-1, *shape)])

    @add_layer.register
    def _(self, layer: layers.Flatten, name: str, inputs: list[str]) -> None:
        self.add("Squeeze", name, inputs, squeeze_dims=_integers(1, 2))

    @add_layer.register(Convolution)
    @add_layer.register(Depthwise)
    def _(self, layer: Convolution | Depthwise, name: str, inputs: list[str]) -> None:
        depthwise = isinstance(layer, Depthwise)
        inputs = [
            *inputs,
            self.add_kernel(f"{name}k", layer),
            self.add_weight(f"{name}b", layer.bias),
        ]
        fused = _FUSED.get(layer.activation, ())
        if layer.slope is not None:
            inputs.append(self.add_weight(f"{name}s", layer.slope))
        own = name if layer.activation in _FUSED else f"{name}v"
        self.add(
            "FusedDepthwiseConv2dNative" if depthwise else "_FusedConv2D",
            own,
            inputs,
            strides=_integers(1, layer.stride, layer.stride, 1),
            **_describe_padding(layer, self.shapes[layer.inputs[0]]),
            fused_ops={"list": {"s": [_encode(op) for op in ("BiasAdd", *fused)]}},
            num_args={"i": len(inputs) - 2},
        )
        if own != name:
            self.add_activation(layer.activation, name, own)

    def add_activation(self, function: str, name: str, x: str) -> None:
        """An activation without weights, as a node of its own."""
        if function == "hard_swish":
            # x * relu6(x + 3) / 6: TensorFlow.js has no operation of that name.
            shifted = self.add("AddV2", f"{name}h", [x, self.add_value("three", 3)])
            gate = self.add("Relu6", f"{name}g", [shifted])
            sixth = self.add("Mul", f"{name}x", [gate, self.add_value("sixth", 1 / 6)])
            self.add("Mul", name, [x, sixth])
        else:
            self.add(_OPERATIONS[function], name, [x])


_FLOAT = {"type": "DT_FLOAT"}


def _describe_padding(layer: Convolution | Depthwise, shape: Shape) -> dict[str, Any]:
    if not layer.padding:
        return {"padding": _string("VALID")}
    # SAME puts the odd pixel of padding last; where that is not what training does, the padding is spelt out.
    wanted = [compute_same_padding(size, layer.kernel.shape[0], layer.stride) for size in shape[:2]]
    if wanted == [(layer.padding, layer.padding)] * 2:
        return {"padding": _string("SAME")}
    around = [layer.padding] * 2
    return {"padding": _string("EXPLICIT"), "explicit_paddings": _integers(0, 0, *around, *around, 0, 0)}


def _describe_shape(shape: Shape | tuple[int]) -> dict[str, Any]:
    # The first axis is the images; how many is open.
    return {"dim": [{"size": str(size)} for size in (-1, *shape)]}


def _integers(*values: int) -> dict[str, Any]:
    return {"list": {"i": list(values)}}


def _string(text: str) -> dict[str, str]:
    return {"s": _encode(text)}


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
