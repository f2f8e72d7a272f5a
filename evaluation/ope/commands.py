"""`forage ope`: what a policy would have earned, told from a log that others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from evaluation.ope.assessment import Assessment, assess
from evaluation.ope.decisions import open_decisions, read_decisions
from evaluation.ope.display import show
from evaluation.ope.open_bandit import UNIFORM, open_bandit_sample, read_open_bandit
from evaluation.ope.target import TARGETS, TargetPolicy, make_sample, snapshot_of
from forage.cli.progress import Bars
from forage.errors import InvalidArgumentError
from forage.settings import load
from orchestrator.planner import Versioned
from orchestrator.settings import OrchestratorSettings

REFUSED = 4

_Data = Annotated[
    Path | None, typer.Option(help="Data folder; by default the one of the configuration.")
]
_Policy = Annotated[
    str | None,
    typer.Option(help=f"The policy to value: {', '.join(TARGETS)}; 'thompson' by default."),
]
_Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="orchestrator.yaml as it would be with the policy."),
]
_LoggedConfig = Annotated[
    Path | None,
    typer.Option(help="orchestrator.yaml as it was while logging; by default that of --config."),
]
_Snapshot = Annotated[
    int | None,
    typer.Option(min=0, help="The policy snapshot; 0: the prior; by default the current one."),
]
_Draws = Annotated[
    int, typer.Option(min=1, max=100_000, help="Draws per search of a policy that samples.")
]
_Clip = Annotated[
    float | None, typer.Option(help="Largest weight of clipped IPS; by default √rows.")
]
_OpenBandit = Annotated[
    Path | None, typer.Option(help="Read this folder, in Open Bandit format, instead of a log.")
]
_Like = Annotated[
    Path | None,
    typer.Option(help="With --open-bandit: value the policy that logged this other folder."),
]


def ope(
    data: _Data = None,
    policy: _Policy = None,
    config: _Config = None,
    logged_config: _LoggedConfig = None,
    snapshot: _Snapshot = None,
    draws: _Draws = 256,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same figures.")] = 1,
    confidence: Annotated[float, typer.Option(help="Of the intervals, in (0, 1).")] = 0.95,
    clip: _Clip = None,
    open_bandit: _OpenBandit = None,
    like: _Like = None,
    last: Annotated[
        int | None, typer.Option(min=1, help="Only the newest so many searches of the log.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate from a log what another policy would have earned per search.

    How far the log speaks of that policy comes first. Exit status: 0 estimated, 1 failed, 2 bad
    configuration or no log, 4 the estimate must not be trusted and is refused.
    """
    if open_bandit is not None:
        found = _of_open_bandit(open_bandit, like, policy, confidence, clip)
    elif like is not None:
        raise InvalidArgumentError("like", "it is a log to imitate", allowed="--open-bandit")
    else:
        settings = _settings(config, data)
        logged = settings if logged_config is None else _settings(logged_config, data)
        beliefs = _snapshot(settings, snapshot)
        target = TargetPolicy(policy or "thompson", settings, beliefs, draws=draws, seed=seed)
        with Bars() as bars:
            found = _of_decisions(logged, target, confidence, clip, last, bars)
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
    else:
        show(found, Console(markup=False, highlight=False, soft_wrap=True))
    if found.headline.refusal:
        raise typer.Exit(REFUSED)


def _settings(file: Path | None, data: Path | None) -> OrchestratorSettings:
    flags = {} if data is None else {"data_dir": data}
    return load("orchestrator", OrchestratorSettings, file=file, flags=flags).settings


def _snapshot(settings: OrchestratorSettings, version: int | None) -> Versioned:
    storage = open_decisions(settings)
    try:
        return snapshot_of(settings, storage.registry, version)
    finally:
        storage.close()


def _of_decisions(
    settings: OrchestratorSettings,
    target: TargetPolicy,
    confidence: float,
    clip: float | None,
    last: int | None,
    bars: Bars,
) -> Assessment:
    bars.show("read the log", 0.0)
    storage = open_decisions(settings)
    try:
        logged = read_decisions(storage.log, settings)
    finally:
        storage.close()
    bars.show("read the log", 1.0)
    decisions = logged.decisions if last is None else logged.decisions[-last:]
    sample = make_sample(
        decisions, target, progress=lambda share: bars.show(f"ask {target.name}", share)
    )
    return assess(
        sample, target=target.name, confidence=confidence, clip=clip, skipped=logged.skipped
    )


def _of_open_bandit(
    folder: Path, like: Path | None, policy: str | None, confidence: float, clip: float | None
) -> Assessment:
    if like is not None and policy is not None:
        raise InvalidArgumentError("policy", "the target is given by --like", allowed="one of them")
    log = read_open_bandit(folder)
    target = policy or UNIFORM if like is None else read_open_bandit(like)
    sample = open_bandit_sample(log, target)
    name = target if isinstance(target, str) else f"the policy of {like}"
    return assess(sample, target=name, confidence=confidence, clip=clip, skipped=log.skipped)
