"""What every registry owes its callers, as tests to inherit."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from forage.errors import ConflictError, InvalidArgumentError, NotFoundError
from forage.registry import JSON, ArtifactInfo, Registry

Opener = Callable[[], Registry]
NOW = 1_700_000_000.0


class RegistryContract:
    """The promises of `Registry`; subclasses supply the fixture `opener`.

    Each call of `opener` opens another handle on the same registry, empty at first, whose clock
    stands at `NOW`.
    """

    @pytest.fixture
    def registry(self, opener: Opener) -> Registry:
        """Give one handle."""
        return opener()

    def test_a_published_artifact_comes_back_whole(self, registry: Registry) -> None:
        metadata: dict[str, JSON] = {
            "ndcg": 0.61,
            "features": ["bm25", "ctr"],
            "trained_to": {"interactions": 90},
        }

        info = registry.publish("ranker", b"trees", metadata)

        assert (info.version, info.size, info.parent, info.created) == (1, 5, None, NOW)
        assert info.sha256 == hashlib.sha256(b"trees").hexdigest()
        assert info.metadata == metadata
        assert registry.load("ranker") == (info, b"trees")
        assert registry.current("ranker") == info
        assert registry.history("ranker") == [info]

    def test_an_empty_payload_is_a_payload(self, registry: Registry) -> None:
        registry.publish("policy", b"", {})

        assert registry.load("policy")[1] == b""

    def test_a_payload_is_published_from_a_map_and_fetched_into_a_file(
        self, registry: Registry
    ) -> None:
        payload = bytes(range(256)) * 20_000

        info = registry.publish("index-x", memoryview(payload), {})
        file = io.BytesIO()

        assert registry.fetch("index-x", 1, file) == info
        assert file.getvalue() == payload
        with pytest.raises(NotFoundError, match="version 2"):
            registry.fetch("index-x", 2, file)

    def test_versions_count_up_and_remember_their_parent(self, registry: Registry) -> None:
        registry.publish("policy", b"1", {})
        registry.publish("policy", b"2", {}, expected_current=1)
        registry.publish("policy", b"3", {}, make_current=False)

        history = registry.history("policy")

        assert [(info.version, info.parent) for info in history] == [(3, 2), (2, 1), (1, None)]
        assert registry.load("policy")[1] == b"2"
        assert registry.load("policy", 3)[1] == b"3"

    def test_kinds_do_not_share_versions(self, registry: Registry) -> None:
        registry.publish("ranker", b"r", {})

        assert registry.publish("policy", b"p", {}).version == 1
        assert registry.load("ranker")[1] == b"r"
        assert registry.kinds() == ["policy", "ranker"]

    def test_an_empty_registry_has_no_current_version(self, registry: Registry) -> None:
        assert registry.current("ranker") is None
        assert registry.history("ranker") == []
        assert registry.kinds() == []
        assert not registry.changed("ranker", None)
        with pytest.raises(NotFoundError, match="no current ranker"):
            registry.load("ranker")

    def test_publishing_over_an_unexpected_current_version_stores_nothing(
        self, registry: Registry
    ) -> None:
        registry.publish("policy", b"1", {})

        with pytest.raises(ConflictError) as conflict:
            registry.publish("policy", b"2", {}, expected_current=None)

        assert conflict.value.metadata == {"kind": "policy", "current": "1", "expected": "None"}
        assert [info.version for info in registry.history("policy")] == [1]

    def test_rolling_back_is_a_compare_and_set(self, registry: Registry) -> None:
        registry.publish("ranker", b"old", {})
        registry.publish("ranker", b"new", {}, expected_current=1)

        with pytest.raises(ConflictError):
            registry.set_current("ranker", 1, expected=1)
        info = registry.set_current("ranker", 1, expected=2)

        assert info.version == 1
        assert registry.load("ranker")[1] == b"old"

    def test_an_unknown_version_cannot_be_loaded_or_made_current(self, registry: Registry) -> None:
        registry.publish("ranker", b"x", {})

        with pytest.raises(NotFoundError, match="version 9"):
            registry.load("ranker", 9)
        with pytest.raises(NotFoundError, match="version 9"):
            registry.set_current("ranker", 9, expected=1)

    def test_of_many_concurrent_publishers_one_wins(self, opener: Opener) -> None:
        def publish(index: int) -> int | None:
            try:
                payload = str(index).encode()
                return opener().publish("policy", payload, {}, expected_current=None).version
            except ConflictError:
                return None

        with ThreadPoolExecutor(8) as pool:
            won = [version for version in pool.map(publish, range(16)) if version is not None]

        assert won == [1]
        assert len(opener().history("policy")) == 1

    def test_candidates_published_at_once_get_different_versions(self, opener: Opener) -> None:
        def publish(index: int) -> tuple[int, bytes]:
            payload = str(index).encode()
            return opener().publish("ranker", payload, {}, make_current=False).version, payload

        with ThreadPoolExecutor(8) as pool:
            published = sorted(pool.map(publish, range(16)))

        assert [version for version, _ in published] == list(range(1, 17))
        registry = opener()
        assert all(registry.load("ranker", version)[1] == payload for version, payload in published)

    def test_a_change_is_seen_by_another_handle_and_only_a_change(
        self, registry: Registry, opener: Opener
    ) -> None:
        other = opener()
        registry.publish("policy", b"1", {})

        assert other.changed("policy", None)
        assert not other.changed("policy", 1)
        registry.publish("policy", b"2", {}, make_current=False)
        assert not other.changed("policy", 1)
        registry.set_current("policy", 2, expected=1)
        assert other.changed("policy", 1)

    def test_pruning_keeps_the_newest_and_the_current_version(self, registry: Registry) -> None:
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

    def test_a_pruned_version_number_is_not_given_out_again(self, registry: Registry) -> None:
        for index in range(3):
            registry.publish("ranker", str(index).encode(), {}, make_current=False)
        registry.prune("ranker", keep=1)

        assert registry.publish("ranker", b"new", {}).version == 4
        with pytest.raises(ValueError, match="at least 1"):
            registry.prune("ranker", keep=0)

    def test_an_adopted_version_keeps_its_number_and_is_not_current(
        self, registry: Registry
    ) -> None:
        digest = hashlib.sha256(b"seven").hexdigest()
        info = ArtifactInfo("ranker", 7, digest, 5, NOW - 60.0, {"ndcg": 0.5}, parent=3)

        registry.adopt(info, b"seven")
        registry.adopt(info, b"taken")

        assert registry.load("ranker", 7) == (info, b"seven")
        assert registry.current("ranker") is None
        assert registry.publish("ranker", b"eight", {}).version == 8

    @pytest.mark.parametrize("kind", ["", "../policy", "a/b", "a.b", "Policy", ".hidden"])
    def test_a_kind_that_is_no_name_is_refused(self, registry: Registry, kind: str) -> None:
        with pytest.raises(InvalidArgumentError):
            registry.publish(kind, b"", {})
        with pytest.raises(InvalidArgumentError):
            registry.load(kind)

    def test_metadata_must_be_json(self, registry: Registry) -> None:
        with pytest.raises(ValueError, match="JSON"):
            registry.publish("ranker", b"", {"loss": float("nan")})
        with pytest.raises(ValueError, match="make_current"):
            registry.publish("ranker", b"", {}, make_current=False, expected_current=1)
