"""What the page gives to copy: commands that train a network again, names that are quoted, where a network lies."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from made_records import build_record

from ffem_jax.config.compose import open_composer, to_specs
from ffem_jax.records.record import TrialRecord, read_records
from ffem_jax.records.view import view_spec
from ffem_jax.reports.html import write_report
from ffem_jax.reports.html.commands import make_overrides, make_run_overrides
from ffem_jax.reports.html.networks import describe_stages
from ffem_jax.reports.html.provenance import describe_provenance
from ffem_jax.specs.trial import to_plain
from ffem_jax.text.display import quote_code

REPOSITORY = Path(__file__).resolve().parents[3]
WritePage = Callable[..., tuple[str, dict[str, Any]]]


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
    assert told["teacher, trained on other data"] == "face-api, licence MIT, vectors 0a077b7023939382"
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
