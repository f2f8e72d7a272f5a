"""How wanted a demo film or person is, in [0, 1], from what the source tells of attention."""

from __future__ import annotations

import math
from collections.abc import Iterable

_REVIEWS = (4, 400)
"""Numbers of reviews that count as none and as everything."""
_MOST_OSCARS = 11
_BOX_OFFICE = (5.0, 9.5)
"""Decimal logarithms of the takings in US dollars that count as none and as everything."""


def film_popularity(*, reviews: int | None, box_office: float | None, oscars: int | None) -> float:
    """Return 1 - (1 - .75 r)(1 - .45 b)(1 - .3 o), at least .01.

    r, b and o are reviews, takings and Oscars on logarithmic scales from 0 to 1. It is a noisy
    or: each is evidence of being wanted, and one that the source lacks (takings of most films)
    takes nothing away.
    """
    few, many = map(math.log1p, _REVIEWS)
    r = (math.log1p(reviews or 0) - few) / (many - few)
    low, high = _BOX_OFFICE
    b = (math.log10(box_office) - low) / (high - low) if box_office else 0.0
    o = math.log1p(oscars or 0) / math.log1p(_MOST_OSCARS)
    r, b, o = (min(1.0, max(0.0, part)) for part in (r, b, o))
    return max(0.01, round(1 - (1 - 0.75 * r) * (1 - 0.45 * b) * (1 - 0.3 * o), 4))


def attention(film_popularities: Iterable[float]) -> float:
    """Return the sum of squared film popularities: one great film counts more than ten obscure.

    Compare within a kind only; `relative_popularity` puts it on a scale.
    """
    return math.fsum(p * p for p in film_popularities)


def relative_popularity(own: float, greatest: float) -> float:
    """Return an entity's attention on a logarithmic scale where the kind's greatest is 1."""
    if greatest <= 0:
        return 0.01
    return max(0.01, round(math.log1p(own) / math.log1p(greatest), 4))
