"""The generators as services: what each owes a caller that is no orchestrator of ours."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import yaml

from forage.log.engines import open_log
from forage.services import find
from forage.testing import catalog
from forage.testing.serving import running
from forage.v1 import generator_service_pb2 as pb
from forage.v1 import generator_service_pb2_grpc as pb_grpc
from forage.v1 import query_pb2
from generators.version import generator_version
from tests.service.orchestrator_mesh import ITEMS, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")
GENERATORS = ("lexical", "semantic", "graph", "memory", "exploration")
CLASSES = query_pb2.QueryClass
MOST, DEFAULT = 200, 25


@asynccontextmanager
async def served(name: str, folder: Path) -> AsyncIterator[Any]:
    """Run a generator over the fixture catalogue."""
    schema = folder / "schema.yaml"
    schema.write_text(yaml.safe_dump(catalog.SCHEMA.model_dump(mode="json"), sort_keys=False))
    log = open_log("sqlite:log.db", folder)
    log.append([catalog.upsert(item) for item in ITEMS])
    log.close()
    service = find(name)
    settings = service.settings.model_validate(
        {"data_dir": folder, "schema_file": schema, "server": {"grace_ms": 0}}
    )
    async with (
        running(service, settings) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield pb_grpc.CandidateGeneratorServiceStub(channel)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=GENERATORS)
async def stub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Any]:
    folder = tmp_path_factory.mktemp(request.param)
    async with served(request.param, folder) as found:
        yield found


def asking(text: str = "lantern moon", **fields: Any) -> query_pb2.Query:
    tokens = text.casefold().split()
    content = {"text": text, "normalized": " ".join(tokens), "tokens": tokens}
    return query_pb2.Query(
        **{**content, "query_class": CLASSES.QUERY_CLASS_TOPICAL, "language": "en", **fields}
    )


async def generate(stub: Any, query: query_pb2.Query, *, timeout_s: float = 10.0, **fields: Any):
    request = pb.GenerateRequest(query=query, request_id="r", seed=7, **fields)
    return await stub.Generate(request, timeout=timeout_s)


def reading(confidence: float, slot: float, item_id: str = "person:mara-ellwood") -> Any:
    slots = [
        query_pb2.Slot(attribute="cast", value="Mara Ellwood", confidence=slot, item_id=item_id)
    ]
    return query_pb2.Interpretation(slots=slots, residual="lantern", confidence=confidence)


DRAMA = asking(
    "drama",
    interpretations=[
        query_pb2.Interpretation(
            slots=[
                query_pb2.Slot(
                    attribute="genre", value="drama", confidence=1.0, item_id="genre:drama"
                )
            ],
            confidence=1.0,
        )
    ],
)
ODD: dict[str, query_pb2.Query] = {
    "nothing at all": query_pb2.Query(query_class=CLASSES.QUERY_CLASS_EMPTY),
    "100 kB of text": asking("love " * 20_000),
    "control characters": asking("a\0b\x1b[31m\u0085"),
    "unbalanced quotes": asking('"copper moon (((('),
    "right to left": asking("شاهد الفيلم"),
    "Chinese, Japanese, Korean": asking("東京の灯 电影 영화"),
    "negative confidences": asking(interpretations=[reading(-1, -1)]),
    "no confidence": asking(interpretations=[reading(0, 0)]),
    "unknown slots": asking(interpretations=[reading(1, 1, "person:nobody")]),
    "unknown ids": asking(
        like_item_ids=["film:gone", ""],
        user=query_pb2.UserContext(user_id="u", recent_item_ids=["film:gone", "", "film:gone"]),
    ),
    "an unknown language": asking(language="xx-unknown"),
}


@pytest.mark.parametrize("query", ODD.values(), ids=ODD)
async def test_odd_queries_are_answered_or_refused_by_field(
    stub: Any, query: query_pb2.Query
) -> None:
    (found,) = await asyncio.gather(generate(stub, query, explain=True), return_exceptions=True)

    if isinstance(found, grpc.aio.AioRpcError):
        assert found.code() is grpc.StatusCode.INVALID_ARGUMENT
    else:
        assert all(math.isfinite(hit.score) for hit in found.hits)
        assert len({hit.item_id for hit in found.hits}) == len(found.hits)


def filtering(attribute: str, **constraint: Any) -> query_pb2.Query:
    return asking(filters=[query_pb2.Filter(attribute=attribute, **constraint)])


BAD: dict[str, tuple[query_pb2.Query, dict[str, Any], str]] = {
    "no query": (query_pb2.Query(), {}, "query.query_class"),
    "a limit that is too large": (asking(), {"limit": MOST + 1}, "limit"),
    "a huge limit": (asking(), {"limit": 2**32 - 1}, "limit"),
    "a confidence that is NaN": (
        asking(interpretations=[reading(1, 1), reading(math.nan, 1)]),
        {},
        "query.interpretations[1]",
    ),
    "an infinite confidence of a slot": (
        asking(interpretations=[reading(1, math.inf)]),
        {},
        "query.interpretations[0]",
    ),
    "an unknown filter": (
        filtering("colour", any_of=query_pb2.ValueSet(values=["red"])),
        {},
        "filters[0].attribute",
    ),
    "a range that is NaN": (
        filtering("year", range={"min": math.nan}),
        {},
        "filters[0].range.min",
    ),
    "an infinite range": (
        filtering("year", range={"max": math.inf}),
        {},
        "filters[0].range.max",
    ),
    "a filter without a constraint": (filtering("genre"), {}, "filters[0].constraint"),
}


@pytest.mark.parametrize(("query", "fields", "field"), BAD.values(), ids=BAD)
async def test_bad_requests_are_refused_by_field(
    stub: Any, query: query_pb2.Query, fields: dict[str, Any], field: str
) -> None:
    found = await refusal(lambda: generate(stub, query, **fields))

    assert (found.code, found.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert found.metadata["field"] == field
    assert found.metadata["allowed"]


async def test_a_limit_bounds_the_hits_and_a_longer_list_begins_with_the_shorter(stub: Any) -> None:
    whole = await generate(stub, DRAMA, limit=MOST)
    short = await generate(stub, DRAMA, limit=3)
    default = await generate(stub, DRAMA)

    assert len(short.hits) == 3
    assert list(short.hits) == list(whole.hits[:3])
    assert list(default.hits) == list(whole.hits[:DEFAULT])
    assert [h.score for h in whole.hits] == sorted((h.score for h in whole.hits), reverse=True)


async def test_reasons_are_told_on_request_only(stub: Any) -> None:
    plain = await generate(stub, DRAMA)
    explained = await generate(stub, DRAMA, explain=True)

    assert plain.hits
    assert not any(hit.reasons for hit in plain.hits)
    assert [hit.item_id for hit in explained.hits] == [hit.item_id for hit in plain.hits]
    assert all(hit.reasons for hit in explained.hits)


async def test_an_answer_says_which_write_it_includes_and_can_wait_for_it(stub: Any) -> None:
    found = await generate(stub, asking(), min_catalog_sequence=len(ITEMS))
    never = await refusal(
        lambda: generate(stub, asking(), min_catalog_sequence=len(ITEMS) + 1, timeout_s=0.2)
    )

    assert found.catalog_sequence == len(ITEMS)
    assert never.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


async def test_the_status_names_every_projection_and_what_it_holds(
    request: pytest.FixtureRequest, stub: Any
) -> None:
    status = await stub.GetStatus(pb.GetStatusRequest(), timeout=10)

    assert status.ready
    assert status.service in request.node.name
    assert status.projections
    catalogs = [p for p in status.projections if p.topic == "catalog"]
    assert {p.applied_sequence for p in catalogs} == {len(ITEMS)}
    assert {p.head_sequence for p in catalogs} == {len(ITEMS)}


async def test_a_generator_says_its_version_which_only_its_own_settings_change(
    stub: Any, tmp_path: Path
) -> None:
    name = (await stub.GetStatus(pb.GetStatusRequest(), timeout=10)).service
    said = (await generate(stub, asking())).generator_version
    settings = find(name).settings
    elsewhere = settings.model_validate({"data_dir": tmp_path, "default_limit": 3})
    fewer = dict(catalog.SCHEMA.attributes)
    del fewer["synopsis"]
    smaller = catalog.SCHEMA.model_copy(update={"attributes": fewer})

    versions = {n: generator_version(settings(), catalog.SCHEMA, n) for n in range(1, 50)}
    (definitions,) = [n for n, version in versions.items() if version == said]
    assert said == generator_version(elsewhere, catalog.SCHEMA, definitions)
    assert said != generator_version(settings(), smaller, definitions)
