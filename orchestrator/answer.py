"""The answer: a page of results, grouped, counted, and connected to related items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from forage import wire
from forage.catalog import Item, Schema
from forage.catalog.view import CatalogView
from forage.retrieval import Filter
from forage.v1 import decision_pb2, item_pb2, ranker_service_pb2, search_service_pb2
from orchestrator.fusion import Candidate

_FACET_VALUES = 50
_RELATED = 5
_KEPT_MESSAGES = 10_000


class Answers:
    """Builds the parts of an answer from the catalogue as it is now."""

    def __init__(self, view: CatalogView, schema: Schema) -> None:
        self._view = view
        self._schema = schema
        self._messages: dict[str, tuple[Item, item_pb2.Item]] = {}
        self._referred: dict[str, tuple[Item, frozenset[tuple[str, str]]]] = {}

    def admissible(
        self, candidates: Sequence[Candidate], filters: Sequence[Filter]
    ) -> list[Candidate]:
        """Return the candidates that the catalogue holds and that satisfy the filters.

        Generators see to both, but each at its own pace: an item may have changed since.
        """
        if not filters:
            return [c for c in candidates if c.item_id in self._view]
        mask = self._view.filter(filters)
        indices = ((c, self._view.index_of(c.item_id)) for c in candidates)
        return [c for c, at in indices if at is not None and at < len(mask) and mask[at]]

    def present(
        self, entries: Iterable[decision_pb2.DisplayedItem]
    ) -> list[decision_pb2.DisplayedItem]:
        """Return those whose items the catalogue still holds."""
        return [entry for entry in entries if entry.item_id in self._view]

    def _message(self, item: Item) -> item_pb2.Item:
        """Return the item as a message; those of popular items are kept for the next answer."""
        kept = self._messages.get(item.item_id)
        if kept is None or kept[0] is not item:
            if len(self._messages) >= _KEPT_MESSAGES:
                self._messages.clear()
            kept = self._messages[item.item_id] = (item, wire.item_to_proto(item, self._schema))
        return kept[1]

    def results(
        self,
        shown: Sequence[decision_pb2.DisplayedItem],
        contributions: Mapping[str, Sequence[ranker_service_pb2.Contribution]],
    ) -> list[search_service_pb2.SearchResult]:
        """Return a result for each displayed item that the catalogue still holds."""
        results = []
        for entry in shown:
            item = self._view.get(entry.item_id)
            if item is not None:
                results.append(
                    search_service_pb2.SearchResult(
                        item=self._message(item),
                        position=entry.position,
                        score=entry.score,
                        provenance=entry.provenance,
                        exploration_propensity=entry.exploration_propensity,
                        contributions=contributions.get(entry.item_id, ()),
                    )
                )
        return results

    def groups(
        self, results: Sequence[search_service_pb2.SearchResult]
    ) -> list[search_service_pb2.ResultGroup]:
        """Return the results' positions by kind, in order of each kind's best result."""
        groups: dict[str, search_service_pb2.ResultGroup] = {}
        for result in results:
            kind = result.item.kind
            group = groups.setdefault(kind, search_service_pb2.ResultGroup(kind=kind))
            group.positions.append(result.position)
        return list(groups.values())

    def facets(
        self, names: Iterable[str], item_ids: Sequence[str]
    ) -> list[search_service_pb2.Facet]:
        """Return value counts over the merged candidates, most frequent first, ties by value."""
        items = [item for i in item_ids if (item := self._view.get(i)) is not None]
        facets = []
        for name in names:
            counts = Counter(value for item in items for value in set(_facet_values(item, name)))
            ranked = sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:_FACET_VALUES]
            facets.append(
                search_service_pb2.Facet(
                    attribute=name,
                    counts=[search_service_pb2.FacetCount(value=v, count=n) for v, n in ranked],
                )
            )
        return facets

    def related(
        self, results: Sequence[search_service_pb2.SearchResult]
    ) -> list[search_service_pb2.RelatedItem]:
        """Return the items that at least two of the results refer to and that are not results.

        Such as the director of several films found; those with most connections first.
        """
        shown = {r.item.item_id for r in results}
        linked: dict[str, set[str]] = {}
        by_attribute: Counter[tuple[str, str]] = Counter()
        for item_id in shown:
            for reference in self._references(item_id):
                by_attribute[reference] += 1
                linked.setdefault(reference[1], set()).add(item_id)
        ranked = sorted(
            (t for t, sources in linked.items() if len(sources) >= 2 and t not in shown),
            key=lambda target: (-len(linked[target]) / self._commonness(target), target),
        )
        related = []
        for target in ranked[:_RELATED]:
            item = self._view.get(target)
            counts = [(-n, name) for (name, t), n in by_attribute.items() if t == target]
            attribute = min(counts)[1]
            if item is not None:
                related.append(
                    search_service_pb2.RelatedItem(
                        item=self._message(item),
                        attribute=attribute,
                        count=len(linked[target]),
                    )
                )
        return related

    def _references(self, item_id: str) -> frozenset[tuple[str, str]]:
        """Return the (attribute, item id) pairs that an item refers to; empty for one gone."""
        item = self._view.get(item_id)
        if item is None:
            return frozenset()
        kept = self._referred.get(item_id)
        if kept is None or kept[0] is not item:
            if len(self._referred) >= _KEPT_MESSAGES:
                self._referred.clear()
            found = frozenset((a, v.item_id) for a, v in item.references())
            kept = self._referred[item_id] = (item, found)
        return kept[1]

    def _commonness(self, item_id: str) -> float:
        """Return how unremarkable a connection is: everything is from some country."""
        item = self._view.get(item_id)
        popularity = self._schema.popularity
        known = item.number(popularity) if item and popularity else None
        return 1.0 + 4.0 * (known or 0.0)


def _facet_values(item: Item, name: str) -> tuple[str, ...]:
    return (item.kind,) if name == "kind" else item.texts(name)
