"""Mixed traffic over the film catalogue, from real parts: what people want and how they say it.

| kind      | text                                  | wanted                                   |
| title     | TMDB queries, titles of rated films    | TMDB grades; the film itself             |
| people    | MIT trivia questions                   | films with every named person and year   |
| misspelt  | a title or a name with 1 or 2 edits    | as the right spelling                    |
| partial   | the beginning or some words of a title | the film itself                          |
| theme     | MovieLens tags; plots of MIT questions | films so tagged; the films asked for     |
| browse    | nothing, with a MovieLens history      | what the user liked next                 |
| next      | like the film just seen                | what the user liked next                 |

Themes are asked only of films that the catalogue describes. Edits are seeded; every need of one
origin (a film, a question, a user) shares a group, and a split never puts a group on both sides.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evaluation.collections.collection import Collection, Topic
from evaluation.collections.files import first_of, lines_of, rows_of
from evaluation.collections.films import film_ids
from evaluation.simulation.films import film_items, film_schema
from evaluation.understanding.utterances import trivia
from forage.catalog.item import Item

KINDS = ("title", "people", "misspelt", "partial", "theme", "browse", "next")
_GRADE = 3
_LIKED = 4.0
_RECENT = 60
_AHEAD = 10
_EVERYBODY = 1_000_000
_PLOTS = {"Plot", "Genre"}
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many distinct needs of each kind are made, at most."""

    titles: int = 170
    people: int = 220
    misspelt: int = 110
    partial: int = 110
    themes: int = 240
    users: int = 300


@dataclass(frozen=True, slots=True)
class Rating:
    """One rating of a film of the catalogue."""

    user_id: str
    item_id: str
    stars: float
    time: float


Need = tuple[Topic, dict[str, int]]


