"""The registry in a folder keeps the contract, and notices damaged files."""

import functools
import io
from pathlib import Path

import pytest

from forage.errors import StorageError
from forage.registry import DirectoryRegistry
from forage.testing.registry_contract import NOW, Opener, RegistryContract


class TestDirectoryRegistry(RegistryContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return functools.partial(DirectoryRegistry, tmp_path / "registry", clock=lambda: NOW)


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    return DirectoryRegistry(tmp_path / "registry")


def test_a_damaged_payload_is_not_fetched(registry: DirectoryRegistry, tmp_path: Path) -> None:
    registry.publish("index-x", b"whole", {})
    path = tmp_path / "registry" / "index-x" / "00000001.bin"
    path.write_bytes(b"whale")
    with pytest.raises(StorageError, match="damaged"):
        registry.fetch("index-x", 1, io.BytesIO())
    path.unlink()

    with pytest.raises(StorageError, match="damaged"):
        registry.fetch("index-x", 1, io.BytesIO())


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
