"""The download, from a server of our own: checked before it gets its name, and never half there."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading

import pytest

from ffem_jax.data import DataError
from ffem_jax.data.download import Download, download_archive

CONTENTS = bytes(range(256)) * 20_000  # 5 MB: several chunks


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        self.server.requests += 1


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    served = tmp_path / "served"
    served.mkdir()
    (served / "archive.tgz").write_bytes(CONTENTS)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=served)) as server:
        server.requests = 0
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def offer(server, **changed) -> Download:
    right = {
        "name": "archive.tgz",
        "url": f"http://127.0.0.1:{server.server_port}/archive.tgz",
        "size_bytes": len(CONTENTS),
        "sha256": hashlib.sha256(CONTENTS).hexdigest(),
    }
    return Download(**{**right, **changed})


def test_it_arrives_whole_and_once(server, tmp_path, capfd):
    folder = tmp_path / "new" / "cache"
    path = download_archive(offer(server), folder)
    assert path == folder / "archive.tgz"
    assert path.read_bytes() == CONTENTS
    assert not list(folder.glob("*.part"))
    output = capfd.readouterr()
    assert output.out == ""
    assert "archive.tgz" in output.err
    assert server.requests == 1
    assert download_archive(offer(server), folder) == path
    assert server.requests == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sha256": "0" * 64}, "published SHA-256"),
        ({"size_bytes": len(CONTENTS) + 1}, f"is {len(CONTENTS):,} bytes and not"),
        ({"size_bytes": 1000}, "is over .* bytes and not 1,000"),
        ({"url": "{url}/missing"}, "could not be downloaded .*404"),
        ({"url": "http://127.0.0.1:9/archive.tgz"}, "could not be downloaded .*refused"),
        ({"url": "http://no-such-host.invalid/archive.tgz"}, "could not be downloaded"),
    ],
)
def test_what_is_wrong_leaves_nothing_and_says_what_to_do(server, tmp_path, changed, message):
    if "url" in changed:
        changed = {"url": changed["url"].format(url=f"http://127.0.0.1:{server.server_port}")}
    with pytest.raises(DataError, match=message) as error:
        download_archive(offer(server, **changed), tmp_path / "cache")
    assert "set data.root=DIR" in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["archive.tgz.lock"]


def test_what_an_interrupted_download_left_is_overwritten(server, tmp_path):
    (tmp_path / "archive.tgz.part").write_bytes(b"half")
    assert download_archive(offer(server), tmp_path).read_bytes() == CONTENTS


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="could not be downloaded"):
        download_archive(offer(server), tmp_path / "file" / "cache")
