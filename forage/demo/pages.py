"""The pages of the demo, in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from forage.catalog import Item
from forage.catalog.demo import CREDIT, demo_items
from forage.cli import app
from forage.cli.terminal import connect, console
from forage.demo.users import Intent, Session, Tally, crowd, intents
from forage.errors import DeadlineExceededError, ForageError
from forage.supervisor import Mesh

_LEARNER = {"learner.delay_s": 1.0, "learner.publish_every_s": 0.5}
"""The demo's users answer within a second, so its learner waits no longer for them."""
_RELOAD_S = 30.0
_SEARCHES = (
    ("A title", ["the godfather"]),
    ("A misspelt name", ["arnold schwarzeneger"]),
    ("Two people", ["tom hanks meg ryan"]),
    ("A theme", ["space horror 1980s", "--kind", "film", "--facet", "genre"]),
    ("An empty browse", ["", "--kind", "film", "--user", "user-1"]),
)


class Demo:
    """Runs the tour: every page prints the command that made it."""

    def __init__(
        self, data: Path, config_dir: Path, *, searches: int, seed: int, free_ports: bool
    ) -> None:
        self._data = data
        self._searches = searches
        self._seed = seed
        self._out = console()
        self._started = time.monotonic()
        self._items: list[Item] = []
        self._mesh = Mesh(config_dir, data, free_ports=free_ports, flags={"orchestrator": _LEARNER})

    def run(self, *, stay: bool) -> None:
        """Show every page; with `stay`, keep the mesh up until Ctrl-C."""
        with self._mesh:
            self._title("Seven services start")
            self._mesh.wait_ready(120.0)
            os.environ["FORAGE_ADDRESS"] = self._mesh.address
            os.environ["FORAGE_DATA"] = str(self._data)
            self._services()
            self._import()
            self._show_searches()
            self._show_learning()
            self._show_ranker()
            self._show_trace()
            self._next(stay)
            if stay:
                self._wait()

    def _title(self, text: str) -> None:
        self._out.rule(f"{text}   [{time.monotonic() - self._started:.0f} s]", align="left")

    def _command(self, *arguments: str) -> None:
        shown = " ".join(a if a and " " not in a else f'"{a}"' for a in arguments)
        self._out.print(f"$ forage {shown}", style="bold")
        app(list(arguments), standalone_mode=False)
        self._out.print()

    def _services(self) -> None:
        table = Table("service", "pid", "at", "memory")
        for s in self._mesh.states():
            table.add_row(s.name, str(s.pid), s.target, f"{s.resident_bytes / 2**20:.0f} MiB")
        self._out.print(table)

    def _import(self) -> None:
        with connect(self._mesh.address) as client:
            known = client.ingest_status().proto.catalog_head
        self._title("The catalogue: 17,472 films and their people, genres, studios, countries")
        if known:
            self._out.print(f"already imported into {self._data}; the log is at {known:,}")
        else:
            self._out.print(f"Data by {CREDIT}, from the package bokeh-sampledata")
            self._command("import", "--demo")

    def _show_searches(self) -> None:
        for title, arguments in _SEARCHES:
            self._title(title)
            self._command("search", *arguments)
        self._title("More like this")
        with connect(self._mesh.address) as client:
            liked = client.search("alien").results[0].item.item_id
        self._command("search", "--like", liked, "--kind", "film")

    def _show_learning(self) -> None:
        self._title(f"{self._searches} searches by simulated users move the plan")
        self._items = list(demo_items())
        wanted = intents(self._items, self._searches, self._seed)
        tally = self._crowd(wanted, "users searching")
        self._out.print(_before_after(tally))
        self._out.print(_by_kind(tally))
        self._command("policy")

    def _crowd(self, wanted: Sequence[Intent], label: str) -> Tally:
        err = Console(stderr=True)
        with Progress(console=err) as bars:
            task = bars.add_task(label, total=len(wanted))
            return crowd(
                self._mesh.address,
                wanted,
                seed=self._seed,
                on_session=lambda done: bars.update(task, completed=done),
            )

    def _show_ranker(self) -> None:
        self._title("A ranker is trained from the log, published, and loaded without a restart")
        self._out.print(f"$ forage train --data {self._data}", style="bold")
        stop, tally = threading.Event(), Tally()
        wanted = intents(self._items, 5_000, self._seed + 1)

        def search_on() -> None:
            nonlocal tally
            tally = crowd(self._mesh.address, wanted, seed=self._seed, threads=1, stop=stop)

        others = threading.Thread(target=search_on, name="searching")
        others.start()
        try:
            subprocess.run(
                [sys.executable, "-m", "forage.cli", "train", "--data", str(self._data)],
                check=False,
            )
            version = self._loaded_version()
        finally:
            stop.set()
            others.join()
        self._out.print(
            f"the ranker serves model version {version}; of {len(tally.sessions):,} searches made"
            f" meanwhile {len(tally.failures)} failed"
        )
        self._command("search", "tom hanks meg ryan")

    def _loaded_version(self) -> int:
        """Return the model version that searches are ranked with, once it is the published one."""
        from forage.registry import DirectoryRegistry

        current = DirectoryRegistry(self._data / "registry").current("ranker")
        published = current.version if current else 0
        end = time.monotonic() + _RELOAD_S
        with connect(self._mesh.address) as client:
            while True:
                served = client.search("alien").model_version
                if served == published:
                    return served
                if time.monotonic() > end:
                    raise DeadlineExceededError(
                        f"the ranker still serves version {served}, not {published}"
                    )
                time.sleep(0.2)

    def _show_trace(self) -> None:
        self._title("One search is one trace")
        with connect(self._mesh.address) as client:
            page = client.search("julia roberts hugh grant", user="user-1")
            client.record_feedback(page.request_id, page.results[0].item.item_id, "play")
        self._trace(page.request_id)
        self._command("policy", "replay", page.request_id)

    def _trace(self, request_id: str) -> None:
        from forage.waterfall import find_trace

        # Every process writes its own file, a moment after the span has ended.
        end = time.monotonic() + 10.0
        while True:
            try:
                if len(find_trace(self._data / "telemetry", request_id).services) > 2:
                    break
            except ForageError:
                if time.monotonic() > end:
                    raise
            if time.monotonic() > end:
                break
            time.sleep(0.2)
        self._command("trace", request_id)

    def _next(self, stay: bool) -> None:
        self._title("Try next")
        where = self._mesh.address
        forage = ".venv/bin/forage"
        for line in (
            f'{forage} search "robots year:>2000 -love"      the query language',
            f"{forage} search heist --explain                 why, in full",
            f"{forage} policy                                 what the bandit has learned",
            f"{forage} policy disable semantic                a kill switch",
            f"{forage} status                                 lag and memory of every service",
            f"{forage} trace                                  the latest traces",
            f'.venv/bin/grpcurl -plaintext -d \'{{"text": "alien"}}\' {where}'
            " forage.v1.SearchService/Search",
        ):
            self._out.print(line)
        if stay:
            self._out.print(f"The mesh is up at {where}; Ctrl-C stops it.", style="bold")

    def _wait(self) -> None:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        while not stop.wait(0.5):
            self._mesh.check()


