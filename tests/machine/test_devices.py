"""Cores as devices: how many a batch is split over, and what decides how many there are."""

import subprocess
import sys

import jax
import pytest

from ffem_jax.machine.devices import IMAGES_PER_CORE, describe_idle, make_batch_mesh
from ffem_jax.specs.fields import SpecError


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


class Accelerator:
    """A stand-in for a GPU of the process `process_index`."""

    platform = "gpu"

    def __init__(self, process_index: int = 0) -> None:
        self.process_index = process_index


@pytest.fixture
def take_accelerators(monkeypatch):
    """A function that makes so many accelerators per process this machine's, and a mesh the list of its devices."""

    def take(*counts: int) -> None:
        devices = [Accelerator(process) for process, count in enumerate(counts) for _ in range(count)]
        monkeypatch.setattr(jax, "process_count", lambda: len(counts))
        monkeypatch.setattr(jax, "local_devices", lambda: devices[: counts[0]])
        monkeypatch.setattr(jax, "devices", lambda: devices[::-1])
        monkeypatch.setattr("ffem_jax.machine.devices.Mesh", lambda devices, axes: list(devices))

    return take


@pytest.mark.parametrize(
    ("batch", "limit", "size"), [(32, 0, 4), (32, 2, 2), (30, 0, 3), (2, 0, 2), (31, 0, 1), (32, 1, 1), (6, 4, 3)]
)
def test_all_accelerators_that_divide_the_batch_are_taken(batch, limit, size, take_accelerators):
    take_accelerators(4)
    assert len(make_batch_mesh("batch", batch, limit)) == size


@pytest.mark.parametrize(("batch", "limit", "size"), [(32, 0, 4), (32, 1, 2), (18, 0, 2), (2, 0, 2)])
def test_processes_give_equally_many_side_by_side(batch, limit, size, take_accelerators):
    take_accelerators(2, 3)
    mesh = make_batch_mesh("batch", batch, limit)
    assert [device.process_index for device in mesh] == sorted([0, 1] * (size // 2))


def test_what_devices_cannot_share_is_said_in_one_line(take_accelerators):
    take_accelerators(2, 2)
    with pytest.raises(SpecError, match=r"recipe\.batch_size=31 must be a multiple of the 2 processes"):
        make_batch_mesh("batch", 31)
    with pytest.raises(SpecError, match=r"run\.devices=3 is more than the 2 there are here"):
        make_batch_mesh("batch", 32, 3)


def test_idle_devices_are_named_and_idle_cores_only_where_they_were_asked_for(take_accelerators, monkeypatch):
    take_accelerators(4)
    assert describe_idle(4, 32) == describe_idle(2, 32, 2) == ""
    assert describe_idle(3, 30) == (
        "recipe.batch_size=30 is split over 3 of 4 devices, since more would not share it evenly or not pay; "
        "a multiple of 4, such as 32, can take all"
    )
    assert "such as 4," in describe_idle(1, 1)
    monkeypatch.setattr(Accelerator, "platform", "cpu")
    assert describe_idle(3, 30) == ""
    assert "over 1 of 2 devices" in describe_idle(1, 7, 2)


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