class FilmNeeds:
    """Reads the judged data and makes needs of it; same data, sizes and seed, same needs."""

    def __init__(self, data: Path, items: Sequence[Item], seed: int) -> None:
        self._data = data
        self._rng = np.random.default_rng(seed)
        self._films = {i.item_id: i for i in items if i.kind == "film"}
        self._described = frozenset(i for i, f in self._films.items() if f.values("overview"))
        self._tmdb = film_ids(data, items, "tmdbId")
        self._movielens = film_ids(data, items, "movieId")
        self.ratings = self._ratings()
        self._rated = Counter(r.item_id for r in self.ratings)

    def make(self, sizes: Sizes) -> list[Need]:
        """Return needs of all kinds."""
        return [
            *self._titles(sizes.titles),
            *self._people(sizes.people),
            *self._misspelt(sizes.misspelt),
            *self._partial(sizes.partial),
            *self._themes(sizes.themes),
            *self._users(sizes.users),
        ]

    def _ratings(self) -> list[Rating]:
        found = [
            Rating(
                f"movielens-{row['userId']}",
                self._movielens[row["movieId"]],
                float(row["rating"]),
                float(row["timestamp"]),
            )
            for row in rows_of(first_of(self._data / "movielens_small", "ratings.csv"))
            if row["movieId"] in self._movielens
        ]
        return sorted(found, key=lambda r: (r.time, r.user_id, r.item_id))

    def _title(self, item_id: str) -> str:
        return self._films[item_id].texts("title")[0]

    def _known_items(self, number: int) -> list[str]:
        """Draw films that people rated, in proportion to how many did."""
        ids = sorted(i for i in self._rated if len(self._title(i)) > 3)
        weights = np.array([self._rated[i] for i in ids], float)
        chosen = self._rng.choice(
            len(ids), size=min(number, len(ids)), replace=False, p=weights / weights.sum()
        )
        return [ids[i] for i in chosen]

    def _titles(self, number: int) -> Iterator[Need]:
        path = first_of(self._data / "tmdb_title_judgments", "title_judgments.txt")
        texts: dict[str, str] = {}
        grades: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for _, line in lines_of(path):
            if header := re.fullmatch(r"# qid:(\d+): (.*)\*1", line):
                texts[header[1]] = header[2]
            elif judged := re.match(r"(\d)\tqid:(\d+)\t # (\d+)", line):
                item_id = self._tmdb.get(judged[3])
                if item_id and int(judged[1]):
                    grades[judged[2]][item_id] = int(judged[1])
        for query, wanted in sorted(grades.items()):
            yield Topic(f"tmdb-{query}", texts[query], group=f"tmdb-{query}", kind="title"), wanted
        for item_id in self._known_items(number):
            text = self._title(item_id).lower()
            yield Topic(f"title-{item_id}", text, group=item_id, kind="title"), {item_id: 4}

    def _silver(self) -> Iterator[tuple[int, dict[str, str], dict[str, int]]]:
        questions = first_of(self._data / "mit_movie_trivia", "silver_qrels.tsv")
        for row in rows_of(questions, delimiter="\t"):
            wanted = [f"film:{imdb}" for imdb in row["imdb_ids"].split()]
            known = {item_id: _GRADE for item_id in wanted if item_id in self._films}
            if row["split"] == "train" and known and int(row["n_relevant"]) <= 10:
                yield int(row["line"]), row, known

    def _people(self, number: int) -> Iterator[Need]:
        rows = list(self._silver())
        for index in self._rng.permutation(len(rows))[:number]:
            line, row, wanted = rows[index]
            group = f"mit-{line}"
            yield Topic(f"people-{line}", row["query"], group=group, kind="people"), wanted

    def _misspelt(self, number: int) -> Iterator[Need]:
        for item_id in self._known_items(number):
            text = misspell(self._title(item_id).lower(), self._rng)
            yield Topic(f"misspelt-{item_id}", text, group=item_id, kind="misspelt"), {item_id: 4}

    def _partial(self, number: int) -> Iterator[Need]:
        for item_id in self._known_items(number):
            words = self._title(item_id).lower().split()
            if len(words) > 2:
                kept = sorted(self._rng.choice(len(words), len(words) - 1, replace=False))
                text = " ".join(words[i] for i in kept)
            else:
                text = " ".join(words)[: max(3, int(0.6 * len(" ".join(words))))]
            yield Topic(f"partial-{item_id}", text, group=item_id, kind="partial"), {item_id: 4}

    def _themes(self, number: int) -> Iterator[Need]:
        tagged: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for row in rows_of(first_of(self._data / "movielens_small", "tags.csv")):
            item_id = self._movielens.get(row["movieId"], "")
            if item_id in self._described and len(row["tag"]) < 40:
                tagged[row["tag"].lower()][item_id] = _GRADE
        tags = [
            (Topic(f"tag-{tag}", tag, group=f"tag-{tag}", kind="theme"), wanted)
            for tag, wanted in sorted(tagged.items())
        ]
        words = self._plots()
        plots = [
            (Topic(f"plot-{line}", text, group=f"mit-{line}", kind="theme"), wanted)
            for line, row, wanted in self._silver()
            if wanted.keys() <= self._described
            and int(row["n_relevant"]) <= 3
            and len((text := words[line]).split()) >= 4
        ]
        for pool, share in ((tags, number // 2), (plots, number - number // 2)):
            yield from (pool[i] for i in self._rng.permutation(len(pool))[:share])

    def _plots(self) -> list[str]:
        """Return the plot and genre words of every MIT question, in file order."""
        return [
            " ".join(w for slot in asked.slots if slot.kind in _PLOTS for w in slot.tokens)
            for asked in trivia(self._data)
        ]

    def _users(self, number: int) -> Iterator[Need]:
        """Yield two needs per user at a moment: browsing, and wanting more like the last film."""
        liked: defaultdict[str, list[Rating]] = defaultdict(list)
        for rating in self.ratings:
            if rating.stars >= _LIKED:
                liked[rating.user_id].append(rating)
        users = sorted(u for u, films in liked.items() if len(films) >= 15)
        for index in self._rng.permutation(len(users))[:number]:
            user, films = users[index], liked[users[index]]
            cut = int(len(films) * self._rng.uniform(0.5, 0.85))
            history = tuple(r.item_id for r in reversed(films[:cut][-_RECENT:]))
            wanted = {r.item_id: _GRADE for r in films[cut : cut + _AHEAD]}
            for kind in ("browse", "next"):
                yield (
                    Topic(f"{kind}-{user}", "", user, history, user, films[cut].time, kind),
                    wanted,
                )


def misspell(text: str, rng: np.random.Generator) -> str:
    """Return the text with one edit per eight letters, two at most, away from its beginning."""
    for _ in range(1 if len(text) < 16 else 2):
        at = int(rng.integers(1, len(text) - 1))
        letter = _ALPHABET[int(rng.integers(len(_ALPHABET)))]
        edits = (
            text[:at] + text[at + 1 :],
            text[:at] + letter + text[at:],
            text[:at] + letter + text[at + 1 :],
            text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :],
        )
        text = edits[int(rng.integers(len(edits)))]
    return text


def film_collection(data: Path, *, sizes: Sizes | None = None, seed: int = 1) -> Collection:
    """Return the mixed film traffic as a judged collection."""
    items = film_items(data)
    needs = FilmNeeds(data, items, seed).make(sizes or Sizes())
    unique: dict[tuple[str, str, str], Need] = {}
    for topic, wanted in needs:
        if topic.text.strip() or topic.history:
            unique.setdefault((topic.text, topic.user_id, topic.kind), (topic, wanted))
    judgments: Mapping[str, dict[str, int]] = {t.query_id: w for t, w in unique.values()}
    return Collection(
        name="mixed_films",
        schema=film_schema(),
        items=items,
        topics=tuple(topic for topic, _ in unique.values()),
        judgments=judgments,
        note="titles: TMDB and popularity; people: silver labels; themes: tags and plots",
    )


def strangers(data: Path, collection: Collection) -> Collection:
    """Return the needs, browse and next, of the MovieLens users who have none in the mixed traffic.

    `collection` is what `film_collection` returns by itself for the same data.
    """
    everybody = film_collection(data, sizes=replace(Sizes(), users=_EVERYBODY))
    known = {topic.query_id for topic in collection.topics}
    return everybody.of([topic for topic in everybody.topics if topic.query_id not in known])
