"""The page as a file: its numbers are the records', its words no stronger, and nothing in a record is markup."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from made_records import build_record

from ffem_jax.analysis.comparability import FrontierError
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.cli import main
from ffem_jax.config.compose import open_composer, to_specs
from ffem_jax.records.record import TrialRecord, append_record, read_records
from ffem_jax.records.view import view_spec
from ffem_jax.reports.frontier import write_frontier
from ffem_jax.reports.html import ReportError, write_report
from ffem_jax.reports.html.commands import make_overrides, make_run_overrides
from ffem_jax.reports.html.live import LivePage
from ffem_jax.reports.html.networks import describe_stages
from ffem_jax.reports.html.partition import split_comparable
from ffem_jax.reports.html.privacy import remove_paths
from ffem_jax.reports.html.provenance import describe_provenance
from ffem_jax.specs.trial import to_plain
from ffem_jax.text.display import quote_code

REPOSITORY = Path(__file__).resolve().parents[3]
WritePage = Callable[..., tuple[str, dict[str, Any]]]


def test_the_numbers_are_those_of_the_records(records: list[TrialRecord], write_page: WritePage) -> None:
    _, payload = write_page(records)
    (group,) = payload["groups"]
    summaries = {summary.label: summary for summary in summarize_records(records)}
    assert [network["label"] for network in group["networks"]] == list(summaries)
    for network in group["networks"]:
        summary = summaries[network["label"]]
        assert network["bytes"] == [summary.bytes_float32, summary.bytes_float16, summary.bytes_int8]
        assert (network["params"], network["macs"]) == (summary.params, summary.macs)
        rates = network["rates"].get("accuracy", [None] * 3)[:3]
        assert rates == pytest.approx([summary.accuracy, summary.accuracy_low, summary.accuracy_high], abs=1e-6)
    columns = payload["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in group["trials"]]
    assert [(row["key"], row["seed"], row["status"], row["epochs"]) for row in rows] == [
        (record.trial_key, record.seed, record.status, record.epochs) for record in records
    ]
    assert group["counts"] == {"done": 6, "over_cap": 2, "failed": 2}
    assert {row["error"] for row in rows if row["status"] == "failed"} == {"loss is NaN at step 7"}
    assert group["curves"]["loss"][0] == [3000, 2000, 1000]
    assert group["curves"]["validation"][5] == [100, 400, 700]


@pytest.mark.parametrize(("correct", "expected"), [(90, "lies above"), (67, "is not shown to be the best")])
def test_the_answer_is_no_stronger_than_the_intervals(
    write_page: WritePage, tmp_path: Path, correct: int, expected: str
) -> None:
    made = [build_record(correct=60), build_record(correct=correct, params=2_300_000, attention={"kind": "se"})]
    page, payload = write_page(made)
    answer = payload["groups"][0]["answer"]
    assert expected in answer[0]
    # Word for word what `ffem frontier` writes.
    write_frontier(made, tmp_path)
    assert all(sentence in (tmp_path / "frontier.md").read_text(encoding="utf-8") for sentence in answer)
    assert expected in page.partition("payload")[0]


def test_one_network_is_an_answer_with_its_numbers(write_page: WritePage) -> None:
    _, payload = write_page([build_record(correct=80, arch={"name": "small"}), build_record(status="over_cap", seed=3)])
    assert payload["groups"][0]["answer"][0] == (
        "`small` is the only one that was trained and fits: 76.9 [68.0, 84.0] %, 8.80 MB."
    )


def test_without_a_trained_network_the_page_says_why(write_page: WritePage) -> None:
    wide = {"width_multiplier": 1.4}
    _, payload = write_page([build_record(status="failed", error="broken"), build_record(status="over_cap", arch=wide)])
    assert payload["groups"][0]["answer"] == ["No trained network fits 10 MB at float32 (1 over the cap, 1 failed)."]


def test_the_last_hypervolume_is_the_frontiers(
    records: list[TrialRecord], write_page: WritePage, tmp_path: Path
) -> None:
    _, payload = write_page(records)
    found = write_frontier(records, tmp_path).hypervolume
    number, share = payload["groups"][0]["hypervolume"][-1]
    assert number == 6
    assert share == pytest.approx(found, abs=1e-6)


def test_paired_comparisons_are_those_of_compare(records: list[TrialRecord], write_page: WritePage) -> None:
    from ffem_jax.analysis.compare import compare_records
    from ffem_jax.reports.comparison import write_sentence

    _, payload = write_page(records)
    (entry,) = [one for one in payload["groups"][0]["comparisons"] if one["factor"] == "attention.kind"]
    comparison = compare_records(records, "attention.kind")
    assert [row["sentence"] for row in entry["rows"]] == [write_sentence(row, comparison) for row in comparison.rows]
    levels = {row["level"]: row for row in payload["groups"][0]["levels"] if row["factor"] == "attention.kind"}
    assert levels["eca"]["mean"] == pytest.approx(66.5 / 104, abs=1e-6)
    assert levels["se"]["networks"] == 1


# ------------------------------------------------------------------------------------ what goes in


def test_two_data_sets_are_refused_unless_mixed_and_then_apart(
    records: list[TrialRecord], write_page: WritePage
) -> None:
    drawn = [build_record(data={"name": "synthetic"}), build_record(data={"name": "synthetic"}, seed=1)]
    with pytest.raises(ReportError, match="mix data sets.*--mixed"):
        write_page([*records, *drawn])
    page, payload = write_page([*records, *drawn], mixed=True)
    assert [len(group["trials"]) for group in payload["groups"]] == [10, 2]
    assert [group["synthetic"] for group in payload["groups"]] == [False, True]
    assert page.count('class="lead"') == 2


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": {"name": "kfold"}},
        {"protocol": {"test_per_person": 4}},
        {"data": {"crop": 0.56}},
        {"data_variant": "funneled"},
    ],
)
def test_what_cannot_share_an_axis_is_split(records: list[TrialRecord], other: dict[str, Any]) -> None:
    for record in records:
        record.data_variant = "deepfunneled"
    groups = split_comparable([*records, build_record(**other)])
    assert [len(group) for group in groups] == [10, 1]


def test_a_trial_that_never_saw_its_faces_stays_with_the_others(records: list[TrialRecord]) -> None:
    for record in records:
        record.data_variant = "deepfunneled" if record.status == "done" else ""
    assert [len(group) for group in split_comparable(records[::-1])] == [10]


@pytest.mark.parametrize("synthetic", [True, False])
def test_drawn_faces_carry_a_banner(write_page: WritePage, synthetic: bool) -> None:
    page, _ = write_page([build_record(data={"name": "synthetic" if synthetic else "lfw52"})])
    assert ('class="banner"' in page) is synthetic


def test_text_of_records_is_never_markup_and_names_no_path(
    records: list[TrialRecord], write_page: WritePage, tmp_path: Path
) -> None:
    attack = "<script>alert(1)</script>"
    records[0].spec["data"]["root"] = f"/home/ann/{attack}"
    records[4].error = f"ValueError: {attack} --> cannot read /home/ann/faces/bob/1.jpg & 'C:\\Users\\ann\\b.png'"
    records[4].trial_dir = f"/somewhere/{attack}"
    for record in records:
        record.arch = record.spec["arch"]["name"] = f"net{attack}"
    page, payload = write_page(records, title=attack, question=attack, left_out=[attack])
    assert attack not in page
    assert page.count("</script") == 3  # its own: the numbers, Vega, the page's
    errors = [row[payload["columns"].index("error")] for row in payload["groups"][0]["trials"]]
    assert errors[4] == f"ValueError: {attack} --> cannot read [path] & [path]"
    shown = html.unescape(page)
    assert not any(word in shown for word in ("/home", "bob", "Users"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Errno 2] No such file: '/data/lfw/Ann Lee/1.jpg'", "[Errno 2] No such file: [path]"),
        ("cannot read faces/bob/1.jpg: broken", "cannot read [path]: broken"),
        ("OSError: ~/faces/x, try again", "OSError: [path], try again"),
        (r"C:\faces\bob\1.png is broken", "[path] is broken"),
        ("243.1 images/second, loss 1/2", "243.1 images/second, loss 1/2"),
        ("loss is NaN at epoch 3, step 7", "loss is NaN at epoch 3, step 7"),
    ],
)
def test_paths_leave_a_message_and_nothing_else_does(text: str, expected: str) -> None:
    assert remove_paths(text) == expected


def test_a_folder_with_spaces_leaves_a_message_too(write_page: WritePage) -> None:
    root = "/home/ann/My Faces (1)"
    errors = [f"DataError: data.root={root} is not there; see", f"OSError: {root}/Bob Lee (2)/it's.jpg: broken"]
    records = [
        build_record(seed=seed, status="failed", data={"name": "folder", "root": root}, error=error)
        for seed, error in enumerate(errors)
    ]
    _, payload = write_page([build_record(seed=2, data={"name": "folder", "root": root}), *records])
    column = payload["columns"].index("error")
    told = [row[column] for row in payload["groups"][0]["trials"]]
    assert told[1] == "DataError: data.root=[path] is not there; see"
    assert not any(word in " ".join(told) for word in ("ann", "Faces", "Bob", "Lee"))


def test_the_page_loads_nothing(records: list[TrialRecord], write_page: WritePage) -> None:
    page, _ = write_page(records)
    own = re.sub(r"<script>.*?</script>", "", page, count=1, flags=re.DOTALL)  # Vega's names namespaces
    assert not re.search(r"""(?:src|href|action)=["'](?!#|data:)""", own)
    assert not re.search(r"url\((?!['\"]?data:)|@import|fetch\(|XMLHttpRequest|sendBeacon", own)


