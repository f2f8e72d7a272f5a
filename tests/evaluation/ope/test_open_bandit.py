"""Logs in Open Bandit format: made-up ones, damaged ones, and the real ones where they are."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from evaluation.ope import assess
from evaluation.ope.open_bandit import BAD_PROPENSITY, BAD_ROW, open_bandit_sample, read_open_bandit
from forage.errors import InvalidArgumentError, StartupError

HEADER = "timestamp,item_id,position,click,propensity_score,user-item_affinity_0"


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    folder.mkdir()
    (folder / "log.csv").write_text("\n".join((header, *rows)) + "\n")
    (folder / "item_context.csv").write_text("item_id\n0\n")
    return folder


def made_up(folder: Path, chance: float, seed: int, rows: int = 4_000) -> Path:
    """Write a log of two items at one position; item 1 is clicked three times as often."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        item = int(rng.random() < chance)
        click = int(rng.random() < (0.6 if item else 0.2))
        lines.append(f"t,{item},1,{click},{chance if item else 1 - chance},0.0")
    return write(folder, *lines)


def test_another_logs_policy_is_valued_from_a_uniform_log(tmp_path):
    uniform = read_open_bandit(made_up(tmp_path / "uniform", 0.5, 1))
    skewed = read_open_bandit(made_up(tmp_path / "skewed", 0.9, 2))

    found = assess(open_bandit_sample(uniform, skewed), target="skewed")

    assert found.headline.interval.covers(0.9 * 0.6 + 0.1 * 0.2)
    assert found.headline.value == pytest.approx(0.56, abs=0.03)


def test_uniform_shows_all_items_equally_often(tmp_path):
    skewed = read_open_bandit(made_up(tmp_path / "skewed", 0.9, 2))

    sample = open_bandit_sample(skewed)

    assert set(sample.target.tolist()) == {0.5}
    assert assess(sample, target="uniform").headline.interval.covers(0.4)


def test_an_item_never_shown_at_a_position_is_a_support_violation(tmp_path):
    log = read_open_bandit(write(tmp_path / "a", "t,0,1,0,0.5,0", "t,1,2,1,0.5,0"))

    sample = open_bandit_sample(log)

    assert sample.unsupported.tolist() == [0.5, 0.5]


def test_bad_rows_are_counted(tmp_path):
    rows = ("t,0,1,1,0.5,0.1", "t,x,1,0,0.5,0", "t,0,1,nan,0.5,0", "t,0,1,0,0,0", "t,0,1,0,nan,0")

    log = read_open_bandit(write(tmp_path / "a", *rows))

    assert len(log.click) == 1
    assert log.affinity.tolist() == [[0.1]]
    assert log.skipped == {BAD_ROW: 3, BAD_PROPENSITY: 1}


def test_a_log_without_propensities_names_the_column(tmp_path):
    folder = write(tmp_path / "a", "t,0,1,1", header="timestamp,item_id,position,click")

    with pytest.raises(
        InvalidArgumentError, match=r"propensity_score: log\.csv has no such column"
    ):
        read_open_bandit(folder)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((), "it is empty"),
        (("t,0,1,nan,0.5,0",), "1 with a value that is not a number"),
        (("t,0,1,1,0,0", "t,0,1,1,7,0"), "propensity_score: .*2 with a propensity outside"),
        (("t,0,1,5,0.5,0",), "click: .*1 with a click outside"),
    ],
)
def test_a_log_without_a_usable_row_is_an_error(tmp_path, rows, message):
    with pytest.raises(InvalidArgumentError, match=message):
        read_open_bandit(write(tmp_path / "a", *rows))


def test_missing_folders_ambiguous_folders_and_damaged_files_are_errors(tmp_path):
    with pytest.raises(StartupError, match="no such folder"):
        read_open_bandit(tmp_path / "nowhere")
    folder = write(tmp_path / "a", "t,0,1,1,0.5,0")
    (folder / "other.csv").write_text(HEADER)
    with pytest.raises(StartupError, match=r"found log\.csv, other\.csv"):
        read_open_bandit(folder)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "log.csv.gz").write_bytes(gzip.compress(f"{HEADER}\n".encode() * 99)[:-9])
    with pytest.raises(StartupError, match=r"log\.csv\.gz"):
        read_open_bandit(damaged)


def test_only_uniform_has_a_name(tmp_path):
    log = read_open_bandit(write(tmp_path / "a", "t,0,1,1,0.5,0"))

    with pytest.raises(InvalidArgumentError, match="policy"):
        open_bandit_sample(log, "thompson")


@pytest.mark.parametrize("campaign", ["all", "men"])
def test_the_real_logs_agree_on_the_thompson_policy(judged, campaign):
    logs = judged / "open_bandit"

    uniform = read_open_bandit(logs / "random" / campaign)
    thompson = read_open_bandit(logs / "bts" / campaign)

    found = assess(open_bandit_sample(uniform, thompson), target="thompson")

    assert found.headline.interval.covers(float(thompson.click.mean()))
