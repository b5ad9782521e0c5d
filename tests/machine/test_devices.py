"""Cores as devices: how many a batch is split over, and what decides how many there are."""

import subprocess
import sys

import jax
import pytest

from ffem_jax.machine.devices import IMAGES_PER_CORE, make_batch_mesh


@pytest.mark.parametrize(
    ("cores", "batch", "size"),
    [
        (2, 32, 2),
        (2, 31, 1),
        (8, 32, 8),
        (6, 32, 4),
        (64, 32, 32 // IMAGES_PER_CORE),
        (8, 30, 6),
        (2, 1, 1),
        (1, 32, 1),
    ],
)
def test_the_mesh_divides_the_batch_and_leaves_each_core_enough(cores, batch, size, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices("cpu")[:1] * cores)
    mesh = make_batch_mesh("batch", batch)
    assert mesh.size == size
    assert mesh.axis_names == ("batch",)


def test_one_accelerator_is_taken_of_several(monkeypatch):
    class Accelerator:
        platform = "gpu"

    monkeypatch.setattr(jax, "local_devices", lambda: [Accelerator(), Accelerator()])
    monkeypatch.setattr("ffem_jax.machine.devices.Mesh", lambda devices, axes: devices)
    assert len(make_batch_mesh("batch", 32)) == 1


@pytest.mark.parametrize(
    ("environment", "before", "wanted"),
    [
        ({}, "", 3),
        ({"JAX_NUM_CPU_DEVICES": "2"}, "", 2),
        ({}, "import jax; jax.devices(); ", 1),
    ],
    ids=["asked", "environment", "started-already"],
)
def test_cores_become_devices_before_jax_starts(environment, before, wanted):
    code = (
        f"{before}from ffem_jax.machine.devices import use_cpu_cores; use_cpu_cores(3); "
        "import jax; print(len(jax.devices()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) == wanted
