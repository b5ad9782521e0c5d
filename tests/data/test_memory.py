"""How much memory is free: the machine's, or what the container or the job of a cluster has left of its share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffem_jax.data import load_faces
from ffem_jax.data.memory import TooLargeError, find_free_memory
from ffem_jax.specs.data import DataSpec


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n"}
SECOND = {"proc/self/cgroup": "0::/job/step\n"}
FIRST = {"proc/self/cgroup": "5:cpu:/docker/ab\n4:memory:/docker/ab\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        (MACHINE, 8000 * 1024),
        # A job of Slurm's: its own group has no limit, the one above has.
        (MACHINE | SECOND | {
            "sys/fs/cgroup/job/memory.max": "5000000\n", "sys/fs/cgroup/job/memory.current": "3000000\n",
            "sys/fs/cgroup/job/memory.stat": "anon 1\nactive_file 4\ninactive_file 1000000\n",
            "sys/fs/cgroup/job/step/memory.max": "max\n", "sys/fs/cgroup/job/step/memory.current": "3000000\n",
        }, 3_000_000),
        # A container that sees its own group at the top.
        (MACHINE | SECOND | {"sys/fs/cgroup/memory.max": "5000000", "sys/fs/cgroup/memory.current": "5500000"}, 0),
        # The machine has less than the group allows.
        (MACHINE | SECOND | {"sys/fs/cgroup/memory.max": "9000000000", "sys/fs/cgroup/memory.current": "0"},
         8000 * 1024),
        (MACHINE | FIRST | {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000000",
            "sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes": "4000000",
            "sys/fs/cgroup/memory/docker/ab/memory.usage_in_bytes": "1000000",
            "sys/fs/cgroup/memory/docker/ab/memory.stat": "inactive_file 7\ntotal_inactive_file 500000\n",
        }, 3_500_000),
        (MACHINE | {"proc/self/cgroup": "4:cpu:/a\n", "sys/fs/cgroup/a/memory.max": "1"}, 8000 * 1024),
    ],
)  # fmt: skip
def test_the_least_that_the_machine_and_the_groups_allow(tmp_path: Path, files: dict[str, str], free: int) -> None:
    assert find_free_memory(write(tmp_path, files)) == free


def test_this_machine_says_how_much(tmp_path: Path) -> None:
    assert find_free_memory() > 10**6


def test_drawn_faces_that_do_not_fit_are_refused_before_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffem_jax.data.memory.find_free_memory", lambda: 30_000)
    with pytest.raises(TooLargeError, match=r"of 32 x 32 pixels need .* use fewer people \(data.people\)"):
        load_faces(DataSpec(name="synthetic", resolution=32, people=5, images_per_person=8))
