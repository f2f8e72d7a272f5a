"""The ranker as a service: what it answers, what it refuses, and how it changes models."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from forage import wire
from forage.errors import StorageError
from forage.registry import DirectoryRegistry
from forage.testing import catalog
from forage.v1 import query_pb2
from forage.v1 import ranker_service_pb2 as pb
from ranker.features import FeatureList
from ranker.model import KIND
from tests.service.ranker_running import (
    LIMIT_S,
    Running,
    configured,
    ids,
    publish,
    refused,
    request,
    started,
)
from tests.unit.ranker_parts import FESTIVAL, KEEPER, MOON

in_module_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fused(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A ranker without a model, for tests that change nothing."""
    async with started(configured(tmp_path_factory.mktemp("fused"))) as found:
        yield found


@pytest.fixture
async def ranker(tmp_path: Path) -> AsyncIterator[Running]:
    async with started(configured(tmp_path)) as found:
        yield found


@in_module_loop
async def test_without_a_model_the_order_is_fused_and_features_are_there(
    fused: Running,
) -> None:
    asked = request(MOON, KEEPER, FESTIVAL, feature_rows=2)

    response = await fused.stub.Rank(asked)

    assert ids(asked, response) == [MOON, KEEPER, FESTIVAL]
    assert response.scores == pytest.approx([1, 1 / 2, 1 / 3])
    assert response.model_version == 0
    assert tuple(response.feature_names) == fused.features.names
    assert response.feature_version == fused.features.version
    assert len(response.features) == 2 * len(fused.features)


@in_module_loop
async def test_ties_are_broken_by_item_id(fused: Running) -> None:
    asked = request("b", "a", "c")
    asked.fused_scores[:] = [0.5] * 3

    assert ids(asked, await fused.stub.Rank(asked)) == ["a", "b", "c"]


@in_module_loop
async def test_no_candidates_are_ranked_to_nothing(fused: Running) -> None:
    response = await fused.stub.Rank(request(feature_rows=5, explain=True))

    assert not response.order
    assert not response.features


async def test_a_published_model_takes_over_and_explains_itself(ranker: Running) -> None:
    ranker.publish("item.popularity", sign=-1)
    await ranker.until(lambda status: status[0] == 1)

    asked = request(KEEPER, MOON, FESTIVAL, feature_rows=2, explain=True)
    response = await ranker.stub.Rank(asked)

    assert ids(asked, response) == [FESTIVAL, MOON, KEEPER]
    assert response.model_version == 1
    assert len(response.explanations) == 2
    best = response.explanations[0].contributions
    assert sum(c.value for c in best) == pytest.approx(response.scores[0], abs=1e-4)
    assert best[0].feature in {"item.popularity", "bias"}
    sizes = [abs(c.value) for c in best]
    assert sizes == sorted(sizes, reverse=True)


async def test_the_served_model_is_described(ranker: Running) -> None:
    ranker.publish("fusion.score")
    await ranker.until(lambda status: status[0] == 1)

    model = await ranker.stub.GetModel(pb.GetModelRequest())

    info = ranker.registry.current(KIND)
    assert info is not None
    assert (model.version, model.sha256) == (1, info.sha256)
    assert dict(model.metrics) == {"ndcg@10": 0.5}
    assert dict(model.lineage) == {"parent_version": "0"}
    assert wire.seconds(model.publish_time) == pytest.approx(info.created, abs=1e-3)


@in_module_loop
async def test_before_the_first_model_none_is_described(fused: Running) -> None:
    code, _ = await refused(fused.stub.GetModel(pb.GetModelRequest()))

    assert code is grpc.StatusCode.NOT_FOUND
    assert await fused.model_status() == (0, "")


async def test_models_change_under_load_without_a_failed_request(ranker: Running) -> None:
    done = asyncio.Event()
    versions: set[int] = set()

    async def client() -> int:
        calls = 0
        while not done.is_set():
            asked = request(KEEPER, MOON, FESTIVAL)
            response = await ranker.stub.Rank(asked, timeout=LIMIT_S)
            popular_first = [KEEPER, MOON, FESTIVAL]
            expected = popular_first if response.model_version % 2 == 0 else popular_first[::-1]
            assert ids(asked, response) == expected
            versions.add(response.model_version)
            calls += 1
        return calls

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for _ in range(6):
        sign = -1.0 if len(ranker.registry.history(KIND)) % 2 == 0 else 1.0
        version = await asyncio.to_thread(ranker.publish, "item.popularity", sign=sign)
        await ranker.until(lambda status, wanted=version: status[0] == wanted)
    done.set()

    assert all(calls > 0 for calls in await asyncio.gather(*clients))
    assert len(versions) > 3


