"""The learner as a projection: a log gives one posterior, and only its holder publishes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forage.errors import StorageError
from forage.lease import FileLease
from forage.log import Event, Topic
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry
from orchestrator.bandit import Snapshot
from orchestrator.learning import LEASE, POLICY, PolicyProjection
from orchestrator.settings import OrchestratorSettings
from tests.unit.orchestrator_decisions import (
    NAMES,
    TIMED_OUT,
    configured,
    decided,
    feedback,
    page,
    search,
)

DELAY = 10.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog.open(tmp_path / "log.db")
    yield log
    log.close()


def config(folder: Path, **changes) -> OrchestratorSettings:
    return configured(data_dir=folder, learner={"delay_s": DELAY}, **changes)


class Learned:
    """A policy projection over a log, with what it published."""

    def __init__(self, log: SqliteEventLog, folder: Path, *, lease=True, **changes) -> None:
        self.settings = config(folder, **changes)
        self.log = log
        self.rewards: list[tuple[str, float]] = []
        self.now = 0.0
        self.registry = DirectoryRegistry(folder / "registry")
        self.lease = FileLease(folder / "leases") if lease else None
        self.projection = PolicyProjection(
            self.settings,
            log,
            self.registry,
            self.lease,
            on_reward=lambda policy, reward: self.rewards.append((policy, reward)),
            clock=lambda: self.now,
        )
        self.after = 0

    def follow(self, *, batch: int = 1_000, most: int = 10**9) -> Learned:
        for _ in range(most):
            records = self.log.read(Topic.INTERACTIONS, self.after, batch)
            if not records:
                break
            self.projection.apply(records)
            self.after = records[-1].sequence
        return self

    def restart(self, folder: Path) -> Learned:
        self.projection.checkpoint(self.after)
        again = Learned(self.log, folder)
        again.after = again.projection.restore()
        assert again.after == self.after
        return again

    def publish(self) -> Snapshot | None:
        """Let time pass, publish if due, and return the current snapshot."""
        self.now += 10.0
        self.projection.publish_if_due()
        if self.registry.current(POLICY) is None:
            return None
        return Snapshot.from_bytes(self.registry.load(POLICY)[1])

    def labels(self) -> dict[str, float]:
        hazard = self.projection._learner.hazard
        return dict(zip(hazard.generators, hazard.labels.sum(axis=1).tolist(), strict=True))

    def beliefs(self) -> bytes:
        """Return the posterior's numbers, apart from the count of snapshots."""
        hazard = self.projection._learner.hazard
        linear = self.projection._learner.linear
        safeguard = json.dumps(self.projection._learner.safeguard.to_state(), sort_keys=True)
        arrays = [a.tobytes() for p in (hazard, linear) for a in (p.mean, p.covariance, p.labels)]
        return b"".join([*arrays, safeguard.encode()])


CONFIG = configured(learner={"delay_s": DELAY})


def later(name: str, at: float) -> Event:
    """Return a search that lets time pass."""
    return search(decided(CONFIG, name, at=at))


def mean(learned: Learned, generator: str, bucket: int = 0) -> float:
    hazard = learned.projection._learner.hazard
    return float(hazard.mean[hazard.generators.index(generator), bucket, 0])


def test_nothing_is_learned_before_the_feedback_is_thought_complete(log, tmp_path):
    learned = Learned(log, tmp_path)
    log.append([search(decided(CONFIG, "r1", at=0)), feedback("e1", "r1", "item:1", at=1)])
    learned.follow()
    waiting = learned.projection.observations
    log.append([later("r2", DELAY - 0.1)])
    learned.follow()
    nearly = learned.projection.observations
    log.append([later("r3", DELAY)])
    learned.follow()

    assert (waiting, nearly) == (0, 0)
    assert learned.projection.observations > 0
    assert learned.rewards == [("static", 1.0)]


def test_the_clocks_of_clients_do_not_end_the_waiting(log, tmp_path):
    learned = Learned(log, tmp_path)
    log.append([search(decided(CONFIG, "r1", at=0)), search(decided(CONFIG, "r2", at=1))])
    log.append([feedback("e1", "r1", "item:1", at=250), feedback("e2", "r2", "item:1", at=2)])
    learned.follow()

    assert learned.projection.observations == 0


def test_whoever_found_the_engaged_item_gains_and_the_others_lose(log, tmp_path):
    learned = Learned(log, tmp_path)
    before = [mean(learned, name) for name in NAMES]
    log.append([search(decided(CONFIG, "r1", at=0)), feedback("e1", "r1", "item:1", at=1)])
    log.append([later("r2", 60)])
    learned.follow()
    after = [mean(learned, name) for name in NAMES]

    # item:1 was first in lexical's list and tenth in semantic's; memory did not have it.
    assert after[0] > before[0]
    assert after[1] > before[1]
    assert after[2] < before[2]


def test_a_generator_that_did_not_answer_is_not_learned_of(log, tmp_path):
    learned = Learned(log, tmp_path)
    before = mean(learned, "memory")
    statuses = {"memory": TIMED_OUT}
    log.append([search(decided(CONFIG, "r1", at=0, statuses=statuses)), later("r2", 60)])
    learned.follow()

    assert mean(learned, "memory") == before
    assert learned.labels()["memory"] == 0
    assert learned.labels()["lexical"] > 0


