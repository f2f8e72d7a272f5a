"""The vector index: which parameters each kind takes, and how far a search has to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forage.errors import StartupError
from generators.semantic.settings import SemanticMilvusSettings

Parameters = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What Milvus calls the parameters of one kind of index, with usual values."""

    build: Parameters
    search: Parameters
    breadth: str = ""
    """The search parameter that trades time for recall; empty if the search is exact."""
    per_result: int = 0
    """Least breadth per result: Milvus refuses less than 1, and 4 keep the recall of long lists."""


_KINDS = {
    "FLAT": _Kind({}, {}),
    "IVF_FLAT": _Kind({"nlist": 256}, {"nprobe": 32}, "nprobe"),
    "IVF_SQ8": _Kind({"nlist": 256}, {"nprobe": 32}, "nprobe"),
    "IVF_PQ": _Kind({"nlist": 256, "m": 48, "nbits": 8}, {"nprobe": 32}, "nprobe"),
    "HNSW": _Kind({"M": 32, "efConstruction": 360}, {"ef": 256}, "ef", per_result=4),
    "SCANN": _Kind({"nlist": 256}, {"nprobe": 32, "reorder_k": 256}, "nprobe"),
    "DISKANN": _Kind({}, {"search_list": 100}, "search_list", per_result=2),
    "AUTOINDEX": _Kind({}, {}, "level"),
}
_LARGEST = {"ef": 32_768, "nprobe": 65_536, "search_list": 65_535, "level": 5, "reorder_k": 16_384}
_EMBEDDED = ("FLAT", "IVF_FLAT", "AUTOINDEX")


class VectorIndex:
    """One kind of index with its parameters, as the settings have it."""

    def __init__(self, settings: SemanticMilvusSettings) -> None:
        """Take the settings; raises `StartupError` naming what is wrong with them."""
        kind = _KINDS[settings.index]
        if settings.embedded and settings.index not in _EMBEDDED:
            raise StartupError(
                f"milvus.index: Milvus Lite has no {settings.index}; allowed:"
                f" {', '.join(_EMBEDDED)}, or a server in milvus.uri"
            )
        _refuse_unknown("index_params", settings.index, settings.index_params, kind.build)
        _refuse_unknown("search_params", settings.index, settings.search_params, kind.search)
        self.name = settings.index
        self.metric = settings.metric
        self.build = {**kind.build, **settings.index_params}
        self.exact = not kind.breadth
        self._kind = kind
        self._search = {**kind.search, **settings.search_params}

    def search_params(self, limit: int, breadth: int = 1) -> dict[str, object]:
        """Return how to search for `limit` results, looking `breadth` times as far as usual."""
        kind, params = self._kind, dict(self._search)
        if kind.breadth in params:
            wanted = max(params[kind.breadth], kind.per_result * limit)
            params[kind.breadth] = min(_LARGEST[kind.breadth], wanted * breadth)
        if "reorder_k" in params:
            params["reorder_k"] = min(_LARGEST["reorder_k"], max(params["reorder_k"], limit))
        return {"metric_type": self.metric, "params": params}

    def cosine(self, distance: float) -> float:
        """Return the cosine of two unit vectors from what Milvus says of them."""
        return 1.0 - distance / 2.0 if self.metric == "L2" else distance

    def differences(self, found: Mapping[str, object]) -> list[str]:
        """Return in what an index that Milvus describes is another one, by setting."""
        wrong = []
        if found.get("index_type") != self.name:
            return [f"milvus.index: it has {found.get('index_type')}, the setting is {self.name}"]
        if found.get("metric_type") != self.metric:
            wrong.append(
                f"milvus.metric: it has {found.get('metric_type')}, the setting is {self.metric}"
            )
        for name, value in self.build.items():
            if str(found.get(name)) != str(value):
                wrong.append(
                    f"milvus.index_params: it has {name} {found.get(name)}, the setting is {value}"
                )
        return wrong


def _refuse_unknown(setting: str, index: str, given: Parameters, known: Parameters) -> None:
    for name in given:
        if name not in known:
            raise StartupError(
                f"milvus.{setting}: {index} has no '{name}';"
                f" allowed: {', '.join(sorted(known)) or 'none'}"
            )
