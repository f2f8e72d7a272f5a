"""The registry: immutable versions, one current version, and nobody's update lost."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forage.errors import ConflictError, InvalidArgumentError, NotFoundError, StorageError
from forage.registry import JSON, DirectoryRegistry


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    return DirectoryRegistry(tmp_path / "registry", clock=lambda: 1_700_000_000.0)


def test_a_published_artifact_comes_back_whole(registry: DirectoryRegistry) -> None:
    metadata: dict[str, JSON] = {
        "ndcg": 0.61,
        "features": ["bm25", "ctr"],
        "trained_to": {"interactions": 90},
    }

    info = registry.publish("ranker", b"trees", metadata)

    assert (info.version, info.size, info.parent, info.created) == (1, 5, None, 1_700_000_000.0)
    assert info.sha256 == hashlib.sha256(b"trees").hexdigest()
    assert info.metadata == metadata
    assert registry.load("ranker") == (info, b"trees")
    assert registry.current("ranker") == info


def test_a_payload_is_published_from_a_map_and_fetched_into_a_file(
    registry: DirectoryRegistry,
) -> None:
    payload = bytes(range(256)) * 20_000

    info = registry.publish("index-x", memoryview(payload), {})
    file = io.BytesIO()

    assert registry.fetch("index-x", 1, file) == info
    assert file.getvalue() == payload
    with pytest.raises(NotFoundError, match="version 2"):
        registry.fetch("index-x", 2, file)


def test_a_damaged_payload_is_not_fetched(registry: DirectoryRegistry, tmp_path: Path) -> None:
    registry.publish("index-x", b"whole", {})
    path = tmp_path / "registry" / "index-x" / "00000001.bin"
    path.write_bytes(b"whale")
    with pytest.raises(StorageError, match="damaged"):
        registry.fetch("index-x", 1, io.BytesIO())
    path.unlink()

    with pytest.raises(StorageError, match="damaged"):
        registry.fetch("index-x", 1, io.BytesIO())


def test_versions_count_up_and_remember_their_parent(registry: DirectoryRegistry) -> None:
    registry.publish("policy", b"1", {})
    registry.publish("policy", b"2", {}, expected_current=1)
    registry.publish("policy", b"3", {}, make_current=False)

    history = registry.history("policy")

    assert [(info.version, info.parent) for info in history] == [(3, 2), (2, 1), (1, None)]
    assert registry.load("policy")[1] == b"2"
    assert registry.load("policy", 3)[1] == b"3"


def test_kinds_do_not_share_versions(registry: DirectoryRegistry) -> None:
    registry.publish("policy", b"p", {})

    assert registry.publish("ranker", b"r", {}).version == 1
    assert registry.load("policy")[1] == b"p"


def test_an_empty_registry_has_no_current_version(registry: DirectoryRegistry) -> None:
    assert registry.current("ranker") is None
    assert registry.history("ranker") == []
    assert not registry.changed("ranker", None)
    with pytest.raises(NotFoundError, match="no current ranker"):
        registry.load("ranker")


def test_publishing_over_an_unexpected_current_version_stores_nothing(
    registry: DirectoryRegistry,
) -> None:
    registry.publish("policy", b"1", {})

    with pytest.raises(ConflictError) as conflict:
        registry.publish("policy", b"2", {}, expected_current=None)

    assert conflict.value.metadata == {"kind": "policy", "current": "1", "expected": "None"}
    assert [info.version for info in registry.history("policy")] == [1]


def test_rolling_back_is_a_compare_and_set(registry: DirectoryRegistry) -> None:
    registry.publish("ranker", b"old", {})
    registry.publish("ranker", b"new", {}, expected_current=1)

    with pytest.raises(ConflictError):
        registry.set_current("ranker", 1, expected=1)
    info = registry.set_current("ranker", 1, expected=2)

    assert info.version == 1
    assert registry.load("ranker")[1] == b"old"


def test_an_unknown_version_cannot_be_loaded_or_made_current(registry: DirectoryRegistry) -> None:
    registry.publish("ranker", b"x", {})

    with pytest.raises(NotFoundError, match="version 9"):
        registry.load("ranker", 9)
    with pytest.raises(NotFoundError, match="version 9"):
        registry.set_current("ranker", 9, expected=1)


def test_of_many_concurrent_publishers_one_wins_each_round(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    def publish(index: int) -> int | None:
        own = DirectoryRegistry(tmp_path / "registry")
        try:
            return own.publish("policy", str(index).encode(), {}, expected_current=None).version
        except ConflictError:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [version for version in pool.map(publish, range(16)) if version is not None]

    assert won == [1]
    assert len(registry.history("policy")) == 1


def test_candidates_published_at_once_get_different_versions(tmp_path: Path) -> None:
    def publish(index: int) -> tuple[int, bytes]:
        payload = str(index).encode()
        own = DirectoryRegistry(tmp_path)
        return own.publish("ranker", payload, {}, make_current=False).version, payload

    with ThreadPoolExecutor(8) as pool:
        published = sorted(pool.map(publish, range(16)))

    assert [version for version, _ in published] == list(range(1, 17))
    registry = DirectoryRegistry(tmp_path)
    assert all(registry.load("ranker", version)[1] == payload for version, payload in published)


def test_a_change_is_seen_by_another_process_and_only_a_change(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    other = DirectoryRegistry(tmp_path / "registry")
    registry.publish("policy", b"1", {})

    assert other.changed("policy", None)
    assert not other.changed("policy", 1)
    registry.publish("policy", b"2", {}, make_current=False)
    assert not other.changed("policy", 1)
    registry.set_current("policy", 2, expected=1)
    assert other.changed("policy", 1)


def test_pruning_keeps_the_newest_and_the_current_version(registry: DirectoryRegistry) -> None:
    registry.publish("ranker", b"1", {})
    for index in range(2, 7):
        registry.publish("ranker", str(index).encode(), {}, make_current=False)

    removed = registry.prune("ranker", keep=2)

    assert removed == [2, 3, 4]
    assert [info.version for info in registry.history("ranker")] == [6, 5, 1]
    assert registry.load("ranker")[1] == b"1"
    assert registry.prune("ranker", keep=2) == []
    with pytest.raises(NotFoundError):
        registry.load("ranker", 3)


def test_a_pruned_version_number_is_not_given_out_again(registry: DirectoryRegistry) -> None:
    for index in range(3):
        registry.publish("ranker", str(index).encode(), {}, make_current=False)
    registry.prune("ranker", keep=1)

    assert registry.publish("ranker", b"new", {}).version == 4
    with pytest.raises(ValueError, match="at least 1"):
        registry.prune("ranker", keep=0)


@pytest.mark.parametrize("damage", [b"", b"treeZ", b"trees and more"])
def test_a_damaged_payload_is_named(
    registry: DirectoryRegistry, tmp_path: Path, damage: bytes
) -> None:
    registry.publish("ranker", b"trees", {})
    path = tmp_path / "registry" / "ranker" / "00000001.bin"
    path.write_bytes(damage)

    with pytest.raises(StorageError) as damaged:
        registry.load("ranker")

    assert str(path) in damaged.value.message


@pytest.mark.parametrize("name", ["00000001.json", "current"])
def test_damaged_bookkeeping_is_named(
    registry: DirectoryRegistry, tmp_path: Path, name: str
) -> None:
    registry.publish("ranker", b"trees", {})
    path = tmp_path / "registry" / "ranker" / name
    path.write_bytes(b"\x00{")

    with pytest.raises(StorageError, match="damaged") as damaged:
        registry.load("ranker")

    assert str(path) in damaged.value.message


def test_a_payload_without_its_info_does_not_exist(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    folder = tmp_path / "registry" / "ranker"
    folder.mkdir(parents=True)
    (folder / "00000001.bin").write_bytes(b"left by a crash")

    assert registry.history("ranker") == []
    assert registry.publish("ranker", b"whole", {}).version == 1
    assert registry.load("ranker")[1] == b"whole"


@pytest.mark.parametrize("kind", ["", "../policy", "a/b", "Policy", ".hidden"])
def test_a_kind_that_is_no_name_is_refused(registry: DirectoryRegistry, kind: str) -> None:
    with pytest.raises(InvalidArgumentError):
        registry.publish(kind, b"", {})


def test_metadata_must_be_json(registry: DirectoryRegistry) -> None:
    with pytest.raises(ValueError, match="JSON"):
        registry.publish("ranker", b"", {"loss": float("nan")})
    with pytest.raises(ValueError, match="make_current"):
        registry.publish("ranker", b"", {}, make_current=False, expected_current=1)
