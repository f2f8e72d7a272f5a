"""The judged collections that Forage knows how to read, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from evaluation.collections import chorus, cranfield, films, movielens, music, scifact
from evaluation.collections.collection import Collection
from evaluation.collections.files import judged_data
from forage.errors import InvalidArgumentError

_LOADERS: Mapping[str, Callable[[Path], Collection]] = MappingProxyType(
    {
        "scifact": scifact.load,
        "cranfield": cranfield.load,
        "chorus": chorus.load,
        "music": music.load,
        "titles": films.load_titles,
        "trivia": films.load_people,
        "movielens": movielens.load,
    }
)
NAMES = tuple(_LOADERS)


def load(name: str) -> Collection:
    """Read a collection; raises `InvalidArgumentError` for a name that is not in `NAMES`.

    Raises `StartupError` if the folder of the judged data, or a file in it, is missing.
    """
    if name not in _LOADERS:
        raise InvalidArgumentError("collection", f"unknown: {name!r}", allowed=", ".join(NAMES))
    return _LOADERS[name](judged_data())
