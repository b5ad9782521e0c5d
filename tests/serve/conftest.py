"""A gallery in a file of the test's own, its server in this process, and a key for each scope."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from made_galleries import LENGTH, MODEL_ID
from sqlalchemy import Engine

from ffem_jax.serve.app import make_app
from ffem_jax.serve.database import open_database
from ffem_jax.serve.gallery import Gallery
from ffem_jax.serve.keys import SCOPES, add_key
from ffem_jax.serve.served_model import ServedModel
from ffem_jax.serve.thresholds import FixedThreshold

SIGMA = 0.25


@dataclass
class Served:
    """A server in this process. keys: a key for each scope by its name, and `all`."""

    gallery: Gallery
    client: TestClient
    keys: dict[str, str]

    def ask(self, method: str, path: str, key: str = "all", **values: Any) -> Any:
        """The response to a request with the key of that name."""
        headers = {"Authorization": f"Bearer {self.keys[key]}", **values.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **values)

    def enrol(self, name: Any, vector: Any, **changes: Any) -> Any:
        """The response to an enrolment."""
        return self.ask(
            "POST", "/v1/enrol", json={"model_id": MODEL_ID, "vector": list(vector), "name": name, **changes}
        )

    def match(self, vector: Any, **changes: Any) -> Any:
        """The response to a match."""
        return self.ask("POST", "/v1/match", json={"model_id": MODEL_ID, "vector": list(vector), **changes})


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where the gallery's file is."""
    return tmp_path / "gallery.db"


@pytest.fixture
def engine(database: Path) -> Iterator[Engine]:
    """The gallery's database."""
    engine = open_database(f"sqlite:///{database}")
    yield engine
    engine.dispose()


@pytest.fixture
def gallery(engine: Engine) -> Gallery:
    """An empty gallery."""
    return Gallery(engine, MODEL_ID, LENGTH)


@pytest.fixture
def serve(gallery: Gallery) -> Any:
    """Starts a server in this process, with what the test changes."""

    def start(**changes: Any) -> Served:
        settings = {"rate": "100000/second", **changes}
        threshold = settings.pop("threshold", FixedThreshold(SIGMA))
        app = make_app(ServedModel(MODEL_ID, LENGTH, "drawn"), gallery, threshold, **settings)
        keys = {scope: add_key(gallery.engine, [scope])[1] for scope in SCOPES}
        keys["all"] = add_key(gallery.engine, SCOPES)[1]
        return Served(gallery, TestClient(app), keys)

    return start


@pytest.fixture
def served(serve: Any) -> Served:
    """A server with the usual settings."""
    return serve()
