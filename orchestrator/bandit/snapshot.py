"""The policy snapshot: what one learner publishes and every orchestrator plans with.

Immutable and versioned. A decision names the version it was made with, so that it can be replayed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from forage.errors import FailedPreconditionError
from orchestrator.bandit.archive import SnapshotDamagedError, pack, unpack
from orchestrator.bandit.arrays import FloatArray
from orchestrator.bandit.levels import Levels
from orchestrator.bandit.posterior import GaussianPosterior, GaussianPrior


class SnapshotMismatchError(FailedPreconditionError):
    """The snapshot was learned on other features, feature meanings, or levels."""

    reason = "SNAPSHOT_MISMATCH"


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All that was learned, as of one moment."""

    version: int
    """Grows by one with every publication; at least 1."""
    created: float
    """Seconds since the epoch, of the newest event learned from; never the wall clock."""
    sequence: int
    """The last sequence of the log that it includes."""
    feature_version: str
    features: tuple[str, ...]
    levels: Levels
    hazard: GaussianPosterior
    linear: GaussianPosterior
    safeguard: Mapping[str, object]
    """`Safeguard.to_state()`."""
    params: Mapping[str, float] = field(default_factory=dict)
    """Policy parameters in force, such as price and exploration."""

    @property
    def generators(self) -> tuple[str, ...]:
        """The generators something may have been learned about."""
        return self.hazard.generators

    def require(self, *, features: tuple[str, ...], feature_version: str, levels: Levels) -> None:
        """Raise `SnapshotMismatchError` unless the snapshot speaks of the same features."""
        if self.levels != levels:
            was, now = self.levels.fan_outs, levels.fan_outs
            raise SnapshotMismatchError(f"snapshot {self.version} has levels {was}, not {now}")
        if self.feature_version != feature_version:
            raise SnapshotMismatchError(
                f"snapshot {self.version} has feature version {self.feature_version!r}, "
                f"not {feature_version!r}"
            )
        if self.features != features:
            differing = sorted(set(self.features) ^ set(features))
            what = f"differing in {differing}" if differing else "in another order"
            raise SnapshotMismatchError(f"snapshot {self.version} has other features, {what}")

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` gives back the same numbers to the last bit."""
        meta: dict[str, object] = {
            "version": self.version,
            "created": self.created,
            "sequence": self.sequence,
            "feature_version": self.feature_version,
            "features": list(self.features),
            "fan_outs": list(self.levels.fan_outs),
            "safeguard": dict(self.safeguard),
            "params": dict(self.params),
        }
        arrays: dict[str, FloatArray] = {}
        for name, posterior in (("hazard", self.hazard), ("linear", self.linear)):
            meta[name] = _posterior_meta(posterior)
            arrays |= {f"{name}.{k}": a for k, a in _posterior_arrays(posterior).items()}
        return pack(meta, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """Read a snapshot; raises `SnapshotDamagedError` or `SnapshotNewerError`."""
        meta, arrays = unpack(data)
        try:
            return cls._from_parts(meta, arrays)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise SnapshotDamagedError(f"policy snapshot is inconsistent: {error!r}") from error

    @classmethod
    def _from_parts(cls, meta: Mapping[str, object], arrays: dict[str, FloatArray]) -> Snapshot:
        posteriors = {
            name: _posterior(
                _mapping(meta[name]),
                {key.partition(".")[2]: a for key, a in arrays.items() if key.startswith(name)},
            )
            for name in ("hazard", "linear")
        }
        return cls(
            version=int(_number(meta["version"])),
            created=_number(meta["created"]),
            sequence=int(_number(meta["sequence"])),
            feature_version=str(meta["feature_version"]),
            features=tuple(str(name) for name in _list(meta["features"])),
            levels=Levels(tuple(int(_number(f)) for f in _list(meta["fan_outs"]))),
            hazard=posteriors["hazard"],
            linear=posteriors["linear"],
            safeguard=_mapping(meta["safeguard"]),
            params={name: _number(value) for name, value in _mapping(meta["params"]).items()},
        )

    def digest(self) -> str:
        """Return the SHA-256 of the bytes, hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def _posterior_meta(posterior: GaussianPosterior) -> dict[str, object]:
    return {
        "generators": list(posterior.generators),
        "steps": posterior.steps,
        "prior_generators": list(posterior.prior.bias),
    }


def _posterior_arrays(posterior: GaussianPosterior) -> dict[str, FloatArray]:
    prior = posterior.prior
    biases = [*prior.bias.values(), prior.default_bias]
    upper = np.triu_indices(len(prior.precision))
    return {
        "prior_bias": np.array(biases),
        "prior_precision": prior.precision,
        "prior_mean": posterior.prior_mean,
        "mean": posterior.mean,
        "labels": posterior.labels,
        # Symmetric to the last bit, so half of each is enough.
        "precision": posterior.precision[..., upper[0], upper[1]],
        "covariance": posterior.covariance[..., upper[0], upper[1]],
    }


def _posterior(meta: Mapping[str, object], arrays: Mapping[str, FloatArray]) -> GaussianPosterior:
    names = [str(name) for name in _list(meta["prior_generators"])]
    biases = arrays["prior_bias"]
    prior = GaussianPrior(
        bias=dict(zip(names, biases[:-1], strict=True)),
        default_bias=biases[-1],
        precision=arrays["prior_precision"],
    )
    posterior = GaussianPosterior((), prior)
    posterior.generators = tuple(str(name) for name in _list(meta["generators"]))
    posterior.steps = int(_number(meta["steps"]))
    shape = (len(posterior.generators), len(prior.default_bias), len(prior.precision))
    for name in ("mean", "prior_mean", "labels"):
        if arrays[name].shape != (shape[:2] if name == "labels" else shape):
            raise ValueError(f"array {name} has shape {arrays[name].shape}")
        setattr(posterior, name, arrays[name])
    posterior.precision = _unfold(arrays["precision"], shape)
    posterior.covariance = _unfold(arrays["covariance"], shape)
    return posterior.frozen()


def _unfold(triangle: FloatArray, shape: tuple[int, int, int]) -> FloatArray:
    full = np.empty((*shape, shape[2]))
    rows, columns = np.triu_indices(shape[2])
    full[..., rows, columns] = triangle
    full[..., columns, rows] = triangle
    return full


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return value
