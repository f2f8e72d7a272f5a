"""Simulated users of the demo: they want something, look down the page, and click what fits.

They are honest about being simulated: each wants one film or a few, types a title, a name, a
misspelling or a theme, or opens the front page, which shows films; it looks at position k with
probability k^-0.7, and clicks what it wanted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from forage.catalog import Item
from forage.client import Client, SearchPage
from forage.errors import ForageError
from forage.retrieval import Filter

_EXAMINATION_DECAY = 0.7
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Intent:
    """What one user wants, and what it types."""

    kind: str
    """`title`, `typo`, `person`, `two people`, `theme` or `browse`."""
    text: str
    wanted: frozenset[str]
    user_id: str
    filters: tuple[Filter, ...] = ()


@dataclass(slots=True)
class Session:
    """What came of one search."""

    intent: Intent
    fan_outs: dict[str, int]
    position: int
    """Where the first wanted item was shown; 0 if it was not."""
    clicked: bool


@dataclass(slots=True)
class Tally:
    """All sessions in the order they ended, and the searches that failed."""

    sessions: list[Session] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def intents(items: Sequence[Item], number: int, seed: int) -> list[Intent]:
    """Return what `number` users want, drawn from the catalogue by popularity; same seed, same."""
    rng = np.random.default_rng(seed)
    films = [i for i in items if i.kind == "film" and i.texts("cast") and i.texts("genre")]
    popularity = np.array([f.number("popularity") or 0.0 for f in films]) ** 4
    chosen = rng.choice(len(films), size=number, p=popularity / popularity.sum())
    people = _films_by(films, "cast")
    return [_intent(films[index], films, people, rng) for index in chosen]


def _films_by(films: Sequence[Item], attribute: str) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for film in films:
        for value in film.texts(attribute):
            found.setdefault(value, set()).add(film.item_id)
    return {value: frozenset(ids) for value, ids in found.items()}


def _intent(
    film: Item,
    films: Sequence[Item],
    people: dict[str, frozenset[str]],
    rng: np.random.Generator,
) -> Intent:
    user_id = f"user-{int(rng.integers(40))}"
    title, cast = film.texts("title")[0], film.texts("cast")
    kind = str(
        rng.choice(
            ["title", "typo", "person", "two people", "theme", "browse"],
            p=[0.3, 0.1, 0.25, 0.1, 0.15, 0.1],
        )
    )
    if kind == "two people" and len(cast) > 1:
        pair = cast[:2]
        return Intent(kind, " ".join(pair), people[pair[0]] & people[pair[1]], user_id)
    if kind in ("person", "two people"):
        return Intent("person", cast[0], people[cast[0]], user_id)
    if kind == "theme":
        genre, year = film.texts("genre")[0], int(film.number("year") or 2000)
        decade = year // 10 * 10
        wanted = frozenset(
            f.item_id
            for f in films
            if genre in f.texts("genre")
            and decade <= (f.number("year") or 0) < decade + 10
            and (f.number("popularity") or 0) > 0.6
        )
        return Intent(kind, f"{genre.lower()} {decade}s", wanted | {film.item_id}, user_id)
    if kind == "browse":
        popular = frozenset(f.item_id for f in films if (f.number("popularity") or 0) > 0.85)
        return Intent(kind, "", popular, user_id, (Filter("kind", ("film",)),))
    if kind == "typo" and len(title) > 5:
        return Intent(kind, _misspell(title, rng), frozenset({film.item_id}), user_id)
    return Intent("title", title, frozenset({film.item_id}), user_id)


def _misspell(text: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(text) - 1))
    letter = _ALPHABET[int(rng.integers(len(_ALPHABET)))]
    edits = (text[:at] + text[at + 1 :], text[:at] + letter + text[at:])
    return edits[int(rng.integers(len(edits)))]


def search(client: Client, intent: Intent, rng: np.random.Generator) -> Session:
    """Search as the intent says, look down the page, and give feedback on what was wanted."""
    page = client.search(intent.text, user=intent.user_id, filters=intent.filters)
    shown = [r for r in page if r.item.item_id in intent.wanted]
    looked = [r for r in shown if rng.random() < r.position**-_EXAMINATION_DECAY]
    if looked:
        kind = "play" if rng.random() < 0.6 else "click"
        client.record_feedback(page.request_id, looked[0].item.item_id, kind)
    return Session(intent, _fan_outs(page), shown[0].position if shown else 0, bool(looked))


def _fan_outs(page: SearchPage) -> dict[str, int]:
    return {o.generator: o.fan_out for o in page.outcomes}


def crowd(
    address: str,
    wanted: Sequence[Intent],
    *,
    seed: int,
    threads: int = 4,
    stop: threading.Event | None = None,
    on_session: Callable[[int], None] = lambda done: None,
) -> Tally:
    """Let all users search, a few at a time; failures are kept, not raised."""
    tally = Tally()
    lock = threading.Lock()
    numbers = count()

    def one(intent: Intent) -> None:
        if stop is not None and stop.is_set():
            return
        with lock:
            rng = np.random.default_rng((seed, next(numbers)))
        try:
            session = search(client, intent, rng)
        except ForageError as error:
            with lock:
                tally.failures.append(error.message)
            return
        with lock:
            tally.sessions.append(session)
            on_session(len(tally.sessions))

    with Client(address, timeout_s=10.0) as client, ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, wanted))
    return tally
