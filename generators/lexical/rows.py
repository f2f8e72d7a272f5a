"""Everything about the indexed items, by row: arrays, and the values that a reason may show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from forage.catalog.columns import Columns, ragged, spans

COUNT_BITS = np.uint64(8)
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class ShownValue:
    """A value of a text field, as a reason shows it."""

    field: int
    text: str
    keys: tuple[int, ...]
    """Of its tokens: `token * fields + field`."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything about the items, by row.

    A *posting* says that an item has a token in a field: `(token * fields + field) << 8 | count`,
    with the count of a text token, or the weight of a value in 255ths.
    """

    item_ids: list[str]
    shown: list[tuple[ShownValue, ...]]
    popularity: npt.NDArray[np.float64]
    ties: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.float64]
    """Tokens in each text field; rows × text fields."""
    postings: npt.NDArray[np.uint64]
    """Of all rows, one row after the other."""
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    """Where a row's postings start, and how many there are."""

    def grown(self, rows: int, postings: int) -> Rows:
        """Return the same with room for more; arrays that are large enough are shared."""
        return Rows(
            self.item_ids + [""] * (rows - len(self.item_ids)),
            self.shown + [()] * (rows - len(self.shown)),
            grown(self.popularity, rows),
            grown(self.ties, rows),
            grown(self.lengths, rows),
            grown(self.postings, postings),
            grown(self.starts, rows),
            grown(self.sizes, rows),
        )


def gather(
    rows: Rows, chosen: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
    """Return the postings of chosen rows, one row after the other, and where each row ends."""
    sizes = rows.sizes[chosen]
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    places = np.repeat(rows.starts[chosen] - (ends - sizes), sizes) + np.arange(total)
    return rows.postings[places], ends


def shown_columns(shown: Sequence[Sequence[ShownValue]], kept: Sequence[ShownValue]) -> Columns:
    """Return the values of rows as columns, and those that later items are to share (`kept`)."""
    places: dict[int, int] = {}
    distinct: list[ShownValue] = []
    for values in (*shown, kept):
        for value in values:
            # By identity: values are shared, and a value is slow to compare.
            if id(value) not in places:
                places[id(value)] = len(distinct)
                distinct.append(value)
    columns = Columns(
        {"texts": [value.text for value in distinct]},
        {
            "fields": np.array([value.field for value in distinct], np.int32),
            "kept": np.array([places[id(value)] for value in kept], np.int32),
        },
    )
    keys = [np.array(value.keys, np.int64) for value in distinct]
    columns.put("keys", Columns(arrays=ragged(keys, np.int64)))
    by_row = [np.array([places[id(v)] for v in values], np.int32) for values in shown]
    columns.put("rows", Columns(arrays=ragged(by_row, np.int32)))
    return columns


def shown_of(columns: Columns) -> tuple[list[tuple[ShownValue, ...]], list[ShownValue]]:
    """Return (shown, kept) that `shown_columns` was given."""
    keys, rows = columns.part("keys").arrays, columns.part("rows").arrays
    tokens = keys["content"].tolist()
    distinct = [
        ShownValue(field, text, tuple(tokens[start:end]))
        for field, text, (start, end) in zip(
            columns.arrays["fields"].tolist(),
            columns.names["texts"],
            spans(keys["lengths"]),
            strict=True,
        )
    ]
    found = [distinct[place] for place in rows["content"].tolist()]
    shown = [tuple(found[start:end]) for start, end in spans(rows["lengths"])]
    return shown, [distinct[place] for place in columns.arrays["kept"].tolist()]


def grown(values: npt.NDArray[_Scalar], length: int) -> npt.NDArray[_Scalar]:
    """Return the array if it is that long, or a longer copy with zeros at its end."""
    if length <= len(values):
        return values
    more = np.zeros((length - len(values), *values.shape[1:]), values.dtype)
    return np.concatenate([values, more])
