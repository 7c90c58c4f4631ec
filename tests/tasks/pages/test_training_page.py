import json
from typing import Any

import numpy as np
import pytest

from storage.errors import MetricsError
from storage.files.layout import OutputLayout, TrainingLayout
from storage.results.rows import write_rows
from storage.results.training_rows import TrialRow
from tasks.pages.folders import write_page
from tasks.pages.kept import kept_players
from tasks.pages.training import curves, parallel, read_log, refresh_training_page
from tests.tasks.pages.made import RATE, clicks


@pytest.fixture
def folder(tmp_path):
    lines = [{"step": 25 * n, "loss": 1 / n, "seconds": 10.0 * n, "examples_per_second": 18.0} for n in range(1, 5)]
    lines.append({"step": 100, "csdr": 5.25, "usdr": 6.0})
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"step": 125, "lo'
    (tmp_path / "log.jsonl").write_text(text)
    (tmp_path / "record.json").write_text(json.dumps({"preset": "<b>stereo", "seed": 1}))
    return tmp_path


def test_a_training_that_goes_on_has_a_page(folder):
    text = write_page(folder).read_text()
    assert "5.25" in text
    assert "&lt;b&gt;stereo" in text
    assert "learning rate" not in text
    assert "validation cSDR" in text


def test_a_line_that_is_half_written_and_columns_that_are_missing_are_left_out(folder):
    lines = read_log(folder / "log.jsonl")
    assert len(lines) == 5
    assert [chart.title for chart in curves(lines)] == [
        "loss", "validation cSDR", "validation uSDR", "examples per second",
    ]  # fmt: skip


def test_tensorboard_finds_the_log(folder):
    pytest.importorskip("tensorboardX")
    write_page(folder)
    write_page(folder)
    events = list((folder / "tensorboard").glob("events.out.*"))
    assert len(events) == 1
    assert b"loss" in events[0].read_bytes()


class Half:
    """A separator whose vocals are a share of the mixture."""

    stems = ("vocals", "accompaniment")

    def __init__(self, share: float) -> None:
        self.share = share

    def separate(self, mixture, rate):
        return {"vocals": mixture * np.float32(self.share)}


def song(quiet_seconds: float) -> tuple[dict, int]:
    """A song of 20 s whose vocals begin late."""
    vocals, backing = (np.tile(clicks(4.0), 5) for _ in range(2))
    vocals[:, : round(quiet_seconds * RATE)] = 0
    return {"vocals": vocals, "accompaniment": backing}, RATE


def validate(folder, *steps: int):
    """The players of a page that is rewritten by validations at these steps."""
    for step in steps:
        separator: Any = Half(step / 100)
        refresh_training_page(TrainingLayout(folder), separator, [song(0.0), song(10.0), song(0.0)], step)
    return kept_players(folder / "players.json")


def names(player) -> list[str]:
    return [lane.name for lane in player.lanes]


def test_the_first_validation_is_heard_beside_the_last_two(folder):
    players = validate(folder, 10, 20, 30, 40)
    assert [names(player) for player in players] == [
        ["mixture", "true vocals", "vocals at step 10", "vocals at step 30", "vocals at step 40"]
    ] * 2
    assert players[0].muted == names(players[0])[:-1]
    assert len({lane.audio for lane in players[0].lanes[2:]}) == 3
    text = write_page(folder).read_text()
    assert text.count('data-stem="vocals at step 10"') == text.count('data-stem="vocals at step 40"') == 2


def test_a_resumed_training_forgets_validations_that_it_does_again(folder):
    validate(folder, 10, 20, 30)
    assert names(validate(folder, 20)[0])[2:] == ["vocals at step 10", "vocals at step 20"]
    assert names(validate(folder, 10)[0])[2:] == ["vocals at step 10"]


def test_what_is_heard_of_a_validation_is_short_and_where_somebody_sings(folder):
    early, late = validate(folder, 10)
    assert early.seconds == late.seconds == 6.0
    assert late.start >= 10.0


def test_a_page_that_cannot_be_written_does_not_end_a_training(tmp_path, caplog):
    separator: Any = Half(0.5)
    refresh_training_page(TrainingLayout(tmp_path / "nowhere"), separator, [song(0.0)], 10)
    assert "could not be written" in caplog.text


def test_a_search_is_a_line_per_trial_the_best_most_prominent(tmp_path):
    out = OutputLayout(tmp_path)
    trials = [TrialRow(n, "stereo", json.dumps({"rate": 0.1 * n, "net": "ab"[n % 2]}), "ok", csdr=float(n))
              for n in range(3)]  # fmt: skip
    write_rows(out, "tune-20260101T000000-aaaaaa", [*trials, TrialRow(9, "stereo", "{}", "failed", error="<i>no</i>")])
    text = write_page(tmp_path).read_text()
    assert "&lt;i&gt;no&lt;/i&gt;" in text
    plot = parallel([{"trial": t.trial, "csdr": t.csdr, "settings": json.loads(t.settings)} for t in trials])
    assert [axis["name"] for axis in plot["axes"]] == ["rate", "net", "cSDR"]
    assert [line["good"] for line in plot["lines"]] == [0.0, 0.5, 1.0]


def test_a_folder_with_nothing_in_it_is_a_sentence(tmp_path):
    with pytest.raises(MetricsError, match="no finished run, no training and no search"):
        write_page(tmp_path)
