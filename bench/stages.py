"""The stages of `bench.scaling`, in order: each does one thing and returns its figures."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench import invented, load, writing
from bench.catalogs import Catalog
from bench.following import follow
from bench.probe import (
    Figures,
    Running,
    answers,
    built,
    measured,
    restarted,
    running,
    settled,
    stage_times,
)
from bench.processes import disk_mb
from forage.catalog.schema import Schema
from forage.client import Client
from forage.errors import FailedPreconditionError
from forage.importer import Importer, Source
from forage.log import Event
from forage.log.sqlite import SqliteEventLog
from forage.supervisor import Mesh
from forage.v1 import (
    generator_service_pb2,
    generator_service_pb2_grpc,
    query_pb2,
    ranker_service_pb2,
    ranker_service_pb2_grpc,
)

GENERATORS = ("lexical", "graph", "memory", "exploration", "semantic")
_FAN_OUT = 50
_CANDIDATES = 100
_BATCH = 1_000
_FOLLOWED = 30_000


@dataclass(frozen=True)
class Run:
    """One size of catalogue, and where its files are."""

    catalog: Catalog
    config: Path
    folder: Path
    searches: int
    limit_s: float
    milvus: dict[str, Any]
    """Settings of the semantic service for a Milvus server; empty: Milvus Lite."""
    restart: bool = True
    """Whether a service is asked in a process that found its index in place."""
    invented: bool = False
    """Whether the semantic service gets vectors that were drawn; else it embeds the texts."""
    milvus_pid: int = 0
    """The server's process, if it is on this machine and to be measured too."""

    @property
    def data(self) -> Path:
        """The data folder of the services."""
        return self.folder / "data"

    @property
    def rows(self) -> Path:
        """The catalogue as a file to import."""
        return self.folder / "items.jsonl"

    def flags(self, name: str) -> dict[str, Any]:
        """Return the settings of a service that are not as its file has them."""
        return self.milvus if name == "semantic" else {}

    def server_pid(self, name: str) -> int:
        """Return the process of the server that a service uses; 0: none that is measured."""
        return self.milvus_pid if name == "semantic" else 0

    def queries(self) -> list[query_pb2.Query]:
        """Return the understood queries that were recorded."""
        recorded = _recorded(self.folder / "queries.json", "understand")[: self.searches]
        return [query_pb2.Query.FromString(bytes.fromhex(query)) for query in recorded]


def write_rows(run: Run) -> Figures:
    """Write the catalogue to a file."""
    run.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with run.rows.open("wb") as file:
        for row in run.catalog.rows():
            file.write(orjson.dumps(row) + b"\n")
    return {"s": time.monotonic() - began, "mb": disk_mb(run.rows)}


def import_rows(run: Run) -> Figures:
    """Import the catalogue through an orchestrator that is up alone."""
    shutil.rmtree(run.data, ignore_errors=True)
    with running("orchestrator", run.config, run.data) as found:
        began, cpu = time.monotonic(), time.process_time()
        with Client(found.mesh.address) as client:
            done = Importer(client, run.folder / "import", predict=False).run([Source(run.rows)])
        taken = time.monotonic() - began
        return {
            "s": taken,
            "items_per_s": done.written / taken,
            "orchestrator_cpu_s": found.usage().cpu_s - found.at_start.cpu_s,
            "client_cpu_s": time.process_time() - cpu,
            "log_mb": sum(disk_mb(f) for f in run.data.glob("log.db*")),
            "load": os.getloadavg()[0],
        }


def write_log(run: Run) -> Figures:
    """Write the items to the log as the orchestrator does, without file, client and wire."""
    shutil.rmtree(run.data, ignore_errors=True)
    run.data.mkdir(parents=True)
    schema = Schema.load(run.config / "films.schema.yaml")
    log = SqliteEventLog.open(run.data / "log.db")
    began, cpu, batch = time.monotonic(), time.process_time(), list[Event]()
    try:
        for row in run.catalog.rows():
            batch.append(writing.upsert(row, schema))
            if len(batch) == _BATCH:
                log.append(batch)
                batch = []
        log.append(batch)
    finally:
        log.close()
    return {
        "s": time.monotonic() - began,
        "writer_cpu_s": time.process_time() - cpu,
        "log_mb": sum(disk_mb(f) for f in run.data.glob("log.db*")),
        "load": os.getloadavg()[0],
    }


def orchestrator(run: Run) -> Figures:
    """Build the orchestrator's names and items, and start it again."""
    folder = run.data / "orchestrator.catalog"
    shutil.rmtree(folder, ignore_errors=True)
    with running("orchestrator", run.config, run.data, limit_s=run.limit_s) as found:
        figures = built(found, [folder], run.catalog.items)
    with running("orchestrator", run.config, run.data, limit_s=run.limit_s) as found:
        return figures | restarted(found)


