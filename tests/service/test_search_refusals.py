"""What a search refuses: each request at fault, by field, with what is allowed."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from forage.v1 import query_pb2
from orchestrator.paging import PageToken
from tests.service.orchestrator_mesh import (
    Mesh,
    SearchRequest,
    meshed,
    refusal,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


KEEPER = "film:the-lantern-keeper"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A mesh for tests that change nothing."""
    async with meshed(tmp_path_factory.mktemp("search")) as found:
        yield found


def values(attribute: str, *wanted: str, exclude: bool = False) -> query_pb2.Filter:
    return query_pb2.Filter(
        attribute=attribute, any_of=query_pb2.ValueSet(values=wanted), exclude=exclude
    )


def between(attribute: str, low: float | None, high: float | None) -> query_pb2.Filter:
    message = query_pb2.Filter(attribute=attribute)
    message.range.SetInParent()
    if low is not None:
        message.range.min = low
    if high is not None:
        message.range.max = high
    return message


BAD: dict[str, tuple[SearchRequest, str]] = {
    "100 kB of text": (SearchRequest(text="love " * 20_000), "text"),
    "a null character": (SearchRequest(text="a\0b"), "text"),
    "an escape character": (SearchRequest(text="\x1b[31m"), "text"),
    "a C1 control character": (SearchRequest(text="a\u0085b"), "text"),
    "a field that cannot be searched": (SearchRequest(text="love mood:dark"), "text"),
    "the same field in brackets": (SearchRequest(text="(mood:(dark OR sad))"), "text"),
    "the same field with a phrase": (SearchRequest(text='mood:"dark night"'), "text"),
    "a negative page size": (SearchRequest(page_size=-1), "page_size"),
    "a huge page size": (SearchRequest(page_size=2**31 - 1), "page_size"),
    "an id with a space": (SearchRequest(request_id="a b"), "request_id"),
    "an id with a line break at its end": (SearchRequest(request_id="abc\n"), "request_id"),
    "an id of a later page": (SearchRequest(request_id="abc~10~10"), "request_id"),
    "a very long id": (SearchRequest(request_id="a" * 100_000), "request_id"),
    "a locale that is none": (SearchRequest(locale="en_GB!"), "locale"),
    "a long device": (SearchRequest(device="x" * 65), "device"),
    "an unknown policy": (SearchRequest(policy="best"), "policy"),
    "a preset as policy": (SearchRequest(policy="preset0"), "policy"),
    "a very long policy": (SearchRequest(policy="p" * 100_000), "policy"),
    "an unknown filter": (
        SearchRequest(filters=[values("colour", "red")]),
        "filters[0].attribute",
    ),
    "a very long filter name": (
        SearchRequest(filters=[values("c" * 100_000, "red")]),
        "filters[0].attribute",
    ),
    "a filter without a constraint": (
        SearchRequest(filters=[query_pb2.Filter(attribute="genre")]),
        "filters[0].constraint",
    ),
    "a filter without values": (SearchRequest(filters=[values("genre")]), "filters[0]"),
    "values for a number": (SearchRequest(filters=[values("year", "1994")]), "filters[0]"),
    "a range of words": (SearchRequest(filters=[between("genre", 1, 2)]), "filters[0]"),
    "a range that is NaN": (
        SearchRequest(filters=[between("year", math.nan, None)]),
        "filters[0].range.min",
    ),
    "an infinite range": (
        SearchRequest(filters=[between("year", None, math.inf)]),
        "filters[0].range.max",
    ),
    "a range upside down": (
        SearchRequest(filters=[between("year", 2000, 1990)]),
        "filters[0].range",
    ),
    "an empty range": (SearchRequest(filters=[between("year", None, None)]), "filters[0]"),
    "too many filters": (SearchRequest(filters=[values("genre", "a")] * 33), "filters"),
    "too many values": (
        SearchRequest(filters=[values("genre", *map(str, range(1_001)))]),
        "filters[0].any_of.values",
    ),
    "a very long value": (
        SearchRequest(filters=[values("genre", "a" * 2_000)]),
        "filters[0].any_of.values",
    ),
    "an unknown facet": (SearchRequest(facets=["genre", "colour"]), "facets[1]"),
    "a facet of text": (SearchRequest(facets=["synopsis"]), "facets[0]"),
    "too many facets": (SearchRequest(facets=["genre"] * 33), "facets"),
    "too many examples": (SearchRequest(like_item_ids=[KEEPER] * 21), "like_item_ids"),
    "a long user id": (
        SearchRequest(user=query_pb2.UserContext(user_id="u" * 257)),
        "user.user_id",
    ),
    "too many recent items": (
        SearchRequest(user=query_pb2.UserContext(recent_item_ids=["a"] * 201)),
        "user.recent_item_ids",
    ),
    "a long recent item": (
        SearchRequest(user=query_pb2.UserContext(recent_item_ids=["a" * 257])),
        "user.recent_item_ids",
    ),
    "too many user attributes": (
        SearchRequest(user=query_pb2.UserContext(attributes={str(i): "" for i in range(33)})),
        "user.attributes",
    ),
    "a sequence that nobody wrote": (
        SearchRequest(min_catalog_sequence=2**63),
        "min_catalog_sequence",
    ),
}