def test_an_event_that_comes_twice_counts_once(log, tmp_path):
    events = [search(decided(CONFIG, "r1", at=0)), feedback("e1", "r1", "item:1", at=1)]
    log.append(events)
    log.append(events)
    log.append([later("r2", 60)])
    learned = Learned(log, tmp_path).follow()
    before = learned.beliefs()

    learned.projection.apply(log.read(Topic.INTERACTIONS, 0, 100))

    assert learned.beliefs() == before
    assert learned.rewards == [("static", 1.0)]


def test_the_best_engagement_with_an_item_counts_and_dislikes_take_nothing(log, tmp_path):
    log.append([search(decided(CONFIG, "r1", at=0))])
    log.append([feedback("e1", "r1", "item:1", at=1, kind=1)])
    log.append([feedback("e2", "r1", "item:1", at=2, kind=2)])
    log.append([feedback("e3", "r1", "item:1", at=3, kind=5)])
    log.append([later("r2", 60)])

    assert Learned(log, tmp_path).follow().rewards == [("static", 1.0)]


def test_an_engagement_further_down_is_worth_less(log, tmp_path):
    log.append([search(decided(CONFIG, "r1", at=0)), feedback("e1", "r1", "item:3", at=1)])
    log.append([later("r2", 60)])

    assert Learned(log, tmp_path).follow().rewards == [("static", pytest.approx(0.5))]


def test_an_engagement_on_a_later_page_is_credited_to_the_search(log, tmp_path):
    root = decided(CONFIG, "r1", at=0)
    root.later.add(item_id="item:late", position=11).provenance.add(generator="memory", rank=3)
    log.append([search(root), search(page(root, at=2, item_id="item:late"))])
    log.append([feedback("e1", "r1~10~10", "item:late", at=3), later("r2", 60)])
    learned = Learned(log, tmp_path)
    before = mean(learned, "memory")
    learned.follow()

    assert mean(learned, "memory") > before
    assert learned.rewards == [("static", pytest.approx(1 / np.log2(12)))]


def test_feedback_that_comes_late_corrects_what_was_learned(log, tmp_path):
    log.append([search(decided(CONFIG, "r1", at=0)), later("r2", 60)])
    learned = Learned(log, tmp_path).follow()
    unengaged, memory = mean(learned, "lexical"), mean(learned, "memory")
    log.append([feedback("e1", "r1", "item:1", at=61)])
    learned.follow()

    assert mean(learned, "lexical") > unengaged
    assert mean(learned, "memory") == memory


def test_a_search_is_corrected_only_if_it_was_learned_as_unengaged_and_only_once(log, tmp_path):
    log.append([search(decided(CONFIG, "r1", at=0)), feedback("e1", "r1", "item:1", at=1)])
    log.append([search(decided(CONFIG, "r2", at=2)), later("r3", 60)])
    log.append([feedback("e2", "r2", "item:1", at=61)])
    learned = Learned(log, tmp_path).follow()
    before = learned.beliefs()

    log.append([feedback("e3", "r1", "item:2", at=70), feedback("e4", "r2", "item:2", at=71)])
    learned.follow()

    assert learned.beliefs() == before


def long_story(seed: int = 0) -> list[Event]:
    """Return a few dozen searches with and without engagement, in time and late."""
    rng = np.random.default_rng(seed)
    policies = ["static", "thompson", "full", "uniform"]
    events: list[Event] = []
    for n in range(30):
        at = 3.0 * n
        policy = policies[int(rng.integers(4))]
        events.append(search(decided(CONFIG, f"r{n}", at=at, policy=policy)))
        if rng.random() < 0.6:
            item = f"item:{rng.integers(1, 6)}"
            events.append(feedback(f"e{n}", f"r{n}", item, at=at + 1, kind=int(rng.integers(1, 6))))
        if n > 10 and rng.random() < 0.3:
            events.append(feedback(f"late{n}", f"r{n - 8}", "item:2", at=at + 2))
    return events


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.sets(st.integers(0, 20)))
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_log_gives_the_same_beliefs_to_the_last_bit_however_it_is_read(
    tmp_path_factory, batches, restarts
):
    folder = tmp_path_factory.mktemp("learning")
    log = SqliteEventLog.open(folder / "log.db")
    log.append(long_story())
    whole = Learned(log, folder / "whole").follow()

    pieces = Learned(log, folder / "pieces")
    for step, batch in enumerate(batches):
        pieces.follow(batch=batch, most=1)
        if step in restarts:
            pieces = pieces.restart(folder / "pieces")
    pieces.follow()
    log.close()

    assert pieces.beliefs() == whole.beliefs()
    assert pieces.projection._pending.keys() == whole.projection._pending.keys()


def test_a_checkpoint_keeps_the_searches_that_wait_and_their_rewards(log, tmp_path):
    log.append([search(decided(CONFIG, "r1", at=0)), feedback("e1", "r1", "item:1", at=1)])
    learned = Learned(log, tmp_path).follow().restart(tmp_path)
    log.append([later("r2", 60)])

    assert learned.follow().rewards == [("static", 1.0)]