def record(run: Run) -> Figures:
    """Have the orchestrator understand the queries, with the lexical generator beside it."""
    texts = [intent.text for intent in run.catalog.intents(run.searches)]
    names = ["orchestrator", "lexical"]
    # A large lexical index answers some queries late; here only the understanding counts.
    slow = {"generators.lexical.timeout_ms": 5_000, "deadline_ms": 10_000}
    flags = {"orchestrator": slow}
    with Mesh(run.config, run.data, names=names, free_ports=True, flags=flags) as mesh:
        mesh.wait_ready(run.limit_s)
        load.searches(mesh.address, texts[:50])
        found = load.searches(mesh.address, texts, keep=True)
    queries = [answer.understood.SerializeToString().hex() for answer in found.responses]
    (run.folder / "queries.json").write_text(json.dumps(queries))
    return {"searches": len(queries), "failures": found.failures, **stage_times(found.responses)}


def build(run: Run, name: str) -> Figures:
    """Build a service's index from the log."""
    for folder in (run.data / name, *run.data.glob(f"{name}.*")):
        shutil.rmtree(folder, ignore_errors=True)
    drawn = invent(run) if name == "semantic" and run.invented else {}
    with _alone(run, name) as found:
        kept = [run.data / name, *run.data.glob(f"{name}.*")]
        kept += [run.data / "embeddings.db"] if name == "semantic" else []
        figures = built(found, kept, run.catalog.items) | drawn
        figures |= settled(found, run.limit_s)
        if name == "semantic" and run.milvus:
            figures["milvus_index"] = run.milvus["milvus.index"]
        if not run.restart:
            figures |= {"pss_mb": figures["index_pss_mb"], **_asked(run, found)}
        return figures


def ask(run: Run, name: str) -> Figures:
    """Start a service on its index, and ask it what an orchestrator would."""
    with _alone(run, name) as found:
        return restarted(found) | _asked(run, found)


def write(run: Run, name: str) -> Figures:
    """Start a service on its index, and change items that it keeps, one after the other."""
    schema = Schema.load(run.config / "films.schema.yaml")
    log = SqliteEventLog.open(run.data / "log.db")
    try:
        with _alone(run, name) as found:
            return writing.write(found, log, run.catalog, schema) | {"load": os.getloadavg()[0]}
    finally:
        log.close()


def modelled(run: Run) -> Figures:
    """Train a model from what the simulated users did, and ask the ranker that scores by it."""
    command = [sys.executable, "-m", "forage.cli", "train", "--force", "--data", str(run.data)]
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, "--config", str(run.config / "ranker.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise FailedPreconditionError(f"no model was trained: {done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "train_s": time.monotonic() - began,
        "train_cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }
    with _alone(run, "ranker") as found:
        version = answers(found, _rank, _rank_requests(run)[:1])[0].model_version
        return figures | restarted(found) | _asked(run, found) | {"model_version": version}


def invent(run: Run) -> Figures:
    """Fill the vector cache, so that nothing is embedded."""
    schema = Schema.load(run.config / "films.schema.yaml")
    return invented.fill(run.data, schema, seed=run.catalog.seed)


def _alone(run: Run, name: str) -> AbstractContextManager[Running]:
    return running(
        name,
        run.config,
        run.data,
        flags=run.flags(name),
        limit_s=run.limit_s,
        server_pid=run.server_pid(name),
    )


def _asked(run: Run, found: Running) -> Figures:
    requests = _rank_requests(run) if found.name == "ranker" else _generate_requests(run)
    stub = _rank if found.name == "ranker" else _generate
    figures = measured(found, stub, requests)
    if found.name == "lexical":
        given = [answer for answer in answers(found, stub, requests) if answer is not None]
        hits = [[hit.item_id for hit in answer.hits] for answer in given]
        (run.folder / "hits.json").write_text(json.dumps(hits))
    return figures


def followed(run: Run) -> Figures:
    """Measure what one search costs those who learn from it."""
    return follow(run.config, run.data, records=_FOLLOWED, limit_s=run.limit_s)


def _recorded(file: Path, stage: str) -> list[Any]:
    try:
        found: list[Any] = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise FailedPreconditionError(f"{file} is missing: run the stage '{stage}'") from error
    return found


def _generate_requests(run: Run) -> list[Any]:
    return [
        generator_service_pb2.GenerateRequest(query=query, limit=_FAN_OUT, seed=seed)
        for seed, query in enumerate(run.queries())
    ]


def _rank_requests(run: Run) -> list[Any]:
    """Return a request for each query: what the lexical generator found, and others to fill up."""
    hits = _recorded(run.folder / "hits.json", "ask lexical")
    pool = [item_id for found in hits for item_id in found[:3]]
    requests = []
    for query, own in zip(run.queries(), hits, strict=False):
        item_ids = list(dict.fromkeys([*own, *pool]))[:_CANDIDATES]
        places = range(len(item_ids))
        request = ranker_service_pb2.RankRequest(query=query, feature_rows=10, item_ids=item_ids)
        request.fused_scores.extend(1 / (place + 1) for place in places)
        request.proposals.add(
            generator="lexical",
            fan_out=_CANDIDATES,
            answered=True,
            candidates=places,
            ranks=(place + 1 for place in places),
            scores=(1 / (place + 1) for place in places),
        )
        requests.append(request)
    return requests


def _generate(channel: Any) -> Callable[..., Any]:
    method: Callable[..., Any]
    method = generator_service_pb2_grpc.CandidateGeneratorServiceStub(channel).Generate
    return method


def _rank(channel: Any) -> Callable[..., Any]:
    method: Callable[..., Any] = ranker_service_pb2_grpc.RankerServiceStub(channel).Rank
    return method
