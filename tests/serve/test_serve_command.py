"""`ffem serve` as it is started: what it refuses, and a real server asked by several clients at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from made_galleries import MODEL_ID, OTHER_MODEL_ID, draw_people, write_export

from ffem_jax.cli import main
from ffem_jax.metrics.calibration import compute_calibration


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FFEM_DATABASE", raising=False)


def write_calibration(folder: Path, model_id: str = MODEL_ID) -> Path:
    path = folder / "calibration.json"
    path.write_text(json.dumps(compute_calibration(*draw_people(40, 3, seed=8, spread=1.0), model_id).to_dict()))
    return path


def ffem(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(words)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# ---------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--model"),
        (["--model", "nowhere.json", "--threshold", "0.3"], "nowhere.json"),
        (["--model", "notes.txt", "--threshold", "0.3"], "no export.json"),
        (["--model", "odd.json", "--threshold", "0.3"], "16 hexadecimal digits"),
        (["--model", "export.json"], "ffem embed FOLDER --trial DIR --calibrate"),
        (["--model", "export.json", "--threshold", "0.3", "--calibration", "calibration.json"], "and not both"),
        (["--model", "export.json", "--threshold", "2"], "between 0 and 1"),
        (["--model", "export.json", "--threshold", "nan"], "between 0 and 1"),
        (["--model", "export.json", "--calibration", "calibration.json", "--false-accept-rate", "0"], "above 0"),
        (["--model", "export.json", "--calibration", "export.json"], "not a calibration"),
        (["--model", "export.json", "--calibration", "notes.txt"], "ffem embed --calibrate"),
        (["--model", "export.json", "--calibration", "other.json"], f"made with model {OTHER_MODEL_ID}"),
        (["--model", "export.json", "--threshold", "0.3", "--rate", "often"], "120/minute"),
        (["--model", "export.json", "--threshold", "0.3", "--database", "mysql://x/y"], "not known here"),
        (["--model", "export.json", "--threshold", "0.3", "--port", "70000"], "--port 70000"),
        (["keys", "make"], "choose one of: add, list, revoke"),
        (["keys", "add", "--scopes", "admin"], "enrol, match, read, delete"),
        (["keys", "add"], "--scopes"),
        (["keys", "revoke", "00000000"], "there is no gallery gallery.db; give --database URL of one"),
        (["keys", "list"], "there is no gallery gallery.db"),
        (["people", "list"], "there is no gallery gallery.db"),
        (["people", "delete", "Ada"], "there is no gallery gallery.db"),
        (["people", "remove"], "choose one of: list, delete"),
        (["people", "delete"], "NAME|ID"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], told: str) -> None:
    write_calibration(tmp_path, OTHER_MODEL_ID).rename(tmp_path / "other.json")
    write_calibration(tmp_path)
    write_export(tmp_path, model_id="A NAME").rename(tmp_path / "odd.json")
    write_export(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    status, out, err = ffem(capsys, "serve", *words)
    lines = [line for line in err.splitlines() if not line.startswith("ffem: warning: ")]
    assert (status, out, len(lines)) == (2, "", 1), err
    assert lines[0].startswith("ffem: error: ")
    assert told in lines[0]


def test_keys_are_made_listed_and_revoked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, err = ffem(capsys, "serve", "keys", "add", "--scopes", "match, enrol", "--label", "phone")
    key = out.strip()
    key_id = key.split("_")[1]
    assert (status, key.startswith("ffem_"), key_id in err) == (0, True, True)
    assert (tmp_path / "gallery.db").exists()
    ffem(capsys, "serve", "keys", "add", "--scopes", "read", "--json")
    rows = json.loads(ffem(capsys, "serve", "keys", "list", "--json")[1])
    assert sorted((row["scopes"], row["label"]) for row in rows) == [(["enrol", "match"], "phone"), (["read"], "")]
    status, out, _ = ffem(capsys, "serve", "keys", "list")
    assert (status, key_id in out, key.split("_", 2)[2] in out) == (0, True, False)
    assert ffem(capsys, "serve", "keys", "revoke", key_id)[0] == 0
    assert ffem(capsys, "serve", "keys", "revoke", key_id)[0] == 2
    (revoked,) = [row for row in json.loads(ffem(capsys, "serve", "keys", "list", "--json")[1]) if row["revoked_at"]]
    assert revoked["key_id"] == key_id


# ---------------------------------------------------------------------------------- a real server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict]:
    """A server on a free port of the loopback, calibrated, with a key; its log is in server.log."""
    write_export(tmp_path)
    write_calibration(tmp_path)
    command = [sys.executable, "-m", "ffem_jax.cli", "serve"]
    environment = {**os.environ, "FFEM_DATABASE": f"sqlite:///{tmp_path}/faces.db"}
    added = subprocess.run(
        [*command, "keys", "add", "--scopes", "enrol,match,read,delete", "--json"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = [
        "--model",
        ".",
        "--calibration",
        "calibration.json",
        "--false-accept-rate",
        "0.05",
        "--port",
        "0",
        "--json",
    ]
    with open(tmp_path / "server.log", "w") as log:
        process = subprocess.Popen(
            [*command, *words, "--rate", "1000/second"],
            cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, (tmp_path / "server.log").read_text()
        yield {**json.loads(line), "key": json.loads(added.stdout)["key"], "process": process}
    finally:
        process.kill()
        process.wait()


def test_clients_at_the_same_time(server: dict, tmp_path: Path) -> None:
    assert (server["model_id"], server["people"]) == (MODEL_ID, 0)
    assert server["address"].startswith("http://127.0.0.1:")
    vectors, _ = draw_people(12, 1, spread=0.0)
    headers = {"Authorization": f"Bearer {server['key']}"}

    def work(number: int) -> None:
        body = {"model_id": MODEL_ID, "vector": vectors[number].tolist()}
        with httpx.Client(base_url=server["address"], headers=headers, timeout=60) as client:
            person = client.post("/v1/enrol", json={**body, "name": f"person {number}"})
            assert person.status_code == 201, person.text
            assert client.post("/v1/match", json=body).json()["name"] == f"person {number}"
            if number % 2:
                assert client.delete(f"/v1/people/{person.json()['person_id']}").status_code == 200
                assert client.post("/v1/match", json=body).json()["name"] != f"person {number}"

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(12)))

    with httpx.Client(base_url=server["address"], headers=headers, timeout=60) as client:
        model = client.get("/v1/model").json()
        assert (model["people"], model["vectors"], model["false_accept_rate"]) == (6, 6, 0.05)
        # A body in pieces, its length not announced: over the limit the server hangs up.
        response = client.post("/v1/match", content=(b" " * 1000 for _ in range(1000)))
        assert response.status_code == 413
        # And one that claims a length and is longer.
        nested = b'{"vector":' + b"[" * 1500
        assert client.post("/v1/match", content=nested, headers={"Content-Type": "application/json"}).status_code == 400

    server["process"].send_signal(signal.SIGTERM)
    # uvicorn finishes what is under way, and then ends as if nobody had caught the signal.
    assert server["process"].wait(30) == -signal.SIGTERM
    lines = (tmp_path / "server.log").read_text().splitlines()
    rows = [json.loads(line) for line in lines if not line.startswith("ffem: ")]
    assert {row["event"] for row in rows} >= {"request"}
    assert not [row for row in rows if row["level"] == "error"]
    assert "person " not in "\n".join(lines)
    assert np.isfinite([row["milliseconds"] for row in rows if row["event"] == "request"]).all()
