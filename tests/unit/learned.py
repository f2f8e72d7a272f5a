"""What a learner has learned from a log and published, for the tests of its projection."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from forage.lease import FileLease
from forage.log import Event, Topic
from forage.log.sqlite import SqliteEventLog
from forage.registry import DirectoryRegistry
from orchestrator.bandit import Snapshot
from orchestrator.learning import POLICY, PolicyProjection
from orchestrator.settings import OrchestratorSettings
from tests.unit.orchestrator_decisions import (
    configured,
    decided,
    feedback,
    search,
)

DELAY = 10.0


def config(folder: Path, **changes) -> OrchestratorSettings:
    return configured(data_dir=folder, **{"learner": {"delay_s": DELAY}, **changes})


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
