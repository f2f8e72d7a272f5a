"""The one list of features, for training and for serving.

A feature is computed once, when a search is ranked, and logged with the decision; training reads
the logged value. So a model never sees in training what it could not have seen in serving, and
there is no second implementation that could differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from forage.catalog.schema import Role, Schema
from forage.retrieval import QueryClass

DEFINITIONS = 3
"""Raised whenever the computation of a feature changes but its description does not."""
FUSED_SCORE = "fusion.score"
POSITION = "position"
NEIGHBOURS = "neighbours"
NEIGHBOUR_DEPTHS = (5, 10, 30)
"""How many of the best candidates an item's likeness is told of."""

_RISING_GROUPS = frozenset({"match", "slots", NEIGHBOURS})
_RISING_ENDINGS = frozenset({"score", "share", "z", "reciprocal_rank"})
"""What every generator says of an item, and fusion too."""
_RISING = frozenset(
    {
        "fusion.generators",
        "fusion.best_rank",
        "fusion.shares",
        "title.idf",
        "title.coverage",
        "title.prefix",
        "title.similarity",
        "title.part_similarity",
        "item.popularity",
        "engagement.overall",
        "engagement.class",
        "engagement.query",
        "user.affinity",
    }
)
_FALLING = frozenset({"engagement.dislike"})
_EITHER = frozenset({"neighbours.likeness"})


class Feature(NamedTuple):
    """One column of the feature matrix."""

    name: str
    group: str
    description: str


