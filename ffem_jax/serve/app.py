"""The HTTP interface: `make_app` puts gallery, threshold and guards behind routes that OpenAPI describes."""

# Without `from __future__ import annotations`: FastAPI reads the bodies' types, which are made for the model at hand.
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import text

from ffem_jax import __version__
from ffem_jax.serve import messages
from ffem_jax.serve.gallery import ConflictError, Gallery
from ffem_jax.serve.guards import BodyLimit, RateLimit, compute_body_limit, require_scope
from ffem_jax.serve.messages import ErrorAnswer, PersonId, VectorId
from ffem_jax.serve.people import Person, read_id, write_id
from ffem_jax.serve.request_log import RequestLog
from ffem_jax.serve.served_model import ServedModel
from ffem_jax.serve.thresholds import Threshold

_REFUSALS: dict[int, str] = {
    400: "the body is no JSON",
    401: "no valid API key",
    403: "the key lacks the scope",
    404: "nobody has that id, or no vector of that id",
    408: "the body came too slowly",
    409: "the vector is of another model",
    413: "the body is too large",
    422: "the request is not what is described here, or the vector to enrol is another person's",
    429: "too many requests of this key",
}


_FIELDS = frozenset({"body", "path", "query", "model_id", "vector", "name", "person_id", "vector_id", "after", "limit"})