def _before_after(tally: Tally) -> Table:
    """Compare the plans of the first fifth of the sessions with those of the last."""
    part = max(1, len(tally.sessions) // 5)
    first, last = tally.sessions[:part], tally.sessions[-part:]
    table = Table("generator", f"first {part}", "mean fan-out", f"last {part}", "mean fan-out ")
    for name in first[0].fan_outs if first else ():
        table.add_row(name, *_share(first, name), *_share(last, name))
    table.add_row("wanted item shown", *_shown(first), *_shown(last), end_section=True)
    table.caption = f"{len(tally.failures)} of {len(tally.sessions)} searches failed"
    return table


def _share(sessions: Sequence[Session], name: str) -> tuple[str, str]:
    called = [s.fan_outs.get(name, 0) for s in sessions if s.fan_outs.get(name, 0)]
    mean = f"{sum(called) / len(called):.0f}" if called else "-"
    return f"called by {len(called) / len(sessions):4.0%}", mean


def _shown(sessions: Sequence[Session]) -> tuple[str, str]:
    return f"{sum(s.position > 0 for s in sessions) / len(sessions):.0%}", ""


def _by_kind(tally: Tally) -> Table:
    """Show what the last half of the sessions called, by what was wanted."""
    late = tally.sessions[len(tally.sessions) // 2 :]
    names = list(late[0].fan_outs) if late else []
    table = Table("wanted", "searches", *names, "wanted item shown")
    for kind in dict.fromkeys(sorted(s.intent.kind for s in late)):
        chosen = [s for s in late if s.intent.kind == kind]
        means = [sum(s.fan_outs.get(n, 0) for s in chosen) / len(chosen) for n in names]
        shown = sum(s.position > 0 for s in chosen) / len(chosen)
        table.add_row(kind, str(len(chosen)), *(f"{m:.0f}" for m in means), f"{shown:.0%}")
    table.title = "mean fan-out in the second half, by what was wanted"
    return table
