"""Music requests from real conversations, over the artists of Spotify and Last.fm.

Requests: MusicRecoNER (Epure and Hennequin, 2023). Artists: the 30,000-songs table of Spotify,
and HetRec 2011 of Last.fm. An artist is relevant if the request names them: the names come from
human annotation, the join to the catalogue from equal names, so a singer who is meant but not
named does not count, and what merely resembles the artists named does not either.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from evaluation.collections.collection import Collection, Topic
from evaluation.collections.files import first_of, printable, rows_of, schema
from forage.catalog import Item, Value
from forage.text import normalize

_MOST_TAGS, _MOST_RECORDINGS = 8, 30


@dataclass
class _Artist:
    name: str
    genres: Counter[str] = field(default_factory=Counter)
    albums: dict[str, None] = field(default_factory=dict)
    tracks: dict[str, None] = field(default_factory=dict)
    listeners: int = 0
    popularity: float = 0.0


def load(data: Path) -> Collection:
    """Read artists and requests; a request that names no artist of the catalogue is left out."""
    artists: dict[str, _Artist] = {}
    _spotify(data / "spotify_songs", artists)
    _lastfm(data / "hetrec_lastfm", artists)
    topics, judgments, dropped = _requests(data / "music_queries_deezer", artists)
    return Collection(
        name="music",
        schema=schema("artists"),
        items=tuple(_items(artists)),
        topics=tuple(topics),
        judgments=judgments,
        note=f"{dropped} requests that name no artist of the catalogue left out; labels are"
        " names matched to the catalogue",
    )


def _spotify(folder: Path, artists: dict[str, _Artist]) -> None:
    for row in rows_of(first_of(folder, "spotify_songs.csv")):
        key = normalize(row["track_artist"])
        if not key:
            continue
        artist = artists.setdefault(key, _Artist(row["track_artist"]))
        artist.genres.update((row["playlist_genre"], row["playlist_subgenre"]))
        artist.albums[row["track_album_name"]] = None
        artist.tracks[row["track_name"]] = None
        artist.popularity = max(artist.popularity, float(row["track_popularity"]) / 100)


def _lastfm(folder: Path, artists: dict[str, _Artist]) -> None:
    known: dict[str, _Artist] = {}
    for row in rows_of(first_of(folder, "artists.dat"), delimiter="\t"):
        if key := normalize(row["name"]):
            known[row["id"]] = artists.setdefault(key, _Artist(row["name"].strip()))
    for row in rows_of(first_of(folder, "user_artists.dat"), delimiter="\t"):
        if row["artistID"] in known:
            known[row["artistID"]].listeners += 1
    tags = {
        row["tagID"]: row["tagValue"]
        for row in rows_of(first_of(folder, "tags.dat"), delimiter="\t", encoding="latin-1")
    }
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows_of(first_of(folder, "user_taggedartists.dat"), delimiter="\t"):
        if row["artistID"] in known and normalize(tags.get(row["tagID"], "")):
            counted[row["artistID"]][tags[row["tagID"]]] += 1
    for number, found in counted.items():
        known[number].genres.update(found)


def _items(artists: dict[str, _Artist]) -> Iterator[Item]:
    most = math.log1p(max((a.listeners for a in artists.values()), default=0)) or 1.0
    for key, artist in artists.items():
        best = artist.genres.most_common(_MOST_TAGS)
        heard = math.log1p(artist.listeners) / most
        attributes = {
            "name": (Value(artist.name),),
            "genre": tuple(Value(g, round(n / best[0][1], 3) or 0.001) for g, n in best),
            "album": _recordings(artist.albums),
            "track": _recordings(artist.tracks),
            "popularity": (Value(round(max(heard, artist.popularity), 4)),),
        }
        yield Item(_item_id(key), "artist", {n: v for n, v in attributes.items() if v})


def _recordings(names: dict[str, None]) -> tuple[Value, ...]:
    found = dict.fromkeys(map(printable, names))
    found.pop("", None)
    return tuple(Value(name) for name in list(found)[:_MOST_RECORDINGS])


def _requests(
    folder: Path, artists: dict[str, _Artist]
) -> tuple[list[Topic], dict[str, dict[str, int]], int]:
    texts: dict[str, None] = {}
    named: dict[str, dict[str, int]] = {}
    for number in (1, 2, 3):
        for row in rows_of(first_of(folder, f"dataset{number}_queries.csv")):
            texts[row["preprocessed"]] = None
        for row in rows_of(first_of(folder, f"dataset{number}_ground-truth_linked.csv")):
            if row["type"] != "Artist":
                continue
            article = unquote(row["wiki_name"]).split("_(")[0].replace("_", " ")
            for key in (normalize(row["mention"]), normalize(article)):
                if key in artists:
                    named.setdefault(row["query"], {})[_item_id(key)] = 1
    topics = [
        Topic(f"request:{place}", text, kind="artist")
        for place, text in enumerate(texts)
        if text in named
    ]
    judgments = {topic.query_id: named[topic.text] for topic in topics}
    return topics, judgments, len(texts) - len(topics)


def _item_id(key: str) -> str:
    return f"artist:{key.replace(' ', '-')}"[:200]
