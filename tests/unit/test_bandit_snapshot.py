"""Snapshots keep what was learned to the last bit, and refuse what they are not."""

import struct

import numpy as np
import pytest

from orchestrator.bandit import (
    Engagement,
    Learner,
    LearnerSettings,
    Levels,
    PlanContext,
    Snapshot,
    SnapshotDamagedError,
    SnapshotMismatchError,
    SnapshotNewerError,
    ThompsonPolicy,
    derive_rng,
    observe,
)

LEVELS = Levels((0, 10, 50))
TWO = ("lexical", "graph")
FEATURES = ("bias", "words", "typed")
DAY = 86_400.0


def settings(**change):
    given = {
        "generators": TWO,
        "features": FEATURES,
        "feature_version": "7",
        "levels": LEVELS,
        "hit_rates": {"lexical": 0.6},
        "params": {"price": 0.001},
    }
    return LearnerSettings(**(given | change))


def observation(rng):
    phi = np.hstack([np.ones((2, 1)), rng.normal(size=(2, 2))])
    engaged = [Engagement(float(rng.random()), {"lexical": int(rng.integers(1, 80))})]
    executed = {"lexical": 50, "graph": 10}
    return observe(LEVELS, TWO, phi, executed=executed, engagements=engaged)


def teach(learner, *, rounds, start=1.7e9, first=1, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(rounds):
        learner.observe(observation(rng), time=start + i * 600.0, sequence=first + i)
        learner.safeguard.observe("learned", 0.5, time=start + i * 600.0)
    return learner


def test_a_snapshot_survives_the_round_trip_to_the_last_bit():
    snapshot = teach(Learner(settings()), rounds=40).snapshot()

    again = Snapshot.from_bytes(snapshot.to_bytes())

    assert again.to_bytes() == snapshot.to_bytes()
    assert again.digest() == snapshot.digest()
    assert (again.version, again.sequence, again.features) == (1, 40, FEATURES)
    for name in ("mean", "precision", "covariance", "prior_mean", "labels"):
        assert np.array_equal(getattr(again.hazard, name), getattr(snapshot.hazard, name))
        assert np.array_equal(getattr(again.linear, name), getattr(snapshot.linear, name))
    assert again.params == {"price": 0.001}


def test_a_decision_replays_from_the_stored_snapshot():
    snapshot = teach(Learner(settings()), rounds=40).snapshot()
    cost = np.array([[0, 10, 50]] * 2)
    here = PlanContext(TWO, FEATURES, np.ones((2, 3)), LEVELS, np.ones((2, 3), bool), cost, 60)

    first = ThompsonPolicy(snapshot.hazard).choose(here, derive_rng(1, "r", "plan"))
    stored = Snapshot.from_bytes(snapshot.to_bytes())
    again = ThompsonPolicy(stored.hazard).choose(here, derive_rng(1, "r", "plan"))

    assert np.array_equal(first.utilities, again.utilities)
    assert first.action == again.action


def test_a_learner_restored_in_the_middle_ends_where_one_that_never_stopped_ends():
    whole = teach(teach(Learner(settings()), rounds=30), rounds=30, start=1.7e9 + DAY, seed=1)

    half = teach(Learner(settings()), rounds=30)
    stored = Snapshot.from_bytes(half.snapshot().to_bytes())
    resumed, notes = Learner.restore(settings(), stored)
    teach(resumed, rounds=30, start=1.7e9 + DAY, seed=1)

    assert notes == []
    assert np.array_equal(resumed.hazard.mean, whole.hazard.mean)
    assert np.array_equal(resumed.hazard.covariance, whole.hazard.covariance)
    assert resumed.safeguard.to_state() == whole.safeguard.to_state()


def test_learning_on_leaves_a_published_snapshot_as_it_was():
    learner = teach(Learner(settings()), rounds=5)
    snapshot = learner.snapshot()
    before = snapshot.digest()

    teach(learner, rounds=20, start=1.8e9, seed=2)

    assert snapshot.digest() == before
    assert learner.snapshot().version == snapshot.version + 1


@pytest.mark.parametrize("keep", [0, 3, 8, 40, 60, 500, -1])
def test_a_truncated_snapshot_is_refused(keep):
    data = teach(Learner(settings()), rounds=3).snapshot().to_bytes()

    with pytest.raises(SnapshotDamagedError):
        Snapshot.from_bytes(data[:keep])


@pytest.mark.parametrize("position", [20, 45, 200, -8])
def test_a_flipped_bit_is_noticed(position):
    data = bytearray(teach(Learner(settings()), rounds=3).snapshot().to_bytes())
    data[position] ^= 1

    with pytest.raises(SnapshotDamagedError):
        Snapshot.from_bytes(bytes(data))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" + b"x" * 200, b"\x80\x04" + b"." * 100])
def test_a_foreign_file_is_refused(data):
    with pytest.raises(SnapshotDamagedError, match="signature"):
        Snapshot.from_bytes(data)


def test_a_snapshot_of_a_newer_release_says_so():
    data = bytearray(Learner(settings()).snapshot().to_bytes())
    data[8:12] = struct.pack("<I", 99)

    with pytest.raises(SnapshotNewerError, match="format 99"):
        Snapshot.from_bytes(bytes(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ("bias", "words", "other")}, "other"),
        ({"features": ("bias", "typed", "words")}, "order"),
        ({"feature_version": "8"}, "version '7', not '8'"),
        ({"levels": Levels((0, 10, 25))}, "levels"),
    ],
)
def test_other_features_or_levels_are_refused_or_started_anew(change, message):
    snapshot = teach(Learner(settings()), rounds=10).snapshot()
    changed = settings(**change)

    with pytest.raises(SnapshotMismatchError, match=message):
        snapshot.require(
            features=changed.features,
            feature_version=changed.feature_version,
            levels=changed.levels,
        )
    learner, notes = Learner.restore(changed, snapshot)

    assert len(notes) == 1
    assert "starting from the prior" in notes[0]
    assert learner.hazard.labels.sum() == 0
    assert learner.sequence == 0
    assert learner.snapshot().version == snapshot.version + 1


