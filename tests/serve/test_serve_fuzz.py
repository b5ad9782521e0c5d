"""Requests nobody thought of: none is answered with a failure, and none leaves garbage in the gallery."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import numpy as np
import pytest
from made_galleries import LENGTH, MODEL_ID
from sqlalchemy import select

from ffem_jax.serve.database import vectors
from ffem_jax.serve.gallery import STORED, Gallery
from ffem_jax.serve.names import normalize_name

ODD_NUMBERS: list[Any] = [
    0, -0.0, 1, -1, 1.5, 5e-324, 1e-45, 1.7976931348623157e308, -1e308, 10**18, 2**63, 10**400, -(10**310),
    float("nan"), float("inf"), float("-inf"), True, False, None, "1", "NaN", "",
    [], [1], {}, {"a": 1}, "\ud800", "1e999",
]  # fmt: skip
ODD_TEXTS: list[Any] = [
    MODEL_ID, MODEL_ID.upper(), MODEL_ID[:-1], MODEL_ID + "0", " " + MODEL_ID, "", "../etc/passwd", "\x00", "\ud800",
    0, None, [],     "'; DROP TABLE vectors; --", "a" * 65, True, {"$ne": ""},
]  # fmt: skip


def draw_body(draw: random.Random) -> bytes:
    """A request with something wrong in it most of the time, and now and then bytes that are no JSON."""
    vector: Any = [draw.uniform(-1, 1) for _ in range(LENGTH)]
    for _ in range(draw.randrange(4)):
        kind = draw.randrange(5)
        if kind == 0 and vector:
            vector[draw.randrange(len(vector))] = draw.choice(ODD_NUMBERS)
        elif kind == 1:
            vector = vector[: draw.randrange(LENGTH)]
        elif kind == 2:
            vector = vector + [draw.choice(ODD_NUMBERS)] * draw.randrange(1, 4)
        elif kind == 3:
            vector = [draw.choice(ODD_NUMBERS) for _ in range(LENGTH)]
        else:
            vector = vector * 0 + [draw.choice([0, -0.0, 5e-324, 1e308])] * LENGTH
    body: Any = {"model_id": MODEL_ID, "vector": vector, "name": "".join(map(chr, draw.choices(range(0x3000), k=5)))}
    if draw.random() < 0.3:
        body["model_id"] = draw.choice(ODD_TEXTS)
    if draw.random() < 0.3:
        body["name"] = draw.choice([*ODD_TEXTS, "\u202e" + MODEL_ID, "\U0001f600" * 40, "x" * 2000])
    if draw.random() < 0.1:
        body[draw.choice(["image", "person_id", "\ud800", ""])] = draw.choice(ODD_NUMBERS)
    if draw.random() < 0.1:
        del body[draw.choice(list(body))]
    if draw.random() < 0.05:
        body = draw.choice([vector, draw.choice(ODD_NUMBERS), [body], {"body": body}])
    text = json.dumps(body).encode()
    if draw.random() < 0.15:
        cut = draw.randrange(len(text) + 1)
        text = text[:cut] + bytes(draw.choices(range(256), k=draw.randrange(4))) + text[cut + draw.randrange(3) :]
    return text


def check_stored(gallery: Gallery, names: int) -> None:
    """Every row is a finite vector of unit length, of a person whose name may be kept."""
    with gallery.engine.connect() as connection:
        blobs = connection.execute(select(vectors.c.data)).scalars().all()
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    held = np.frombuffer(b"".join(blobs), STORED).reshape(len(blobs), LENGTH)
    assert np.isfinite(held).all()
    np.testing.assert_allclose(np.linalg.norm(held.astype(float), axis=1), 1, atol=1e-5)
    found = gallery.list_people(limit=100_000)
    assert len(found) == names
    assert all(normalize_name(person.name) == person.name for person in found)


@pytest.mark.parametrize("requests", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_vectors(served: Any, requests: int) -> None:
    draw, statuses, names = random.Random(0), dict.fromkeys((200, 201, 400, 409, 413, 422), 0), set()
    for _ in range(requests):
        body, path = draw_body(draw), draw.choice(["/v1/match", "/v1/enrol"])
        response = served.ask("POST", path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in statuses, (body, response.text)
        statuses[response.status_code] += 1
        if response.status_code == 201:
            names.add(response.json()["name"])
            taken = json.loads(body)
            assert len(taken["vector"]) == LENGTH
            assert taken["model_id"] == MODEL_ID
    check_stored(served.gallery, len(names))
    # Both sides were reached: what may be stored, and each way of refusing it.
    assert statuses[201] > requests // 100
    assert statuses[422] > requests // 4
    assert statuses[409] > requests // 100


def fuzz(served: Any, examples: int) -> set[tuple[str, str, int]]:
    """Let schemathesis ask what the description allows and what it does not, with all of its checks."""
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    import hypothesis
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    refusals = ["400", "401", "403", "404", "405", "409", "413", "422"]
    config = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": refusals}}})
    schema = schemathesis.openapi.from_asgi("/openapi.json", served.client.app, config=config)
    seen = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in schemathesis.GenerationMode:
            strategy = operation.as_strategy(generation_mode=mode)

            @hypothesis.given(case=strategy)
            @hypothesis.settings(max_examples=examples, deadline=None, database=None, derandomize=True,
                                 suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
            def ask(case: Any) -> None:
                headers = {"Authorization": f"Bearer {served.keys['all']}"}
                response = case.call(headers=headers)
                seen.add((case.method, case.operation.path, response.status_code))
                # Without a body what is wrong may not reach the wire: a parameter that is null is not sent, and the
                # key is put back above. test_serve_http asks such things itself.
                unjudged = [] if case.operation.body else [negative_data_rejection]
                # No description can tell which vectors others have.
                if response.status_code == 422 and "another person" in response.text:
                    unjudged.append(positive_data_acceptance)
                case.validate_response(response, headers=headers, excluded_checks=unjudged)

            # Nothing can be wrong with a request that has neither body nor parameters.
            with contextlib.suppress(hypothesis.errors.Unsatisfiable):
                ask()
    return seen


@pytest.mark.slow
def test_schemathesis(served: Any) -> None:
    seen = fuzz(served, examples=300)
    assert not [one for one in seen if one[2] >= 500]
    assert ("POST", "/v1/enrol", 201) in seen
    assert ("POST", "/v1/match", 200) in seen
    assert {status for method, path, status in seen if path == "/v1/enrol"} >= {201, 422}
    check_stored(served.gallery, len(served.gallery.list_people(limit=100_000)))
