"""Off-policy estimates on the terminal: first how far they go, then what they are."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from evaluation.ope.assessment import Assessment
from evaluation.ope.estimators import Estimate
from evaluation.ope.trust import Diagnostics


def show(found: Assessment, console: Console) -> None:
    """Print diagnostics, estimates, and what was left out of the log."""
    console.print(f"target    {found.target}")
    for name, text in _diagnostics(found.diagnostics):
        console.print(f"{name:<26}{text}")
    for reason, count in sorted(found.skipped.items(), key=lambda entry: -entry[1]):
        console.print(f"{'skipped':<26}{count:,}: {reason}")
    table = Table("estimator", "value", "low", "high", "interval")
    for estimate in found.estimates:
        if not estimate.refusal:
            table.add_row(*_row(estimate))
    if table.row_count:
        console.print(table)
    for estimate in found.estimates:
        if estimate.refusal:
            console.print(f"refused: {estimate.estimator}: {estimate.refusal}")


def _diagnostics(found: Diagnostics) -> list[tuple[str, str]]:
    weights, rows = found.weights, found.rows
    lines = [
        (
            "effective sample size",
            f"{weights.effective:,.1f} of {rows:,} rows ({weights.effective / rows:.1%})",
        ),
        (
            "largest weight",
            f"{weights.largest:,.2f}, {weights.largest_share:.1%} of all weight",
        ),
        ("support violations", _support(found)),
        ("mean weight", f"{weights.mean:.3f} ± {weights.mean_error:.3f}, 1 if all is well"),
    ]
    if found.additive is not None:
        lines.append(
            (
                "pseudo-inverse weights",
                f"effective sample size {found.additive.effective:,.1f}, "
                f"largest {found.additive.largest:,.2f}",
            )
        )
    lines += [
        ("full pulls", f"{found.full_pulls:,}"),
        (
            "reward as logged",
            f"{found.logged_reward:.4f} per row; {found.halves[0]:.4f} in the first half,"
            f" {found.halves[1]:.4f} in the second",
        ),
    ]
    if found.target_cost is not None and found.logged_cost is not None:
        cost = f"{found.target_cost:.2f} units of the target, {found.logged_cost:.2f} as logged"
        lines.append(("cost", cost))
    return lines


def _support(found: Diagnostics) -> str:
    if found.unsupported is None:
        return "unknown, the log has no marginals"
    return (
        f"{found.unsupported:.2%} of what the target would do, "
        f"in {found.unsupported_rows:,} of {found.rows:,} rows"
    )


def _row(estimate: Estimate) -> tuple[str, ...]:
    value = f"{estimate.value:.4f}"
    interval = estimate.interval
    if interval is None:
        return estimate.estimator, value, "", "", "none: its bias is unknown"
    return (
        estimate.estimator,
        value,
        f"{interval.low:.4f}",
        f"{interval.high:.4f}",
        f"{interval.confidence:.0%}, {interval.method}",
    )
