"""The ranker's features: what each says, what is missing, and what they may depend on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from forage import wire
from forage.log import Event, EventLog, Record, Stream, Topic
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


@pytest.fixture
def ranker(tmp_path: Path) -> Iterator[Ranker]:
    ranker = Ranker(tmp_path)
    yield ranker
    ranker.log.close()


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


def request(asked: query_pb2.Query, *item_ids: str) -> pb.RankRequest:
    message = pb.RankRequest(query=asked)
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


def test_every_feature_has_one_name_and_a_description(ranker: Ranker) -> None:
    names = ranker.features.names

    assert len(set(names)) == len(names)
    assert all(f.description.endswith(".") for f in ranker.features.features)


def test_the_version_changes_with_the_generators_and_with_the_schema() -> None:
    fewer = dict(catalog.SCHEMA.attributes)
    del fewer["synopsis"]
    smaller = catalog.SCHEMA.model_copy(update={"attributes": fewer})

    versions = {
        FeatureList(catalog.SCHEMA, GENERATORS).version,
        FeatureList(catalog.SCHEMA, GENERATORS[:2]).version,
        FeatureList(catalog.SCHEMA, GENERATORS[::-1]).version,
        FeatureList(smaller, GENERATORS).version,
    }

    assert len(versions) == 4
    assert FeatureList(catalog.SCHEMA, GENERATORS).version in versions


def test_a_generator_that_was_not_called_is_missing_and_one_that_did_not_find_is_zero(
    ranker: Ranker,
) -> None:
    asked = request(query("lantern"), KEEPER, MOON)
    asked.proposals.add(generator="semantic", fan_out=10, answered=True)
    asked.proposals.add(generator="exploration", fan_out=10, answered=False)

    row = ranker.rows(asked)[1]

    assert row["lexical.answered"] == 1
    assert row["lexical.found"] == 1
    assert row["lexical.score"] == 8.0
    assert row["lexical.share"] == 0.0
    assert row["lexical.reciprocal_rank"] == 0.5
    assert row["semantic.answered"] == 1
    assert row["semantic.found"] == 0
    assert row["semantic.reciprocal_rank"] == 0
    assert math.isnan(row["semantic.score"])
    assert row["exploration.answered"] == 0
    assert math.isnan(row["exploration.found"])
    assert math.isnan(row["exploration.score"])


def test_generators_that_are_not_configured_are_counted_and_otherwise_ignored(
    ranker: Ranker,
) -> None:
    asked = request(query("lantern"), KEEPER)
    asked.proposals.add(generator="sixth", candidates=[0], scores=[1.0], ranks=[1])

    assert ranker.rows(asked)[0]["fusion.generators"] == 2


def test_only_exploration_is_flagged(ranker: Ranker) -> None:
    asked = request(query("lantern"), KEEPER, MOON)
    lexical = asked.proposals[0]
    lexical.candidates[:], lexical.scores[:], lexical.ranks[:] = [0], [9.0], [1]
    asked.proposals.add(generator="exploration", candidates=[0, 1], scores=[1.0, 8.0], ranks=[1, 2])

    assert [row["exploration.only"] for row in ranker.rows(asked)] == [0, 1]


def test_words_are_matched_field_by_field(ranker: Ranker) -> None:
    keeper, festival, moon = ranker.rows(request(query("lantern ship"), KEEPER, FESTIVAL, MOON))

    assert keeper["match.title.coverage"] == 0.5
    assert keeper["match.synopsis.coverage"] == 1.0
    assert keeper["match.coverage"] == 1.0
    assert festival["match.title.coverage"] == 0.5
    assert festival["match.synopsis.coverage"] == 0.0
    assert moon["match.coverage"] == 0.0


def test_a_typed_title_is_recognised(ranker: Ranker) -> None:
    exact, other = ranker.rows(request(query("Lantern Festival"), FESTIVAL, KEEPER))

    assert exact["match.title.exact"] == 1
    assert exact["title.coverage"] == 1
    assert exact["title.length_ratio"] == 1
    assert exact["title.prefix"] == 1
    assert exact["title.similarity"] == 1
    assert other["match.title.exact"] == 0
    assert other["title.coverage"] == pytest.approx(1 / 3)
    assert other["title.prefix"] == 0
    assert 0 < other["title.similarity"] < 1


def test_the_weight_of_a_value_is_the_strength_of_its_match(ranker: Ranker) -> None:
    drama, romance = (
        ranker.rows(request(query(genre), FESTIVAL))[0] for genre in ("drama", "romance")
    )

    assert drama["match.genre.exact"] == 1
    assert romance["match.genre.exact"] == pytest.approx(0.6)
    assert romance["match.genre.coverage"] == pytest.approx(0.6)


def test_slots_are_matched_by_attribute_and_value(ranker: Ranker) -> None:
    slots = [
        query_pb2.Slot(attribute="cast", value="Mara Ellwood", confidence=0.9, end=2),
        query_pb2.Slot(attribute="genre", value="horror", confidence=0.3, start=2, end=3),
    ]
    asked = query("mara ellwood horror lantern", *slots)

    keeper, moon = ranker.rows(request(asked, KEEPER, MOON))

    assert keeper["slots.matched"] == pytest.approx(0.75)
    assert keeper["slots.top"] == pytest.approx(0.75)
    assert keeper["slots.residual"] == 1
    assert moon["slots.top"] == pytest.approx(0.25)
    assert moon["slots.residual"] == 0


def test_an_item_named_by_a_slot_has_its_confidence(ranker: Ranker) -> None:
    slot = query_pb2.Slot(
        attribute="title", value="Lantern Festival", item_id=FESTIVAL, confidence=0.8, end=2
    )

    rows = ranker.rows(request(query("lantern festival", slot), FESTIVAL, KEEPER))

    assert [row["slots.named"] for row in rows] == pytest.approx([0.4, 0.0])


def test_an_unknown_item_has_missing_features_and_is_still_a_row(ranker: Ranker) -> None:
    known, unknown = ranker.rows(request(query("lantern"), KEEPER, "film:unheard-of"))

    assert (known["item.known"], unknown["item.known"]) == (1, 0)
    assert unknown["lexical.score"] == 8.0
    assert math.isnan(unknown["match.title.coverage"])
    assert math.isnan(unknown["title.similarity"])
    assert math.isnan(unknown["item.popularity"])
    assert known["item.popularity"] == pytest.approx(0.92)


def test_an_empty_query_has_no_match_features(ranker: Ranker) -> None:
    (row,) = ranker.rows(request(query(), KEEPER))

    assert math.isnan(row["match.coverage"])
    assert math.isnan(row["title.prefix"])
    assert row["query.words"] == 0


def test_no_candidates_make_an_empty_matrix(ranker: Ranker) -> None:
    matrix = ranker.matrix(request(query("lantern")))

    assert matrix.shape == (0, len(ranker.features))


def test_position_is_one_for_every_item_in_serving(ranker: Ranker) -> None:
    rows = ranker.rows(request(query("lantern"), KEEPER, FESTIVAL, MOON))

    assert [row["position"] for row in rows] == [1, 1, 1]


def test_engagement_moves_its_own_query_most(ranker: Ranker) -> None:
    for index in range(5):
        ranker.interact(
            decision(f"r{index}", query("lantern"), [KEEPER, FESTIVAL]),
            feedback(f"r{index}", FESTIVAL),
        )

    keeper, festival = ranker.rows(request(query("lantern"), KEEPER, FESTIVAL))
    elsewhere = ranker.rows(request(query("moon"), FESTIVAL))[0]

    assert festival["engagement.query"] > festival["engagement.class"]
    assert festival["engagement.class"] > festival["engagement.overall"]
    assert festival["engagement.overall"] > keeper["engagement.overall"]
    assert elsewhere["engagement.query"] < festival["engagement.query"]
    assert elsewhere["engagement.query_examined"] == 0


def test_a_rate_is_debiased_by_position(ranker: Ranker) -> None:
    ranker.interact(
        decision("r", query("lantern"), [KEEPER, FESTIVAL]),
        feedback("r", KEEPER),
        feedback("r", FESTIVAL),
    )

    keeper, festival = ranker.rows(request(query("lantern"), KEEPER, FESTIVAL))

    assert keeper["engagement.examined"] == pytest.approx(math.log1p(1.0))
    assert festival["engagement.examined"] == pytest.approx(math.log1p(2**-0.7))
    assert festival["engagement.overall"] > keeper["engagement.overall"]


def test_a_rate_is_the_hand_worked_posterior_mean(ranker: Ranker) -> None:
    ranker.interact(decision("r", query("lantern"), [KEEPER]), feedback("r", KEEPER, "CLICK"))

    (row,) = ranker.rows(request(query("lantern"), KEEPER))

    everywhere = 0.4 / 21
    assert row["engagement.overall"] == pytest.approx((0.4 + 20 * everywhere) / 21, rel=1e-4)


def test_dislikes_do_not_lower_a_rate_but_have_a_feature(ranker: Ranker) -> None:
    before = ranker.rows(request(query("lantern"), KEEPER))[0]
    ranker.interact(decision("r", query(), [KEEPER]), feedback("r", KEEPER, "DISLIKE"))

    after = ranker.rows(request(query("lantern"), KEEPER))[0]

    assert after["engagement.overall"] == before["engagement.overall"] == 0
    assert after["engagement.dislike"] > before["engagement.dislike"]


def test_a_user_is_near_what_shares_people_and_genres_with_the_past(ranker: Ranker) -> None:
    ranker.interact(decision("r", query(user="ana"), [MOON]), feedback("r", MOON))
    rising, orbit = "film:copper-moon-rising", "film:a-quiet-orbit"

    rows = ranker.rows(request(query(user="ana"), rising, orbit, MOON))
    stranger = ranker.rows(request(query(user="bo"), rising))[0]

    assert rows[0]["user.affinity"] > 0.3
    assert rows[1]["user.affinity"] == 0
    assert rows[2]["user.affinity"] == pytest.approx(1.0)
    assert [row["user.engaged"] for row in rows] == [0, 0, 1]
    assert math.isnan(stranger["user.affinity"])


def test_what_a_user_liked_long_ago_is_less_of_their_taste(ranker: Ranker) -> None:
    long_ago = NOW - 200 * DAY
    asked = query(user="ana")
    ranker.interact(
        decision("old", asked, [FESTIVAL], long_ago), feedback("old", FESTIVAL, time=long_ago)
    )
    ranker.interact(decision("new", asked, [MOON]), feedback("new", MOON))

    old, new = ranker.rows(request(asked, FESTIVAL, MOON))

    assert new["user.affinity"] > 2 * old["user.affinity"] > 0


def test_recent_items_of_the_request_count_for_an_unknown_user(ranker: Ranker) -> None:
    asked = query()
    asked.user.recent_item_ids.extend([MOON, "film:unheard-of"])

    row = ranker.rows(request(asked, "film:copper-moon-rising"))[0]

    assert row["user.affinity"] > 0.3
    assert row["user.history"] == 2


def test_features_depend_on_nothing_but_the_request_and_the_projections(
    ranker: Ranker, tmp_path: Path
) -> None:
    asked = request(query("lantern", user="ana"), KEEPER, FESTIVAL, MOON)
    ranker.interact(decision("r", query("lantern", user="ana"), [KEEPER]), feedback("r", KEEPER))
    replayed = Ranker(tmp_path / "again")
    records = ranker.log.read(Topic.INTERACTIONS, 0, 1_000)
    replayed.log.append([Event(r.stream, r.key, r.payload, r.time) for r in records])
    for record in replayed.log.read(Topic.INTERACTIONS, 0, 1_000):
        replayed.statistics.apply([record])

    np.testing.assert_equal(replayed.rows(asked), ranker.rows(asked))
    replayed.log.close()


def test_checkpoints_restore_cards_and_statistics(ranker: Ranker, tmp_path: Path) -> None:
    ranker.interact(decision("r", query("lantern", user="ana"), [KEEPER]), feedback("r", KEEPER))
    asked = request(query("lantern", user="ana"), KEEPER, FESTIVAL)
    before = ranker.rows(asked)
    ranker.cards.checkpoint(42)
    ranker.statistics.checkpoint(2)

    cards = ItemCards(catalog.SCHEMA, tmp_path)
    statistics = EngagementStatistics(
        ranker.log, StatisticsSettings(), FeedbackSettings(), tmp_path
    )
    positions = cards.restore(), statistics.restore()

    ranker.extractor = FeatureExtractor(
        ranker.features, catalog.SCHEMA, cards, statistics, half_life_days=30
    )
    assert positions == (42, 2)
    np.testing.assert_equal(ranker.rows(asked), before)


def test_a_checkpoint_of_other_settings_or_of_another_schema_is_not_used(
    ranker: Ranker, tmp_path: Path
) -> None:
    ranker.cards.checkpoint(42)
    ranker.statistics.checkpoint(2)

    schema = catalog.SCHEMA.model_copy(update={"kinds": ("person", "film", "genre")})
    changed = StatisticsSettings(half_life_days=7)

    assert ItemCards(schema, tmp_path).restore() == 0
    feedback_settings = FeedbackSettings()
    statistics = EngagementStatistics(ranker.log, changed, feedback_settings, tmp_path)
    assert statistics.restore() == 0


def test_a_deleted_item_is_unknown(ranker: Ranker) -> None:
    event = catalog.delete(KEEPER)
    ranker.cards.apply([Record(99, event.stream, event.key, event.payload, event.time)])

    assert ranker.rows(request(query("lantern"), KEEPER))[0]["item.known"] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Café Nocturne", ("cafe", "nocturne")),
        ("Don't_look", ("dont", "look")),
        ("東京の灯", ("東京の灯",)),
        ("", ()),
    ],
)
def test_words_are_cut_like_those_of_queries(text: str, words: tuple[str, ...]) -> None:
    assert tokenize(text) == words


def test_words_are_matched_by_their_stem_and_weighed_by_their_rarity(ranker: Ranker) -> None:
    plural, other = ranker.rows(request(query("lanterns keepers"), KEEPER, FESTIVAL))

    assert plural["match.coverage"] == 0
    assert plural["match.idf"] == pytest.approx(1)
    assert 0 < other["match.idf"] < 1
    assert plural["match.rarest"] == 1
    assert other["match.rarest"] == 0
    assert plural["title.idf"] > other["title.idf"]
    assert plural["match.bm25"] > other["match.bm25"] > 0


def test_scores_are_standardized_over_the_candidates(ranker: Ranker) -> None:
    asked = request(query("lantern"), KEEPER, FESTIVAL)
    asked.item_ids.append(MOON)
    asked.fused_scores.append(0.1)
    asked.proposals.add(
        generator="exploration",
        fan_out=10,
        answered=True,
        candidates=[2],
        scores=[1.0],
        ranks=[1],
    )

    rows = ranker.rows(asked)

    scores = np.array([9.0, 8.0, 0.0])
    expected = (scores - scores.mean()) / scores.std()
    assert [r["lexical.z"] for r in rows] == pytest.approx(expected.tolist())
    assert math.isnan(rows[0]["semantic.z"])
    assert sum(r["match.bm25_z"] for r in rows) == pytest.approx(0, abs=1e-5)


def test_the_best_stretch_of_a_long_query_is_compared_with_the_title(ranker: Ranker) -> None:
    asked = request(query("i would love to see the lantren keeper once again tonight"), KEEPER)

    (row,) = ranker.rows(asked)

    assert row["title.part_similarity"] > 0.8
    assert row["title.similarity"] < 0.6


def test_agreement_of_generators_is_told_in_one_number(ranker: Ranker) -> None:
    asked = request(query("lantern"), KEEPER, FESTIVAL)
    asked.proposals.add(generator="semantic", candidates=[1], scores=[0.9], ranks=[1])

    first, second = ranker.rows(asked)

    assert first["fusion.shares"] == pytest.approx(0.5)
    assert second["fusion.shares"] == pytest.approx(0.5)
    assert first["fusion.best_rank"] == second["fusion.best_rank"] == 1.0


def test_frequencies_and_lengths_are_the_same_after_changes_and_after_a_restart(
    ranker: Ranker, tmp_path: Path
) -> None:
    ranker.log.append([catalog.upsert(item) for item in catalog.items()[:5]])
    after = ranker.log.head(Topic.CATALOG)
    ranker.cards.apply(ranker.log.read(Topic.CATALOG, 0, 1_000))
    fresh = ItemCards(catalog.SCHEMA, tmp_path / "fresh")
    fresh.apply(ranker.log.read(Topic.CATALOG, 0, 1_000))

    ranker.cards.checkpoint(after)
    restored = ItemCards(catalog.SCHEMA, tmp_path)
    assert restored.restore() == after

    for cards in (ranker.cards, restored):
        stems = [cards.stem(word) for word in ("lantern", "moon", "unheard")]
        assert (
            cards.idf(stems).tolist()
            == fresh.idf([fresh.stem(word) for word in ("lantern", "moon", "unheard")]).tolist()
        )
        assert cards.mean_length == fresh.mean_length