def test_a_checkpoint_of_many_waiting_searches_is_small(log, tmp_path):
    log.append([search(decided(CONFIG, f"r{n}", at=n / 100)) for n in range(300)])
    learned = Learned(log, tmp_path).follow()
    empty = Learned(log, tmp_path / "other")
    empty.projection.checkpoint(0)
    learned.projection.checkpoint(learned.after)

    sizes = [
        next((folder / "orchestrator.policy").iterdir()).stat().st_size
        for folder in (tmp_path, tmp_path / "other")
    ]
    assert sizes[0] - sizes[1] < 300 * 50


@pytest.mark.parametrize("changed", [{"fan_outs": (0, 10, 50, 200)}, {"fan_outs": (0, 50)}])
def test_decisions_with_other_levels_are_passed_over(log, tmp_path, changed):
    log.append(long_story())
    Learned(log, tmp_path).follow().restart(tmp_path)
    plan = {**changed, "static": {"lexical": 50}, "presets": [{"lexical": 50}]}
    learned = Learned(log, tmp_path, plan=plan)

    assert learned.projection.restore() == 0
    learned.follow()
    assert learned.projection.observations == 0


def test_a_generator_that_is_gone_is_still_read_from_old_decisions(log, tmp_path):
    log.append(long_story())
    fewer = {
        "generators": {n: {"target": "127.0.0.1:1"} for n in NAMES[:2]},
        "plan": {"static": {"lexical": 10}, "presets": [{"lexical": 10}]},
    }
    learned = Learned(log, tmp_path, **fewer).follow()

    assert learned.projection.observations > 0


def publishing(log: SqliteEventLog, folder: Path, events: Sequence[Event] = ()) -> Learned:
    log.append(list(events) or long_story())
    return Learned(log, folder).follow()


def test_what_was_learned_is_published_at_most_as_often_as_configured(log, tmp_path):
    learned = publishing(log, tmp_path)
    first = learned.publish()
    log.append([later("more", 500)])
    learned.follow()
    learned.now += 0.1
    learned.projection.publish_if_due()
    too_soon = learned.registry.current(POLICY)
    second = learned.publish()
    learned.publish()
    unchanged = learned.registry.current(POLICY)

    assert first is not None
    assert second is not None
    assert too_soon is not None
    assert unchanged is not None
    assert (too_soon.version, unchanged.version) == (1, 2)
    assert second.sequence > first.sequence


def test_without_a_lease_nothing_is_published(log, tmp_path):
    log.append(long_story())
    learned = Learned(log, tmp_path, lease=False).follow()

    assert learned.publish() is None


def test_only_one_of_two_learners_publishes_until_it_lets_go(log, tmp_path):
    mine = publishing(log, tmp_path)
    yours = Learned(log, tmp_path).follow()
    mine.publish()
    yours.publish()
    alone = mine.registry.current(POLICY)
    mine.projection.release()
    yours.publish()
    taken_over = mine.registry.current(POLICY)

    assert alone is not None
    assert taken_over is not None
    assert (alone.version, taken_over.version) == (1, 2)
    assert mine.beliefs() == yours.beliefs()


class Overtaken(DirectoryRegistry):
    """A registry in which another learner publishes just before this one does."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.overtake = True

    def current(self, kind):
        found = super().current(kind)
        if self.overtake:
            self.overtake = False
            super().publish(kind, b"theirs", {}, expected_current=found.version if found else None)
        return found


def test_a_snapshot_that_was_overtaken_is_dropped_and_the_next_one_published(log, tmp_path):
    learned = publishing(log, tmp_path)
    learned.projection._registry = registry = Overtaken(tmp_path / "registry")
    learned.now += 10
    learned.projection.publish_if_due()
    overtaken = registry.load(POLICY)[1]
    snapshot = learned.publish()

    assert overtaken == b"theirs"
    assert snapshot is not None
    assert snapshot.sequence > 0


class Full(DirectoryRegistry):
    """A registry on a full disk."""

    def publish(self, *args, **kwargs):
        raise StorageError("no space left on device")


def test_what_could_not_be_published_is_published_later(log, tmp_path):
    learned = publishing(log, tmp_path)
    registry, learned.projection._registry = learned.registry, Full(tmp_path / "registry")
    learned.now += 10
    with pytest.raises(StorageError):
        learned.projection.publish_if_due()
    learned.projection._registry = registry

    assert learned.publish() is not None
    assert LEASE == "learner"


def test_silence_alone_teaches_little_so_that_robots_do_not_empty_the_plan(log, tmp_path):
    log.append([search(decided(CONFIG, f"silent-{n}", at=n * 60.0)) for n in range(300)])

    learned = Learned(log, tmp_path).follow()
    again = learned.restart(tmp_path)
    log.append([search(decided(CONFIG, f"later-{n}", at=1e6 + n * 60.0)) for n in range(50)])

    assert 0 < len(learned.rewards) <= 20
    assert again.follow().rewards == []