# ------------------------------------------------------------------------------------ the command


def test_the_command_names_what_it_leaves_out(
    capsys: pytest.CaptureFixture[str], records: list[TrialRecord], tmp_path: Path
) -> None:
    path = tmp_path / "ann" / "records.jsonl"
    for record in records:
        append_record(path, record)
    newer = json.loads(records[0].to_json()) | {"record_version": 99}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(newer) + "\nno record\n")
    assert main(["report", str(path), "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["done"] == 6
    assert len(told["left_out"]) == 2
    assert told["left_out"][0] == (
        "records.jsonl, line 11: skipped, not a record (record version 99 is newer than this package reads)"
    )
    assert "line 11" in captured.err
    page = (path.parent / "report.html").read_text(encoding="utf-8")
    assert told["bytes"] == len(page.encode())
    assert "record version 99" in page
    assert "ann/" not in page


def test_the_command_imports_no_jax(records: list[TrialRecord], tmp_path: Path) -> None:
    append_record(tmp_path / "records.jsonl", records[0])
    script = (
        "import sys\n"
        "from ffem_jax.cli import main\n"
        "status = main(['report', 'records.jsonl'])\n"
        "print([name for name in ('jax', 'flax', 'scipy', 'hydra', 'matplotlib') if name in sys.modules], status)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[] 0", result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["empty.jsonl"], "there are no records"),
        (["one.jsonl", "--cap-mb", "nan"], "--cap-mb: nan must be a size"),
        (["one.jsonl", "--precision", "int4"], "choose from"),
        (["one.jsonl", "--out", "empty.jsonl/x/report.html"], "choose another with --out FILE"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    append_record("one.jsonl", build_record())
    assert main(["report", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert told in captured.err


def test_a_page_is_whole_or_as_it_was(records: list[TrialRecord], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("before")
    mixed = dataclasses.replace(records[0], data="other", trial_key="x")
    with pytest.raises((ReportError, FrontierError)):
        write_report([*records, mixed], path)
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


# ------------------------------------------------------------------------------------ train it again


def list_recorded() -> list[TrialRecord]:
    kept = [REPOSITORY / "results" / name / "records.jsonl" for name in ("placement", "paper", "ablation")]
    return [record for path in kept for record in read_records(path)]


@pytest.mark.slow
def test_the_command_to_train_again_composes_to_the_recorded_trial() -> None:
    specs = [record.spec for record in list_recorded()]
    made = [
        {"arch": {"width_multiplier": 0.35, "depth_multiplier": 1.4, "head_channels": 0}},
        {"arch": {"stages": build_record().spec["arch"]["stages"][:2]}, "recipe": {"epochs": 7, "flip": False}},
        {"attention": {"kind": "se", "placement": (0, 13), "reduction": 8}, "protocol": {"name": "kfold", "fold": 3}},
        {"recipe": {"loss": "cosface", "margin": 0.3, "rotation": 4.0}, "protocol": {"split_seed": 5}, "seed": 5},
        {"pretrain": {"name": "lfw_rest"}},
    ]
    from ffem_jax.specs.architecture import StageSpec

    for fields in made:
        if "stages" in fields.get("arch", {}):
            fields["arch"]["stages"] = tuple(StageSpec(**stage) for stage in fields["arch"]["stages"])
        if "pretrain" in fields:
            with open_composer() as composer:
                trial, _ = to_specs(composer.compose(["pretrain=lfw_rest"]))
            specs.append(to_plain(trial))
        else:
            specs.append(build_record(**fields).spec)
    with open_composer() as composer:
        # One trial of each network: seeds and folds are spelt alike.
        for spec in {tuple(make_overrides(view_spec(spec))): spec for spec in specs}.values():
            words = shlex.split(" ".join(make_overrides(view_spec(spec)) + make_run_overrides(view_spec(spec))))
            trial, _ = to_specs(composer.compose(words))
            assert to_plain(trial) == spec, words


@pytest.mark.parametrize(
    "name",
    [
        "net[/v2]",
        "it's",
        "a,b",
        "ü 李",
        "1e3",
        "null",
        "a=b",
        "{x: 1}",
        "${HOME}",
        "$(touch x)",
        "`x`",
        'say "x";&|',
        "\\",
    ],
)
def test_the_command_can_be_pasted_whatever_the_names(name: str) -> None:
    """Into a shell, which takes the words apart, and from there through Hydra's grammar."""
    recorded = build_record(arch={"name": name}, recipe={"name": name}, data={"name": "synthetic"}).spec
    line = " ".join(make_overrides(view_spec(recorded)) + make_run_overrides(view_spec(recorded)))
    words = subprocess.run(["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    with open_composer() as composer:
        trial, _ = to_specs(composer.compose(words.decode().split("\0")[:-1]))
    assert to_plain(trial) == recorded


@pytest.mark.parametrize(
    ("trial_dir", "wanted"),
    [
        ("/x/out (1)/net_a-seed0", "net_a-seed0"),
        ("/x/it's [1]; ü", "'it'\"'\"'s [1]; ü'"),
        ("/x/back\\slash", "'back\\slash'"),
        ("C:\\out\\net-seed0", "net-seed0"),
        ("", ""),
    ],
)
def test_the_folder_to_export_from_is_quoted(write_page: WritePage, trial_dir: str, wanted: str) -> None:
    _, payload = write_page([build_record(trial_dir=trial_dir)])
    assert payload["groups"][0]["trials"][0][payload["columns"].index("folder")] == wanted


def test_a_name_with_backticks_is_one_piece_of_code(write_page: WritePage) -> None:
    name = "a`b</script><!--\u2028[x]&amp;"
    page, payload = write_page(
        [build_record(arch={"name": name}), build_record(correct=60, arch={"name": "y", "width_multiplier": 0.5})]
    )
    assert payload["groups"][0]["networks"][0]["label"] == name
    assert "<code>a`b&lt;/script&gt;&lt;!--\\u2028[x]&amp;amp;</code>" in page
    assert page.count("</script>") == 3


def test_a_name_in_no_encoding_makes_a_page(write_page: WritePage) -> None:
    page, payload = write_page([build_record(arch={"name": "caf\udce9"}, device="\udcff")])
    assert payload["groups"][0]["networks"][0]["label"] == "caf\udce9"
    assert r"caf\udce9" in page


def test_the_page_s_script_reads_what_python_quotes(tmp_path: Path) -> None:
    """The same sentences in data.js as in ffem_jax/text/display.py."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    names = ["a`b", "``", "x", " y ", "`", "a ` b", "[/v2]", "<b>", "\\", "李"]
    sentences = [f"of {quote_code(name)}, not {quote_code(name)}" for name in names]
    script = (files("ffem_jax.reports.html") / "template" / "data.js").read_text(encoding="utf-8")
    functions = re.search(r"function makeText.*?\n}\n.*?function quoteCode.*?\n}\n", script, re.DOTALL)
    assert functions
    told = (
        "const make = (tag, attributes, text) => ({ code: text });\n"
        f"{functions[0]}"
        f"console.log(JSON.stringify([{json.dumps(sentences)}.map(makeText), {json.dumps(names)}.map(quoteCode)]));"
    )
    out = subprocess.run(["node", "-e", told], capture_output=True, text=True, check=True, encoding="utf-8").stdout
    read, quoted = json.loads(out)
    assert read == [["of ", {"code": name}, ", not ", {"code": name}] for name in names]
    assert quoted == [quote_code(name) for name in names]


def test_a_folder_of_faces_is_for_the_reader_to_name() -> None:
    words = make_overrides(build_record(data={"name": "folder", "root": "/home/ann/faces"}).view)
    assert "data.root=FACES" in words
    assert not any("ann" in word for word in words)


@pytest.mark.parametrize("name", ["vectors", "onnx", "ffem"])
def test_a_taught_network_s_command_has_its_teacher_and_not_where_it_lies(name: str) -> None:
    with open_composer() as composer:
        place = "/home/ann/teacher.npz"
        trial, _ = to_specs(composer.compose([f"teacher={name}", f"teacher.path={place}", "recipe=distill"]))
        words = make_overrides(view_spec(to_plain(trial)))
        assert words[1:-1] == ["data=lfw52", "protocol=holdout", "recipe=distill", f"teacher={name}"], "and no more"
        assert words[-1] == "teacher.path=TEACHER"
        assert not any("ann" in word for word in words)
        again, _ = to_specs(composer.compose([*words[:-1], f"teacher.path={place}"]))
    assert to_plain(again) == to_plain(trial)


def test_the_page_of_taught_networks_names_the_teacher(tmp_path: Path) -> None:
    about = {"name": "face-api", "licence": "MIT", "vectors": "0a077b7023939382"}
    record = build_record(teacher=about)
    record.spec["recipe"] |= {"name": "distill", "distill_cosine": 1.0}
    record.spec["teacher"] = {"name": "vectors", "path": "/home/ann/t.npz"}
    told = dict(describe_provenance([record]))
    assert told["teacher, which saw other data"] == "face-api, licence MIT, vectors 0a077b7023939382"
    write_report([record], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "face-api" in page
    assert "/home/ann" not in page


def test_the_stage_table_is_of_the_network_as_it_is_built() -> None:
    record = build_record(arch={"width_multiplier": 0.5}, attention={"kind": "eca", "placement": "first_last"})
    rows = [line.split("|") for line in describe_stages(record).splitlines()]
    assert rows[0] == ["stem", "1", "", "16", "2", ""]
    assert rows[2] == ["stage 2, bottleneck", "2", "48/96", "16", "2", ""]
    assert rows[1][5] == "ECA in block 0 (kernel 3, on the depthwise)"
    assert rows[7][5].startswith("ECA in block 13 ")
    assert rows[-1] == ["embedding", "1", "", "128", "", ""]
    strange = {**record.spec, "arch": {**record.spec["arch"], "stages": "another package's"}}
    assert describe_stages(dataclasses.replace(record, spec=strange)) == ""


# ------------------------------------------------------------------------------------ while a sweep runs


def test_the_page_of_a_running_sweep_is_renewed_seldom_and_stops_nothing(
    records: list[TrialRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ffem_jax.reports.html import live

    now = 0.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    said: list[str] = []
    page = LivePage(tmp_path / "report.html", lambda: records, 12, said.append)
    page.follow("first")
    assert not page.path.exists()
    now = 61.0
    page.follow("second")
    text = page.path.read_text(encoding="utf-8")
    assert "10 of 12 trials are recorded" in text
    assert 'data-running="true"' in text
    page.path.unlink()
    now = 100.0
    page.follow("third")
    assert not page.path.exists()
    assert said == ["first", "second", "third"]
    assert page.write(records)
    assert 'data-running="true"' not in page.path.read_text(encoding="utf-8")
    assert not page.write([])
    assert not page.write([])
    assert said[3:] == ["no report: there are no records; run `ffem sweep` or `ffem train` first"]
    monkeypatch.setattr(live, "write_report", lambda *_, **__: 1 / 0)
    assert not page.write(records)
    assert said[4:] == ["no report: ZeroDivisionError: division by zero"]
