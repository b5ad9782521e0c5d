"""From a row to its folder: `ffem list`, `ffem show`, --network and --best, on records beside their trials' folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_records import build_record

from ffem_jax.cli import main
from ffem_jax.cli.terminal import UsageError
from ffem_jax.cli.trials import choose_folder, choose_keys, find_network, list_trials
from ffem_jax.records.record import TrialRecord, append_record


def make_records() -> list[TrialRecord]:
    """ffem_am of two seeds, best; ffem twice, at two widths; one too large, one failed, one stopped early."""
    am = {"arch": {"name": "ffem_am"}, "attention": {"kind": "eca"}}
    made = [build_record(correct=80 + seed, seed=seed, params=500_000, **am) for seed in (1, 0)]
    for width, correct in ((1.0, 70), (0.5, 60)):
        made.append(
            build_record(correct=correct, params=int(10**6 * width), arch={"name": "ffem", "width_multiplier": width})
        )
    made.append(build_record(correct=99, params=10**7, arch={"name": "large", "width_multiplier": 2.0}))
    made.append(
        build_record(
            status="failed", error="no space left", correct=None, arch={"name": "broken", "depth_multiplier": 2.0}
        )
    )
    return made


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep's folder: records, and a folder for each finished trial."""
    root = tmp_path / "place"
    for number, record in enumerate(make_records()):
        append_record(root / "records.jsonl", record)
        if record.status == "done":
            folder = root / f"{number:02}"
            folder.mkdir()
            (folder / "trial.json").write_text(json.dumps({"keys": [record.trial_key], "specs": []}))
            (folder / f"weights-{record.trial_key}.npz").write_bytes(b"weights")
    return root


