import io
import json
import subprocess
import sys

import pytest

from ffem_jax.analysis.comparability import FrontierError
from ffem_jax.records.record import read_records
from ffem_jax.reports.frontier import write_frontier


@pytest.fixture
def records(make_record):
    """Three networks under the cap, the middle one beaten; one refused; one failed trial."""
    return [
        make_record(arch={"width_multiplier": 0.5}, params=600_000, correct=60, device="cpu"),
        make_record(arch={"width_multiplier": 0.75}, params=1_200_000, correct=59, device="cpu"),
        make_record(params=2_200_448, correct=95, device="cpu"),
        make_record(arch={"width_multiplier": 1.5}, params=4_000_000, status="over_cap"),
        make_record(arch={"width_multiplier": 0.25}, params=None, status="failed", error="NaN loss\nat step 5"),
    ]


def test_everything_is_written_and_agrees(tmp_path, records):
    result = write_frontier(records, tmp_path / "deep" / "folder")
    assert [path.name for path in result.files] == [
        "frontier.png", "frontier.svg", "frontier_params.png", "frontier_params.svg", "frontier.json", "frontier.md",
    ]  # fmt: skip
    assert all(path.stat().st_size for path in result.files)
    saved = json.loads((tmp_path / "deep" / "folder" / "frontier.json").read_text())
    assert saved == result.to_dict()
    assert str(tmp_path) not in json.dumps(saved)
    assert saved["frontier"] == ["width 0.5", "width 1"]
    assert [n["on_frontier"] for n in saved["networks"]] == [True, False, True, False, False]
    assert [n["fits_cap"] for n in saved["networks"]] == [True, True, True, False, False]
    assert (saved["trained"], saved["over_cap"], saved["failed"]) == (3, 1, 1)
    assert saved["devices"] == {"cpu": 3}
    assert saved["title"] == "lfw52, 64 x 64, holdout, 104 test images"


def test_hypervolume_is_the_dominated_share_under_the_cap(tmp_path, records):
    result = write_frontier(records, tmp_path)
    area = (8.801792 - 2.4) * 60 / 104 + (10 - 8.801792) * 95 / 104
    assert result.hypervolume == pytest.approx(area / 10)
    assert write_frontier(records, tmp_path, against="macs").hypervolume is None


def test_the_reading_tells_what_is_missing(tmp_path, records):
    write_frontier(records, tmp_path)
    text = (tmp_path / "frontier.md").read_text()
    assert "5 networks: 3 trained (3 trials; on cpu (3)), 1 over the cap and not trained, 1 failed." in text
    assert "Not trained, over the cap: `width 1.5`, 16.00 MB." in text
    assert "Failed: `width 0.25`, 1 trial: NaN loss\n" in text


def test_what_was_stopped_early_is_named_and_stands_on_no_frontier(tmp_path, records, make_record):
    early = make_record(arch={"width_multiplier": 0.35}, params=300_000, status="pruned", correct=104)
    result = write_frontier([*records, early], tmp_path)
    assert (result.to_dict()["pruned"], result.to_dict()["pruned_trials"]) == (1, 1)
    assert result.to_dict()["frontier"] == ["width 0.5", "width 1"]
    text = (tmp_path / "frontier.md").read_text()
    assert "3 trained (3 trials; on cpu (3)), 1 pruned before the end, 1 over the cap and not trained" in text
    assert "Stopped early (pruned), so no accuracy is shown: `width 0.35` (1 trial)." in text
    printed = io.StringIO()
    result.print_table(printed)
    assert [line.split()[-4:] for line in printed.getvalue().splitlines() if "0.35" in line] == [
        ["-", "0,", "1", "pruned", "yes"][-4:]
    ]
    assert "stopped early" in printed.getvalue()
    with pytest.raises(FrontierError, match="no network is trained to its end: 1 pruned, 1 over the cap"):
        write_frontier([early, records[3]], tmp_path / "none")


