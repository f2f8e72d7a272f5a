import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.collections import Collection, Topic, splits
from evaluation.collections.files import schema
from evaluation.collections.splits import LeakError, Rule, Split
from forage.catalog import Item, Value
from forage.errors import FailedPreconditionError, InvalidArgumentError
from forage.text import normalize

ITEMS = tuple(Item(f"d{n}", "document", {"title": (Value(f"Title {n}"),)}) for n in range(40))


def collection(topics, relevant, **more):
    judgments = {t.query_id: dict.fromkeys(relevant[t.query_id], 1) for t in topics}
    return Collection("small", schema("documents"), ITEMS, tuple(topics), judgments, **more)


def simple(count=10, **fields):
    topics = [Topic(f"q{n}", f"words {n}", **fields) for n in range(count)]
    return collection(topics, {t.query_id: [f"d{n}"] for n, t in enumerate(topics)})


@given(
    texts=st.lists(
        st.sampled_from(["a b", "A  b!", "c", "d", "e", "f g"]), min_size=6, max_size=20
    ),
    items=st.lists(st.integers(0, 39), min_size=20, max_size=20),
    seed=st.integers(0, 5),
)
@settings(max_examples=50)
def test_folds_test_every_topic_once_and_share_no_text(texts, items, seed) -> None:
    topics = [Topic(f"q{n}", text) for n, text in enumerate(texts)]
    made = collection(topics, {t.query_id: [f"d{items[n]}"] for n, t in enumerate(topics)})
    if len({normalize(t) for t in texts}) < 2:
        return

    found = splits.by_query(made, 2, seed)

    assert sorted(t.query_id for s in found for t in s.test) == sorted(t.query_id for t in topics)
    for split in found:
        train = {normalize(t.text) for t in split.train}
        assert not train & {normalize(t.text) for t in split.test}


def test_the_same_seed_gives_the_same_folds_and_another_seed_others() -> None:
    made = simple(20)

    assert splits.by_query(made, 4, 1) == splits.by_query(made, 4, 1)
    assert splits.by_query(made, 4, 1) != splits.by_query(made, 4, 2)


def test_a_test_query_in_training_is_a_leak() -> None:
    made = simple()

    with pytest.raises(LeakError, match="query id 'q0'"):
        Split(made, made.topics, made.topics[:1])


def test_a_test_query_typed_otherwise_in_training_is_a_leak() -> None:
    topics = [Topic("q1", "Star Wars"), Topic("q2", "star-wars!")]
    made = collection(topics, {"q1": ["d1"], "q2": ["d2"]})

    with pytest.raises(LeakError, match="query text 'star wars'"):
        Split(made, made.topics[:1], made.topics[1:])


def test_a_shared_relevant_item_is_a_leak_only_when_documents_are_kept_apart() -> None:
    topics = [Topic("q1", "one"), Topic("q2", "two")]
    made = collection(topics, {"q1": ["d1", "d2"], "q2": ["d2"]})
    split = Split(made, made.topics[:1], made.topics[1:])

    assert split.overlap == 1.0
    assert split.without_shared_documents().train == ()
    with pytest.raises(LeakError, match="relevant item 'd2'"):
        Split(made, made.topics[:1], made.topics[1:], Rule.DOCUMENT)


def test_a_group_on_both_sides_is_a_leak() -> None:
    topics = [Topic("q1", "one", group="g"), Topic("q2", "two", group="g")]
    made = collection(topics, {"q1": ["d1"], "q2": ["d2"]})

    with pytest.raises(LeakError, match="group 'g'"):
        Split(made, made.topics[:1], made.topics[1:])


def test_folds_by_document_keep_linked_topics_together() -> None:
    topics = [Topic(f"q{n}", f"words {n}") for n in range(8)]
    relevant = {f"q{n}": [f"d{n // 2}"] for n in range(8)}
    made = collection(topics, relevant)

    for split in splits.by_document(made, 4, 0):
        assert len(split.test) == 2
        assert made.relevant(split.test[0]) == made.relevant(split.test[1])


def test_folds_by_document_are_refused_where_everything_is_linked() -> None:
    topics = [Topic(f"q{n}", f"words {n}") for n in range(8)]
    made = collection(topics, {t.query_id: ["d0"] for t in topics})

    with pytest.raises(FailedPreconditionError, match="8 of 8 topics are linked"):
        splits.by_document(made, 4, 0)


def test_folds_by_user_keep_users_apart() -> None:
    topics = [Topic(f"q{n}", "", user_id=f"u{n % 3}") for n in range(9)]
    made = collection(topics, {t.query_id: ["d0"] for t in topics})

    for split in splits.by_user(made, 3, 0):
        assert not {t.user_id for t in split.train} & {t.user_id for t in split.test}


def test_a_split_by_time_trains_on_the_past_only() -> None:
    topics = [Topic(f"q{n}", f"words {n}", time=float(n // 2)) for n in range(10)]
    made = collection(topics, {t.query_id: ["d0"] for t in topics})

    split = splits.by_time(made, test_share=0.3)

    assert max(t.time for t in split.train) < min(t.time for t in split.test)
    with pytest.raises(LeakError, match="time '4'"):
        Split(made, made.topics[-1:], made.topics[:1], Rule.TIME)


def test_leaving_out_each_users_last_topic_trains_on_what_came_before() -> None:
    topics = [Topic(f"q{n}", "", user_id=f"u{n % 2}", time=float(n)) for n in range(6)]
    made = collection(topics, {t.query_id: ["d0"] for t in topics})

    split = splits.last_per_user(made)

    assert [t.query_id for t in split.test] == ["q4", "q5"]
    with pytest.raises(LeakError, match="time '4'"):
        Split(made, made.topics[4:5], made.topics[:1], Rule.LAST)


def test_the_official_split_drops_training_topics_that_repeat_a_test_topic() -> None:
    topics = [Topic("q1", "same"), Topic("q2", "other"), Topic("q3", "Same.")]
    parts = {"q1": "train", "q2": "train", "q3": "test"}
    made = collection(topics, {t.query_id: ["d0"] for t in topics}, parts=parts)

    split = splits.official(made)

    assert [t.query_id for t in split.train] == ["q2"]
    with pytest.raises(InvalidArgumentError, match="no part 'dev'"):
        splits.official(made, test="dev")
