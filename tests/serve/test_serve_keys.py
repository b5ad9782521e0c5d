"""Who may ask: keys, what each may do, how they are kept and compared, and how often they may be used."""

from __future__ import annotations

from typing import Any

import pytest
from made_galleries import LENGTH, MODEL_ID
from sqlalchemy import select

from ffem_jax.serve import guards
from ffem_jax.serve.database import api_keys
from ffem_jax.serve.guards import GuardError, RateLimit
from ffem_jax.serve.keys import SCOPES, UnusableKey, add_key, check_key, list_keys, revoke_key

VECTOR = [float(number) for number in range(1, LENGTH + 1)]
BODY = {"model_id": MODEL_ID, "vector": VECTOR}
REQUESTS = {
    "match": [("POST", "/v1/match", BODY), ("GET", "/v1/model", None)],
    "enrol": [("POST", "/v1/enrol", {**BODY, "name": "Ada"})],
    "read": [
        ("GET", "/v1/people", None),
        ("POST", "/v1/people/search", {"name": "Ada"}),
        ("GET", f"/v1/people/{1:016x}", None),
    ],
    "delete": [("DELETE", f"/v1/people/{1:016x}", None)],
}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_may_do_what_its_scope_says_and_nothing_else(served: Any, scope: str) -> None:
    for needed, requests in REQUESTS.items():
        for method, path, body in requests:
            status = served.ask(method, path, key=scope, **({"json": body} if body else {})).status_code
            assert (status in (200, 201, 404)) if needed == scope else (status == 403), (method, path)


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer x", "Bearer ffem__", "Bearer ffem_00000000_", "Basic YTpi", "Bearer \x80"],
)
def test_without_a_key_nothing_is_answered(served: Any, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    for requests in REQUESTS.values():
        for method, path, body in requests:
            response = served.client.request(method, path, headers=headers, **({"json": body} if body else {}))
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer"), (method, path)
    assert served.gallery.list_people() == []


def test_a_wrong_secret_and_a_revoked_key_are_no_keys(served: Any) -> None:
    key = served.keys["all"]
    assert check_key(served.gallery.engine, key).scopes == tuple(SCOPES)
    for wrong in (key[:-1], key + "x", key.replace("ffem", "FFEM"), key[:14] + served.keys["match"][14:], key.upper()):
        assert check_key(served.gallery.engine, wrong) is None
    assert served.match(VECTOR).status_code == 200
    revoke_key(served.gallery.engine, key.split("_")[1])
    assert served.match(VECTOR).status_code == 401
    with pytest.raises(UnusableKey, match="no valid key"):
        revoke_key(served.gallery.engine, key.split("_")[1])
    assert [bool(one.revoked_at) for one in list_keys(served.gallery.engine)].count(True) == 1


def test_the_database_holds_no_key(served: Any, database: Any) -> None:
    for key in served.keys.values():
        assert key.split("_", 2)[2].encode() not in database.read_bytes()
    with served.gallery.engine.connect() as connection:
        digests = connection.execute(select(api_keys.c.digest)).scalars().all()
    assert {len(digest) for digest in digests} == {32}


@pytest.mark.parametrize(("scopes", "told"), [([], "needs a scope"), (["admin"], "no scope 'admin'")])
def test_a_key_needs_scopes_that_there_are(served: Any, scopes: list[str], told: str) -> None:
    with pytest.raises(UnusableKey, match=told):
        add_key(served.gallery.engine, scopes)


def test_secrets_are_compared_in_constant_time(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    plain = guards.check_key.__globals__["hmac"].compare_digest

    def compare(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return plain(first, second)

    monkeypatch.setattr("ffem_jax.serve.keys.hmac.compare_digest", compare)
    for presented in (served.keys["all"], "ffem_00000000_x", "", "no key at all"):
        check_key(served.gallery.engine, presented)
    assert compared == [(32, 32)] * 4, "an unknown key must take the same comparison as a known one"


def test_a_rate_is_kept_for_each_key(serve: Any) -> None:
    served = serve(rate="3/minute")
    assert [served.match(VECTOR).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = served.match(VECTOR)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert served.ask("POST", "/v1/match", key="match", json=BODY).status_code == 200


def test_a_rate_is_that_of_many_threads_together() -> None:
    from concurrent.futures import ThreadPoolExecutor

    rate = RateLimit("50/minute")
    with ThreadPoolExecutor(8) as threads:
        waits = list(threads.map(lambda _: rate.hit("key"), range(200)))
    assert waits.count(None) == 50


@pytest.mark.parametrize("rate", ["", "fast", "10", "10/fortnight", "-1/minute"])
def test_a_rate_that_means_nothing_is_refused(rate: str) -> None:
    with pytest.raises(GuardError, match="120/minute"):
        RateLimit(rate)
