"""The mesh in process finds, and computes, what running services do."""

from pathlib import Path

import grpc
import numpy as np
import pytest
import yaml

from evaluation.collections import Topic
from evaluation.mesh import GENERATORS, Mesh
from forage import wire
from forage.log import Topic as LogTopic
from forage.services import find
from forage.testing.serving import running
from forage.v1 import (
    generator_service_pb2,
    generator_service_pb2_grpc,
    ranker_service_pb2,
    ranker_service_pb2_grpc,
)
from orchestrator.ranking import add_candidates
from tests.evaluation.evaluate.small import collection


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    with Mesh(collection(), tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


def test_every_generator_answers_and_the_same_topic_gives_the_same_lists(mesh) -> None:
    topic = collection().topics[0]

    first = mesh.lists(topic, 10)

    assert set(first) == set(GENERATORS)
    assert first["lexical"]
    assert first == mesh.lists(topic, 10)


def test_a_user_without_words_is_answered_from_their_history(mesh) -> None:
    liked = collection().items[0].item_id

    lists = mesh.lists(Topic("next", "", user_id="u", history=(liked,)), 10)

    assert any(lists[name] for name in ("semantic", "graph"))


def test_features_have_a_row_for_each_candidate(mesh) -> None:
    answer = mesh.answer(collection().topics[0], 10)
    candidates = mesh.fuse(answer.hits)

    matrix = mesh.matrix(answer.query, candidates, dict.fromkeys(answer.hits, 10))

    assert matrix.shape == (len(candidates), len(mesh.features))


def test_opened_again_it_goes_on_from_its_folder(tmp_path: Path) -> None:
    made = collection()
    with Mesh(made, tmp_path) as mesh:
        before = mesh.lists(made.topics[0], 10)
        head = mesh.log.head(LogTopic.CATALOG)

    with Mesh(made, tmp_path) as mesh:
        assert mesh.log.head(LogTopic.CATALOG) == head
        assert mesh.lists(made.topics[0], 10) == before


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", GENERATORS)
async def test_a_running_generator_returns_the_lists_of_the_mesh_in_process(
    mesh, tmp_path, name
) -> None:
    settings = served(mesh, name, tmp_path)

    async with (
        running(find(name), settings) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = generator_service_pb2_grpc.CandidateGeneratorServiceStub(channel)
        for topic in collection().topics:
            query = mesh.understand(topic)
            request = generator_service_pb2.GenerateRequest(
                query=wire.query_to_proto(query),
                limit=25,
                request_id=query.request_id,
                seed=query.seed,
            )
            response = await stub.Generate(request, timeout=30)

            in_process = mesh.lists(topic, 25)[name]
            assert [h.item_id for h in response.hits] == [h.item_id for h in in_process]
            scores = [h.score for h in in_process]
            assert [h.score for h in response.hits] == pytest.approx(scores)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_running_ranker_computes_the_features_of_the_mesh_in_process(
    mesh, tmp_path
) -> None:
    async with (
        running(find("ranker"), served(mesh, "ranker", tmp_path)) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = ranker_service_pb2_grpc.RankerServiceStub(channel)
        for topic in collection().topics:
            answer = mesh.answer(topic, 25)
            candidates = mesh.fuse(answer.hits)
            request = ranker_service_pb2.RankRequest(
                query=wire.query_to_proto(answer.query), feature_rows=len(candidates)
            )
            add_candidates(request, candidates, [(name, 25, True) for name in answer.hits])

            response = await stub.Rank(request, timeout=30)

            matrix = mesh.matrix(answer.query, candidates, dict.fromkeys(answer.hits, 25))
            features = np.array(response.features, np.float32).reshape(matrix.shape)
            assert np.array_equal(features, matrix[list(response.order)], equal_nan=True)


def served(mesh: Mesh, name: str, folder: Path):
    """Settings of a service on the mesh's log, with a folder of its own for its projection."""
    schema = folder / "schema.yaml"
    schema.write_text(yaml.safe_dump(mesh.schema.model_dump(mode="json"), sort_keys=False))
    settings = getattr(mesh.settings, name)
    log = (mesh.folder / "log.db").resolve()
    return settings.model_copy(
        update={"data_dir": folder, "schema_file": schema, "log_url": f"sqlite:{log}"}
    )
