"""The mesh in one process: what the services serve, without the wire between them.

Nothing here retrieves, understands, fuses or computes features by itself. The parts are those
that the services assemble, opened by the same functions, with the same settings, and fed through
a real event log by a real follower; a test holds their lists against those of running services.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import yaml

from evaluation.collections.collection import Collection, Topic
from forage import wire
from forage.catalog import Schema
from forage.errors import StartupError, UnavailableError
from forage.log import Event, EventLog, Stream
from forage.log import Topic as LogTopic
from forage.log.engines import open_log
from forage.log.follower import Follower
from forage.registry import DirectoryRegistry
from forage.retrieval import Deadline, Hit, Query, UserContext
from forage.services import Runtime
from forage.settings import ServiceSettings
from forage.telemetry import Telemetry
from forage.v1 import item_pb2, ranker_service_pb2
from generators.exploration.retriever import ExplorationRetriever
from generators.exploration.settings import ExplorationSettings
from generators.graph.retriever import GraphRetriever
from generators.graph.settings import GraphSettings
from generators.lexical.retriever import LexicalRetriever
from generators.lexical.settings import LexicalSettings
from generators.memory.retriever import MemoryRetriever
from generators.memory.settings import MemorySettings
from generators.semantic.retriever import SemanticRetriever
from generators.semantic.settings import SemanticSettings
from generators.servicer import Generator
from orchestrator import fusion
from orchestrator.bandit import derive_rng
from orchestrator.fusion import Candidate
from orchestrator.history import HistoryProjection
from orchestrator.index import CatalogProjection
from orchestrator.ranking import add_candidates
from orchestrator.settings import OrchestratorSettings
from orchestrator.understanding import Understanding
from ranker.catalog import ItemCards
from ranker.evidence import Evidence
from ranker.extraction import FeatureExtractor, Matrix
from ranker.features import FeatureList
from ranker.settings import RankerSettings
from ranker.statistics import EngagementStatistics

GENERATORS = ("lexical", "semantic", "graph", "memory", "exploration")
NOW = 1_767_225_600.0
"""When a topic without a time is searched: 1 January 2026."""
_PATIENCE_MS = 60_000
"""Nobody waits for a measurement: a machine with other work must not make it fail."""
_CONFIGURATIONS = Path(__file__).resolve().parent / "collections" / "configurations"
_BATCH = 2_000
_READY_S = 3_600.0
_USER_ITEMS = 50


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """The settings of the services that take part, as their files would give them."""

    lexical: LexicalSettings
    semantic: SemanticSettings
    graph: GraphSettings
    memory: MemorySettings
    exploration: ExplorationSettings
    orchestrator: OrchestratorSettings
    ranker: RankerSettings

    @classmethod
    def load(cls, schema: Schema, folder: Path) -> MeshSettings:
        """Return the defaults, changed by what is shipped for catalogues of this schema."""
        path = _CONFIGURATIONS / f"{schema.name}.yaml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, yaml.YAMLError) as error:
            raise StartupError(f"configuration {path}: {error}") from error
        found: Mapping[str, Mapping[str, Any]] = content or {}
        classes: dict[str, type[ServiceSettings]] = {
            "lexical": LexicalSettings,
            "semantic": SemanticSettings,
            "graph": GraphSettings,
            "memory": MemorySettings,
            "exploration": ExplorationSettings,
            "orchestrator": OrchestratorSettings,
            "ranker": RankerSettings,
        }
        made: dict[str, Any] = {
            name: kind.model_validate({"data_dir": folder, **found.get(name, {})})
            for name, kind in classes.items()
        }
        milvus = made["semantic"].milvus.model_copy(update={"search_timeout_ms": _PATIENCE_MS})
        made["semantic"] = made["semantic"].model_copy(update={"milvus": milvus})
        return cls(**made)


@dataclass(frozen=True, slots=True)
class Answer:
    """What every generator found for one topic, and what it took."""

    query: Query
    hits: Mapping[str, Sequence[Hit]]
    seconds: Mapping[str, float]
    scanned: Mapping[str, int]


class Mesh:
    """The five retrievers, understanding, fusion and ranker features over one collection.

    Use it as a context manager. The folder holds the log and the projections, as the folder of a
    real mesh does; opened again, it goes on from there.
    """

    def __init__(self, collection: Collection, folder: Path) -> None:
        """Describe the mesh; `open` builds it."""
        self.schema = collection.schema
        content = _digest(collection)
        self.folder = folder / f"{collection.name}-{content}"
        self.settings = MeshSettings.load(collection.schema, self.folder)
        self._items = collection.items
        self._vectors = folder / "embeddings.db"

    def __enter__(self) -> Mesh:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self, progress: Callable[[int, int], None] = lambda done, wanted: None) -> None:
        """Fill the log if it is new, open every part, and wait until all have followed it.

        `progress` is told how many records the slowest projection has applied, of how many.
        Raises `UnavailableError` naming a projection that cannot follow.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._share_vectors()
        settings = self.settings
        self.log: EventLog = open_log(settings.lexical.log_url, self.folder)
        self._executor = ThreadPoolExecutor(2)
        self.runtime = Runtime(
            log=self.log,
            registry=DirectoryRegistry(self.folder / "registry"),
            schema=self.schema,
            telemetry=Telemetry.disabled(),
            executor=self._executor,
        )
        self._fill()
        runtime = self.runtime
        self.generators: Mapping[str, Generator] = {
            "lexical": LexicalRetriever.open(settings.lexical, runtime),
            "semantic": SemanticRetriever.open(settings.semantic, runtime),
            "graph": GraphRetriever.open(settings.graph, runtime),
            "memory": MemoryRetriever.open(settings.memory, runtime),
            "exploration": ExplorationRetriever.open(settings.exploration, runtime),
        }
        self.catalog = CatalogProjection(self.schema)
        self.history = HistoryProjection(self.folder, self.log, settings.orchestrator.feedback)
        self.understanding = Understanding(
            self.schema, self.catalog.gazetteer, settings.orchestrator.understanding
        )
        options = settings.ranker
        self.features = FeatureList(self.schema, options.generators)
        cards = ItemCards(self.schema, self.folder, language=options.language)
        self.statistics = EngagementStatistics(
            self.log, options.statistics, options.feedback, self.folder
        )
        self.extractor = FeatureExtractor(
            self.features,
            self.schema,
            cards,
            self.statistics,
            half_life_days=options.statistics.half_life_days,
        )
        self._follower = Follower(
            self.log,
            [
                *(p for generator in self.generators.values() for p in generator.projections),
                self.catalog,
                self.history,
                cards,
                self.statistics,
            ],
            # Whoever feeds this mesh waits for it, event by event.
            linger_s=0.0,
        )
        self._follower.start()
        self._wait(progress)

    def close(self) -> None:
        """Checkpoint and release everything."""
        self._follower.stop()
        for generator in self.generators.values():
            generator.close()
        self._executor.shutdown()
        self.log.close()

    def follow(self) -> None:
        """Wait until every projection has taken in all that the log has."""
        for topic in LogTopic:
            self._follower.wait_for(topic, self.log.head(topic), Deadline.after(_READY_S))

    def understand(self, topic: Topic, *, seed: int = 0) -> Query:
        """Return the topic as the orchestrator would understand it."""
        generator_seed = derive_rng(seed, topic.query_id, "generators").integers(2**63)
        return self.understanding.understand(
            topic.text,
            user=UserContext(topic.user_id, topic.history[:_USER_ITEMS]),
            time=topic.time or NOW,
            request_id=topic.query_id,
            seed=int(generator_seed),
        )

    def lists(self, topic: Topic, fan_out: int = 100) -> Mapping[str, Sequence[Hit]]:
        """Return what every generator finds for the topic, best first, by generator."""
        return self.answer(topic, fan_out).hits

    def answer(self, topic: Topic, fan_out: int = 100, *, seed: int = 0) -> Answer:
        """Ask every generator, one after the other, and measure it."""
        query = self.understand(topic, seed=seed)
        never = Deadline(math.inf)
        hits: dict[str, Sequence[Hit]] = {}
        seconds: dict[str, float] = {}
        scanned: dict[str, int] = {}
        for name, generator in self.generators.items():
            began = time.perf_counter()
            found = generator.retrieve(query, fan_out, never)
            seconds[name] = time.perf_counter() - began
            hits[name], scanned[name] = found.hits, found.scanned
        return Answer(query, hits, seconds, scanned)

    def fuse(self, hits: Mapping[str, Sequence[Hit]]) -> list[Candidate]:
        """Return the union in fused order, by the generators' prior hit rates."""
        targets = self.settings.orchestrator.generators
        messages = {name: wire.hits_to_proto(found, explain=False) for name, found in hits.items()}
        return fusion.fuse(
            messages,
            {name: target.hit_rate for name, target in targets.items()},
            k=self.settings.orchestrator.fusion_k,
        )

    def matrix(
        self, query: Query, candidates: Sequence[Candidate], called: Mapping[str, int]
    ) -> Matrix:
        """Return the ranker's features of the candidates, shape (candidates, features).

        `called` gives the fan-out of every generator that was called and answered.
        """
        request = ranker_service_pb2.RankRequest(query=wire.query_to_proto(query))
        add_candidates(request, candidates, [(g, f, True) for g, f in called.items()])
        evidence = Evidence.read(request, max_candidates=len(candidates))
        # As on the wire, where times have microseconds.
        return self.extractor.matrix(wire.query_from_proto(request.query), evidence)

    def _fill(self) -> None:
        """Write the catalogue to the log; a folder is named after its content, so only once."""
        done = self.log.head(LogTopic.CATALOG)
        for start in range(done, len(self._items), _BATCH):
            events = []
            for item in self._items[start : start + _BATCH]:
                record = item_pb2.CatalogRecord(upsert=wire.item_to_proto(item, self.schema))
                events.append(Event(Stream.CATALOG, item.item_id, record.SerializeToString(), NOW))
            self.log.append(events)

    def _share_vectors(self) -> None:
        """Let all collections use one cache of vectors: keys are hashes of encoder and text."""
        own = self.folder / "embeddings.db"
        if not own.is_symlink() and not own.exists():
            own.symlink_to(self._vectors.resolve())

    def _wait(self, progress: Callable[[int, int], None]) -> None:
        deadline = Deadline.after(_READY_S)
        while not self._follower.caught_up.wait(0.2):
            states = self._follower.status()
            failing = next((s for s in states if s.last_error), None)
            if failing is not None or deadline.remaining() < 0:
                problem = failing or states[0]
                raise UnavailableError(f"projection {problem.name}: {problem.last_error}")
            slowest = max(states, key=lambda s: s.lag)
            progress(slowest.applied, slowest.head)


def _digest(collection: Collection) -> str:
    """Return what tells catalogues apart: a hash of the schema and of every item, in order."""
    found = hashlib.blake2b(collection.schema.model_dump_json().encode(), digest_size=8)
    for item in collection.items:
        found.update(orjson.dumps([item.item_id, item.kind, dict(item.attributes)]))
    return found.hexdigest()
