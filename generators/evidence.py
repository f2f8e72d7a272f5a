"""Evidence about items: what one look, one click and the passing of time are worth.

Generators that learn from the log count *examined* impressions, not impressions. A result shown
at position k is looked at with probability e_k; so with S successes and N = Σ e_k over the
impressions, S / N estimates the chance of success once looked at, whatever the positions were
(position-based model: Lagrée, Vernade & Cappé, 2016, "Multiple-play bandits in the
position-based model"). It weights every click alike, and so varies less than 1 / e_k weights.
"""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_REMEMBERED = 10_000


def decay(age_s: float, half_life_s: float) -> float:
    """Return what is left, in (0, 1], of a count `age_s` seconds old; it halves each half-life."""
    return float(2.0 ** (-max(0.0, age_s) / half_life_s))


class Credit:
    """Counts each impression of an item once, however many events it gets.

    A click, then a play of the same result are one success worth a play, not two. The best
    reward and the worst penalty of the latest impressions are kept to tell what an event adds.
    """

    def __init__(self) -> None:
        self._best: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def gain(self, request_id: str, item_id: str, reward: float) -> tuple[float, float, bool]:
        """Return (added success, added penalty, whether it is the impression's first success)."""
        key = request_id, item_id
        best, worst = self._best.pop(key, (0.0, 0.0))
        better, worse = max(best, reward), max(worst, -reward)
        self._best[key] = better, worse
        while len(self._best) > _REMEMBERED:
            self._best.popitem(last=False)
        return better - best, worse - worst, best == 0.0 < better

    def dump(self) -> tuple[list[list[str]], Floats]:
        """Return the keys, oldest first, and an array [len(keys), 2] of what they got."""
        return [list(k) for k in self._best], np.array([*self._best.values()]).reshape(-1, 2)

    def load(self, keys: Sequence[Sequence[str]], values: Floats) -> None:
        """Take over what `dump` returned."""
        self._best = OrderedDict(
            ((request_id, item_id), (float(best), float(worst)))
            for (request_id, item_id), (best, worst) in zip(keys, values, strict=True)
        )


def pack(names: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return JSON-able `names` and numeric `arrays` as compact bytes, for a checkpoint."""
    buffer = BytesIO()
    text = json.dumps(names, ensure_ascii=False, separators=(",", ":")).encode()
    np.savez(buffer, allow_pickle=False, names=np.frombuffer(text, np.uint8), **arrays)
    return zlib.compress(buffer.getvalue(), level=1)


def unpack(payload: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Return what `pack` was given."""
    with np.load(BytesIO(zlib.decompress(payload)), allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    return json.loads(arrays.pop("names").tobytes()), arrays
