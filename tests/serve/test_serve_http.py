"""The server as a client sees it: what it answers, what is refused and how, and what its log does not hold."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from made_galleries import LENGTH, MODEL_ID, OTHER_MODEL_ID

from ffem_jax.serve.guards import BodyLimit, compute_body_limit
from ffem_jax.serve.request_log import JsonFormatter

VECTOR = [float(number) for number in range(1, LENGTH + 1)]
BODY = {"model_id": MODEL_ID, "vector": VECTOR}


# ------------------------------------------------------------------------------- what it is for


def test_enrol_match_export_delete(served: Any) -> None:
    enrolled = served.enrol("Ada", VECTOR)
    assert (enrolled.status_code, enrolled.json()["added"], enrolled.json()["vectors"]) == (201, 1, 1)
    person_id = enrolled.json()["person_id"]
    found = served.match(VECTOR).json()
    assert (found["accepted"], found["name"], found["person_id"]) == (True, "Ada", person_id)
    assert found["distance"] < 1e-6
    stranger = served.match([-x for x in VECTOR]).json()
    assert (stranger["accepted"], stranger["name"], stranger["person_id"]) == (False, None, None)
    assert stranger["distance"] == pytest.approx(1)
    listed = served.ask("GET", "/v1/people").json()
    assert [(one["person_id"], one["name"], one["vectors"]) for one in listed["people"]] == [(person_id, "Ada", 1)]
    assert served.ask("POST", "/v1/people/search", json={"name": "Ada"}).json()["people"] == listed["people"]
    held = served.ask("GET", f"/v1/people/{person_id}").json()
    np.testing.assert_allclose(held["vectors"][0]["vector"], np.array(VECTOR) / np.linalg.norm(VECTOR), rtol=1e-6)
    assert held["vectors"][0]["model_id"] == MODEL_ID
    gone = served.ask("DELETE", f"/v1/people/{person_id}")
    assert (gone.status_code, gone.json()) == (200, {"person_id": person_id, "vectors": 1, "wiped": True})
    assert served.match(VECTOR).json()["distance"] is None
    assert served.ask("GET", f"/v1/people/{person_id}").status_code == 404
    assert served.ask("DELETE", f"/v1/people/{person_id}").status_code == 404


def test_one_vector_is_deleted(served: Any) -> None:
    person_id = served.enrol("Ada", VECTOR).json()["person_id"]
    served.enrol("Ada", VECTOR[::-1])
    held = served.ask("GET", f"/v1/people/{person_id}").json()["vectors"]
    first, second = (f"/v1/people/{person_id}/vectors/{one['vector_id']}" for one in held)
    assert (held[0]["image"], held[0]["folder"]) == (None, None)
    stranger = served.enrol("Bob", [-x for x in VECTOR]).json()["person_id"]
    assert served.ask("DELETE", first.replace(person_id, stranger)).status_code == 404, "a vector of somebody else"
    for key in ("enrol", "match", "read"):
        assert served.ask("DELETE", first, key=key).status_code == 403
    gone = served.ask("DELETE", first, key="delete")
    assert (gone.status_code, gone.json()) == (
        200,
        {"person_id": person_id, "vector_id": held[0]["vector_id"], "vectors_left": 1, "wiped": True},
    )
    assert served.match(VECTOR).json()["name"] is None
    assert served.match(VECTOR[::-1]).json()["name"] == "Ada"
    assert served.ask("DELETE", first).status_code == 404
    assert served.ask("DELETE", second).json()["vectors_left"] == 0
    assert served.match(VECTOR[::-1]).json()["name"] is None
    # The person stays, under the same id.
    assert served.ask("GET", f"/v1/people/{person_id}").json()["vectors"] == []
    assert served.enrol("Ada", VECTOR).json()["person_id"] == person_id
    # An id is never given again: who still knows the old one deletes nothing else.
    assert served.ask("DELETE", first).status_code == 404
    assert served.ask("DELETE", second).status_code == 404


@pytest.mark.parametrize("vector_id", ["1", "x" * 16, "0" * 17, "F" * 16, "f" * 16, "' OR 1=1 --"])
def test_an_id_of_no_vector(served: Any, vector_id: str) -> None:
    person_id = served.enrol("Ada", VECTOR).json()["person_id"]
    assert served.ask("DELETE", f"/v1/people/{person_id}/vectors/{vector_id}").status_code in (404, 422)
    assert served.gallery.count() == (1, 1)


def test_another_person_s_vector_is_refused_without_saying_whose(served: Any) -> None:
    person_id = served.enrol("Ada", VECTOR).json()["person_id"]
    # The same picture by another runtime, too.
    for vector in (VECTOR, [x * (1 + 1e-7) for x in VECTOR], [x * 3 for x in VECTOR]):
        refused = served.enrol("Eve", vector)
        assert (refused.status_code, set(refused.json())) == (422, {"detail"})
        assert "another person is enrolled with this very vector" in refused.json()["detail"]
        assert "Ada" not in refused.text
        assert person_id not in refused.text
    assert [person.name for person in served.gallery.list_people()] == ["Ada"]
    assert served.enrol("Ada", VECTOR).json()["added"] == 0
    assert served.enrol("Eve", [x + 0.1 for x in VECTOR]).status_code == 201, "a vector close by is another one"


def test_the_model_says_what_decides(served: Any) -> None:
    served.enrol("Ada", VECTOR)
    assert served.ask("GET", "/v1/model").json() == {
        "model_id": MODEL_ID, "network": "drawn", "length": LENGTH, "people": 1, "vectors": 1, "threshold": 0.25,
        "false_accept_rate": None, "shortage": None,
    }  # fmt: skip
    assert served.client.get("/health").json() == {"status": "ok"}


def test_people_come_in_pages(served: Any) -> None:
    for number in range(5):
        served.enrol(f"person {number}", np.roll(VECTOR, number))
    names, after = [], None
    while True:
        page = served.ask("GET", "/v1/people", params={"limit": 2, **({"after": after} if after else {})}).json()
        names += [person["name"] for person in page["people"]]
        after = page["next"]
        if after is None:
            break
    assert sorted(names) == [f"person {number}" for number in range(5)]


@pytest.mark.parametrize(
    "asked", [{"limit": 0}, {"limit": 1001}, {"limit": "all"}, {"after": "x"}, {"after": "0" * 17}, {"page": 2}]
)
def test_a_page_that_cannot_be_is_refused(served: Any, asked: dict[str, Any]) -> None:
    assert served.ask("GET", "/v1/people", params=asked).status_code == 422
    assert served.ask("GET", "/v1/people", key="match", params={}).status_code == 403


# ------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("vector", "status"),
    [
        (VECTOR[:-1], 422), ([*VECTOR, 1.0], 422), ([], 422), ([0.0] * LENGTH, 422), ([-0.0] * LENGTH, 422),
        (["1"] * LENGTH, 422), ([True] * LENGTH, 422), ([None] * LENGTH, 422), ([[1.0]] * LENGTH, 422),
        ("1" * LENGTH, 422), ({"0": 1.0}, 422), (None, 422), (1.0, 422),
        ([10**400, *VECTOR[1:]], 422), ([1] * LENGTH, 200), ([1e308] * LENGTH, 200), ([5e-324] * LENGTH, 200),
        ([1e308, -1e308] * (LENGTH // 2), 200), ([5e-324] + [0.0] * (LENGTH - 1), 200), ([10**200, *VECTOR[1:]], 200),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_only_a_finite_vector_of_the_model_s_length_is_taken(served: Any, vector: Any, status: int) -> None:
    response = served.ask("POST", "/v1/match", json={"model_id": MODEL_ID, "vector": vector})
    assert response.status_code == status, response.text
    response = served.ask("POST", "/v1/enrol", json={"model_id": MODEL_ID, "vector": vector, "name": "Ada"})
    assert response.status_code == (201 if status == 200 else status), response.text
    assert len(served.gallery.list_people()) == (status == 200)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"1", b"{", b"{}", b'"text"', b"\xff\xfe", b"NaN",
        b'{"model_id": "0123456789abcdef", "vector": [' + b"NaN," * 15 + b"NaN]}",
        b'{"model_id": "0123456789abcdef", "vector": [' + b"Infinity," * 15 + b"-Infinity]}",
        b'{"model_id": "0123456789abcdef", "vector": [' + b"1e999," * 15 + b"1]}",
        b'{"model_id": "0123456789abcdef", "vector": ' + b"[" * 2000,
        b"[" * 2400, b'{"a":' * 480, b'{"vector": [' + b"9" * 2300 + b"]}",
        b'{"model_id": "0123456789abcdef", "vector": [1], "vector": [2]}',
        b'{"\\ud800": 1, "model_id": "\\ud800"}',
        b'{"image": "data:image/jpeg;base64,/9j/4AAQ"}',
    ],
    ids=lambda body: repr(body[:50]),
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused_without_a_failure(served: Any, body: bytes) -> None:
    for path in ("/v1/match", "/v1/enrol", "/v1/people/search"):
        response = served.ask("POST", path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in (400, 422), response.text
        assert set(response.json()) == {"detail"}
    assert served.gallery.list_people() == []


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "multipart/form-data; boundary=x", "application/octet-stream", "text/plain"]
)
def test_nothing_but_json_is_read(served: Any, kind: str) -> None:
    content = json.dumps(BODY)
    assert served.ask("POST", "/v1/match", content=content, headers={"Content-Type": kind}).status_code in (415, 422)


def test_nothing_is_added_to_a_request(served: Any) -> None:
    for extra in ({"image": "x"}, {"name": "Ada"}):
        assert served.match(VECTOR, **extra).status_code == 422
    assert served.enrol("Ada", VECTOR, person_id="1").status_code == 422


def test_another_model_s_vector_is_refused(served: Any) -> None:
    for response in (
        served.match(VECTOR, model_id=OTHER_MODEL_ID),
        served.enrol("Ada", VECTOR, model_id=OTHER_MODEL_ID),
    ):
        assert (response.status_code, MODEL_ID in response.json()["detail"]) == (409, True)
    assert served.match(VECTOR, model_id=1).status_code == 422
    assert served.gallery.list_people() == []


@pytest.mark.parametrize("name", ["", " ", "a\x00b", "\ud800", "\u202eada", "a" * 101, 1, None, ["Ada"], {"a": 1}])
def test_a_name_that_cannot_be_kept_is_refused(served: Any, name: Any) -> None:
    content = json.dumps({**BODY, "name": name})
    response = served.ask("POST", "/v1/enrol", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422, response.text
    assert served.gallery.list_people() == []


@pytest.mark.parametrize(
    "name", ["'; DROP TABLE people; --", "\u738b\u5c0f\u660e", "Zoe\u0308", "<script>alert(1)</script>", "\\u0000"]
)
def test_a_name_is_data(served: Any, name: str) -> None:
    answer = served.enrol(name, VECTOR)
    assert answer.status_code == 201
    assert served.match(VECTOR).json()["name"] == answer.json()["name"]
    assert len(served.ask("POST", "/v1/people/search", json={"name": name}).json()["people"]) == 1


@pytest.mark.parametrize(
    "person_id", ["1", "x" * 16, "0" * 17, "%00", "..", "' OR 1=1 --", "F" * 16, "f" * 16, "-" + "0" * 15]
)
def test_an_id_of_nobody(served: Any, person_id: str) -> None:
    served.enrol("Ada", VECTOR)
    for method in ("GET", "DELETE"):
        assert served.ask(method, f"/v1/people/{person_id}").status_code in (404, 405, 422, 307)
    assert len(served.gallery.list_people()) == 1


# ----------------------------------------------------------------------------------- large bodies


def test_a_body_over_the_limit_is_refused_whether_announced_or_not(served: Any) -> None:
    limit = compute_body_limit(LENGTH)
    content = json.dumps({**BODY, "name": "Ada"}).encode()
    fits = content + b" " * (limit - len(content))
    headers = {"Content-Type": "application/json"}
    assert served.ask("POST", "/v1/enrol", content=fits, headers=headers).status_code == 201
    assert served.ask("POST", "/v1/match", content=fits + b" ", headers=headers).status_code == 413

    def chunks() -> Any:
        for _ in range(100):
            yield b" " * (limit // 10)

    assert served.ask("POST", "/v1/match", content=chunks(), headers=headers).status_code == 413


def call(app: Any, messages: list[dict[str, Any]], headers: list[tuple[bytes, bytes]] = []) -> tuple[int, int]:  # noqa: B006
    """(status, messages read) of an ASGI app that is sent these messages, and then nothing more."""
    import asyncio

    read, statuses = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal read
        if read == len(messages):
            await asyncio.sleep(60)
        read += 1
        return messages[read - 1]

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    asyncio.run(app({"type": "http", "method": "POST", "headers": headers}, receive, send))
    return statuses[0], read


def test_no_more_is_read_than_the_limit() -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("the app was asked")

    part = {"type": "http.request", "body": b"x" * 100, "more_body": True}
    assert call(BodyLimit(never, limit=250), [part] * 50) == (413, 3)
    assert call(BodyLimit(never, limit=250), [part] * 50, [(b"content-length", b"251")]) == (413, 0)
    assert call(BodyLimit(never, limit=250), [part] * 50, [(b"content-length", b"9" * 5000)]) == (413, 0)
    assert call(BodyLimit(never, limit=250, seconds=0.05), [part] * 2) == (408, 2)


# -------------------------------------------------------------------------------- pages elsewhere


def test_only_named_pages_may_ask_from_a_browser(serve: Any) -> None:
    served = serve(allowed_origins=["https://faces.example"])
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    allowed = served.client.options("/v1/match", headers={"Origin": "https://faces.example", **asked})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://faces.example")
    refused = served.client.options("/v1/match", headers={"Origin": "https://elsewhere.example", **asked})
    assert "access-control-allow-origin" not in refused.headers
    for status, path, body in ((200, "/v1/match", BODY), (422, "/v1/match", {}), (413, "/v1/match", {"x": "x" * 9999})):
        response = served.ask("POST", path, json=body, headers={"Origin": "https://faces.example"})
        assert (response.status_code, response.headers.get("access-control-allow-origin")) == (
            status,
            "https://faces.example",
        ), "a page must be able to read why it was refused"


# ------------------------------------------------------------------------------------------- logs


def test_a_log_line_tells_the_request_and_not_the_person(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    person_id = served.enrol("Ada Lovelace", VECTOR).json()["person_id"]
    served.match(VECTOR)
    served.enrol("Ada Lovelace", [*VECTOR, 7.25])
    served.ask("GET", f"/v1/people/{person_id}")
    served.ask("GET", "/v1/people", params={"after": person_id})
    lines = [JsonFormatter().format(record) for record in caplog.records]
    rows = [json.loads(line) for line in lines if json.loads(line)["event"] == "request"]
    assert [(row["method"], row["route"], row["status"]) for row in rows] == [
        ("POST", "/v1/enrol", 201), ("POST", "/v1/match", 200), ("POST", "/v1/enrol", 422),
        ("GET", "/v1/people/{person_id}", 200), ("GET", "/v1/people", 200),
    ]  # fmt: skip
    assert {row["key"] for row in rows} == {served.keys["all"].split("_")[1]}
    assert all(row["milliseconds"] >= 0 for row in rows)
    ours = " ".join(json.dumps(row) for row in rows)
    unit = np.array(VECTOR) / np.linalg.norm(VECTOR)
    for secret in ("Ada", "Lovelace", person_id, served.keys["all"], "7.25", *(f"{x:.6f}"[:7] for x in unit)):
        assert secret not in ours


def test_a_failure_is_answered_and_logged_without_its_message(
    served: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError(f"the vector was {VECTOR}")

    monkeypatch.setattr(served.gallery, "match", fail)
    caplog.set_level(logging.INFO)
    response = served.match(VECTOR)
    assert (response.status_code, response.json()) == (500, {"detail": "the server failed; its log says where"})
    (line,) = [JsonFormatter().format(record) for record in caplog.records if record.message == "request"]
    row = json.loads(line)
    assert (row["level"], row["status"], row["error"]) == ("error", 500, "RuntimeError")
    assert any("in fail" in place or place.endswith(" fail") for place in row["where"])
    assert "vector was" not in line


def test_an_exception_that_is_logged_elsewhere_loses_its_message() -> None:
    try:
        raise ValueError("Ada")
    except ValueError:
        record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "failed %s", ("x",), sys.exc_info())
    row = json.loads(JsonFormatter().format(record))
    assert (row["event"], row["error"]) == ("failed x", "ValueError")
    assert "Ada" not in json.dumps(row)


# ------------------------------------------------------------------------------------- no image


def test_the_server_s_process_holds_no_decoder_and_no_network() -> None:
    script = (
        "import sys, ffem_jax.serve.app, ffem_jax.serve.listening\n"
        "sys.exit(str([n for n in ('PIL', 'jax', 'flax', 'multipart', 'python_multipart', 'cv2', 'ffem_jax.data')"
        " if n in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stderr.strip() == "[]"


def test_every_route_is_described_with_its_refusals(served: Any) -> None:
    schema = served.client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        "/v1/match", "/v1/enrol", "/v1/people", "/v1/people/search", "/v1/people/{person_id}",
        "/v1/people/{person_id}/vectors/{vector_id}", "/v1/model", "/health",
    }  # fmt: skip
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert operation["description"]
            if path != "/health":
                assert {"401", "403", "413", "422", "429"} <= set(operation["responses"])
                assert operation["security"] == [{"HTTPBearer": []}]
    vector = schema["components"]["schemas"]["MatchRequest"]["properties"]["vector"]
    assert (vector["minItems"], vector["maxItems"]) == (LENGTH, LENGTH)
