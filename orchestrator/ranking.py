"""Ranking: the ranker's order if it answers in time, the fused order if it does not."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc

from forage.retrieval import Deadline
from forage.v1 import (
    plan_pb2,
    query_pb2,
    ranker_service_pb2,
    ranker_service_pb2_grpc,
)
from orchestrator.breaker import Breaker
from orchestrator.fanout import EXPECTED, Outcome, fair_timeout
from orchestrator.fusion import Candidate
from orchestrator.hedging import Hedge
from orchestrator.settings import RankerTarget
from orchestrator.slots import Placed

RANKER = "ranker"
_ANSWER_RESERVE_S = 0.005
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The whole list in order, and what the ranker said of it."""

    items: list[Placed]
    model_version: int = 0
    feature_names: Sequence[str] = ()
    feature_version: str = ""
    features: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Feature values by item id, for the best items only."""
    contributions: Mapping[str, Sequence[ranker_service_pb2.Contribution]] = field(
        default_factory=dict
    )
    degraded: tuple[plan_pb2.Degradation, ...] = ()

    @classmethod
    def fused(cls, candidates: Sequence[Candidate], reason: str, detail: str) -> Ranked:
        """Return the candidates in fused order, saying why."""
        missing = plan_pb2.Degradation(component=RANKER, reason=reason, detail=detail)
        items = [Placed(c, c.fused_score) for c in candidates]
        return cls(items, degraded=(missing,))


class Ranking:
    """Asks the ranker; its absence costs quality, never an answer."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        breaker: Breaker,
        hedge: Hedge | None,
        settings: RankerTarget,
    ) -> None:
        """`hedge` is for a ranker that has replicas."""
        self._stub = ranker_service_pb2_grpc.RankerServiceStub(channel)
        self._breaker = breaker
        self._hedge = hedge
        self._settings = settings
        self._fair_s = fair_timeout(settings.timeout_ms)

    async def rank(
        self,
        candidates: Sequence[Candidate],
        query: query_pb2.Query,
        found: Sequence[Outcome],
        deadline: Deadline,
        request_id: str,
        *,
        page_size: int,
        explain: bool,
    ) -> Ranked:
        """Return every candidate: the best `max_candidates` ranked, the rest after them."""
        if not candidates:
            return Ranked([])
        now = time.monotonic()
        if self._breaker.is_open(now):
            return Ranked.fused(candidates, "BREAKER_OPEN", "the ranker has been failing")
        head = candidates[: self._settings.max_candidates]
        request = ranker_service_pb2.RankRequest(
            query=query,
            request_id=request_id,
            explain=explain,
            feature_rows=max(page_size, self._settings.feature_rows),
        )
        add_candidates(request, head, [(o.generator, o.fan_out, o.answered) for o in found])
        self._breaker.started(now)
        timeout = min(self._settings.timeout_ms / 1000, deadline.remaining() - _ANSWER_RESERVE_S)
        try:
            response = await self._send(request, max(timeout, 0.001))
        except grpc.aio.AioRpcError as error:
            return self._failed(candidates, error, fair=timeout >= self._fair_s)
        self._breaker.succeeded()
        if not _permutes(response, len(head)):
            _logger.error("ranker: it returned other items than it was given")
            return Ranked.fused(candidates, "FAILED", "it returned other items than it was given")
        return _merged(candidates, response)

    async def _send(
        self, request: ranker_service_pb2.RankRequest, timeout_s: float
    ) -> ranker_service_pb2.RankResponse:
        if self._hedge is None:
            return await self._stub.Rank(request, timeout=timeout_s)
        return await self._hedge.call(
            lambda left_s: self._stub.Rank(request, timeout=left_s), timeout_s
        )

    def _failed(
        self, candidates: Sequence[Candidate], error: grpc.aio.AioRpcError, *, fair: bool
    ) -> Ranked:
        code = error.code()
        if fair or code is not grpc.StatusCode.DEADLINE_EXCEEDED:
            self._breaker.failed(time.monotonic())
        if code not in EXPECTED:
            _logger.error("ranker: %s: %s", code.name, error.details())
        reason = "TIMED_OUT" if code is grpc.StatusCode.DEADLINE_EXCEEDED else "FAILED"
        return Ranked.fused(candidates, reason, f"{code.name}: {error.details()}")


def add_candidates(
    request: ranker_service_pb2.RankRequest,
    candidates: Sequence[Candidate],
    calls: Sequence[tuple[str, int, bool]],
) -> None:
    """Add candidates and their provenance to a request, column by column.

    `calls` tells of each generator its name, its fan-out and whether it answered; those that
    proposed a candidate are all among them.
    """
    columns: dict[str, tuple[list[int], list[int], list[float]]] = {
        name: ([], [], []) for name, _, _ in calls
    }
    for place, candidate in enumerate(candidates):
        for rank, generator, score, _ in candidate.provenance:
            places, ranks, scores = columns[generator]
            places.append(place)
            ranks.append(rank)
            scores.append(score)
    request.item_ids.extend([c.item_id for c in candidates])
    request.fused_scores.extend([c.fused_score for c in candidates])
    for name, fan_out, answered in calls:
        places, ranks, scores = columns[name]
        request.proposals.add(
            generator=name,
            fan_out=fan_out,
            answered=answered,
            candidates=places,
            ranks=ranks,
            scores=scores,
        )


def _permutes(response: ranker_service_pb2.RankResponse, candidates: int) -> bool:
    """Return whether it orders candidates, each at most once, and scores all that it orders."""
    order = response.order
    return (
        len(set(order)) == len(order) == len(response.scores) and max(order, default=0) < candidates
    )


def _merged(candidates: Sequence[Candidate], response: ranker_service_pb2.RankResponse) -> Ranked:
    left: list[Candidate | None] = list(candidates)
    items = []
    least = 0.0
    for place, least in zip(response.order, response.scores, strict=True):
        items.append(Placed(candidates[place], least))
        left[place] = None
    # What the ranker did not order follows in fused order, scored below everything it did.
    items.extend(Placed(c, least - 1 / (1 + c.fused_score)) for c in left if c is not None)
    best = [placed.candidate.item_id for placed in items]
    width = max(len(response.feature_names), 1)
    values = list(response.features)
    rows = [values[start : start + width] for start in range(0, len(values), width)]
    return Ranked(
        items,
        response.model_version,
        list(response.feature_names),
        response.feature_version,
        dict(zip(best, rows, strict=False)),
        dict(zip(best, (e.contributions for e in response.explanations), strict=False)),
    )
