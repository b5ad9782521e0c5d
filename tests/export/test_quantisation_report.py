"""The page of benchmarks/quantisation.py: what was measured where, and what may share a table."""

import pytest

from benchmarks.emulated import PROCESSORS
from benchmarks.quantisation import UNKNOWN, group_rows, write_processors, write_report, write_summary
from ffem_jax.machine.processor import describe_flags


def make_row(trial: str = "a", dtype: str = "float32", correct: int = 60, **changes) -> dict:
    row = {
        "trial_key": trial, "network": "ffem", "data": "lfw52", "resolution": 64, "recipe": "paper",
        "protocol": "kfold", "synthetic": False, "format": "onnx", "dtype": dtype, "bytes": 1000,
        "accuracy": correct / 100, "correct": correct, "tested": 100, "gained": 0, "lost": 60 - correct,
        "cosine_mean": 0.99, "cosine_lowest": 0.9,
        "runtime": "onnxruntime 1.31.1", "epochs": 15, "processor": "here", "emulated": False,
    }  # fmt: skip
    return {**row, **changes}


def make_rows() -> list[dict]:
    """Trial a on two processors, trial b on this one alone, and c of before processors were recorded."""
    old = {"epochs": None, "processor": None, "emulated": None}
    elsewhere = {"processor": PROCESSORS["Haswell"], "emulated": True}
    return [
        make_row("a"),
        make_row("a", "int8_activations", 59),
        make_row("a", "int8_activations", 58, **elsewhere),
        make_row("b"),
        make_row("b", "int8_activations", 30),
        make_row("c", **old),
        make_row("c", "int8_activations_full_range", 57, **old),
    ]


def test_every_number_names_its_processor(tmp_path):
    write_report(make_rows(), tmp_path)
    lines = (tmp_path / "quantisation.md").read_text().splitlines()
    tables = [line for line in lines if line.startswith(("| float32", "| int8"))]
    assert len(tables) == 6
    assert all(line.endswith(("here |", f"{UNKNOWN} |", f"{PROCESSORS['Haswell']} |")) for line in tables)
    assert (tmp_path / "quantisation.png").stat().st_size


def test_an_emulated_processor_is_no_part_of_this_ones_mean():
    rows = group_rows(make_rows())["lfw52, 64 pixels, kfold, recipe paper, 15 epochs"]
    lines = write_summary([row for row in rows if not row["emulated"]])
    assert "| -15.50 ± 14.50 | -30.00, -1.00 | 31, 0 of 200 |" in lines[-1]


def test_processors_are_compared_on_the_trials_that_all_of_them_ran():
    lines = write_processors(group_rows(make_rows())["lfw52, 64 pixels, kfold, recipe paper, 15 epochs"])[2:]
    assert [line.split(" | ")[1] for line in lines] == ["-1.00", "-2.00"]
    assert [line.split(" | ")[-2] for line in lines] == ["1", "1"]


def test_other_epochs_are_another_table():
    titles = list(group_rows(make_rows()))
    assert titles == ["lfw52, 64 pixels, kfold, recipe paper, 15 epochs", "lfw52, 64 pixels, kfold, recipe paper"]


@pytest.mark.parametrize(
    ("architecture", "flags", "described"),
    [
        ("x86-64", "sse avx2 avx512bw avx512_vnni", "x86-64 with VNNI (avx512_vnni)"),
        ("x86-64", "sse avx2 avx_vnni amx_int8", "x86-64 with VNNI (amx_int8, avx_vnni)"),
        ("x86-64", "avx2 avx512bw", "x86-64 with AVX-512, without VNNI"),
        ("x86-64", "sse avx2", "x86-64 with AVX2, without VNNI"),
        ("aarch64", "fp asimd asimddp", "aarch64 with dot products"),
        ("aarch64", "fp asimd", "aarch64"),
    ],
)
def test_a_processor_is_described_by_how_it_multiplies_integers(architecture, flags, described):
    assert describe_flags(architecture, flags.split()) == described
