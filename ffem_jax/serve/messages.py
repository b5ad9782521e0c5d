"""What goes over the wire, as pydantic models: nothing but a model's id, a vector and, to enrol, a name."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, create_model

from ffem_jax.serve.names import MAX_NAME, NAME_PATTERN
from ffem_jax.serve.served_model import ServedModel

MAX_PAGE = 1000
ID_PATTERN = r"^[0-9a-f]{16}$"

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=NAME_PATTERN, examples=["Ada Lovelace"])]
PersonId = Annotated[str, Field(pattern=ID_PATTERN, examples=["00c0ffee00c0ffee"])]
VectorId = Annotated[str, Field(pattern=ID_PATTERN, examples=["0000000012000003"])]
Rate = Annotated[float, Field(ge=0, le=1)]


class _Request(BaseModel):
    # Nothing is guessed: no text becomes a number, no unknown field is passed over.
    model_config = ConfigDict(extra="forbid", strict=True)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


def make_request_types(model: ServedModel) -> tuple[type[BaseModel], type[BaseModel]]:
    """The bodies of a match (model_id, vector) and of an enrolment (name besides) for one model."""
    number = Annotated[float, Field(allow_inf_nan=False)]
    vector = Annotated[
        list[number],
        Field(
            min_length=model.length,
            max_length=model.length,
            description="as the network gave it, scaled or not; not all zeros",
            json_schema_extra={"contains": {"not": {"const": 0}}},
        ),
    ]
    # Another is refused with a status of its own, and not as a request that cannot be read.
    identifier = Annotated[
        str,
        Field(max_length=64, description="the model that made the vector", json_schema_extra={"const": model.model_id}),
    ]
    match = create_model("MatchRequest", __base__=_Request, model_id=(identifier, ...), vector=(vector, ...))
    enrol = create_model("EnrolRequest", __base__=match, name=(Name, ...))
    return match, enrol


class SearchRequest(_Request):
    """Whom to look for. In the body, since addresses end up in logs."""

    name: Name


class PageQuery(BaseModel):
    """Which page of a list. A parameter that there is not is refused: it was meant for something."""

    model_config = ConfigDict(extra="forbid")

    after: PersonId | None = Field(None, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class MatchAnswer(_Answer):
    """Eq. 6 and 7. person_id and name where accepted, else null; distance in 0 to 1, null where nobody is enrolled."""

    accepted: bool
    person_id: PersonId | None
    name: str | None
    distance: Rate | None
    threshold: float


class EnrolAnswer(_Answer):
    """vectors: of this model that the person has now. added: 0 where the person already had that very vector."""

    person_id: PersonId
    name: str
    added: int
    vectors: int


class PersonAnswer(_Answer):
    """vectors: of all models. enrolled_at: UTC, ISO 8601."""

    person_id: PersonId
    name: str
    vectors: int
    enrolled_at: str


class PeopleAnswer(_Answer):
    """One page. next: what `after` must be for the next page, null on the last."""

    people: list[PersonAnswer]
    next: PersonId | None


class SourceAnswer(_Answer):
    """A picture that `ffem embed` made a vector of: the file in the folder that it imported."""

    image: str
    folder: str


class StoredVectorAnswer(_Answer):
    """A vector as it is held, scaled to unit length. sources: every picture it was made of; image, folder: the first of
    them, null where it came by a request alone."""

    vector_id: VectorId
    model_id: str
    vector: list[float]
    enrolled_at: str
    image: str | None
    folder: str | None
    sources: list[SourceAnswer]


class PersonDataAnswer(_Answer):
    """All that is held about one person."""

    person_id: PersonId
    name: str
    enrolled_at: str
    vectors: list[StoredVectorAnswer]


class DeleteAnswer(_Answer):
    """vectors: how many are gone, of all models. wiped: whether the database's files were written anew without them."""

    person_id: PersonId
    vectors: int
    wiped: bool


class VectorDeleteAnswer(_Answer):
    """vectors_left: how many the person has now, of all models. wiped: as in DeleteAnswer."""

    person_id: PersonId
    vector_id: VectorId
    vectors_left: int
    wiped: bool


class ModelAnswer(_Answer):
    """Which model this server is for, and how it decides. threshold: as of now, for so many people and vectors.

    false_accept_rate: null where the threshold is fixed by hand. shortage: why that rate is not shown, or null.
    """

    model_id: str
    network: str
    length: int
    people: int
    vectors: int
    threshold: float
    false_accept_rate: Rate | None
    shortage: str | None


class HealthAnswer(_Answer):
    """The server answers, and so does its database."""

    status: str


class ErrorAnswer(_Answer):
    """What was wrong, in one line."""

    detail: str