def ffem(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_every_trial_is_listed_with_its_folder(capsys: pytest.CaptureFixture[str], sweep: Path) -> None:
    rows = json.loads(ffem(capsys, "list", sweep, "--json")[1])
    records = make_records()
    assert [row["trial_key"] for row in rows] == [record.trial_key for record in records]
    assert [row["accuracy"] for row in rows] == [record.accuracy for record in records]
    folders = [str(sweep / f"{number:02}") for number in range(5)]
    assert [row["folder"] for row in rows] == [*folders, None]
    assert (rows[-1]["status"], rows[-1]["error"]) == ("failed", "no space left")
    _, out, _ = ffem(capsys, "list", sweep)
    assert all(record.trial_key in out for record in records)


def test_list_takes_conditions(capsys: pytest.CaptureFixture[str], sweep: Path) -> None:
    rows = json.loads(ffem(capsys, "list", sweep, "--json", "--where", "attention.kind=eca")[1])
    assert {row["arch"] for row in rows} == {"ffem_am"}
    status, _, err = ffem(capsys, "list", sweep, "--where", "attention.kind=sse")
    assert (status, len(err.splitlines())) == (2, 1)


def test_list_and_frontier_call_a_network_the_same(capsys: pytest.CaptureFixture[str], sweep: Path) -> None:
    listed = {row["network"] for row in json.loads(ffem(capsys, "list", sweep, "--json")[1])}
    drawn = json.loads(ffem(capsys, "frontier", sweep, "--json", "--out", sweep.parent / "drawn")[1])
    assert {row["label"] for row in drawn["networks"]} <= listed


def test_a_network_s_label_name_key_and_folder_lead_to_it(sweep: Path) -> None:
    trials = list_trials([sweep])
    for one in trials:
        for letters in (6, 16):
            assert find_network(trials, one.record.trial_key[:letters]) == [one]
    assert len(find_network(trials, "ffem_am")) == 2
    labels = {one.label for one in trials}
    for label in labels:
        assert {one.label for one in find_network(trials, label)} == {label}


@pytest.mark.parametrize(
    ("called", "told"),
    [
        ("ffem", "is the name of several networks; choose one of: "),
        ("ffem_ma", "did you mean "),
        ("zz", "no recorded network or trial is called 'zz'"),
        ("00000", "no recorded network"),
        ("", "no recorded network"),
        ("\x1b[2J", "'\\x1b[2J'"),
    ],
)
def test_what_names_none_or_several_is_told(
    capsys: pytest.CaptureFixture[str], sweep: Path, called: str, told: str
) -> None:
    status, out, err = ffem(capsys, "show", called, sweep)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert told in err


def test_show_has_all_of_a_network(capsys: pytest.CaptureFixture[str], sweep: Path) -> None:
    shown = json.loads(ffem(capsys, "show", "ffem_am", sweep, "--json")[1])
    assert shown["settings"]["arch.attention.kind"] == "eca"
    assert [row["seed"] for row in shown["trials"]] == [1, 0]
    assert shown["trials"][0]["files"][f"weights-{shown['trials'][0]['trial_key']}.npz"] == 7
    _, out, _ = ffem(capsys, "show", "ffem_am", sweep)
    for text in ("arch.attention.kind=eca", "500,000", "weights-", str(sweep / "00"), "77.9 ["):
        assert text in out
    _, out, _ = ffem(capsys, "show", make_records()[-1].trial_key, sweep)
    assert "no space left" in out


def test_show_leaves_out_what_is_at_its_default_and_what_nothing_reads(
    capsys: pytest.CaptureFixture[str], sweep: Path
) -> None:
    settings = json.loads(ffem(capsys, "show", "large", sweep, "--json")[1])["settings"]
    assert not [key for key in settings if key.startswith("arch.attention.")]
    half = next(one for one in list_trials([sweep]) if one.record.view.arch.width_multiplier == 0.5)
    settings = json.loads(ffem(capsys, "show", half.record.trial_key, sweep, "--json")[1])["settings"]
    assert settings["arch.width_multiplier"] == 0.5


def test_show_leaves_out_what_is_at_a_teacher_s_default(capsys: pytest.CaptureFixture[str], repository: Path) -> None:
    assert main(["show", "final_10", str(repository / "results" / "distilled"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["settings"]
    assert [name for name in shown if name.startswith("teacher.")] == ["teacher.name", "teacher.path"]


def test_the_best_is_the_most_accurate_under_the_size_limit(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`large` is more accurate and over 10 MB; of ffem_am's two seeds the lower is taken, whatever its accuracy."""
    assert choose_folder(sweep, "", True, None) == (sweep / "01", 0)
    assert "ECA, width 1, depth 1, seed 0 (of 2 finished trials; --seed chooses)" in capsys.readouterr().err
    assert choose_folder(sweep, "", True, 1) == (sweep / "00", 1)
    with pytest.raises(UsageError, match="has the seeds 0, 1; choose one of them with --seed"):
        choose_folder(sweep, "", True, 7)
    assert choose_keys([sweep], "", True) == [record.trial_key for record in make_records()[:2]]
    assert choose_keys([sweep], "", False) is None


def test_a_folder_is_found_wherever_the_records_name_it(sweep: Path) -> None:
    assert choose_folder(sweep, "large", False, None) == (sweep / "04", 0)
    (sweep / "04").rename(sweep / "renamed")
    assert choose_folder(sweep / "records.jsonl", "large", False, None) == (sweep / "renamed", 0)
    assert choose_folder(sweep / "renamed", "", False, 3) == (sweep / "renamed", 3), "a trial's folder is itself"


def test_what_leads_to_no_finished_trial_is_told(sweep: Path) -> None:
    with pytest.raises(UsageError, match="has no finished trial: failed, no space left"):
        choose_folder(sweep, "broken", False, None)
    with pytest.raises(UsageError, match="choose one with --network NAME or --best"):
        choose_folder(sweep, "", False, None)
    with pytest.raises(UsageError, match="give one of them"):
        choose_folder(sweep, "large", True, None)
    (sweep / "04").rename(sweep.parent / "elsewhere")
    with pytest.raises(UsageError, match="give the trial's own folder"):
        choose_folder(sweep, "large", False, None)


def test_no_network_under_the_limit_is_told(tmp_path: Path) -> None:
    append_record(tmp_path / "records.jsonl", build_record(correct=9, params=10**7))
    with pytest.raises(UsageError, match="no trained network is under the size limit of 10 MB at float32"):
        choose_folder(tmp_path, "", True, None)


def test_export_and_embed_take_records(capsys: pytest.CaptureFixture[str], sweep: Path, tmp_path: Path) -> None:
    """Up to the trial itself, whose made-up weights cannot be read; nothing is left of the refused export."""
    out = tmp_path / "deeper" / "phone"
    status, _, err = ffem(capsys, "export", sweep, "--best", "--format", "tfjs", "--out", out)
    assert (status, str(sweep / "01") in err.splitlines()[-1], out.parent.exists()) == (2, True, False)
    status, _, err = ffem(capsys, "export", sweep, "--format", "tfjs", "--out", out)
    assert (status, "choose one with --network NAME or --best" in err, out.parent.exists()) == (2, True, False)
    words = ("embed", sweep, "--trial", sweep, "--network", "large", "--out", tmp_path / "vectors.npz")
    status, _, err = ffem(capsys, *words)
    assert (status, str(sweep / "04") in err.splitlines()[-1]) == (2, True)
    status, _, err = ffem(capsys, "latency", sweep, "--network", "ffem")
    assert (status, "is the name of several networks" in err) == (2, True)
