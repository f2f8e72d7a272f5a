"""The projection: an engine's files and the corpus in memory, both following the catalogue."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forage.catalog.columns import DERIVED_BY, Columns
from forage.errors import StorageError
from forage.log import Record, SavedState, Stream, Topic
from forage.log.checkpoint import CheckpointFile
from forage.wire import catalog_change
from generators.lexical.analysis import Stemmer
from generators.lexical.clauses import Engine, Searcher
from generators.lexical.corpus import Corpus, Statistics
from generators.lexical.layout import Layout, document
from generators.lexical.manifest import Manifest

_FORMAT = 1
_LEAST_CHANGES = 20
_STALE_SHARE = 0.5
OpenEngine = Callable[[Path], Engine]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """One state of the index, which later changes leave alone."""

    searcher: Searcher
    statistics: Statistics


class LexicalProjection:
    """The index as a `Projection` of the catalogue.

    The engine's files hold the items themselves; the corpus is read back from them. Every batch is
    durable when it is applied, so a checkpoint only notes the position.
    """

    name = "lexical"
    topic = Topic.CATALOG
    streams = (Stream.CATALOG,)

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        stemmer: Stemmer,
        open_engine: OpenEngine,
        fingerprint: str,
        *,
        files_of: str = "",
    ) -> None:
        """Keep everything in `folder`; nothing is opened before `restore`.

        `files_of` names the engine and its version if the folder is all that it needs elsewhere;
        empty if it is not.
        """
        self._folder = folder
        self._layout = layout
        self._stemmer = stemmer
        self._open_engine = open_engine
        self._manifest = Manifest(folder / "index", folder / "checkpoint", fingerprint)
        self._saved = CheckpointFile(
            folder / "corpus",
            name=f"lexical corpus {fingerprint} {DERIVED_BY}",
            version=_FORMAT,
        )
        self._format = files_of and f"{self._manifest.format}, {fingerprint}, {files_of}"
        self._corpus = Corpus(layout, stemmer)
        self._changes = 0
        self._engine: Engine | None = None
        self._sequence = 0
        self._view: View | None = None

    @property
    def view(self) -> View | None:
        """The state to search now; None before `restore`."""
        return self._view

    def restore(self) -> int:
        """Open the files if they are whole; see `Projection.restore`."""
        self.close()
        self._corpus = Corpus(self._layout, self._stemmer)
        self._sequence = self._manifest.load()
        if self._sequence == 0:
            self._discard()
        self._engine = self._open_engine(self._folder / "index")
        try:
            self._changes = self._read(self._engine)
        except (ValueError, TypeError, LookupError) as error:
            _logger.warning("the lexical index is of another form and is rebuilt: %r", error)
            self.close()
            self._corpus, self._sequence = Corpus(self._layout, self._stemmer), 0
            self._discard()
            self._engine = self._open_engine(self._folder / "index")
        self._save_corpus()
        self._publish(self._engine)
        return self._sequence

    def _read(self, engine: Engine) -> int:
        """Fill the corpus; return how many documents the saved one lacked."""
        saved = self._saved.load()
        if saved is not None:
            self._corpus.load(Columns.from_bytes(saved[1]))
        return self._corpus.reconcile(engine.stored())

    def apply(self, records: Sequence[Record]) -> None:
        """Index the last state of every item in the batch; see `Projection.apply`."""
        engine = self._engine
        if engine is None:
            raise StorageError("the lexical index is not open")
        latest = dict(catalog_change(record) for record in records)
        added = [
            document(item, self._corpus.take_row(), self._layout)
            for item in latest.values()
            if item is not None
        ]
        engine.write(latest.keys(), added)
        for item_id in latest:
            self._corpus.remove(item_id)
        for made in added:
            self._corpus.add(made)
        self._changes += len(latest)
        self._publish(engine)
        self._save(records[-1].sequence)

    def checkpoint(self, sequence: int) -> None:
        """Note the position beside the files; see `Projection.checkpoint`."""
        if sequence != self._sequence:
            self._save(sequence)
        self._save_corpus()
        self._corpus.recycle()

    def saved(self) -> SavedState:
        """Describe the files; see `Portable.saved`."""
        names = ("index", "checkpoint", "corpus") if self._format else ()
        return SavedState(self._format, {n: self._folder / n for n in names}, self._sequence)

    def close(self) -> None:
        """Release the engine."""
        self._view = None
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _save_corpus(self) -> None:
        """Save the corpus if much has changed: whatever it lacks is read from the engine."""
        if self._changes >= max(_LEAST_CHANGES, _STALE_SHARE * len(self._corpus)):
            self._saved.save(self._sequence, self._corpus.dump().to_bytes())
            self._changes = 0

    def _save(self, sequence: int) -> None:
        self._manifest.save(sequence)
        self._sequence = sequence

    def _publish(self, engine: Engine) -> None:
        self._view = View(engine.searcher(), self._corpus.statistics())

    def _discard(self) -> None:
        if self._folder.exists():
            _logger.info("starting the lexical index in %s afresh", self._folder)
            shutil.rmtree(self._folder)
