"""Reads logs in the format of the Open Bandit Dataset (Saito, Aihara, Matsutani & Narita, 2021).

A folder holds one log, `NAME.csv` or `NAME.csv.gz`: an item was shown at a position with a
logged propensity, and clicked or not. The item plays the part of the plan.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.ope.sample import Sample
from forage.errors import InvalidArgumentError, StartupError
from orchestrator.bandit.arrays import FloatArray, IntArray

_COLUMNS = ("item_id", "position", "click", "propensity_score")
_CONTEXT_FILE = "item_context.csv"
_AFFINITY = "user-item_affinity_"
BAD_ROW = "a value that is not a number"
BAD_PROPENSITY = "a propensity outside (0, 1]"
BAD_REWARD = "a click outside [0, 1]"
UNIFORM = "uniform"
"""The target that shows every item at every position equally often."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenBanditLog:
    """The usable impressions of a log, in order."""

    item: IntArray
    """Number of the item shown, [n], from 0."""
    position: IntArray
    """Number of the position, [n], from 0."""
    click: FloatArray
    """[n], in [0, 1]."""
    propensity: FloatArray
    """[n], in (0, 1]."""
    affinity: FloatArray
    """The user's affinity to every item, [n, items]; 0 where the log has none."""
    skipped: Mapping[str, int]

    def shares(self, items: int, positions: int) -> FloatArray:
        """Return how often each item was shown at each position, [positions, items].

        Rows of positions sum to 1; a position that was never used is all zero.
        """
        counts = np.zeros((positions, items))
        np.add.at(counts, (self.position, self.item), 1.0)
        result: FloatArray = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        return result


@dataclass(frozen=True, slots=True)
class _Row:
    item: int
    position: int
    click: float
    propensity: float
    affinity: Mapping[int, float]


def read_open_bandit(folder: Path) -> OpenBanditLog:
    """Read the log in `folder`.

    Raises `StartupError` for a folder without exactly one log, or a file that cannot be read, and
    `InvalidArgumentError` naming the column for one that is missing or has no usable row.
    """
    path = _log_file(folder)
    skipped: Counter[str] = Counter()
    rows: list[_Row] = []
    with _opened(path) as lines:
        reader = csv.DictReader(lines)
        columns = tuple(reader.fieldnames or ())
        for name in _COLUMNS:
            if name not in columns:
                raise InvalidArgumentError(
                    name, f"{path.name} has no such column", allowed=", ".join(_COLUMNS)
                )
        known = [(name, int(name[len(_AFFINITY) :])) for name in columns if _is_affinity(name)]
        for line in reader:
            row, problem = _row(line, known)
            if row is None:
                skipped[problem] += 1
            else:
                rows.append(row)
    if not rows:
        raise _nothing_usable(path, skipped)
    return _assembled(rows, skipped)


def _nothing_usable(path: Path, skipped: Counter[str]) -> InvalidArgumentError:
    reasons = ", ".join(f"{count:,} with {reason}" for reason, count in skipped.most_common())
    worst = skipped.most_common(1)[0][0] if skipped else ""
    field, allowed = {
        BAD_PROPENSITY: ("propensity_score", "(0, 1]"),
        BAD_REWARD: ("click", "[0, 1]"),
        BAD_ROW: (", ".join(_COLUMNS), "numbers"),
    }.get(worst, ("log", "at least one impression"))
    problem = f"no row of {path.name} can be used: {reasons or 'it is empty'}"
    return InvalidArgumentError(field, problem, allowed=allowed)


def _log_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise StartupError(f"Open Bandit log {folder}: there is no such folder")
    found = sorted(
        p
        for p in folder.iterdir()
        if p.name.endswith((".csv", ".csv.gz")) and p.name != _CONTEXT_FILE
    )
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise StartupError(
            f"Open Bandit log {folder}: one NAME.csv or NAME.csv.gz is expected, found {names}"
        )
    return found[0]


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[str]]:
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", newline="") as lines:
            yield lines
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise StartupError(f"Open Bandit log {path}: {error}") from error


def _row(line: Mapping[str, str], known: Sequence[tuple[str, int]]) -> tuple[_Row | None, str]:
    try:
        item, position = int(line["item_id"]), int(line["position"])
        click, propensity = float(line["click"]), float(line["propensity_score"])
        liked = {number: float(line[name] or 0.0) for name, number in known}
    except (TypeError, ValueError):
        return None, BAD_ROW
    numbers = (click, propensity, *liked.values())
    if item < 0 or position < 1 or not all(map(math.isfinite, numbers)):
        return None, BAD_ROW
    if not 0 < propensity <= 1:
        return None, BAD_PROPENSITY
    if not 0 <= click <= 1:
        return None, BAD_REWARD
    affinity = {number: value for number, value in liked.items() if value}
    return _Row(item, position - 1, click, propensity, affinity), ""


def _is_affinity(name: str) -> bool:
    return name.startswith(_AFFINITY) and name[len(_AFFINITY) :].isdigit()


def _assembled(rows: Sequence[_Row], skipped: Counter[str]) -> OpenBanditLog:
    items = 1 + max(row.item for row in rows)
    affinity = np.zeros((len(rows), items))
    for number, row in enumerate(rows):
        for item, value in row.affinity.items():
            if item < items:
                affinity[number, item] = value
    return OpenBanditLog(
        item=np.array([row.item for row in rows]),
        position=np.array([row.position for row in rows]),
        click=np.array([row.click for row in rows]),
        propensity=np.array([row.propensity for row in rows]),
        affinity=affinity,
        skipped=dict(skipped),
    )


def open_bandit_sample(log: OpenBanditLog, target: OpenBanditLog | str = UNIFORM) -> Sample:
    """Meet a log with a target: `uniform`, or the policy behind another log.

    The latter shows every item at every position as often as that log did. Raises
    `InvalidArgumentError` for another name.
    """
    if isinstance(target, str) and target != UNIFORM:
        raise InvalidArgumentError(
            "policy", f"an Open Bandit log knows no '{target}'", allowed=UNIFORM
        )
    others = () if isinstance(target, str) else (target,)
    items = max(log.affinity.shape[1], *(o.affinity.shape[1] for o in others), 1)
    positions = 1 + max(int(log.position.max()), *(int(o.position.max()) for o in others), 0)
    ever = log.shares(items, positions) > 0
    if isinstance(target, str):
        shown = np.zeros(items)
        shown[np.unique(log.item)] = 1 / len(np.unique(log.item))
        shares = np.tile(shown, (positions, 1))
    else:
        shares = target.shares(items, positions)
    affinity = np.zeros((len(log.item), items))
    affinity[:, : log.affinity.shape[1]] = log.affinity
    rows = np.arange(len(log.item))
    chosen = np.zeros((len(rows), items))
    chosen[rows, log.item] = 1.0
    spread = shares[log.position]
    return Sample(
        reward=log.click,
        logged=log.propensity,
        target=spread[rows, log.item],
        features=_features(log.position, positions, chosen, affinity),
        expected_features=_features(log.position, positions, spread, affinity),
        unsupported=(spread * ~ever[log.position]).sum(axis=1),
    )


def _features(
    position: IntArray, positions: int, shares: FloatArray, affinity: FloatArray
) -> FloatArray:
    """Return ψ averaged over items by `shares` [n, items]: constant, position, item, affinity."""
    places = np.eye(positions)[position]
    liked = (shares * affinity).sum(axis=1, keepdims=True)
    return np.hstack([np.ones((len(position), 1)), places, shares, liked])
