"""When a model may be published, and how to take it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forage.errors import FailedPreconditionError
from forage.registry import JSON, ArtifactInfo, Registry
from ranker.evaluation import Comparison
from ranker.model import KIND, RankingModel


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to publish, and why."""

    publish: bool
    reason: str


def judge(comparisons: Mapping[str, Comparison], *, max_regression: float) -> Verdict:
    """Apply the rule: better than each rival, and not possibly much worse.

    Against the fused order and the incumbent alike, the gain in nDCG@10 on held-out searches must
    be above 0, and the lower end of its 95 % interval above -`max_regression`.
    """
    gains = []
    for rival, compared in comparisons.items():
        figures = f"{compared.gain:+.4f} [{compared.low:+.4f}, {compared.high:+.4f}]"
        if compared.gain <= 0:
            return Verdict(False, f"no better than {rival}: nDCG@10 {figures}")
        if compared.low <= -max_regression:
            return Verdict(
                False,
                f"could be worse than {rival} by {max_regression} or more: nDCG@10 {figures}",
            )
        gains.append(f"{rival} {figures}")
    return Verdict(True, f"nDCG@10 better than {' and '.join(gains)}")


def publish(
    registry: Registry,
    model: RankingModel,
    incumbent: ArtifactInfo | None,
    *,
    metrics: Mapping[str, float],
    lineage: Mapping[str, str],
    keep: int,
) -> ArtifactInfo:
    """Make the model current.

    Raises `ConflictError` if the incumbent is no longer the one it was compared with. All but
    the newest `keep` versions are removed.
    """
    parent = None if incumbent is None else incumbent.version
    metadata: dict[str, JSON] = {"metrics": dict(metrics), "lineage": dict(lineage)}
    info = registry.publish(KIND, model.save(), metadata, expected_current=parent)
    registry.prune(KIND, keep=keep)
    return info


def rollback(registry: Registry) -> ArtifactInfo:
    """Make the current model's parent current again, and return it.

    Raises `FailedPreconditionError` if there is none, `NotFoundError` if it was removed.
    """
    current = registry.current(KIND)
    if current is None:
        raise FailedPreconditionError("no ranker model is published, so none can be rolled back")
    if current.parent is None:
        raise FailedPreconditionError(
            f"ranker model {current.version} is the first one; there is none to roll back to"
        )
    return registry.set_current(KIND, current.parent, expected=current.version)
