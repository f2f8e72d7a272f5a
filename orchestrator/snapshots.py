"""The policy snapshot in use: read from the registry, swapped when the learner publishes."""

from __future__ import annotations

from functools import lru_cache

from forage.errors import FailedPreconditionError, NotFoundError
from forage.registry import Registry
from orchestrator.bandit import Learner, Levels, Snapshot
from orchestrator.context import FEATURE_VERSION, FEATURES
from orchestrator.learning import POLICY, bandit_settings
from orchestrator.planner import Versioned
from orchestrator.settings import OrchestratorSettings


class Snapshots:
    """Holds the current snapshot; many searches read it while `refresh` swaps it.

    Until a usable snapshot is published, version 0 stands in: the prior.
    """

    def __init__(self, settings: OrchestratorSettings, registry: Registry) -> None:
        self._registry = registry
        self._levels = Levels(settings.plan.fan_outs)
        self._prior = Versioned.of(0, Learner(bandit_settings(settings)).snapshot())
        self._seen: int | None = None
        self.current = self._prior
        self._loaded = lru_cache(maxsize=16)(self._load)

    def refresh(self) -> bool:
        """Take the newest snapshot if there is a newer one; return whether there was.

        Raises `SnapshotMismatchError` for one that was learned on other features, and
        `StorageError` for a damaged one; the snapshot in use then stays.
        """
        if not self._registry.changed(POLICY, self._seen):
            return False
        info, payload = self._registry.load(POLICY)
        self._seen = info.version
        snapshot = Snapshot.from_bytes(payload)
        snapshot.require(features=FEATURES, feature_version=FEATURE_VERSION, levels=self._levels)
        self.current = Versioned.of(info.version, snapshot)
        return True

    def version(self, number: int) -> Versioned:
        """Return a past snapshot, for replay; raises `FailedPreconditionError` if it was pruned."""
        if number == 0:
            return self._prior
        if number == self.current.version:
            return self.current
        return self._loaded(number)

    def _load(self, number: int) -> Versioned:
        try:
            _, payload = self._registry.load(POLICY, number)
        except NotFoundError as error:
            raise FailedPreconditionError(
                f"policy snapshot {number} has been pruned; keep more with learner.keep_snapshots"
            ) from error
        return Versioned.of(number, Snapshot.from_bytes(payload))
