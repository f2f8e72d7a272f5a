"""The ranker's features that come from projections: engagement, tastes, cards; and restarts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forage.catalog.item import Value
from forage.log import Event, Record, Topic
from forage.settings import FeedbackSettings
from forage.testing import catalog
from ranker.catalog import ItemCards
from ranker.extraction import FeatureExtractor
from ranker.settings import StatisticsSettings
from ranker.statistics import EngagementStatistics
from tests.unit.ranker_parts import (
    DAY,
    FESTIVAL,
    KEEPER,
    MOON,
    NOW,
    Ranker,
    decision,
    feedback,
    query,
    request,
)


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


def test_a_word_that_is_known_before_it_is_counted_is_as_rare_as_an_unknown_one(
    ranker: Ranker,
) -> None:
    text = " ".join(f"lemma{number}x" for number in range(2_000))
    item = replace(catalog.items()[0], attributes={"synopsis": (Value(text),)})
    ranker.log.append([catalog.upsert(item), catalog.upsert(catalog.items()[1])])
    records = ranker.log.read(Topic.CATALOG, 0, 1_000)[-2:]
    found = []

    def asked_between() -> Iterator[Record]:
        yield records[0]
        found.append(ranker.cards.stem("lemma1999x"))
        found.append(ranker.cards.idf([found[0], ranker.cards.stem("unheard")]).tolist())
        yield records[1]

    ranker.cards.apply(asked_between())

    assert found[0] >= 1_024, "its number is beyond what is counted so far"
    assert found[1][0] == found[1][1]
