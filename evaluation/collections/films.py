"""Film queries over the demo catalogue: judged titles, and questions about people and years."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from evaluation.collections.collection import Collection, Topic
from evaluation.collections.files import first_of, lines_of, rows_of, schema
from forage.catalog import Item
from forage.catalog.demo import demo_items

_GRADE = re.compile(r"^(\d)\s+qid:(\d+)\s+#\s*(\d+)\s+(.*)$")
MOST_RELEVANT = 10
"""Questions with more answers than this are left out: a page of ten could not show them."""


def load_titles(data: Path) -> Collection:
    """Read the 39 title queries of the TMDB judgments whose films the catalogue has."""
    items = tuple(demo_items())
    films = film_ids(data, items, "tmdbId")
    texts: dict[str, str] = {}
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    for _, line in lines_of(first_of(data / "tmdb_title_judgments", "title_judgments.txt")):
        if found := _GRADE.match(line):
            grade, number, film, text = found.groups()
            texts[number] = text.strip()
            if film in films:
                judged[number][films[film]] = int(grade)
    topics = [
        Topic(f"title:{number}", text, kind="title")
        for number, text in texts.items()
        if any(judged[number].values())
    ]
    return Collection(
        name="titles",
        schema=schema("films"),
        items=items,
        topics=tuple(topics),
        judgments={f"title:{n}": judged[n] for n in judged if any(judged[n].values())},
        note=f"{len(texts) - len(topics)} queries without a relevant film left out",
    )


def load_people(data: Path, *, most_relevant: int = MOST_RELEVANT) -> Collection:
    """Read the MIT trivia questions that people and years answer.

    Silver labels: every film that has all actors, directors and years of the question is an
    answer; its plot and genre are ignored.
    """
    items = tuple(demo_items())
    known = {item.item_id for item in items}
    topics: list[Topic] = []
    judgments: dict[str, dict[str, int]] = {}
    rows = 0
    for row in rows_of(first_of(data / "mit_movie_trivia", "silver_qrels.tsv"), delimiter="\t"):
        rows += 1
        films = [f"film:{imdb}" for imdb in row["imdb_ids"].split()]
        films = [film for film in films if film in known]
        if int(row["n_relevant"]) > most_relevant or not films:
            continue
        query_id = f"trivia:{row['split']}:{row['line']}"
        topics.append(Topic(query_id, row["query"], kind="people"))
        judgments[query_id] = dict.fromkeys(films, 1)
    return Collection(
        name="trivia",
        schema=schema("films"),
        items=items,
        topics=tuple(topics),
        judgments=judgments,
        note=f"{rows - len(topics)} questions with more than {most_relevant} answers left out;"
        " silver labels: people and years only",
    )


def film_ids(data: Path, items: Iterable[Item], column: str) -> Mapping[str, str]:
    """Return film ids of the catalogue by another id, a column of MovieLens's links table."""
    known = {item.item_id for item in items}
    return {
        row[column]: film
        for row in rows_of(first_of(data / "movielens_small", "links.csv"))
        if row[column] and (film := f"film:tt{row['imdbId']}") in known
    }
