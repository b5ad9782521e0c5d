"""Teachers as ONNX files: run in batches as they ask for it, refused where input or output does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ffem_jax.specs.teacher import TeacherSpec
from ffem_jax.teachers import TeacherError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from ffem_jax.teachers.onnx_network import open_network  # noqa: E402

SIZE = 8


def write_network(
    path: Path, layout: str = "nchw", batch: int | str = "N", outputs: int = 1, kind: str = "vector"
) -> TeacherSpec:
    """A network that gives the sum over the map of each colour, as vector, as map of one pixel or as whole map."""
    make, types = onnx.helper, onnx.TensorProto
    shape = [batch, 3, SIZE, SIZE] if layout == "nchw" else [batch, SIZE, SIZE, 3]
    axes = onnx.numpy_helper.from_array(np.array([2, 3] if layout == "nchw" else [1, 2]), "axes")
    keep = int(kind == "pixel")
    nodes = [make.make_node("ReduceSum", ["image", "axes"], ["sum"], keepdims=keep)]
    if kind == "map":
        nodes = [make.make_node("Relu", ["image"], ["sum"])]
    named = ["sum"]
    if outputs == 2:
        nodes.append(make.make_node("Neg", ["sum"], ["less"]))
        named.append("less")
    graph = make.make_graph(
        nodes,
        "teacher",
        [make.make_tensor_value_info("image", types.FLOAT, shape)],
        [make.make_tensor_value_info(name, types.FLOAT, None) for name in named],
        [axes],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return TeacherSpec(name="onnx", path=str(path), size=SIZE, layout=layout, scale=0.5, offset=2.0)


def draw(images: int = 70) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (images, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("batch", ["N", 1, 7])
@pytest.mark.parametrize("kind", ["vector", "pixel"])
def test_images_are_given_as_the_teacher_takes_them(
    tmp_path: Path, layout: str, channels: str, batch: int | str, kind: str
) -> None:
    if kind == "pixel" and layout == "nhwc":
        pytest.skip("the map of one pixel is tested once")
    spec = replace(write_network(tmp_path / "t.onnx", layout, batch, kind=kind), channels=channels)
    images = draw()
    run, digest = open_network(spec)
    sums = (images * np.float32(0.5) + 2).sum(axis=(1, 2))
    assert np.allclose(run(images), sums if channels == "rgb" else sums[:, ::-1], rtol=1e-5)
    assert len(digest) == 64


def test_one_of_several_outputs_is_named(tmp_path: Path) -> None:
    spec = write_network(tmp_path / "t.onnx", outputs=2)
    with pytest.raises(TeacherError, match=r"several outputs; set teacher.output to one of: sum, less"):
        open_network(spec)
    assert (open_network(replace(spec, output="less"))[0](draw(3)) < 0).all()
    with pytest.raises(TeacherError, match=r"teacher.output='more' is not known; choose one of: sum, less"):
        open_network(replace(spec, output="more"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 16}, r"takes tensor\(float\) \['N', 3, 8, 8\], and not float \[image, 3, 16, 16\]"),
        ({"layout": "nhwc"}, "set teacher.size and teacher.layout"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(TeacherError, match=words):
        open_network(replace(write_network(tmp_path / "t.onnx"), **change))


def test_an_output_that_is_no_vector_is_refused(tmp_path: Path) -> None:
    run, _ = open_network(write_network(tmp_path / "t.onnx", kind="map"))
    with pytest.raises(TeacherError, match="not one vector each"):
        run(draw(3))


def test_what_is_no_network_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.onnx").write_bytes(b"no network")
    with pytest.raises(TeacherError, match="is no network that ONNX Runtime runs") as raised:
        open_network(TeacherSpec(name="onnx", path=str(tmp_path / "t.onnx")))
    assert "\n" not in str(raised.value)
    with pytest.raises(TeacherError, match="cannot be read"):
        open_network(TeacherSpec(name="onnx", path=str(tmp_path / "none.onnx")))


def test_weights_in_a_file_beside_are_part_of_who_it_is(tmp_path: Path) -> None:
    digests = []
    for value in (1.0, 2.0):
        folder = tmp_path / str(value)
        folder.mkdir()
        spec = write_network(folder / "t.onnx")
        model = onnx.load(spec.path)
        weight = onnx.numpy_helper.from_array(np.full((3,), value, np.float32), "weight")
        model.graph.initializer.append(weight)
        model.graph.node.append(onnx.helper.make_node("Mul", ["sum", "weight"], ["scaled"]))
        model.graph.output[0].name = "scaled"
        onnx.external_data_helper.set_external_data(model.graph.initializer[-1], "t.data")
        onnx.save(model, spec.path)
        run, digest = open_network(spec)
        digests.append((digest, float(run(draw(1)).sum())))
    assert (tmp_path / "1.0" / "t.onnx").read_bytes() == (tmp_path / "2.0" / "t.onnx").read_bytes()
    assert digests[0][0] != digests[1][0]
    assert digests[1][1] == pytest.approx(2 * digests[0][1])
