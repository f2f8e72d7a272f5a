"""State as columns: JSON-able names and numeric arrays, read at once and without decoding.

What takes seconds to derive from the log, record by record, takes a tenth of that to read back
from long lists and arrays. The bytes hold no code and no pickles, so a file that somebody else
wrote can be wrong but not dangerous.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from forage.catalog.compact import CompactAttributes, Compactor, Stored
from forage.catalog.item import Item, Value

DERIVED_BY = f"forage {version('forage-mesh')}, Unicode {unicodedata.unidata_version}"
"""Who derives such state from the log; another release may do so in another way."""
_LENGTH = struct.Struct(">Q")
_ALIGNMENT = 8
_DELETED = -1
_PLAIN = -1


@dataclass(slots=True)
class Columns:
    """Named lists and arrays of one part of the state, or of several under prefixes."""

    names: dict[str, Any] = field(default_factory=dict)
    """Strings, numbers, and lists of them."""
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def put(self, prefix: str, part: Columns) -> None:
        """Take in a part, its keys prefixed."""
        self.names.update({f"{prefix}/{key}": value for key, value in part.names.items()})
        self.arrays.update({f"{prefix}/{key}": value for key, value in part.arrays.items()})

    def part(self, prefix: str) -> Columns:
        """Return what `put` took in under the prefix."""
        start = f"{prefix}/"
        return Columns(_under(start, self.names), _under(start, self.arrays))

    def to_bytes(self) -> bytes:
        """Return all of it as bytes for `from_bytes`."""
        described = [[key, a.dtype.str, a.shape] for key, a in self.arrays.items()]
        header = orjson.dumps({"names": self.names, "arrays": described})
        parts = [_LENGTH.pack(len(header)), _padded(header)]
        parts += [_padded(np.ascontiguousarray(a).tobytes()) for a in self.arrays.values()]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, content: bytes) -> Columns:
        """Return the columns; the arrays are read-only. Raises `ValueError` for other bytes."""
        try:
            (length,) = _LENGTH.unpack_from(content)
        except struct.error as error:
            raise ValueError(f"{len(content)} bytes are too few") from error
        header = orjson.loads(memoryview(content)[_LENGTH.size : _LENGTH.size + length])
        at = _LENGTH.size + _rounded(length)
        arrays: dict[str, npt.NDArray[Any]] = {}
        for key, kind, shape in header["arrays"]:
            dtype = np.dtype(kind)
            count = int(np.prod(shape, dtype=np.int64))
            arrays[key] = np.frombuffer(content, dtype, count, at).reshape(shape)
            at += _rounded(count * dtype.itemsize)
        return cls(header["names"], arrays)


def _under(start: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(start): v for k, v in entries.items() if k.startswith(start)}


def _rounded(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT


def _padded(content: bytes) -> bytes:
    return content.ljust(_rounded(len(content)), b"\0")


def ragged(lists: Sequence[npt.NDArray[Any]], dtype: npt.DTypeLike) -> dict[str, npt.NDArray[Any]]:
    """Return arrays of unlike length as their `lengths` and one array of all their `content`."""
    lengths = np.fromiter(map(len, lists), np.int32, len(lists))
    return {"lengths": lengths, "content": np.concatenate([np.empty(0, dtype), *lists])}


def spans(lengths: npt.NDArray[Any], scale: int = 1) -> zip[tuple[int, int]]:
    """Return (start, end) of each list within the `content` that `ragged` made of them."""
    ends = np.cumsum(lengths, dtype=np.int64) * scale
    return zip((ends - lengths * scale).tolist(), ends.tolist(), strict=True)


def item_columns(item_ids: Sequence[str], items: Sequence[Item | None]) -> Columns:
    """Return compact items as columns; an item that is None was deleted, and keeps its place.

    Strings are numbered first, then numbers, then the values that are more than a plain string
    or number; `cells` are such numbers. An attribute has `counts` values, -1 standing for a
    single plain one.
    """
    tables = _Tables()
    shapes: dict[tuple[str, ...], int] = {}
    ids = [tables.string(item_id) for item_id in item_ids]
    rows: list[int] = []
    counts: list[int] = []
    cells: list[int] = []
    for item in items:
        if item is None:
            rows += _DELETED, 0
            continue
        attributes = item.attributes
        assert isinstance(attributes, CompactAttributes)
        rows += shapes.setdefault(tuple(attributes), len(shapes)), tables.string(item.kind)
        for stored in attributes.stored:
            if isinstance(stored, tuple):
                counts.append(len(stored))
                cells += [tables.value(value) for value in stored]
            else:
                counts.append(_PLAIN)
                cells.append(tables.plain(stored))
    values = tables.columns()
    values.names["shapes"] = list(shapes)
    values.arrays.update(
        ids=np.array(ids, np.int32),
        rows=np.array(rows, np.int32).reshape(-1, 2),
        counts=np.array(counts, np.int32),
        cells=tables.numbered(cells),
    )
    return values


class _Tables:
    """Distinct strings, numbers and values. An entry is its table plus thrice its place there."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {}
        self._numbers: list[float] = []
        self._values: dict[int, int] = {}
        self._distinct: list[Value] = []

    def string(self, text: str) -> int:
        """Return the place of a string."""
        return self._strings.setdefault(text, len(self._strings))

    def plain(self, content: str | float) -> int:
        """Return the entry of a string or number."""
        if isinstance(content, str):
            return 3 * self.string(content)
        self._numbers.append(content)
        return 3 * len(self._numbers) - 2

    def value(self, value: Value) -> int:
        """Return the entry of a value."""
        # By identity: values are shared, and a value is slow to compare.
        entry = self._values.get(id(value))
        if entry is None:
            entry = self._values[id(value)] = 3 * len(self._distinct) + 2
            self._distinct.append(value)
        return entry

    def columns(self) -> Columns:
        """Return the tables; no string may be entered afterwards."""
        contents = [self.plain(value.value) for value in self._distinct]
        named = [self.string(value.item_id) for value in self._distinct]
        return Columns(
            {"strings": list(self._strings)},
            {
                "contents": self.numbered(contents),
                "numbers": np.array(self._numbers, np.float64),
                "named": np.array(named, np.int32),
                "weights": np.array([value.weight for value in self._distinct], np.float64),
                "predicted": np.array([value.predicted for value in self._distinct], np.bool_),
            },
        )

    def numbered(self, entries: Sequence[int]) -> npt.NDArray[np.int32]:
        """Number entries through all tables, once all are known."""
        places, tables = np.divmod(np.array(entries, np.int64), 3)
        firsts = np.cumsum([0, len(self._strings), len(self._numbers)])
        return (firsts[tables] + places).astype(np.int32)