class FeatureList:
    """The features of one schema and one list of generators, in column order."""

    def __init__(self, schema: Schema, generators: Sequence[str]) -> None:
        """List the features; they depend on nothing else."""
        self.generators = tuple(generators)
        self.features = tuple(_features(schema, self.generators))
        self.names = tuple(f.name for f in self.features)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits that change with any name, description or definition."""
        content = json.dumps([DEFINITIONS, self.features])
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def direction(name: str) -> int:
    """Return how more of a feature may move an item's score, all else being equal.

    1: never down, for evidence that the item is wanted; -1: never up; 0: either way, such as for
    what describes the query or only says what kind of item it is. Names that are not of this
    list may go either way.
    """
    group, _, ending = name.partition(".")
    if name in _FALLING:
        return -1
    if name in _EITHER:
        return 0
    rising = group in _RISING_GROUPS or ending in _RISING_ENDINGS or name in _RISING
    return int(rising)


def _features(schema: Schema, generators: Sequence[str]) -> Iterator[Feature]:
    for generator in generators:
        yield from _of_generator(generator)
    yield from _of_fusion(generators)
    for name in schema.with_role(Role.TEXT):
        yield from _of_field(name)
    yield from _of_title()
    yield from _of_slots()
    yield from _of_neighbours(generators)
    yield from _of_item(schema)
    yield from _of_query()
    yield from _of_engagement()
    yield from _of_user()
    yield Feature(POSITION, "position", "Where the item was shown; in serving 1 for every item.")


def _of_generator(generator: str) -> Iterator[Feature]:
    missing = "missing if it was not called or did not answer"
    yield Feature(f"{generator}.answered", "generator", "1 if it was called and answered.")
    yield Feature(f"{generator}.found", "generator", f"1 if it found the item; {missing}.")
    yield Feature(
        f"{generator}.score", "generator", "Its score; missing if it did not find the item."
    )
    yield Feature(
        f"{generator}.share",
        "generator",
        "Its score between the lowest (0) and the highest (1) of its list; missing likewise.",
    )
    yield Feature(
        f"{generator}.z",
        "generator",
        "Its score, 0 if it did not find the item, in standard deviations from the mean of the"
        f" candidates; {missing}.",
    )
    yield Feature(
        f"{generator}.reciprocal_rank",
        "generator",
        f"1 / rank in its list, 0 if it did not find the item; {missing}.",
    )


def _of_fusion(generators: Sequence[str]) -> Iterator[Feature]:
    yield Feature(FUSED_SCORE, "fusion", "The fused score.")
    yield Feature("fusion.share", "fusion", "The fused score divided by the largest one.")
    yield Feature("fusion.reciprocal_rank", "fusion", "1 / place in the fused order.")
    yield Feature("fusion.generators", "fusion", "How many generators found the item.")
    yield Feature("fusion.best_rank", "fusion", "1 / the best rank in any list.")
    yield Feature(
        "fusion.shares",
        "fusion",
        "Mean of `share` over the generators that answered, 0 where it is missing.",
    )
    yield Feature("fusion.candidates", "fusion", "How many candidates the search has.")
    if "exploration" in generators:
        yield Feature("exploration.only", "fusion", "1 if exploration alone found the item.")


def _of_field(name: str) -> Iterator[Feature]:
    yield Feature(
        f"match.{name}.coverage",
        "match",
        f"Share of the query's words found in {name}, each by the weight of its value.",
    )
    yield Feature(
        f"match.{name}.exact", "match", f"Weight of the {name} that equals the whole query, or 0."
    )


def _of_title() -> Iterator[Feature]:
    yield Feature("match.coverage", "match", "Share of the query's words found in any text field.")
    yield Feature(
        "match.idf",
        "match",
        "The same for the words' stems, each by its inverse document frequency.",
    )
    yield Feature(
        "match.bm25",
        "match",
        "BM25 of the stems over all text fields as one, per unit of their idf.",
    )
    yield Feature("match.bm25_z", "match", "The same in standard deviations from the mean.")
    yield Feature("match.rarest", "match", "1 if the item has the query's rarest stem.")
    yield Feature("title.idf", "match", "`match.idf` for the title alone.")
    yield Feature("title.coverage", "match", "Share of the title's words that the query has.")
    yield Feature("title.length_ratio", "match", "Words in the query per word in the title.")
    yield Feature("title.prefix", "match", "1 if the title begins with the query.")
    yield Feature("title.similarity", "match", "Indel similarity of title and query, in [0, 1].")
    yield Feature(
        "title.part_similarity", "match", "The same for the best stretch of the longer of the two."
    )


def _of_slots() -> Iterator[Feature]:
    yield Feature(
        "slots.matched",
        "slots",
        "Confidence-weighted share of the slots that the item satisfies, over all readings.",
    )
    yield Feature("slots.top", "slots", "The same for the most likely reading.")
    yield Feature("slots.named", "slots", "Confidence of the readings that name this very item.")
    yield Feature(
        "slots.residual",
        "slots",
        "Share of the words that the most likely reading leaves over found in any text field.",
    )


def _of_neighbours(generators: Sequence[str]) -> Iterator[Feature]:
    mean = "of the other candidates, each by its likeness: the cosine of the stems in their texts"
    wordless = "all of these are missing for a query without words"
    yield Feature(
        "neighbours.likeness", NEIGHBOURS, f"Mean likeness to the other candidates; {wordless}."
    )
    yield Feature(
        "neighbours.best",
        NEIGHBOURS,
        "Likeness to the ten that are best in fused order, by 1 / sqrt(place), itself left out.",
    )
    for depth in NEIGHBOUR_DEPTHS:
        yield Feature(
            f"neighbours.best_{depth}_z",
            NEIGHBOURS,
            f"The same for the best {depth}, in standard deviations from the mean.",
        )
    yield Feature("neighbours.fusion", NEIGHBOURS, f"Mean `fusion.share` {mean}.")
    yield Feature("neighbours.bm25", NEIGHBOURS, f"Mean `match.bm25` {mean}.")
    for generator in generators:
        yield Feature(
            f"neighbours.{generator}",
            NEIGHBOURS,
            f"Mean `{generator}.share` (0 where missing) {mean}; missing if it did not answer.",
        )


def _of_item(schema: Schema) -> Iterator[Feature]:
    yield Feature("item.known", "item", "1 if the ranker has the item in its catalogue.")
    yield Feature("item.popularity", "item", "The popularity attribute.")
    yield Feature("item.length", "item", "log(1 + words in its text fields).")
    yield Feature("item.age", "item", "Years from the item's date to the search.")
    for kind in schema.kinds:
        yield Feature(f"item.kind.{kind}", "item", f"1 for a {kind}.")


def _of_query() -> Iterator[Feature]:
    yield Feature("query.words", "query", "Words in the query.")
    yield Feature("query.characters", "query", "Characters in the normalised query.")
    yield Feature("query.confidence", "query", "Confidence of the most likely reading.")
    yield Feature("query.filters", "query", "Filters in the search.")
    yield Feature("query.examples", "query", "Example items in the search.")
    for query_class in QueryClass:
        yield Feature(f"query.class.{query_class}", "query", f"1 for a {query_class} query.")


def _of_engagement() -> Iterator[Feature]:
    rate = "Posterior reward per examined impression of the item"
    yield Feature("engagement.overall", "engagement", f"{rate}.")
    yield Feature("engagement.class", "engagement", f"{rate} within the query class.")
    yield Feature("engagement.query", "engagement", f"{rate} for this very query (Q2E).")
    yield Feature("engagement.dislike", "engagement", "Posterior negative reward, likewise.")
    yield Feature("engagement.examined", "engagement", "log(1 + examined impressions).")
    yield Feature(
        "engagement.query_examined", "engagement", "log(1 + examined impressions) for this query."
    )


def _of_user() -> Iterator[Feature]:
    yield Feature(
        "user.affinity", "user", "Cosine of the item's values with those of the user's history."
    )
    yield Feature("user.engaged", "user", "1 if the user has engaged with the item.")
    yield Feature("user.history", "user", "Items in the user's history.")