def make_app(
    model: ServedModel,
    gallery: Gallery,
    threshold: Threshold,
    *,
    false_accept_rate: float | None = None,
    rate: str,
    allowed_origins: Sequence[str] = (),
) -> FastAPI:
    """The server of one model. rate: requests per key; allowed_origins: pages that may ask from a browser (CORS).

    Raises GuardError for a rate that means nothing.
    """
    limiter = RateLimit(rate)
    app = FastAPI(
        title="ffem serve",
        version=__version__,
        description=f"Vectors in, names out, for model {model.model_id}. No image is ever sent.",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    # The last added is the outermost.
    app.add_middleware(BodyLimit, limit=compute_body_limit(model.length))
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(allowed_origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["authorization", "content-type"],
    )
    app.add_middleware(RequestLog)
    app.add_exception_handler(RequestValidationError, _explain)
    match_request, enrol_request = messages.make_request_types(model)

    def scope(name: str) -> Any:
        return Depends(require_scope(name, gallery.engine, limiter))

    def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
        chosen = sorted({401, 403, 408, 413, 422, 429, *codes})
        return {code: {"model": ErrorAnswer, "description": _REFUSALS[code]} for code in chosen}

    @app.post("/v1/match", dependencies=[scope("match")], responses=refusals(400, 409))
    def match(body: match_request) -> messages.MatchAnswer:  # type: ignore[valid-type]
        """Whose vector this is: the nearest enrolled person, where their distance is within the threshold."""
        vector = _take_vector(body, model)
        answer = gallery.match(vector, threshold)
        return messages.MatchAnswer(
            accepted=answer.accepted,
            person_id=None if answer.person_id is None else write_id(answer.person_id),
            name=answer.name,
            distance=answer.distance,
            threshold=answer.threshold,
        )

    @app.post("/v1/enrol", dependencies=[scope("enrol")], responses=refusals(400, 409), status_code=201)
    def enrol(body: enrol_request) -> messages.EnrolAnswer:  # type: ignore[valid-type]
        """Add a vector of a person, who is new or known by that very name. Repeating a request adds nothing.

        A vector that another person has is refused: one of the two names is wrong, and a match could say either.
        """
        vector = _take_vector(body, model)
        try:
            done = gallery.enrol(body.name, [vector])  # type: ignore[attr-defined]
        except ConflictError:
            # Not 409, at which a phone looks for another model; and not whose it is, which takes the scope `read`.
            raise HTTPException(
                422, "vector: another person is enrolled with this very vector, and it cannot be two people's"
            ) from None
        person_id = write_id(done.person_id)
        return messages.EnrolAnswer(person_id=person_id, name=done.name, added=done.added, vectors=done.vectors)

    @app.get("/v1/people", dependencies=[scope("read")], responses=refusals())
    def list_people(asked: Annotated[messages.PageQuery, Query()]) -> messages.PeopleAnswer:
        """Who is enrolled, in pages."""
        found = gallery.list_people(-1 if asked.after is None else read_id(asked.after), asked.limit + 1)
        page = [_describe(person) for person in found[: asked.limit]]
        return messages.PeopleAnswer(people=page, next=page[-1].person_id if len(found) > asked.limit else None)

    @app.post("/v1/people/search", dependencies=[scope("read")], responses=refusals(400))
    def search_people(body: messages.SearchRequest) -> messages.PeopleAnswer:
        """The person of that very name, if there is one."""
        person = gallery.find_person(body.name)
        return messages.PeopleAnswer(people=[_describe(person)] if person else [], next=None)

    @app.get("/v1/people/{person_id}", dependencies=[scope("read")], responses=refusals(404))
    def export_person(person_id: Annotated[PersonId, Path()]) -> messages.PersonDataAnswer:
        """All that is held about one person, vectors of every model included."""
        found = gallery.read_person(read_id(person_id))
        if found is None:
            raise HTTPException(404, _REFUSALS[404])
        person, held = found
        vectors = [
            messages.StoredVectorAnswer(
                vector_id=write_id(one.vector_id),
                model_id=one.model_id,
                vector=[float(x) for x in one.vector],
                enrolled_at=one.enrolled_at,
                image=next((image for _, image in one.places if image), None),
                folder=next((folder for folder, _ in one.places if folder), None),
                sources=[messages.SourceAnswer(image=image, folder=folder) for folder, image in one.places if folder],
            )
            for one in held
        ]
        return messages.PersonDataAnswer(
            person_id=person_id, name=person.name, enrolled_at=person.enrolled_at, vectors=vectors
        )

    @app.delete("/v1/people/{person_id}", dependencies=[scope("delete")], responses=refusals(404))
    def delete_person(person_id: Annotated[PersonId, Path()]) -> messages.DeleteAnswer:
        """Delete a person and all their vectors, from the tables and from the database's files."""
        done = gallery.delete(read_id(person_id))
        if done is None:
            raise HTTPException(404, _REFUSALS[404])
        return messages.DeleteAnswer(person_id=person_id, vectors=done.vectors, wiped=done.wiped)

    @app.delete("/v1/people/{person_id}/vectors/{vector_id}", dependencies=[scope("delete")], responses=refusals(404))
    def delete_vector(
        person_id: Annotated[PersonId, Path()], vector_id: Annotated[VectorId, Path()]
    ) -> messages.VectorDeleteAnswer:
        """Delete one vector of a person, from the tables and from the database's files. The person stays enrolled."""
        done = gallery.delete_vector(read_id(person_id), read_id(vector_id))
        if done is None:
            raise HTTPException(404, _REFUSALS[404])
        return messages.VectorDeleteAnswer(
            person_id=person_id, vector_id=vector_id, vectors_left=done.left, wiped=done.wiped
        )

    @app.get("/v1/model", dependencies=[scope("match")], responses=refusals())
    def describe_model() -> messages.ModelAnswer:
        """Which model this server is for, and the threshold as of now."""
        people, vectors = gallery.count()
        return messages.ModelAnswer(
            model_id=model.model_id,
            network=model.network,
            length=model.length,
            people=people,
            vectors=vectors,
            threshold=threshold.at(vectors),
            false_accept_rate=false_accept_rate,
            shortage=threshold.find_shortage(vectors),
        )

    @app.get("/health")
    def check_health() -> messages.HealthAnswer:
        """Whether the server and its database answer; asks for no key."""
        with gallery.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        return messages.HealthAnswer(status="ok")

    return app


def _describe(person: Person) -> messages.PersonAnswer:
    return messages.PersonAnswer(
        person_id=write_id(person.person_id),
        name=person.name,
        vectors=person.vectors,
        enrolled_at=person.enrolled_at,
    )


def _take_vector(body: BaseModel, model: ServedModel) -> list[float]:
    """The vector of a request. 409 where it is another model's, 422 where it has no direction."""
    if body.model_id != model.model_id:  # type: ignore[attr-defined]
        raise HTTPException(
            409, f"this server holds vectors of model {model.model_id}; those of another never meet them"
        )
    vector: list[float] = body.vector  # type: ignore[attr-defined]
    if not any(vector):
        raise HTTPException(422, "vector: all of its numbers are zero")
    return vector


async def _explain(_: Request, error: Exception) -> JSONResponse:
    """What is wrong with a request, in one line and without quoting it: it may be a vector, or a number JSON lacks."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # A field that is not ours may have any name, one that no JSON can carry included.
    place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in _FIELDS)
    return JSONResponse({"detail": f"{place}: {first['msg']}"}, 422)
