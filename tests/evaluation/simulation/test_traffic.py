"""The stream of requests: shares, repeats, and what is kept from training."""

import numpy as np
import pytest

from evaluation.simulation import traffic
from evaluation.simulation.invented import invented_collection
from evaluation.simulation.needs import film_collection, misspell, strangers


@pytest.fixture(scope="module")
def topics():
    return invented_collection(films=80, needs=15).topics


def test_kinds_have_their_shares(topics):
    mix = traffic.Mix()
    weights = traffic.popularity(topics, mix, seed=1)
    for kind, share in mix.shares.items():
        of_kind = sum(w for t, w in zip(topics, weights, strict=True) if t.kind == kind)

        assert of_kind == pytest.approx(share)


def test_repeats_follow_zipf(topics):
    weights = traffic.popularity(topics, traffic.Mix(zipf=1.0), seed=1)
    titles = sorted((w for t, w in zip(topics, weights, strict=True) if t.kind == "title"))[::-1]

    assert titles[0] / titles[3] == pytest.approx(4.0)


def test_no_held_out_need_and_no_other_of_its_group_is_asked_before_the_cut(topics):
    groups = traffic.held_out_groups(topics, share=0.35, seed=1)
    allowed = np.array([(t.group or t.query_id) not in groups for t in topics])
    early = traffic.stream(
        topics, allowed, 5_000, start=0.0, mix=traffic.Mix(), seed=2, order_seed=1
    )
    asked = {topics[i].group or topics[i].query_id for i in early.questions.tolist()}
    users = {topics[i].user_id for i in early.questions.tolist()} - {""}

    assert 0 < len(groups) < len(topics)
    assert not asked & groups
    assert not users & groups


def test_the_same_seed_gives_the_same_stream(topics):
    allowed = np.ones(len(topics), bool)
    streams = [
        traffic.stream(topics, allowed, 100, start=0.0, mix=traffic.Mix(), seed=2, order_seed=1)
        for _ in range(2)
    ]

    assert (streams[0].questions == streams[1].questions).all()
    assert (np.diff(streams[0].times) > 0).all()


def test_misspelt_text_is_another_text_of_about_the_same_length():
    rng = np.random.default_rng(1)
    changed = [misspell("golden harbor", rng) for _ in range(50)]

    assert sum(text != "golden harbor" for text in changed) > 40
    assert all(abs(len(text) - 13) <= 1 for text in changed)


def test_strangers_are_users_of_whom_the_traffic_has_nothing(judged):
    collection = film_collection(judged)

    others = strangers(judged, collection)

    users = {t.user_id for t in collection.topics if t.user_id}
    assert not users & {t.user_id for t in others.topics}
    assert len(users) == 300
    assert len(others.topics) > 400
    # Two needs each, one after the other.
    kinds = [(t.user_id, t.kind) for t in others.topics]
    assert kinds[::2] == [(user, "browse") for user, _ in kinds[::2]]
    assert kinds[1::2] == [(user, "next") for user, _ in kinds[::2]]
