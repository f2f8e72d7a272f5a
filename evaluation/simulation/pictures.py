"""The curves, with bands of 95 % over seeds, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import t as student

from evaluation.simulation.comparison import CONTEXTUAL, EVERYTHING, LEARNED, ORACLE, Comparison
from evaluation.simulation.replay import Trace

mpl.use("Agg")
Floats = NDArray[np.float64]
_WINDOW = 500
_SIZE = (7.5, 4.5)
# A fixed salt and no date: the same figures give the same bytes.
_STYLE = mpl.RcParams({"svg.hashsalt": "forage", "font.size": 9, "axes.spines.top": False})


@contextmanager
def picture(folder: Path, name: str, *, title: str, x: str, y: str) -> Iterator[Axes]:
    """Yield axes; afterwards they are in `folder` as name.png and name.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        yield axes
        figure.savefig(folder / f"{name}.png", dpi=130)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def band(axes: Axes, x: Floats, curves: Sequence[Floats], label: str) -> None:
    """Draw the mean of one curve per seed, and where the mean lies with 95 % confidence."""
    stacked = np.array(curves)
    mean = stacked.mean(axis=0)
    (line,) = axes.plot(x, mean, label=label, linewidth=1.4)
    if len(stacked) > 1:
        error = stacked.std(axis=0, ddof=1) / np.sqrt(len(stacked))
        half = student.ppf(0.975, len(stacked) - 1) * error
        axes.fill_between(x, mean - half, mean + half, color=line.get_color(), alpha=0.15)


def smooth(values: Floats, window: int = _WINDOW) -> Floats:
    """Return the moving mean of the last `window` values; the beginning uses fewer."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    result: Floats = (sums[ends] - sums[starts]) / (ends - starts)
    return result


def draw(comparison: Comparison, folder: Path) -> None:
    """Draw everything that one comparison shows."""
    requests = np.arange(1, comparison.settings.requests + 1, dtype=np.float64)
    _regret(comparison, requests, folder)
    _quality(comparison, requests, folder)
    _frontier(comparison, folder)
    _arms(comparison, requests, folder)


def _regret(comparison: Comparison, requests: Floats, folder: Path) -> None:
    oracle = comparison.traces[CONTEXTUAL]
    with picture(
        folder,
        "regret",
        title="Cumulative regret against the best plan of every need",
        x="requests",
        y="expected reward net of cost, lost",
    ) as axes:
        for name, traces in comparison.traces.items():
            if name != CONTEXTUAL:
                lost = [
                    np.cumsum(best.net(comparison.price) - trace.net(comparison.price))
                    for best, trace in zip(oracle, traces, strict=True)
                ]
                band(axes, requests, lost, name)
        axes.legend(fontsize=7, ncols=2)


def _quality(comparison: Comparison, requests: Floats, folder: Path) -> None:
    shown: list[tuple[str, str, Callable[[Trace], Floats]]] = [
        ("ndcg", "nDCG@10", lambda trace: trace.ndcg),
        ("cost", "share of call-everything's cost", lambda t: t.costs / comparison.full_cost),
    ]
    for name, y, of in shown:
        title = f"{y} over time (mean of the last {_WINDOW} requests)"
        with picture(folder, name, title=title, x="requests", y=y) as axes:
            for contender, traces in comparison.traces.items():
                band(axes, requests, [smooth(of(trace)) for trace in traces], contender)
            axes.legend(fontsize=7, ncols=2)


def _frontier(comparison: Comparison, folder: Path) -> None:
    half = comparison.settings.requests // 2
    hindsight = comparison.hindsight
    with picture(
        folder,
        "coverage_cost",
        title="Coverage against cost, last half of the requests",
        x="share of call-everything's cost",
        y="share of the wanted gain among the candidates",
    ) as axes:
        for name, traces in comparison.traces.items():
            cost = np.array([t.costs[half:].mean() for t in traces]) / comparison.full_cost
            covered = np.array([t.covered[half:].mean() for t in traces])
            errors = [_half_width(cost), _half_width(covered)]
            axes.errorbar(
                cost.mean(), covered.mean(), xerr=errors[0], yerr=errors[1], fmt="o", label=name
            )
        axes.legend(fontsize=7, ncols=2)
    with picture(
        folder,
        "ndcg_cost",
        title="nDCG@10 against cost: static plans in hindsight, and the contenders",
        x="share of call-everything's cost",
        y="nDCG@10",
    ) as axes:
        costs = np.array(hindsight.costs) / comparison.full_cost
        axes.plot(costs, hindsight.ndcg, ".", color="0.7", label="static plans")
        for name in (LEARNED, ORACLE, EVERYTHING, "best mix", "lints"):
            traces = comparison.traces[name]
            cost = np.mean([t.costs[half:].mean() for t in traces]) / comparison.full_cost
            ndcg = np.array([t.ndcg[half:].mean() for t in traces])
            axes.errorbar(cost, ndcg.mean(), yerr=_half_width(ndcg), fmt="o", label=name)
        axes.legend(fontsize=7)


def _half_width(values: Floats) -> float:
    if len(values) < 2:
        return 0.0
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(student.ppf(0.975, len(values) - 1) * error)


def _arms(comparison: Comparison, requests: Floats, folder: Path) -> None:
    traces = comparison.traces[LEARNED]
    shown: list[tuple[str, str, Callable[[NDArray[np.int64]], Floats]]] = [
        ("arm_share", "share of requests that ask it", lambda f: (f > 0).astype(float)),
        ("fan_out", "mean fan-out", lambda f: f.astype(float)),
    ]
    for name, y, of in shown:
        title = f"{LEARNED}: {y} (last {_WINDOW} requests)"
        with picture(folder, name, title=title, x="requests", y=y) as axes:
            for g, generator in enumerate(comparison.generators):
                curves = [smooth(of(trace.fan_outs[:, g])) for trace in traces]
                band(axes, requests, curves, generator)
            axes.legend(fontsize=7)


def draw_recovery(
    curves: Mapping[str, Sequence[Trace]],
    oracle: Sequence[Trace],
    *,
    price: float,
    at: int,
    title: str,
    folder: Path,
    name: str,
) -> None:
    """Draw the net reward around an abrupt change, as a share of the oracle's of each world."""
    requests = np.arange(1, len(oracle[0].rewards) + 1, dtype=np.float64)
    with picture(
        folder, name, title=title, x="requests", y="net reward, last 250 requests"
    ) as axes:
        for label, traces in {**curves, ORACLE: oracle}.items():
            band(axes, requests, [smooth(t.net(price), 250) for t in traces], label)
        axes.axvline(at, color="0.5", linestyle="--", linewidth=0.8)
        axes.legend(fontsize=7)
