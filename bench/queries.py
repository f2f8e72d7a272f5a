"""The benchmark's queries: what people type, drawn from the catalogue by a seed."""

from __future__ import annotations

import numpy as np

from forage.catalog.demo import demo_items
from forage.demo.users import intents


def queries(number: int, seed: int = 11) -> list[str]:
    """Return titles, misspelt titles, people, pairs of people, themes and empty browses."""
    return [intent.text for intent in intents(list(demo_items()), number, seed)]


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` of the values lie; NaN for none."""
    return float(np.quantile(values, share)) if values else float("nan")
