"""Content understanding: what it predicts, how honestly, and when it refuses."""

from pathlib import Path

import numpy as np
import pytest

from forage.catalog import Item, Schema, Value
from forage.catalog.understanding import Report, understand
from forage.encoder import Progress, Vectors

SCHEMA = Schema.load(Path(__file__).parents[2] / "config" / "films.schema.yaml")


class WordSight:
    """An encoder that sees nothing but whether a title says `laugh`."""

    dimension = 2
    identity = "word-sight"

    def encode(self, texts: list[str], *, progress: Progress | None = None) -> Vectors:
        return np.array([[1, 0] if "laugh" in t else [0, 1] for t in texts], np.float32)


def _films(count: int, *, noise: float, seed: int = 0) -> list[Item]:
    """Films whose director decides the genre, except for a share `noise` decided by chance."""
    rng = np.random.default_rng(seed)
    films = []
    for n in range(count):
        director = int(rng.integers(20))
        comedy = director < 10 if rng.random() >= noise else rng.random() < 0.5
        name = "Comedy" if comedy else "Drama"
        films.append(
            Item(
                f"film:{n}",
                "film",
                {
                    "title": (Value(f"Film {n}"),),
                    "director": (Value(f"Director {director}"),),
                    "genre": (Value(name, item_id=f"genre:{name.lower()}"),),
                },
            )
        )
    return films


def _unlabelled(director: int) -> Item:
    attributes = {"title": (Value("New"),), "director": (Value(f"Director {director}"),)}
    return Item(f"film:new{director}", "film", attributes)


def _report(reports: list[Report], kind: str) -> Report:
    return next(r for r in reports if r.kind == kind)


def test_a_missing_genre_is_learned_from_the_director() -> None:
    new = [_unlabelled(3), _unlabelled(15)]

    found = understand(_films(1500, noise=0.1) + new, SCHEMA, rng=np.random.default_rng(1))

    (comedy,) = found.values["film:new3"]["genre"]
    (drama,) = found.values["film:new15"]["genre"]
    report = _report(found.reports, "film")
    assert (comedy.value, comedy.item_id, comedy.predicted) == ("Comedy", "genre:comedy", True)
    assert drama.value == "Drama"
    assert 0.85 < comedy.weight <= 1
    assert report.refused == ""
    assert report.items == report.missing == 2
    assert report.precision == pytest.approx(0.95, abs=0.05)
    assert report.calibration_error < 0.05


def test_completing_adds_predictions_and_touches_no_value_of_the_owner() -> None:
    labelled, new = _films(1500, noise=0.0), _unlabelled(3)
    found = understand([*labelled, new], SCHEMA, rng=np.random.default_rng(1))

    completed = found.complete(new)

    assert completed.texts("genre") == ("Comedy",)
    assert completed.values("director") == new.values("director")
    assert found.complete(labelled[0]) is labelled[0]


def test_the_same_seed_predicts_the_same() -> None:
    items = [*_films(800, noise=0.2), _unlabelled(1)]

    first, second = (
        understand(items, SCHEMA, rng=np.random.default_rng(5), most_labelled=600) for _ in range(2)
    )

    assert first.values == second.values


def test_too_few_labelled_items_are_refused_with_the_reason() -> None:
    found = understand(
        [*_films(100, noise=0), _unlabelled(1)], SCHEMA, rng=np.random.default_rng(0)
    )

    assert found.values == {}
    assert "100 items have values, at least 400" in _report(found.reports, "film").refused


def test_a_kind_that_seldom_has_the_attribute_is_left_alone() -> None:
    bare = [Item(f"film:b{n}", "film", {"title": (Value("x"),)}) for n in range(900)]

    found = understand(_films(500, noise=0) + bare, SCHEMA, rng=np.random.default_rng(0))

    assert found.values == {}
    assert "need not have them" in _report(found.reports, "film").refused


def test_what_cannot_be_known_is_not_predicted() -> None:
    items = [*_films(1500, noise=1.0), _unlabelled(3)]

    found = understand(items, SCHEMA, rng=np.random.default_rng(0), threshold=0.9)

    assert found.values == {}


def test_an_encoder_adds_what_words_alone_do_not_tell() -> None:
    rng = np.random.default_rng(0)
    films = []
    for n in range(800):
        comedy = bool(rng.integers(2))
        title = f"{'laughing' if comedy else 'crying'}{n}"
        genre = (Value("Comedy" if comedy else "Drama"),)
        films.append(Item(f"film:{n}", "film", {"title": (Value(title),), "genre": genre}))
    new = Item("film:new", "film", {"title": (Value("laughter"),)})

    blind = understand([*films, new], SCHEMA, rng=rng, threshold=0.8)
    seeing = understand([*films, new], SCHEMA, rng=rng, threshold=0.8, encoder=WordSight())

    assert blind.values == {}
    assert seeing.values["film:new"]["genre"][0].value == "Comedy"
