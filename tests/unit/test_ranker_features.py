"""The ranker's features: their names, what is missing, and what generators said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from forage.testing import catalog
from ranker.features import FeatureList, direction
from tests.unit.ranker_parts import (
    FESTIVAL,
    GENERATORS,
    KEEPER,
    MOON,
    Ranker,
    query,
    request,
)


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


def test_an_unknown_item_has_missing_features_and_is_still_a_row(ranker: Ranker) -> None:
    known, unknown = ranker.rows(request(query("lantern"), KEEPER, "film:unheard-of"))

    assert (known["item.known"], unknown["item.known"]) == (1, 0)
    assert unknown["lexical.score"] == 8.0
    assert math.isnan(unknown["match.title.coverage"])
    assert math.isnan(unknown["title.similarity"])
    assert math.isnan(unknown["item.popularity"])
    assert known["item.popularity"] == pytest.approx(0.92)


def test_no_candidates_make_an_empty_matrix(ranker: Ranker) -> None:
    matrix = ranker.matrix(request(query("lantern")))

    assert matrix.shape == (0, len(ranker.features))


def test_position_is_one_for_every_item_in_serving(ranker: Ranker) -> None:
    rows = ranker.rows(request(query("lantern"), KEEPER, FESTIVAL, MOON))

    assert [row["position"] for row in rows] == [1, 1, 1]


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


def test_agreement_of_generators_is_told_in_one_number(ranker: Ranker) -> None:
    asked = request(query("lantern"), KEEPER, FESTIVAL)
    asked.proposals.add(generator="semantic", candidates=[1], scores=[0.9], ranks=[1])

    first, second = ranker.rows(asked)

    assert first["fusion.shares"] == pytest.approx(0.5)
    assert second["fusion.shares"] == pytest.approx(0.5)
    assert first["fusion.best_rank"] == second["fusion.best_rank"] == 1.0


def test_evidence_has_a_direction_and_descriptions_have_none(ranker: Ranker) -> None:
    directions = {f.name: direction(f.name) for f in ranker.features.features}

    for name in GENERATORS:
        assert directions[f"{name}.score"] == directions[f"{name}.reciprocal_rank"] == 1
        assert directions[f"neighbours.{name}"] == 1
        assert directions[f"{name}.answered"] == directions[f"{name}.found"] == 0
    assert directions["fusion.score"] == directions["match.bm25"] == directions["slots.top"] == 1
    assert directions["engagement.query"] == directions["user.affinity"] == 1
    assert directions["engagement.dislike"] == -1
    assert {n for n, d in directions.items() if d == 0 and n.startswith("neighbours.")} == {
        "neighbours.likeness"
    }
    groups = {f.name: f.group for f in ranker.features.features}
    assert not any(d for n, d in directions.items() if groups[n] in ("query", "position"))
    assert direction("a_feature_of_somebody_else") == 0
