"""A report asks for the size limit that its sweep had."""

from __future__ import annotations

import pytest
from made_records import build_record

from ffem_jax.analysis.cap import Cap, find_cap, read_cap
from ffem_jax.reports.frontier import ask_question
from ffem_jax.specs.trial import RunSpec


def test_the_recorded_cap_counts_unless_another_is_asked_for():
    records = [build_record(seed=seed, cap_mb=2.185, cap_precision="int8") for seed in (0, 1)]
    question, notes = ask_question(records)
    assert (question.cap_mb, question.precision, notes) == (2.185, "int8", [])
    question, _ = ask_question(records, 5.0)
    assert (question.cap_mb, question.precision) == (5.0, "int8")
    question, _ = ask_question(records, None, "float32")
    assert (question.cap_mb, question.precision) == (2.185, "float32")
    question, _ = ask_question([build_record()])
    assert (question.cap_mb, question.precision) == (10.0, "float32")


def test_of_several_the_newest_counts_and_is_named():
    old = build_record(cap_mb=10.0, cap_precision="float32", started_at="2026-01-02")
    new = build_record(seed=1, cap_mb=2.0, cap_precision="float32", started_at="2026-02-01")
    for records in ([old, new], [new, old]):
        cap, notes = find_cap(records)
        assert cap == Cap(2.0, "float32")
        assert "the newest, 2 MB at float32, is used here" in notes[0]
        assert "10 MB at float32 (1 trials)" in notes[0]
    assert ask_question([old, new], 3.0)[1] == []


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_an_older_refusal_says_its_cap(precision):
    """Word for word what `RunSpec.measure_excess` writes."""
    record = build_record(status="over_cap", params=2_663_000)
    size = getattr(record, f"bytes_{precision}")
    run = RunSpec(cap_mb=2.185, cap_precision=precision)
    record.error = run.measure_excess(size, 1.0)[1]
    assert read_cap(record) == Cap(2.185, precision)
    assert find_cap([build_record(), record])[0] == Cap(2.185, precision)


@pytest.mark.parametrize(
    "fields", [{}, {"cap_mb": 0.0}, {"status": "over_cap", "error": "12 M MACs is over the cap of 5 M MACs"}]
)
def test_a_record_without_a_size_limit_has_none(fields):
    assert read_cap(build_record(**fields)) is None
