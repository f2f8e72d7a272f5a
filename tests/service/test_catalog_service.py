"""The catalogue service: writes are checked, durable and visible, and all who follow are shown."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import yaml
from google.protobuf.timestamp_pb2 import Timestamp

from forage import wire
from forage.catalog import Schema
from forage.testing import catalog
from forage.v1 import catalog_service_pb2 as pb
from forage.v1 import item_pb2
from tests.service.orchestrator_mesh import ITEMS, Mesh, meshed, projections, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")
FILM = wire.item_to_proto(ITEMS[0], catalog.SCHEMA)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with meshed(tmp_path_factory.mktemp("catalog")) as found:
        yield found


def film(attribute: str = "", *values: item_pb2.AttributeValue, **fields: Any) -> item_pb2.Item:
    item = item_pb2.Item()
    item.CopyFrom(FILM)
    item.MergeFrom(item_pb2.Item(**fields))
    if attribute:
        item.attributes[attribute].CopyFrom(item_pb2.AttributeValues(values=values))
    return item


def value(**fields: Any) -> item_pb2.AttributeValue:
    return item_pb2.AttributeValue(**fields)


async def upsert(mesh: Mesh, *items: item_pb2.Item) -> Any:
    return await mesh.catalog.UpsertItems(pb.UpsertItemsRequest(items=items), timeout=20)


async def catalog_head(mesh: Mesh) -> int:
    status = await mesh.catalog.GetIngestStatus(pb.GetIngestStatusRequest())
    return int(status.catalog_head)


async def test_an_item_is_read_back_as_it_was_written(mesh: Mesh) -> None:
    item = film(
        "genre",
        value(text="drama", weight=0.9, item_id="genre:drama"),
        value(text="western", weight=0.4, predicted=True),
        item_id="film:written",
    )

    written = await upsert(mesh, item)
    read = await mesh.catalog.GetItem(pb.GetItemRequest(item_id="film:written"))

    assert read.item == item
    assert read.sequence == written.sequence


async def test_a_deleted_item_is_not_found_and_may_come_back(mesh: Mesh) -> None:
    await upsert(mesh, film(item_id="film:back"))
    await mesh.delete("film:back", "film:never-was")
    gone = await refusal(lambda: mesh.catalog.GetItem(pb.GetItemRequest(item_id="film:back")))
    await upsert(mesh, film(item_id="film:back"))
    back = await mesh.catalog.GetItem(pb.GetItemRequest(item_id="film:back"))

    assert (gone.code, gone.metadata["field"]) == ("NOT_FOUND", "item_id")
    assert back.item.item_id == "film:back"


BAD: dict[str, tuple[item_pb2.Item, str]] = {
    "no id": (item_pb2.Item(kind="film"), "item_id"),
    "a long id": (film(item_id="x" * 257), "item_id"),
    "a control character in the id": (film(item_id="a\x07"), "item_id"),
    "no kind": (item_pb2.Item(item_id="a"), "kind"),
    "an unknown kind": (film(kind="spaceship"), "kind"),
    "a very long kind": (film(kind="s" * 100_000), "kind"),
    "an unknown attribute": (film("colour", value(text="red")), "attributes.colour"),
    "a value that is missing": (film("title", value()), "attributes.title[0]"),
    "a blank text": (film("title", value(text="  ")), "attributes.title[0]"),
    "a control character in a text": (film("title", value(text="a\0b")), "attributes.title[0]"),
    "100 kB of text": (film("synopsis", value(text="a" * 100_000)), "attributes.synopsis[0]"),
    "a number as text": (film("title", value(number=7)), "attributes.title[0]"),
    "a text as number": (film("year", value(text="1994")), "attributes.year[0]"),
    "NaN": (film("year", value(number=math.nan)), "attributes.year[0]"),
    "infinity": (film("year", value(number=math.inf)), "attributes.year[0]"),
    "a weight that is NaN": (
        film("genre", value(text="drama", weight=math.nan)),
        "attributes.genre[0].weight",
    ),
    "a weight above 1": (
        film("genre", value(text="drama", weight=1.5)),
        "attributes.genre[0].weight",
    ),
    "a negative weight": (
        film("genre", value(text="a"), value(text="b", weight=-1)),
        "attributes.genre[1].weight",
    ),
    "a popularity above 1": (film("popularity", value(number=2)), "attributes.popularity[0]"),
    "two popularities": (
        film("popularity", value(number=0.1), value(number=0.2)),
        "attributes.popularity",
    ),
    "a time beyond the year 9999": (
        film("released", value(time=Timestamp(seconds=2**60))),
        "attributes.released[0]",
    ),
    "an item id where there can be none": (
        film("language", value(text="English", item_id="language:en")),
        "attributes.language[0].item_id",
    ),
    "too many values": (
        film("genre", *[value(text=str(i)) for i in range(1_001)]),
        "attributes.genre",
    ),
}


@pytest.mark.parametrize(("item", "field"), BAD.values(), ids=BAD)
async def test_malformed_items_are_refused_by_field_and_nothing_is_written(
    mesh: Mesh, item: item_pb2.Item, field: str
) -> None:
    before = await catalog_head(mesh)

    found = await refusal(lambda: upsert(mesh, film(item_id="film:fine"), item))

    assert (found.code, found.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert found.metadata["field"] == f"items[1].{field}"
    assert found.metadata["allowed"]
    assert await catalog_head(mesh) == before


async def test_a_very_long_attribute_name_is_refused_in_few_words(mesh: Mesh) -> None:
    found = await refusal(lambda: upsert(mesh, film("c" * 100_000, value(text="red"))))

    assert (found.code, found.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert found.metadata["field"].startswith("items[0].attributes.ccc")


async def test_an_item_occurs_once_in_a_write(mesh: Mesh) -> None:
    twice = await refusal(lambda: upsert(mesh, film(item_id="a"), film(item_id="a")))
    deleted = await refusal(lambda: mesh.delete("a", "b", "a"))

    assert (twice.code, twice.metadata["field"]) == ("INVALID_ARGUMENT", "items[1].item_id")
    assert (deleted.code, deleted.metadata["field"]) == ("INVALID_ARGUMENT", "item_ids[2]")


async def test_writes_are_neither_empty_nor_too_large(mesh: Mesh) -> None:
    small = [item_pb2.Item(item_id=str(i), kind="film") for i in range(5_001)]

    for call, field in (
        (lambda: upsert(mesh), "items"),
        (lambda: upsert(mesh, *small), "items"),
        (lambda: mesh.delete(), "item_ids"),
        (lambda: mesh.delete(*(i.item_id for i in small)), "item_ids"),
    ):
        found = await refusal(call)
        assert (found.code, found.metadata["field"]) == ("INVALID_ARGUMENT", field)


@pytest.mark.parametrize("item_id", ["", "x" * 257, "a\nb"])
async def test_ids_that_are_none_are_refused(mesh: Mesh, item_id: str) -> None:
    read = await refusal(lambda: mesh.catalog.GetItem(pb.GetItemRequest(item_id=item_id)))
    deleted = await refusal(lambda: mesh.delete(item_id))

    assert (read.code, read.metadata["field"]) == ("INVALID_ARGUMENT", "item_id")
    assert (deleted.code, deleted.metadata["field"]) == ("INVALID_ARGUMENT", "item_ids[0]")


async def test_the_schema_is_given_as_it_is(mesh: Mesh) -> None:
    response = await mesh.catalog.GetSchema(pb.GetSchemaRequest())

    assert Schema.model_validate(yaml.safe_load(response.yaml)) == catalog.SCHEMA


async def test_a_schema_file_that_is_gone_is_unavailable(mesh: Mesh) -> None:
    file = mesh.folder / "schema.yaml"
    moved = file.rename(mesh.folder / "moved.yaml")
    try:
        found = await refusal(lambda: mesh.catalog.GetSchema(pb.GetSchemaRequest()))
    finally:
        moved.rename(file)

    assert (found.code, found.reason) == ("UNAVAILABLE", "STORAGE")


async def test_the_status_tells_how_far_everybody_is_and_who_cannot_be_reached(mesh: Mesh) -> None:
    await mesh.kill("semantic")
    status = await mesh.catalog.GetIngestStatus(pb.GetIngestStatusRequest())
    await mesh.start("semantic")

    by_name = {s.service: s for s in status.services}
    assert list(by_name) == ["orchestrator", *mesh.generators, "ranker"]
    assert by_name["lexical"].status.ready
    assert by_name["semantic"].error.startswith("UNAVAILABLE")
    assert not by_name["semantic"].HasField("status")
    own = by_name["orchestrator"].status
    assert own.ready
    assert {p.name for p in own.projections} == {
        "orchestrator.catalog",
        "orchestrator.history",
        "orchestrator.policy",
    }
    (found,) = await projections(mesh, "orchestrator.catalog")
    assert found.applied_sequence <= found.head_sequence == status.catalog_head
