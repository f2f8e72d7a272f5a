"""All estimates of a target policy from one log, with what to know before reading them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluation.ope import estimators
from evaluation.ope.estimators import DOUBLY_ROBUST, Estimate
from evaluation.ope.sample import Sample
from evaluation.ope.trust import Diagnostics, TrustRules, judge


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a log says about a policy that did not write it."""

    target: str
    diagnostics: Diagnostics
    estimates: tuple[Estimate, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Records of the log that could not be used, by reason."""

    @property
    def headline(self) -> Estimate:
        """The estimate to rely on: the doubly robust one."""
        return next(e for e in self.estimates if e.estimator == DOUBLY_ROBUST)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON data; what is not finite, which JSON has not, is null."""
        data: dict[str, Any] = _finite(asdict(self))
        return data


def _finite(value: Any) -> Any:  # noqa: ANN401 - JSON data has no narrower type
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def assess(
    sample: Sample,
    *,
    target: str,
    confidence: float = 0.95,
    clip: float | None = None,
    rules: TrustRules | None = None,
    skipped: Mapping[str, int] | None = None,
) -> Assessment:
    """Estimate the target's mean reward in every way, and refuse what must not be trusted.

    Raises `InvalidArgumentError` for a confidence outside (0, 1) or a clip that is not above 0.
    """
    estimates = (
        estimators.inverse_propensity(sample, confidence),
        estimators.clipped_inverse_propensity(sample, confidence, clip=clip),
        estimators.self_normalised(sample, confidence),
        estimators.direct_method(sample),
        estimators.doubly_robust(sample, confidence),
        estimators.pseudo_inverse(sample, confidence),
        estimators.full_pull_replay(sample, confidence),
    )
    found = Diagnostics.of(sample)
    return Assessment(
        target, found, judge(estimates, found, rules or TrustRules()), dict(skipped or {})
    )
