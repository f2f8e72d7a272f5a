"""`forage.v1.RankerService`: orders merged candidates, and says what it orders them with."""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import Any

import grpc
import numpy as np

from forage import wire
from forage.errors import InvalidArgumentError, NotFoundError, UnavailableError
from forage.log.follower import Follower
from forage.registry import ArtifactInfo
from forage.reporting import status_response
from forage.retrieval import Deadline, Query
from forage.services import Runtime
from forage.telemetry import Attribute, Span
from forage.v1 import generator_service_pb2
from forage.v1 import ranker_service_pb2 as pb
from forage.v1 import ranker_service_pb2_grpc as pb_grpc
from ranker.catalog import ItemCards
from ranker.evidence import Evidence
from ranker.extraction import FeatureExtractor, Matrix
from ranker.features import FeatureList
from ranker.model import RankingModel, Scores
from ranker.reloading import ServedModel
from ranker.statistics import EngagementStatistics

Context = grpc.aio.ServicerContext[Any, Any]
GRPC_SERVICE = pb.DESCRIPTOR.services_by_name["RankerService"].full_name
_BIAS = "bias"


class RankerServicer(pb_grpc.RankerServiceServicer):
    """Ranks with the served model, or in fused order while there is none."""

    def __init__(
        self,
        runtime: Runtime,
        follower: Follower,
        features: FeatureList,
        cards: ItemCards,
        statistics: EngagementStatistics,
        extractor: FeatureExtractor,
        served: ServedModel,
        *,
        max_candidates: int,
    ) -> None:
        """Serve at most `max_candidates` per call."""
        self._runtime = runtime
        self._follower = follower
        self._features = features
        self._feature_version = features.version
        self._entries: dict[str, Sized] = {cards.name: cards, statistics.name: statistics}
        self._extractor = extractor
        self._served = served
        self._max_candidates = max_candidates

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register this servicer."""
        pb_grpc.add_RankerServiceServicer_to_server(self, server)

    async def Rank(self, request: pb.RankRequest, context: Context) -> pb.RankResponse:
        """Compute features and scores on a worker thread; ties go by fused score, then item id."""
        if not request.HasField("query") or not request.query.HasField("time"):
            field = "query.time" if request.HasField("query") else "query"
            raise InvalidArgumentError(field, "it is not set", allowed="a value; it is required")
        evidence = Evidence.read(request, max_candidates=self._max_candidates)
        query = wire.query_from_proto(request.query, request_id=request.request_id)
        if not self._follower.caught_up.is_set():
            raise UnavailableError("ranker: item cards or statistics are being rebuilt")
        remaining = context.time_remaining()
        deadline = Deadline.after(math.inf if remaining is None else remaining)
        return await self._runtime.in_thread(self._rank, request, query, evidence, deadline)

    def _rank(
        self, request: pb.RankRequest, query: Query, evidence: Evidence, deadline: Deadline
    ) -> pb.RankResponse:
        deadline.check()
        published = self._served.current
        version = 0 if published is None else published.info.version
        tracer = self._runtime.telemetry.tracer
        with tracer.start_as_current_span(Span.FEATURES) as span:
            matrix = self._extractor.matrix(query, evidence)
            span.set_attribute(Attribute.CANDIDATES, len(matrix))
        deadline.check()
        with tracer.start_as_current_span(Span.PREDICT) as span:
            scores = evidence.fused if published is None else published.model.scores(matrix)
            span.set_attribute(Attribute.CANDIDATES, len(matrix))
            span.set_attribute(Attribute.MODEL_VERSION, version)
        deadline.check()
        order = _order(evidence, scores)
        best = matrix[order[: request.feature_rows]]
        response = pb.RankResponse(
            order=order,
            scores=scores[order].tolist(),
            model_version=version,
            feature_names=self._features.names,
            feature_version=self._feature_version,
            features=best.ravel().tolist(),
        )
        if request.explain and published is not None and len(best):
            self._explain(response, published.model, best)
        return response

    def _explain(self, response: pb.RankResponse, model: RankingModel, matrix: Matrix) -> None:
        names = (*self._features.names, _BIAS)
        for parts in model.contributions(matrix):
            largest = np.argsort(-np.abs(parts), kind="stable").tolist()
            response.explanations.add(
                contributions=[
                    pb.Contribution(feature=names[place], value=parts[place])
                    for place in largest
                    if parts[place] != 0.0
                ]
            )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describe the served model; NOT_FOUND says why there is none."""
        published = self._served.current
        if published is None:
            raise NotFoundError(
                self._served.error or "no ranker model is published yet; results are in fused order"
            )
        return describe(published.info)

    async def GetRankerStatus(
        self, request: pb.GetRankerStatusRequest, context: Context
    ) -> pb.GetRankerStatusResponse:
        """Report both projections, and as `ranker.model` how the registry is followed."""
        entries = {name: len(projection) for name, projection in self._entries.items()}
        status = status_response("ranker", self._follower, entries)
        published = self._served.current
        status.projections.append(
            generator_service_pb2.ProjectionStatus(
                name="ranker.model",
                topic="registry",
                applied_sequence=0 if published is None else published.info.version,
                head_sequence=self._served.wanted_version,
                entries=0 if published is None else published.model.trees,
                last_error=self._served.error,
            )
        )
        return pb.GetRankerStatusResponse(status=status)


def describe(info: ArtifactInfo) -> pb.GetModelResponse:
    """Return what the registry knows of a model."""
    metrics = info.metadata.get("metrics")
    lineage = info.metadata.get("lineage")
    return pb.GetModelResponse(
        version=info.version,
        sha256=info.sha256,
        publish_time=wire.timestamp(info.created),
        metrics=metrics if isinstance(metrics, dict) else {},
        lineage={k: str(v) for k, v in lineage.items()} if isinstance(lineage, dict) else {},
    )


def _order(evidence: Evidence, scores: Scores) -> list[int]:
    """Return the candidates' places, best first, ties by fused score and item id: a total order."""
    rows = range(len(evidence.item_ids))
    columns = (-scores).tolist(), (-evidence.fused).tolist(), evidence.item_ids, rows
    return [row for *_, row in sorted(zip(*columns, strict=True))]
