"""The parts of the ranker that compute features, and what they are asked, for their tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from forage import wire
from forage.log import Event, EventLog, Stream, Topic
from forage.log.engines import open_log
from forage.settings import FeedbackSettings
from forage.testing import catalog
from forage.text import tokenize
from forage.v1 import decision_pb2, feedback_service_pb2, query_pb2
from forage.v1 import ranker_service_pb2 as pb
from ranker.catalog import ItemCards
from ranker.evidence import Evidence
from ranker.extraction import FeatureExtractor
from ranker.features import FeatureList
from ranker.settings import StatisticsSettings
from ranker.statistics import EngagementStatistics

NOW = 1.7e9
DAY = 86_400.0
GENERATORS = ("lexical", "semantic", "exploration")
KEEPER = "film:the-lantern-keeper"
FESTIVAL = "film:lantern-festival"
MOON = "film:night-of-the-copper-moon"


class Ranker:
    """The parts that compute features, over the fixture catalogue and a log of their own."""

    def __init__(self, folder: Path) -> None:
        self.log: EventLog = open_log("sqlite:log.db", folder)
        self.cards = ItemCards(catalog.SCHEMA, folder)
        self.statistics = EngagementStatistics(
            self.log, StatisticsSettings(), FeedbackSettings(), folder
        )
        self.features = FeatureList(catalog.SCHEMA, GENERATORS)
        self.extractor = FeatureExtractor(
            self.features, catalog.SCHEMA, self.cards, self.statistics, half_life_days=30
        )
        self.log.append([catalog.upsert(item) for item in catalog.items()])
        self.cards.apply(self.log.read(Topic.CATALOG, 0, 1_000))

    def matrix(self, request: pb.RankRequest) -> np.ndarray:
        evidence = Evidence.read(request, max_candidates=100)
        return self.extractor.matrix(wire.query_from_proto(request.query), evidence)

    def rows(self, request: pb.RankRequest) -> list[dict[str, float]]:
        matrix = self.matrix(request)
        assert matrix.dtype == np.float32
        return [dict(zip(self.features.names, row, strict=True)) for row in matrix.tolist()]

    def interact(self, *events: Event) -> None:
        after = self.log.head(Topic.INTERACTIONS)
        self.log.append(events)
        self.statistics.apply(self.log.read(Topic.INTERACTIONS, after, 1_000))


def query(text: str = "", *slots: query_pb2.Slot, user: str = "") -> query_pb2.Query:
    tokens = tokenize(text)
    message = query_pb2.Query(
        text=text,
        normalized=" ".join(tokens),
        tokens=tokens,
        query_class=query_pb2.QUERY_CLASS_TOPICAL,
        user=query_pb2.UserContext(user_id=user),
        time=wire.timestamp(NOW),
    )
    if slots:
        message.interpretations.add(slots=slots, residual="lantern", confidence=0.5)
    return message


def request(asked: query_pb2.Query, *item_ids: str, **fields: object) -> pb.RankRequest:
    """Return a request to rank items that lexical alone has found, in this order."""
    message = pb.RankRequest(query=asked, **fields)
    places = range(len(item_ids))
    message.item_ids.extend(item_ids)
    message.fused_scores.extend(1 / (place + 1) for place in places)
    message.proposals.add(
        generator="lexical",
        fan_out=10,
        answered=True,
        candidates=places,
        ranks=[place + 1 for place in places],
        scores=[9.0 - place for place in places],
    )
    return message


def decision(
    request_id: str, asked: query_pb2.Query, item_ids: Sequence[str], time: float = NOW
) -> Event:
    message = decision_pb2.Decision(request_id=request_id, query=asked, time=wire.timestamp(time))
    for place, item_id in enumerate(item_ids):
        message.displayed.add(item_id=item_id, position=place + 1)
    return Event(Stream.DECISIONS, request_id, message.SerializeToString(), time)


def feedback(request_id: str, item_id: str, kind: str = "PLAY", time: float = NOW) -> Event:
    event = feedback_service_pb2.FeedbackEvent(
        event_id=f"{request_id}/{item_id}/{kind}",
        request_id=request_id,
        item_id=item_id,
        kind=feedback_service_pb2.FeedbackKind.Value(f"FEEDBACK_KIND_{kind}"),
    )
    return Event(Stream.FEEDBACK, event.event_id, event.SerializeToString(), time)
