"""Understanding is measured as people marked it, and slips are the slips they say they are."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import DamerauLevenshtein

from evaluation.understanding import score_slots, score_spelling
from evaluation.understanding.measuring import read
from evaluation.understanding.spelling import slip
from evaluation.understanding.utterances import GoldSlot, Utterance, snips, trivia
from forage.errors import InvalidArgumentError, StartupError
from forage.testing.catalog import SCHEMA, items


@pytest.fixture(scope="module")
def understood():
    return read(items(), SCHEMA)


def person(understood):
    """Return a name of two words that the small catalogue has."""
    names = (i.texts("title")[0] for i in items() if i.kind == "person")
    return next(n for n in names if len(n.split()) == 2 and n.isascii())


def utterance(text, *slots):
    return Utterance(
        text, text, tuple(GoldSlot(kind, tuple(words.split())) for kind, words in slots)
    )


def scored(understood, *utterances, **kinds):
    understanding, gazetteer = understood
    return score_slots(
        "made up",
        utterances,
        understanding,
        gazetteer,
        attributes={kind: frozenset(attributes) for kind, attributes in kinds.items()},
        title="title",
    )


def test_a_known_name_that_is_marked_counts_and_an_unknown_one_does_not(understood):
    name = person(understood).lower()
    report = scored(
        understood,
        utterance(name, ("Person", name)),
        utterance("zzyzx qwrtp", ("Person", "zzyzx qwrtp")),
        Person={"title", "cast", "director", "writer"},
    )

    (scores,) = report.scores
    assert (scores.gold, scores.known) == (2, 1)
    assert scores.recall.mean == scores.recall_any.mean == 1.0


def test_a_slot_on_other_words_than_the_marked_ones_is_a_miss(understood):
    name = person(understood).lower()
    first = name.split()[0]
    report = scored(
        understood,
        Utterance(
            "q", name, (GoldSlot("Person", tuple(name.split())), GoldSlot("Other", (first,)))
        ),
        Person={"language"},
        Other={"title", "cast"},
    )

    assert report.scores[0].known == 0
    assert report.scores[1].precision.mean == 0.0


def test_misses_say_what_was_read_instead(understood):
    name = person(understood).lower()
    report = scored(
        understood,
        utterance("zzyzx", ("Person", name)),
        Person={"title", "director", "writer", "cast"},
    )

    assert report.scores[0].recall.mean == report.scores[0].recall_any.mean == 0.0
    assert report.misses == (f"'zzyzx': Person '{name}' was read as nothing",)


def test_sentences_do_not_make_titles_of_function_words(understood):
    understanding, _ = understood
    name = person(understood).lower()

    best = understanding.interpret(tuple(f"which of the films is it that has {name} in it".split()))

    assert [s.value.lower() for s in best[0].slots] == [name]


@given(st.text("abcdefgh ", min_size=4, max_size=30), st.integers(0, 2), st.integers(0, 99))
@settings(max_examples=200)
def test_a_slip_is_one_edit_in_a_word_that_is_long_enough(text, slips, seed):
    typed = slip(text, slips, np.random.default_rng(seed))

    assert len(typed.split()) == len(text.split())
    assert DamerauLevenshtein.distance(typed, " ".join(text.split())) <= slips
    if slips and any(len(w) >= 4 for w in text.split()):
        assert slips == 2 or typed != " ".join(text.split())
    else:
        assert typed == " ".join(text.split())
    for before, after in zip(text.split(), typed.split(), strict=True):
        assert before[0] == after[0]


def test_names_typed_right_are_found_and_garbled_ones_less_often(understood):
    understanding, _ = understood
    names = [n for i in items() if i.kind == "person" for n in i.texts("title")]

    report = score_spelling("people", names, understanding, slips=(0, 1))

    assert report.scores[0].anywhere.mean == 1.0
    assert 0.5 < report.scores[1].anywhere.mean <= 1.0


def test_names_without_a_long_word_are_refused(understood):
    with pytest.raises(InvalidArgumentError, match="names"):
        score_spelling("none", ["Al", "Bo"], understood[0])


def test_bio_lines_become_utterances_with_their_slots(tmp_path):
    folder = tmp_path / "mit_movie_trivia"
    folder.mkdir()
    text = "B-Actor\tliza\nI-Actor\tminnelli\nO\tand\nB-Year\t1972\n\nO\tnothing\n"
    (folder / "trivia10k13train.bio.gz").write_bytes(gzip.compress(text.encode()))

    first, second = trivia(tmp_path)

    assert first.text == "liza minnelli and 1972"
    assert first.slots == (GoldSlot("Actor", ("liza", "minnelli")), GoldSlot("Year", ("1972",)))
    assert second.slots == ()


@pytest.mark.parametrize("line", ["Actor liza", "X-Actor\tliza", "B-Actor\t"])
def test_a_line_that_is_no_bio_is_named(tmp_path, line):
    folder = tmp_path / "mit_movie_trivia"
    folder.mkdir()
    (folder / "trivia10k13train.bio.gz").write_bytes(gzip.compress(f"O\ta\n{line}\n".encode()))

    with pytest.raises(InvalidArgumentError, match=":2"):
        trivia(tmp_path)


def test_snips_pieces_are_joined_and_latin_1_is_read(tmp_path):
    folder = tmp_path / "snips_music"
    folder.mkdir()
    entry = {"data": [{"text": "play "}, {"text": "Beyoncé", "entity": "artist"}, {"text": " now"}]}
    text = json.dumps({"PlayMusic": [entry]}, ensure_ascii=False).encode("latin-1")
    for name in ("train_PlayMusic_full", "validate_PlayMusic"):
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(text))

    found = snips(tmp_path, "PlayMusic")

    assert [u.text for u in found] == ["play Beyoncé now"] * 2
    assert found[0].slots == (GoldSlot("artist", ("beyonce",)),)


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(StartupError, match="cannot be read"):
        trivia(tmp_path)


def test_the_real_annotations_are_read_whole(judged):
    found = trivia(judged)

    assert len(found) == 7_816 or len(found) == 7_815
    assert sum(s.kind == "Actor" for u in found for s in u.slots) == 5_010