async def test_a_damaged_model_is_not_served_and_the_status_says_so(ranker: Running) -> None:
    ranker.publish("item.popularity", sign=-1)
    await ranker.until(lambda status: status[0] == 1)

    ranker.registry.publish(KIND, b"x" * 1_000, {}, expected_current=1)
    version, error = await ranker.until(lambda status: bool(status[1]))

    assert version == 1
    assert "ranker model 2 is not served" in error
    assert (await ranker.stub.Rank(request(KEEPER, MOON))).model_version == 1
    ranker.registry.set_current(KIND, 1, expected=2)
    assert await ranker.until(lambda status: not status[1]) == (1, "")


async def test_a_model_of_other_features_is_not_served(ranker: Running) -> None:
    other = FeatureList(catalog.SCHEMA, ["lexical"])
    publish(ranker.registry, other, "fusion.score")

    version, error = await ranker.until(lambda status: bool(status[1]))

    assert version == 0
    assert "exploration.answered" in error
    assert "train again" in error
    code, _ = await refused(ranker.stub.GetModel(pb.GetModelRequest()))
    assert code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("damage", ["missing", "truncated"])
async def test_a_ranker_starts_without_its_model_file_in_fused_order(
    tmp_path: Path, damage: str
) -> None:
    settings = configured(tmp_path)
    registry = DirectoryRegistry(tmp_path / "registry")
    features = FeatureList(catalog.SCHEMA, settings.generators)
    publish(registry, features, "fusion.score", sign=-1)
    (file,) = (tmp_path / "registry" / KIND).glob("*.bin")
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StorageError):
        registry.load(KIND)

    async with started(settings) as ranker:
        asked = request(KEEPER, MOON)
        response = await ranker.stub.Rank(asked)
        version, error = await ranker.model_status()

    assert (response.model_version, ids(asked, response)) == (0, [KEEPER, MOON])
    assert version == 0
    assert "SHA-256" in error


async def test_a_model_is_there_from_the_first_request_after_a_restart(tmp_path: Path) -> None:
    settings = configured(tmp_path)
    features = FeatureList(catalog.SCHEMA, settings.generators)
    publish(DirectoryRegistry(tmp_path / "registry"), features, "fusion.score")

    async with started(settings) as ranker:
        assert (await ranker.stub.Rank(request(KEEPER))).model_version == 1


@in_module_loop
async def test_features_and_predict_are_spans_of_the_call(fused: Running) -> None:
    fused.spans.clear()

    await fused.stub.Rank(request(KEEPER, MOON))

    spans = {span.name: span for span in fused.spans.get_finished_spans()}
    assert {"features", "predict"} <= spans.keys()
    (server,) = [span for name, span in spans.items() if name.endswith("Rank")]
    for name in ("features", "predict"):
        parent = spans[name].parent
        assert parent is not None
        assert parent.span_id == server.context.span_id
        assert spans[name].attributes["forage.candidates"] == 2


@in_module_loop
async def test_status_tells_how_far_both_projections_are(fused: Running) -> None:
    status = (await fused.stub.GetRankerStatus(pb.GetRankerStatusRequest())).status

    projections = {p.name: p for p in status.projections}
    assert status.service == "ranker"
    assert projections["ranker.catalog"].entries == len(catalog.items())
    assert projections["ranker.catalog"].applied_sequence == len(catalog.items())
    assert projections["ranker.engagement"].entries == 0
    assert status.resident_bytes > 0


@in_module_loop
async def test_unknown_items_are_ranked_too(fused: Running) -> None:
    asked = request("film:unheard-of", KEEPER)

    assert ids(asked, await fused.stub.Rank(asked)) == ["film:unheard-of", KEEPER]


