"""What memory keeps of the catalogue: predicted queries, their near neighbours, popularity."""

from __future__ import annotations

import numpy as np

from forage.catalog.columns import Columns
from forage.catalog.item import Item
from forage.catalog.schema import Schema
from generators.catalog_projection import grown
from generators.evidence import Floats
from generators.memory.key_index import KeyIndex
from generators.memory.predicted import Predictions


class MemoryCatalogIndex:
    """Predictions and popularity by the indices of the catalogue view."""

    def __init__(self, schema: Schema) -> None:
        self.predictions = Predictions(schema)
        self.keys = KeyIndex()
        self.popularity: Floats = np.zeros(0)
        """In [0, 1] by item index; 0 where the catalogue tells none."""
        self._attribute = schema.popularity
        self._pending: dict[str, bool] = {}

    def replace(self, index: int, old: Item | None, new: Item | None) -> None:
        """Take in that the item at `index` was `old` and is `new`."""
        self.popularity = grown(self.popularity, index + 1)
        for key in self.predictions.discard(old, index) if old else ():
            self._note(key, present=False)
        for key in self.predictions.add(new, index) if new else ():
            self._note(key, present=True)
        popularity = new.number(self._attribute) if new and self._attribute else None
        self.popularity[index] = popularity or 0.0

    def _note(self, key: str, *, present: bool) -> None:
        # A key that came and went, or went and came back, is as it was.
        if self._pending.pop(key, None) is None:
            self._pending[key] = present

    def commit(self) -> None:
        """Bring the order of the keys up to date."""
        if self._pending:
            self.keys.update(
                added=[key for key, present in self._pending.items() if present],
                removed=[key for key, present in self._pending.items() if not present],
            )
            self._pending = {}

    def dump(self) -> Columns:
        """Return everything as columns."""
        columns = Columns(arrays={"popularity": self.popularity})
        columns.put("predictions", self.predictions.dump())
        columns.put("keys", self.keys.dump())
        return columns

    def load(self, columns: Columns) -> None:
        """Replace everything by what `dump` returned."""
        self.popularity = columns.arrays["popularity"].copy()
        self.predictions.load(columns.part("predictions"))
        self.keys.load(columns.part("keys"))
        self._pending = {}
