"""A teacher as an ONNX file, run by ONNX Runtime in batches; its vectors are kept in the cache by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax.specs.teacher import TeacherSpec
from ffem_jax.teachers import TeacherError

BATCH = 32
INSTALL = "ONNX Runtime is not installed; install the package's extra `export`"


def open_network(spec: TeacherSpec) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """What the network `spec` gives for images, and the hash of its file.

    Returns:
        (run, sha256): run takes uint8 images [image, size, size, 3] and gives float32 [image, feature].

    Raises:
        TeacherError: where the file cannot be run, or its input or output is not what `spec` says.
    """
    try:
        import onnxruntime
    except ImportError:
        raise TeacherError(f"teacher=onnx: {INSTALL}") from None
    path = Path(spec.path).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TeacherError(f"teacher.path={path} cannot be read ({error.strerror})") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        # From the path and not from the bytes: weights may lie in files beside it.
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions have no base but Exception
        raise TeacherError(f"teacher.path={path} is no network that ONNX Runtime runs ({_first_line(error)})") from None
    name, batch = _check_input(session, spec)
    output = _choose_output(session, spec)

    def run(images: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), batch):
            chunk = images[start : start + batch]
            whole = np.concatenate([chunk, np.zeros((batch - len(chunk), *chunk.shape[1:]), chunk.dtype)])
            try:
                found = session.run([output], {name: _prepare(whole, spec)})[0]
            except Exception as error:
                raise TeacherError(f"teacher.path={path} fails on an image ({_first_line(error)})") from None
            parts.append(_flatten(found, batch, path)[: len(chunk)])
        return np.concatenate(parts)

    return run, _hash_network(path, data)


def _hash_network(path: Path, data: bytes) -> str:
    """The SHA-256 of the file and of the files beside it that hold its weights, where it has such."""
    import onnx

    digest = hashlib.sha256(data)
    graph = onnx.load_model_from_string(data).graph
    constants = [attribute.t for node in graph.node for attribute in node.attribute]
    entries = [entry for tensor in (*graph.initializer, *constants) for entry in tensor.external_data]
    for name in sorted({entry.value for entry in entries if entry.key == "location"}):
        digest.update((path.parent / name).read_bytes())
    return digest.hexdigest()


def _prepare(images: np.ndarray, spec: TeacherSpec) -> np.ndarray:
    """uint8 RGB [image, row, column, 3] as the network takes them."""
    pixels = images if spec.channels == "rgb" else images[..., ::-1]
    values = pixels.astype(np.float32) * np.float32(spec.scale) + np.float32(spec.offset)
    return np.ascontiguousarray(values if spec.layout == "nhwc" else values.transpose(0, 3, 1, 2))


def _check_input(session: Any, spec: TeacherSpec) -> tuple[str, int]:
    """The input's name, and how many images it takes at a time."""
    inputs = session.get_inputs()
    wanted = [3, spec.size, spec.size] if spec.layout == "nchw" else [spec.size, spec.size, 3]
    if len(inputs) != 1:
        raise TeacherError(f"teacher.path={spec.path} has {len(inputs)} inputs; a teacher has one, the image")
    shape, kind = list(inputs[0].shape), inputs[0].type
    fits = len(shape) == 4 and all(
        not isinstance(have, int) or have == want for have, want in zip(shape[1:], wanted, strict=True)
    )
    if not fits or kind != "tensor(float)":
        raise TeacherError(
            f"teacher.path={spec.path} takes {kind} {shape}, and not float [image, {', '.join(map(str, wanted))}]; set "
            "teacher.size and teacher.layout"
        )
    return inputs[0].name, shape[0] if isinstance(shape[0], int) else BATCH


def _choose_output(session: Any, spec: TeacherSpec) -> str:
    names = [output.name for output in session.get_outputs()]
    if spec.output and spec.output not in names:
        raise TeacherError(f"teacher.output={spec.output!r} is not known; choose one of: {', '.join(names)}")
    if not spec.output and len(names) > 1:
        raise TeacherError(
            f"teacher.path={spec.path} has several outputs; set teacher.output to one of: {', '.join(names)}"
        )
    return spec.output or names[0]


def _flatten(found: Any, batch: int, path: Path) -> np.ndarray:
    values = np.asarray(found, np.float32)
    if values.ndim < 2 or len(values) != batch or values.size != batch * max(values.shape[1:]):
        raise TeacherError(
            f"teacher.path={path} gives {list(values.shape)} for {batch} images, and not one vector each"
        )
    return values.reshape(batch, -1)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def describe_settings(spec: TeacherSpec) -> str:
    """The settings that decide what the network is shown, as JSON: part of what its vectors are kept by."""
    names = ("size", "crop", "channels", "layout", "scale", "offset", "output")
    return json.dumps({name: getattr(spec, name) for name in names})