def test_no_order_is_claimed_within_noise(tmp_path, make_record):
    records = [
        make_record(attention={"kind": kind}, params=2_200_448 + n, correct=correct)
        for n, (kind, correct) in enumerate([("none", 100), ("eca", 101), ("se", 102)])
    ]
    write_frontier(records, tmp_path)
    text = (tmp_path / "frontier.md").read_text()
    assert (
        "is that of `SE`, but it is not established as the best: the intervals of 2 of the 2 others that fit overlap "
        "its own" in text
    )
    assert "The cheapest network with an overlapping interval is `no attention`." in text
    assert "do not overlap (0 of 2): none." in text


def test_a_clear_lead_is_said(tmp_path, records):
    write_frontier(records, tmp_path)
    text = (tmp_path / "frontier.md").read_text()
    assert "The interval of `width 1` lies above those of all the others that fit." in text
    assert "(1 of 1): `width 0.5` to `width 1`." in text


def test_synthetic_faces_are_never_taken_for_real_ones(tmp_path, make_record):
    result = write_frontier([make_record(data={"name": "synthetic"})], tmp_path)
    assert result.synthetic
    assert "**Synthetic faces" in (tmp_path / "frontier.md").read_text()


def test_a_network_refused_once_and_fitting_now_is_pointed_out(tmp_path, records):
    write_frontier(records, tmp_path, precision="float16")
    assert "8.00 MB (it would fit this cap: train it to place it)" in (tmp_path / "frontier.md").read_text()


def test_nothing_fits(tmp_path, records):
    result = write_frontier(records, tmp_path, cap_mb=1.0)
    assert not any(result.on_frontier)
    assert "No trained network fits 1 MB at float32; the smallest has " in (tmp_path / "frontier.md").read_text()


def test_against_params_draws_one_figure(tmp_path, records):
    result = write_frontier(records, tmp_path, against="params")
    assert [path.name for path in result.files if path.suffix == ".png"] == ["frontier.png"]


def test_the_plain_table_is_complete_lines(tmp_path, records):
    file = io.StringIO()
    write_frontier(records, tmp_path).print_table(file)
    lines = file.getvalue().splitlines()
    assert "\x1b" not in file.getvalue()
    assert not any(line != line.rstrip() for line in lines)
    (best,) = [line for line in lines if " width 1 " in line]
    assert best.strip().startswith("*")
    assert "2,200,448" in best
    assert "91.3 [84.4, 95.4]" in best
    assert any("width 1.5" in line and "not trained" in line and line.endswith("no") for line in lines)
    assert any("width 0.25" in line and "failed" in line for line in lines)
    assert "attention" not in file.getvalue(), "a column that says the same on every line"


def test_records_read_from_a_file_will_do(tmp_path, records):
    path = tmp_path / "records.jsonl"
    path.write_text("".join(record.to_json() + "\n" for record in records))
    assert write_frontier(read_records(path), tmp_path).to_dict()["trained"] == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int4"}, "float32, float16, int8"),
        ({"against": "latency"}, "bytes, params, macs"),
        ({"metric": "loss"}, "accuracy, accuracy_gallery"),
        ({"cap_mb": 0.0}, "cap_mb=0.0"),
        ({"cap_mb": float("nan")}, "cap_mb=nan"),
    ],
)
def test_bad_questions_name_the_choices(tmp_path, records, settings, message):
    with pytest.raises(FrontierError, match=message):
        write_frontier(records, tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_nothing_trained_is_one_line_with_the_cause(tmp_path, records):
    with pytest.raises(FrontierError, match="1 over the cap, 1 failed; the first error: NaN loss;") as caught:
        write_frontier(records[3:], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(FrontierError, match="there are no records"):
        write_frontier([], tmp_path)


def test_importing_is_quick_and_draws_nothing_in():
    code = (
        "import sys, ffem_jax.reports.frontier; "
        "print([m for m in ('matplotlib', 'rich', 'jax', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