@pytest.mark.parametrize(("request_", "field"), BAD.values(), ids=BAD)
async def test_bad_requests_are_refused_by_field(
    mesh: Mesh, request_: SearchRequest, field: str
) -> None:
    found = await refusal(lambda: mesh.search_stub.Search(request_, timeout=10))

    assert (found.code, found.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert found.metadata["field"] == field
    assert found.metadata["allowed"]


def token_of(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


BAD_TOKENS = {
    "not base64": "§§§",
    "not JSON": "AAAA",
    "a number": token_of(1),
    "too short a list": token_of(["a"]),
    "a negative offset": token_of(["a", -1, ""]),
    "an offset that is no number": token_of(["a", "b", ""]),
    "true as an offset": token_of(["a", True, ""]),
    "a huge offset": token_of(["a", 10**30, ""]),
    "an id with a lone surrogate": token_of(["\ud800", 10, ""]),
    "nesting": base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    "a made-up digest": token_of(["a", 10, "x"]),
    "100 kB": "A" * 100_000,
}


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS)
async def test_tokens_that_are_none_are_refused(mesh: Mesh, token: str) -> None:
    found = await refusal(lambda: mesh.search("x", page_token=token))

    assert (found.code, found.metadata["field"]) == ("INVALID_ARGUMENT", "page_token")


async def test_a_token_of_another_request_is_refused(mesh: Mesh) -> None:
    first = await mesh.search("lantern")

    found = await refusal(lambda: mesh.search("moon", page_token=first.next_page_token))

    assert (found.code, found.metadata["field"]) == ("INVALID_ARGUMENT", "page_token")


async def test_a_page_is_checked_like_a_first_page(mesh: Mesh) -> None:
    first = await mesh.search("lantern")

    found = await refusal(
        lambda: mesh.search("lantern", page_token=first.next_page_token, page_size=-5)
    )

    assert (found.code, found.metadata["field"]) == ("INVALID_ARGUMENT", "page_size")


async def test_a_token_of_a_search_that_is_not_recorded_is_not_found(mesh: Mesh) -> None:
    first = await mesh.search("lantern")
    request_id, offset, digest = json.loads(base64.urlsafe_b64decode(first.next_page_token + "=="))
    token = PageToken(request_id + "x", offset, digest).encode()

    found = await refusal(lambda: mesh.search("lantern", page_token=token))

    assert found.code == "NOT_FOUND"


async def test_unknown_example_items_are_not_found(mesh: Mesh) -> None:
    found = await refusal(lambda: mesh.search(like_item_ids=[KEEPER, "film:" + "x" * 10_000]))

    assert (found.code, found.reason) == ("NOT_FOUND", "NOT_FOUND")
    assert found.metadata["field"] == "like_item_ids"


async def test_a_field_that_cannot_be_searched_is_refused_whatever_the_plan(mesh: Mesh) -> None:
    before = sum(len(g.requests) for g in mesh.generators.values())

    for policy in ("static", "full", "thompson", "lints", "uniform", "epsilon_greedy"):
        found = await refusal(lambda p=policy: mesh.search("mood:dark", policy=p))
        assert (found.code, found.metadata["field"]) == ("INVALID_ARGUMENT", "text")

    assert sum(len(g.requests) for g in mesh.generators.values()) == before
