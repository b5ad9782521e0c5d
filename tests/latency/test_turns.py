"""Models called in turn, and the script that calls them in Node."""

import json
import math
import shutil

import numpy as np
import pytest
from stand_in_runtime import StandInRuntime

from ffem_jax.export.tfjs import find_node_packages
from ffem_jax.latency import LatencyError, turns
from ffem_jax.latency.turns import WARM_UP_ROUNDS, ScriptRuntime, TimedModel, Timing, start_node, time_in_turn


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(turns, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(turns, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def needs_node():
    if not shutil.which("node"):
        pytest.skip("Node is not installed")


def test_models_take_turns_and_the_warm_up_is_not_counted():
    slow_start = [1000.0] * WARM_UP_ROUNDS
    runtime = StandInRuntime({"a": [*slow_start, 3, 1, 2], "b": [*slow_start, 30, 10, 20]})
    timings, busy = time_in_turn(runtime, ["a", "b"], 3)
    assert runtime.called == ["a", "b"] * (3 + WARM_UP_ROUNDS)
    assert timings == {"a": Timing((3, 1, 2)), "b": Timing((30, 10, 20))}
    assert timings["b"].median == 20
    assert 0 <= busy.mean <= busy.peak


def test_what_others_used_is_told_over_all_pauses_and_in_the_busiest(monkeypatch):
    pauses = iter([0.0, 1.25, 0.25])
    monkeypatch.setattr(turns, "measure_busy_cores", lambda seconds: next(pauses))
    assert time_in_turn(StandInRuntime(), ["a"], 3)[1] == turns.Busy(0.5, 1.25)


@pytest.mark.parametrize("count", [1, 2, 3, 30])
def test_median_and_quartiles(count):
    values = np.random.default_rng(0).uniform(size=count)
    timing = Timing(tuple(values))
    assert timing.median == pytest.approx(np.median(values))
    assert timing.quartiles == pytest.approx(tuple(np.quantile(values, (0.25, 0.75))))


def test_an_answer_that_is_an_error_and_an_end_are_both_told(needs_node, tmp_path):
    script = tmp_path / "answers.cjs"
    script.write_text(
        'require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {\n'
        "  const request = JSON.parse(line);\n"
        '  if (request.time === "end") process.exit(0);\n'
        '  const reply = request.load ? { error: "no such file\\nand more" } : request.time ? 2.5 : "an answer";\n'
        "  console.log(JSON.stringify(reply));\n"
        "});\n"
    )
    with ScriptRuntime(script) as runtime:
        assert runtime.describe() == "an answer"
        assert runtime.time("a") == 2.5
        with pytest.raises(LatencyError, match="^a: no such file$"):
            runtime.load(TimedModel("a", tmp_path / "model.json", 8))
        with pytest.raises(LatencyError, match="has ended"):
            runtime.time("end")


def test_without_node_or_tensorflow_js_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("FFEM_NODE_PACKAGES", str(tmp_path))
    with pytest.raises(LatencyError, match="npm install"):
        start_node()
    monkeypatch.setattr(turns.shutil, "which", lambda name: None)
    with pytest.raises(LatencyError, match="Node is not installed"):
        ScriptRuntime(tmp_path / "script.cjs")


def test_a_graph_model_is_loaded_measured_and_timed_in_node(needs_node, tmp_path):
    """A network of one node: its vector's length and the bytes of its tensors are known."""
    if find_node_packages() is None:
        pytest.skip("TensorFlow.js is not installed for Node: npm install in ffem_jax/export/node")
    side, weights = 4, np.ones(3, "<f4")
    shape = {"shape": {"dim": [{"size": str(size)} for size in (-1, side, side, 3)]}}
    kind = {"type": "DT_FLOAT"}
    nodes = [
        {"name": "pixels", "op": "Placeholder", "attr": {"dtype": kind, "shape": shape}},
        {"name": "w", "op": "Const", "attr": {"dtype": kind}},
        {"name": "y", "op": "AddV2", "input": ["pixels", "w"]},
    ]
    manifest = [{"paths": ["w.bin"], "weights": [{"name": "w", "shape": [3], "dtype": "float32"}]}]
    topology = {"node": nodes, "versions": {"producer": 440}}
    model = {"format": "graph-model", "modelTopology": topology, "weightsManifest": manifest}
    (tmp_path / "model.json").write_text(json.dumps(model))
    (tmp_path / "w.bin").write_bytes(weights.tobytes())
    with start_node() as runtime:
        facts = runtime.load(TimedModel("sum", tmp_path / "model.json", side))
        assert facts["vector_length"] == side * side * 3
        assert facts["weight_tensor_bytes"] == weights.nbytes
        # The pixels and the sum, and the weights.
        assert facts["peak_tensor_bytes"] == weights.nbytes + 2 * side * side * 3 * 4
        assert all(math.isfinite(facts[name]) and facts[name] > 0 for name in ("load_ms", "first_call_ms"))
        assert runtime.time("sum") > 0
        assert "wasm, 1 thread" in runtime.describe()
        with pytest.raises(LatencyError, match="missing"):
            runtime.load(TimedModel("missing", tmp_path / "none.json", side))
