"""The page is an extra: without it one line says what to install, and a sweep ends as it does with it."""

from __future__ import annotations

import json
import sys

import pytest
from made_records import build_record

from ffem_jax.cli import main
from ffem_jax.records.record import append_record
from ffem_jax.reports.html import ReportError, write_report
from ffem_jax.reports.html.live import LivePage


@pytest.mark.parametrize(
    ("missing", "named"),
    [(["vl_convert"], "vl_convert"), (["jinja2"], "jinja2"), (["vl_convert", "jinja2"], "jinja2 and vl_convert")],
)
def test_one_line_says_what_to_install(tmp_path, monkeypatch, capsys, missing, named):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    path, out = tmp_path / "records.jsonl", tmp_path / "page.html"
    record = build_record()
    append_record(path, record)
    line = f"the page needs {named}: in the checkout, pip install -c constraints.txt -e '.[report]'"
    with pytest.raises(ReportError) as error:
        write_report([record], out)
    assert str(error.value) == line
    assert main(["report", str(path), "--out", str(out)]) == 2
    assert capsys.readouterr().err.endswith(f"error: {line}\n")
    assert not out.exists()
    # A sweep says it once, and goes on.
    said = []
    page = LivePage(out, lambda: [record], 1, said.append)
    assert not page.write([record])
    assert not page.write([record])
    assert said == [f"no report: {line}"]


def test_the_figure_and_the_table_need_no_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    path = tmp_path / "records.jsonl"
    append_record(path, build_record())
    assert main(["frontier", str(path), "--out", str(tmp_path / "frontier"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert (tmp_path / "frontier" / "frontier.png").exists()