def test_a_generator_the_snapshot_does_not_know_starts_at_its_prior():
    snapshot = teach(Learner(settings()), rounds=10).snapshot()

    learner, notes = Learner.restore(settings(generators=(*TWO, "memory")), snapshot)

    assert notes == ["generator memory is new: starting from its prior"]
    assert np.array_equal(learner.hazard.mean[:2], snapshot.hazard.mean)
    assert np.array_equal(learner.hazard.mean[2], learner.hazard.prior_mean[2])


def test_a_new_learner_says_that_it_starts_from_the_prior():
    learner, notes = Learner.restore(settings(), None)

    assert notes == ["no snapshot: starting from the prior"]
    assert learner.sequence == 0


def test_forgetting_depends_on_event_time_and_not_on_batches():
    often, seldom = (teach(Learner(settings(half_life_s=DAY)), rounds=10) for _ in range(2))
    start = 1.7e9 + 9 * 600

    for hour in range(1, 49):
        often.advance(time=start + hour * 3_600.0, sequence=10)
    seldom.advance(time=start + 48 * 3_600.0, sequence=10)

    assert often.hazard.mean == pytest.approx(seldom.hazard.mean)
    assert often.hazard.precision == pytest.approx(seldom.hazard.precision)
    untouched = teach(Learner(settings(half_life_s=DAY)), rounds=10).hazard
    gained = untouched.precision[0, 0, 0, 0] - 1
    assert seldom.hazard.precision[0, 0, 0, 0] - 1 == pytest.approx(gained / 4, rel=0.01)


def test_a_changed_generator_is_believed_less():
    learner = teach(Learner(settings()), rounds=30)
    before = learner.hazard.frozen()

    learner.generator_changed("lexical", keep=0.1)

    assert (learner.hazard.covariance[0, :, 0, 0] > before.covariance[0, :, 0, 0]).all()
    assert np.array_equal(learner.hazard.mean[1], before.mean[1])


@pytest.mark.parametrize("bad", [{"half_life_s": 0}, {"discount_step_s": 0}])
def test_learner_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="above 0"):
        settings(**bad)


def test_a_time_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="finite"):
        Learner(settings()).advance(time=float("nan"), sequence=1)
