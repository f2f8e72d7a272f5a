"""Trains a ranking model from the log, judges it, and publishes it if it is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from forage.errors import ForageError
from forage.log import EventLog
from forage.registry import ArtifactInfo, Registry
from ranker import examination as examining
from ranker.boosting import fit
from ranker.evaluation import Comparison, Measured, Scorer, compare, measure, metrics
from ranker.examination import Examination
from ranker.features import FUSED_SCORE, POSITION
from ranker.lean_xgboost import xgboost
from ranker.model import KIND, RankingModel
from ranker.publishing import judge, publish
from ranker.settings import RankerSettings, TrainingSettings
from ranker.training_set import JudgedDecision, Progress, TrainingSet, read_training_set

_FUSED = "fused"
_INCUMBENT = "incumbent"


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What came of a training run."""

    published: bool
    version: int
    """The registry version that is current afterwards; 0 if none is."""
    reason: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    lineage: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Split:
    """Older searches to learn from, newer ones to compare on."""

    train: Sequence[JudgedDecision]
    holdout: Sequence[JudgedDecision]


def split(decisions: Sequence[JudgedDecision], *, holdout_share: float) -> Split:
    """Split by time; `decisions` are oldest first. Nothing held out is older than a trained one."""
    cut = len(decisions) - max(1, round(holdout_share * len(decisions)))
    return Split(decisions[:cut], decisions[cut:])


def train(
    log: EventLog,
    registry: Registry,
    settings: RankerSettings,
    *,
    seed: int,
    force: bool = False,
    progress: Progress = lambda stage, share: None,
) -> TrainingReport:
    """Train, compare and, if the rule of `publishing.judge` allows it, publish.

    `force` publishes whatever the comparison says, but never without the minimum of data. The
    same log, registry, settings and seed give the same model. Raises `StorageError` if the log
    or the registry cannot be used, `ConflictError` if somebody else publishes meanwhile.
    """
    options = settings.training
    current = registry.current(KIND)
    version = 0 if current is None else current.version
    data = read_training_set(log, settings.feedback, options, progress)
    if len(data.decisions) < options.min_decisions:
        reason = f"too little data: {data.summary()}, {options.min_decisions} are needed"
        return TrainingReport(False, version, reason)
    examination = (
        examining.estimate(log, settings.feedback, min_clicks=options.min_exploration_clicks)
        if options.examination == "estimated"
        else examining.configured(settings.feedback)
    )
    parts = split(data.decisions, holdout_share=options.holdout_share)
    model = fit(data, parts.train, examination, options, seed=seed, progress=progress)
    progress("evaluation", 0.0)
    rivals, note = _rivals(data, registry, current)
    candidate, compared = _evaluate(data, parts.holdout, model, rivals, examination, options, seed)
    progress("evaluation", 1.0)
    figures = metrics(candidate, compared)
    lineage = _lineage(data, parts, model, current, examination, options, seed)
    verdict = judge(
        {rival: comparison for rival, (_, comparison) in compared.items()},
        max_regression=options.max_regression,
    )
    reason = verdict.reason + note
    if not verdict.publish:
        if not force:
            return TrainingReport(False, version, reason, figures, lineage)
        lineage["forced"] = "true"
        reason = f"published by force although {reason}"
    info = publish(
        registry, model, current, metrics=figures, lineage=lineage, keep=options.keep_versions
    )
    return TrainingReport(True, info.version, reason, figures, lineage)


def _rivals(
    data: TrainingSet, registry: Registry, current: ArtifactInfo | None
) -> tuple[dict[str, Scorer], str]:
    """Return what to compare with, and why the incumbent is not among it, if so."""
    column = data.feature_names.index(FUSED_SCORE)
    rivals: dict[str, Scorer] = {_FUSED: lambda rows: rows[:, column].astype(float)}
    if current is None:
        return rivals, ""
    try:
        incumbent = RankingModel.load(registry.load(KIND, current.version)[1])
        incumbent.check(data.feature_names, data.feature_version)
    except ForageError as error:
        return rivals, f"; the incumbent, version {current.version}, cannot be compared: {error}"
    rivals[_INCUMBENT] = incumbent.scores
    return rivals, ""


def _evaluate(
    data: TrainingSet,
    holdout: Sequence[JudgedDecision],
    model: RankingModel,
    rivals: Mapping[str, Scorer],
    examination: Examination,
    options: TrainingSettings,
    seed: int,
) -> tuple[Measured, dict[str, tuple[Measured, Comparison]]]:
    position = data.feature_names.index(POSITION)

    def measured(scorer: Scorer) -> Measured:
        return measure(holdout, scorer, position, examination, max_weight=options.max_weight)

    candidate = measured(model.scores)
    compared = {}
    for name, scorer in rivals.items():
        rival = measured(scorer)
        rng = np.random.default_rng(seed)
        comparison = compare(candidate, rival, samples=options.bootstrap_samples, rng=rng)
        compared[name] = (rival, comparison)
    return candidate, compared


def _lineage(
    data: TrainingSet,
    parts: Split,
    model: RankingModel,
    current: ArtifactInfo | None,
    examination: Examination,
    options: TrainingSettings,
    seed: int,
) -> dict[str, str]:
    sequences = [d.sequence for d in data.decisions]
    return {
        "decisions_from": str(min(sequences)),
        "decisions_to": str(max(sequences)),
        "parent_version": "0" if current is None else str(current.version),
        "feature_version": data.feature_version,
        "train_decisions": str(len(parts.train)),
        "train_rows": str(sum(len(d.rewards) for d in parts.train)),
        "trees": str(model.trees),
        "examination_decay": f"{examination.decay:g}",
        "examination_source": examination.source,
        "settings": options.model_dump_json(),
        "seed": str(seed),
        "xgboost": xgboost.__version__,
    }