def items_of(columns: Columns, compactor: Compactor) -> tuple[list[str], list[Item | None]]:
    """Return (ids, items) that `item_columns` was given; the items share what they can."""
    names, arrays = columns.names, columns.arrays
    strings: list[str] = names["strings"]
    table: list[Any] = [*strings, *arrays["numbers"].tolist()]
    table += [
        Value(table[content], weight, strings[named], predicted)
        for content, weight, named, predicted in zip(
            arrays["contents"].tolist(),
            arrays["weights"].tolist(),
            arrays["named"].tolist(),
            arrays["predicted"].tolist(),
            strict=True,
        )
    ]
    found = [table[number] for number in arrays["cells"].tolist()]
    stored: list[Stored] = []
    at = 0
    for count in arrays["counts"].tolist():
        if count == _PLAIN:
            stored.append(found[at])
            at += 1
        else:
            stored.append(tuple(found[at : at + count]))
            at += count
    shapes = [compactor.shape(tuple(shape)) for shape in names["shapes"]]
    ids = [strings[number] for number in arrays["ids"].tolist()]
    items: list[Item | None] = []
    at = 0
    for item_id, (shape, kind) in zip(ids, arrays["rows"].tolist(), strict=True):
        if shape == _DELETED:
            items.append(None)
            continue
        end = at + len(shapes[shape])
        attributes = CompactAttributes(shapes[shape], tuple(stored[at:end]))
        items.append(Item(item_id, strings[kind], attributes))
        at = end
    return ids, items
