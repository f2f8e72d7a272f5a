"""Both engines against each other, and against a slow oracle that reads the items themselves."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forage.catalog.filters import matches
from forage.catalog.item import Item, Value
from forage.retrieval import Deadline, Filter, Interpretation, Query, Retrieval, Slot
from forage.testing import catalog
from forage.testing.bench import Bench
from generators.lexical.analysis import words as cut
from generators.lexical.layout import Layout, tie
from generators.lexical.query_language import QueryLanguage
from generators.lexical.retriever import LexicalRetriever
from generators.lexical.settings import ExpansionSettings, LexicalSettings
from generators.lexical.tree import Exactly, Group, Node, Phrase, Range, Words

LAYOUT = Layout.of(catalog.SCHEMA)
LITERAL = ExpansionSettings(stem=0, prefix=0, typo=0)
WORDS = st.sampled_from(
    sorted({w for i in catalog.items() for a in LAYOUT.texts for t in i.texts(a) for w in cut(t)})
)
TYPED = st.builds(
    lambda word, cut, tail: word[: max(1, len(word) - cut)] + tail,
    WORDS,
    st.integers(0, 3),
    st.sampled_from(["", "s", "x", "ing"]),
)
FIELD = st.sampled_from(["", "", "", "title:", "cast:", "synopsis:", "genre:"])
CLAUSE = st.one_of(
    st.builds(str.__add__, FIELD, TYPED),
    st.builds('{}"{} {}"'.format, FIELD, WORDS, WORDS),
    st.sampled_from(
        ['"copper moon"', "year:>2000", "year:[1990 TO 2005]", "language:French", "kind:film",
         "popularity:<0.5", "released:2001..2012", '"mara ellwood"', "cast:(jun OR kit)"]
    ),
)  # fmt: skip
TEXT = st.lists(
    st.builds("{}{}".format, st.sampled_from(["", "", "", "-", "+", "NOT "]), CLAUSE), max_size=4
).flatmap(lambda parts: st.sampled_from([" ", " AND ", " OR "]).map(lambda by: by.join(parts)))
FILTERS = st.just(()) | st.sampled_from(list(catalog.FILTERS.values()))
SURE = st.sampled_from([0.2, 0.5, 1.0])
SLOT = st.builds(
    Slot,
    st.sampled_from(["cast", "genre", "director", "title", "nonsense"]),
    st.sampled_from(["Mara Ellwood", "drama", "lantern festival", "Nobody"]),
    SURE,
) | st.builds(
    Slot, st.just("year"), st.sampled_from(["1994", "1990..1999", "1979..2010", "1850"]), SURE
)
READINGS = st.lists(
    st.builds(lambda slots: Interpretation(tuple(slots), "", 0.5), st.lists(SLOT, max_size=3)),
    max_size=2,
).map(tuple)


def open_bench(folder: Path, **chosen: object) -> Iterator[Bench]:
    made = LexicalSettings.model_validate({"data_dir": folder, **chosen})
    bench = Bench(folder, lambda _, runtime: LexicalRetriever.open(made, runtime))
    try:
        bench.upsert(*catalog.items())
        bench.start()
        yield bench
    finally:
        bench.close()


@pytest.fixture(scope="module", params=["tantivy", "whoosh"])
def literal(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    yield from open_bench(
        tmp_path_factory.mktemp("literal"),
        engine=request.param,
        expansion=LITERAL,
        title_exact=0.0,
        popularity_weight=0.7,
    )


@pytest.fixture(scope="module")
def tantivy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    yield from open_bench(tmp_path_factory.mktemp("tantivy"), engine="tantivy")


@pytest.fixture(scope="module")
def whoosh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    yield from open_bench(tmp_path_factory.mktemp("whoosh"), engine="whoosh")


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXT, filters=FILTERS, readings=READINGS, limit=st.sampled_from([5, 100]))
def test_both_engines_give_the_same_answer(
    tantivy: Bench,
    whoosh: Bench,
    text: str,
    filters: tuple[Filter, ...],
    readings: tuple[Interpretation, ...],
    limit: int,
) -> None:
    query = Query(text=text, filters=filters, interpretations=readings)

    assert tantivy.retrieve(query, limit) == whoosh.retrieve(query, limit)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(text=TEXT, filters=FILTERS)
def test_an_engine_agrees_with_reading_the_items_one_by_one(
    literal: Bench, text: str, filters: tuple[Filter, ...]
) -> None:
    found = literal.retrieve(Query(text=text, filters=filters), limit=100)

    expected = Oracle(list(literal.items.values()), weight=0.7).search(text, filters)
    assert [h.item_id for h in found.hits] == [item_id for item_id, _ in expected]
    assert [h.score for h in found.hits] == pytest.approx([score for _, score in expected])


class Oracle:
    """Answers from the items alone: what the generator should say without any expansion."""

    def __init__(self, items: list[Item], *, weight: float) -> None:
        self.items = items
        self.weight = weight
        self.parse = QueryLanguage(LAYOUT).parse
        self.average = {
            f: sum(len(self.tokens(i, f)) for i in items) / len(items) for f in LAYOUT.texts
        }

    def search(self, text: str, filters: tuple[Filter, ...]) -> list[tuple[str, float]]:
        node = self.parse(text)
        scored: list[tuple[str, float]] = []
        words = [] if node is None else list(self.words(node))
        scores_words = any(self.frequency(w, f) for w, f in words)
        for item in self.items:
            if matches(item, filters) and (node is None or self.holds(node, item)):
                prior = math.log2(2 + self.weight * (item.number("popularity") or 0.0))
                sums = sum(self.bm25(item, w, f) for w, f in dict.fromkeys(words))
                scored.append((item.item_id, prior * (sums if scores_words else 1.0)))
        return sorted(scored, key=lambda found: (-round(found[1], 9), -tie(found[0])))

    def words(self, node: Node) -> Iterator[tuple[str, str]]:
        if isinstance(node, Group):
            for child in (*node.required, *node.optional):
                yield from self.words(child)
        elif isinstance(node, Words | Phrase):
            for word in cut(node.text):
                yield from ((word, f) for f in LAYOUT.texts if node.field in ("", f))

    def holds(self, node: Node, item: Item) -> bool:
        match node:
            case Group():
                if any(self.holds(n, item) for n in node.excluded):
                    return False
                if node.required:
                    return all(self.holds(n, item) for n in node.required)
                return not node.optional or any(self.holds(n, item) for n in node.optional)
            case Words():
                return any(w in self.tokens(item, f) for w, f in self.words(node))
            case Phrase():
                fields = [node.field] if node.field else LAYOUT.texts
                sought = f" {' '.join(cut(node.text))} "
                texts = (t for f in fields for t in item.texts(f))
                return any(sought in f" {' '.join(cut(t))} " for t in texts)
            case Exactly("kind", value):
                return item.kind == value
            case Exactly(field, value):
                return value.casefold() in {t.casefold() for t in item.texts(field)}
            case Range(field, low, high, low_included, high_included):
                return any(
                    (low is None or n > low or (low_included and n == low))
                    and (high is None or n < high or (high_included and n == high))
                    for n in (float(v.value) for v in item.values(field))
                )
        raise AssertionError(node)

    def tokens(self, item: Item, field: str) -> list[str]:
        return [word for text in item.texts(field) for word in cut(text)]

    def frequency(self, word: str, field: str) -> int:
        return sum(word in self.tokens(item, field) for item in self.items)

    def bm25(self, item: Item, word: str, field: str) -> float:
        tokens = self.tokens(item, field)
        count, frequency = tokens.count(word), self.frequency(word, field)
        if not count:
            return 0.0
        idf = math.log(1 + (len(self.items) - frequency + 0.5) / (frequency + 0.5))
        norm = 1.2 * (1 - 0.75 + 0.75 * len(tokens) / self.average[field])
        boost = catalog.SCHEMA.attributes[field].boost
        return boost * idf * count * 2.2 / (count + norm)


def retrieve(bench: Bench, text: str, depth: int) -> Retrieval:
    made = LexicalSettings(data_dir=bench.data_dir, depth=depth, max_limit=50)
    projection = bench.generator.projections[0]
    return LexicalRetriever(projection, LAYOUT, made).retrieve(
        Query(text=text), 50, Deadline.after(30.0)
    )


def many_items(count: int) -> list[Item]:
    words = ["moon", "rain", "tin", "city", "copper", "lantern", "orbit", "song"]
    pick = partial(divmod, 7919)
    items = []
    for number in range(count):
        title = " ".join(words[(number * (k + 3) // (k + 1)) % 8] for k in range(1 + number % 5))
        popularity = 0.0 if number % 3 else pick(number + 1)[1] % 101 / 100
        attributes = {
            "title": (Value(f"{title} {number}"),),
            "synopsis": (Value(f"{words[number % 7]} {title}"),),
            "popularity": (Value(float(popularity)),),
        }
        items.append(Item(f"film:{number}", "film", attributes))
    return items


@pytest.mark.parametrize("text", ["moon", "copper rain", "tin -orbit", "lantern city song", ""])
def test_handing_over_twice_the_limit_loses_none_of_the_best(tantivy: Bench, text: str) -> None:
    bench = tantivy
    if len(bench.items) < 3_000:
        bench.upsert(*many_items(3_000))

    few, all_of_them = retrieve(bench, text, depth=100), retrieve(bench, text, depth=10_000)

    assert len(few.hits) == 50
    assert few.hits == all_of_them.hits
