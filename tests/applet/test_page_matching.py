"""The page's distances against the server's, and the body of its requests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from node import run_script

from ffem_jax.metrics.matching import match


def test_distances_are_those_of_equation_7(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    probes, gallery = random.normal(size=(30, 128)), random.normal(size=(1, 128))
    gallery *= 40  # length has no say
    probes[0], probes[1] = gallery[0], -gallery[0]
    script = """
    import { computeDistance } from "SHARED/matching.js";
    console.log(JSON.stringify(inputs.probes.map((probe) => computeDistance(probe, inputs.gallery))));
    """
    found = run_script(script, tmp_path, probes=probes.tolist(), gallery=gallery[0].tolist())
    np.testing.assert_allclose(found, match(probes, gallery, [0], 0.5).distance, atol=1e-7)
    assert found[:2] == pytest.approx([0, 1], abs=1e-7)


@pytest.mark.parametrize("vector", [[], [0, 0], [1, None]], ids=str)
def test_a_vector_without_a_direction_is_refused(tmp_path: Path, vector: list[float | None]) -> None:
    script = """
    import { normalizeVector } from "SHARED/matching.js";
    let told = null;
    try { normalizeVector(inputs.vector.map((value) => value ?? NaN)); } catch (error) { told = error.message; }
    console.log(JSON.stringify(told));
    """
    assert "no usable vector" in run_script(script, tmp_path, vector=vector)


def test_the_body_holds_the_vector_and_the_model_and_nothing_else(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=128).astype(np.float32)
    script = """
    import { makeBody } from "SHARED/matching.js";
    const vector = Float32Array.from(inputs.vector);
    console.log(JSON.stringify([makeBody("0f", vector), makeBody("0f", vector, "Ann")]));
    """
    probe, enrolment = map(json.loads, run_script(script, tmp_path, vector=values.tolist()))
    assert set(probe) == {"model_id", "vector"}
    assert set(enrolment) == {"model_id", "vector", "name"}
    assert (enrolment["model_id"], enrolment["name"]) == ("0f", "Ann")
    # Each float32 comes back to the last bit.
    np.testing.assert_array_equal(np.array(probe["vector"], np.float32), values)