def without_query(message: pb.RankRequest) -> None:
    message.ClearField("query")


def without_time(message: pb.RankRequest) -> None:
    message.query.ClearField("time")


def without_class(message: pb.RankRequest) -> None:
    message.query.query_class = query_pb2.QUERY_CLASS_UNSPECIFIED


def with_a_confidence_that_is_nan(message: pb.RankRequest) -> None:
    message.query.interpretations.add(confidence=1.0).slots.add(value="a", confidence=math.nan)


def with_a_duplicate(message: pb.RankRequest) -> None:
    message.item_ids[1] = message.item_ids[0]


def without_an_id(message: pb.RankRequest) -> None:
    message.item_ids[1] = ""


def with_a_nan(message: pb.RankRequest) -> None:
    message.fused_scores[0] = math.nan


def with_an_infinite_score(message: pb.RankRequest) -> None:
    message.proposals[0].scores[1] = math.inf


def with_rank_zero(message: pb.RankRequest) -> None:
    message.proposals[0].ranks[1] = 0


def with_a_place_beyond_the_last(message: pb.RankRequest) -> None:
    message.proposals[0].candidates[1] = 2


def with_a_place_twice(message: pb.RankRequest) -> None:
    message.proposals[0].candidates[1] = 0


def with_a_rank_missing(message: pb.RankRequest) -> None:
    del message.proposals[0].ranks[1]


def with_a_proposal_without_a_score(message: pb.RankRequest) -> None:
    message.proposals[0].scores.pop()


def without_a_fused_score(message: pb.RankRequest) -> None:
    message.fused_scores.pop()


def with_a_generator_twice(message: pb.RankRequest) -> None:
    message.proposals.add(generator="lexical")


def with_too_many(message: pb.RankRequest) -> None:
    message.item_ids.extend(f"more:{index}" for index in range(50))


@in_module_loop
@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (without_query, "query"),
        (without_time, "query.time"),
        (without_class, "query.query_class"),
        (with_a_confidence_that_is_nan, "query.interpretations[0]"),
        (with_a_duplicate, "item_ids[1]"),
        (without_an_id, "item_ids[1]"),
        (with_a_nan, "fused_scores[0]"),
        (without_a_fused_score, "fused_scores"),
        (with_an_infinite_score, "proposals[0].scores"),
        (with_a_proposal_without_a_score, "proposals[0].scores"),
        (with_rank_zero, "proposals[0].ranks"),
        (with_a_rank_missing, "proposals[0].ranks"),
        (with_a_place_beyond_the_last, "proposals[0].candidates"),
        (with_a_place_twice, "proposals[0].candidates"),
        (with_a_generator_twice, "proposals"),
        (with_too_many, "item_ids"),
    ],
)
async def test_bad_input_is_refused_by_field(
    fused: Running, spoil: Callable[[pb.RankRequest], None], field: str
) -> None:
    asked = request(KEEPER, MOON)
    spoil(asked)

    assert await refused(fused.stub.Rank(asked)) == (grpc.StatusCode.INVALID_ARGUMENT, field)


@pytest.mark.parametrize("score", [1e300, -1e300, 5e-324])
async def test_extreme_scores_are_ranked(ranker: Running, score: float) -> None:
    ranker.publish("lexical.score")
    await ranker.until(lambda status: status[0] == 1)
    asked = request(KEEPER, MOON, feature_rows=2, explain=True)
    asked.fused_scores[0] = score
    asked.proposals[0].scores[0] = score

    assert sorted(ids(asked, await ranker.stub.Rank(asked))) == sorted([KEEPER, MOON])


@in_module_loop
async def test_odd_queries_are_ranked(fused: Running) -> None:
    asked = request(KEEPER, MOON)
    asked.query.tokens[:] = ["東京", "x" * 100_000, *("w" * n for n in range(1, 200))]
    asked.query.normalized = "\x00 ‮" * 1_000
    reading = asked.query.interpretations.add(confidence=0.0)
    reading.slots.add(attribute="nonsense", value="", confidence=0.0)
    asked.query.user.recent_item_ids.extend(["", "film:unheard-of", KEEPER])

    assert sorted(ids(asked, await fused.stub.Rank(asked))) == sorted([KEEPER, MOON])
