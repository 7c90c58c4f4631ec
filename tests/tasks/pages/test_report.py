import dataclasses
import json
import re

import numpy as np
import pytest

from storage import runs
from storage.errors import MetricsError
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.metrics import OK, StemRow
from storage.results.summary import previous_run
from tasks.pages.charts import histogram, line_chart, nice_ticks
from tasks.pages.folders import write_page
from tasks.pages.kept import keep_players, kept_players
from tasks.pages.players import interesting_start, player
from tasks.pages.render import clock, count, number
from tasks.pages.report import drop_unheard_players, write_report
from tests.chromium import LAGS, chromium, page, until
from tests.tasks.pages.made import HOSTILE, MODEL, RATE, clicks, made_run

FIRST, SECOND = "separate-20260101T000000-aaaaaa", "separate-20260102T000000-bbbbbb"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    root = tmp_path_factory.mktemp("out")
    made_run(root, FIRST, shift=-2.0)
    return made_run(root, SECOND)


@pytest.fixture(scope="module")
def written(out):
    return write_report(out, SECOND)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_a_report_says_what_ran_what_failed_and_what_was_skipped(written):
    text = written.read_text()
    for words in ("stereo-00000000", "tracks ok", "is empty (… bytes); copy it", "Compared with " + FIRST, "7</b>"):
        assert words in text, words
    assert re.search(r"median <b>5\.50</b> dB \(before 3\.50\)", text)


def test_a_report_shows_the_catalogs_predictions_and_their_drift(written):
    text = written.read_text()
    assert "Predicted SDR of vocals 6.5 dB in the median, as the run before; the latest before: 6.5 dB." in text
    assert "all 4 tracks whose vocals lie here" in text
    assert "By folder" in text


def test_a_run_with_a_sparse_record_has_a_report_too(tmp_path):
    out = made_run(tmp_path, "evaluate-20260101T000000-aaaaaa", tracks=1)
    record = json.loads(out.run_record("evaluate-20260101T000000-aaaaaa").read_text())
    kept = {name: record[name] for name in ("run_id", "started_at")}
    out.run_record("evaluate-20260101T000000-aaaaaa").write_text(json.dumps({**kept, "parameters": {"dataset": "D"}}))
    text = write_report(out, "evaluate-20260101T000000-aaaaaa").read_text()
    assert "· D ·" in text


def test_a_report_loads_nothing_from_elsewhere(written):
    text = written.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)[^#]""", text)
    assert not re.search(r"url\((?!data:)|@import|https?://", text)


def test_names_of_tracks_are_escaped(written):
    text = written.read_text()
    assert HOSTILE not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;document.title" in text


def test_the_run_before_is_the_last_one_of_the_same_kind(out):
    assert previous_run(out, SECOND) == FIRST
    assert previous_run(out, FIRST) is None


def test_a_folder_without_a_run_is_a_sentence(tmp_path):
    with pytest.raises(MetricsError, match="no finished run"):
        write_page(tmp_path)


def test_a_run_that_does_not_exist_is_named_with_those_that_do(out):
    with pytest.raises(MetricsError, match=f"no rows of the run nothing.*{FIRST}"):
        write_report(out, SECOND, ("nothing",))


def test_a_histogram_counts_everyone_and_compares_shares():
    chart = histogram("cSDR", "dB", 0.0, 10.0, [1, 0, 3], [10, 0, 30], quantiles=(1.0, 5.0, 9.0))
    heights = [bar[3] for bar in chart.bars]
    assert chart.tracks == 4
    assert heights == [40.0, 120.0]
    assert [point.split(",")[1] for point in chart.before.split()] == ["80.0"] * 2 + ["120.0"] * 2 + ["0.0"] * 2


def test_a_gap_in_the_data_is_a_gap_in_the_curve():
    chart = line_chart("loss", "", {"loss": ([0, 1, 2, 3], [1.0, None, float("nan"), 2.0])})
    assert [len(piece.split()) for piece in chart.lines[0].points] == [1, 1]
    assert line_chart("loss", "", {"loss": ([0, 1], [None, None])}) is None


def test_a_curve_that_does_not_move_lies_in_the_middle_of_an_axis_that_says_its_value():
    chart = line_chart("learning rate", "", {"rate": ([0, 1], [1e-4, 1e-4])})
    assert {point.split(",")[1] for point in chart.lines[0].points[0].split()} == {str(chart.height / 2)}
    assert "0.0001" in [tick.text for tick in chart.y_ticks]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 17.9), (1e-6, 2e-6), (5, 5)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = nice_ticks(low, high, 6)
    assert 1 <= len(ticks) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


def test_numbers_are_written_as_people_write_them():
    assert (count(1, "track"), count(2, "track"), number(1234567), clock(3725), number(-0.04, 1), number(-0.06, 1)) == (
        "1 track", "2 tracks", "1 234 567", "1:02:05", "0.0", "-0.1",
    )  # fmt: skip


def test_the_excerpt_is_where_all_stems_sound():
    rng = np.random.default_rng(0)
    vocals, backing = (rng.uniform(-0.3, 0.3, (1, 40 * RATE)).astype(np.float32) for _ in range(2))
    vocals[:, : 20 * RATE] = 0
    backing[:, 32 * RATE :] = 0
    assert 20 <= interesting_start([(vocals, RATE), (backing, RATE)], 8.0) <= 24


EVALUATION = "evaluate-20260101T000000-aaaaaa"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """An evaluation of twelve tracks, which keeps an excerpt of each and no stems; track n has n dB."""
    out = OutputLayout(tmp_path_factory.mktemp("evaluated"))
    runs.begin(out, EVALUATION, {"dataset": "D", "model_id": MODEL})
    rows = [
        StemRow(model, f"id/{n}", f"song {n}", stem, OK, sdr=float(n), duration_s=7.0)
        for n in range(12)
        for model in ("floor:mixture", MODEL)
        for stem in ("vocals", "accompaniment")
    ]
    metrics.write_part(out, EVALUATION, rows)
    metrics.compact(out, EVALUATION)
    heard = {name: clicks(2.0) for name in ("mixture", "vocals", "accompaniment", "true vocals")}
    made = player("song", heard, RATE, muted=["mixture", "true vocals"])
    for n in range(12):
        keep_players(out.player(EVALUATION, f"id/{n}"), [dataclasses.replace(made, title=f"song {n}")])
    return out


def test_an_evaluation_is_heard_without_stems(evaluated):
    text = write_report(evaluated, EVALUATION).read_text()
    assert text.count('data-stem="true vocals"') == 9
    assert [n for n in range(12) if f"<h3>song {n}</h3>" in text] == [0, 1, 2, 4, 5, 6, 9, 10, 11]
    assert "<span>cSDR <b>11.0 dB</b></span>" in text


def test_only_the_excerpts_that_a_report_shows_stay(evaluated):
    drop_unheard_players(evaluated, EVALUATION)
    assert len(list(evaluated.players(EVALUATION).iterdir())) == 9
    assert write_report(evaluated, EVALUATION).read_text().count('data-stem="true vocals"') == 9


def test_where_not_all_players_fit_some_of_each_kind_do(evaluated, monkeypatch):
    (one,) = kept_players(evaluated.player(EVALUATION, "id/0"))
    monkeypatch.setattr("tasks.pages.report._MOST_PLAYER_BYTES", 4.5 * one.size)
    text = write_report(evaluated, EVALUATION).read_text()
    assert [n for n in range(12) if f"<h3>song {n}</h3>" in text] == [0, 1, 5, 11]


def test_excerpts_of_another_version_are_passed_over(tmp_path):
    (tmp_path / "players.json").write_text('[{"title": "song", "tape": 1}]')
    assert kept_players(tmp_path / "players.json") == []
    assert kept_players(tmp_path / "nothing.json") == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_a_report_opens_plays_in_step_and_obeys_the_keyboard(browser, written, width, dark):
    with page(browser, written.as_uri(), width=width, dark=dark) as opened:
        assert opened.title() == SECOND
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
        player = opened.locator(".player[data-player]").first
        # What sounds is bright: at first the stems and not the mixture.
        pictures = "document.querySelector('.player').querySelectorAll('.view img')"
        shades = f"[...{pictures}].map((image) => getComputedStyle(image).filter).join()"
        until(opened, f"{shades} === 'brightness(0.5),none,none'")
        player.focus()
        opened.keyboard.press("Space")
        until(opened, "unbraid.players[0].playing && unbraid.players[0].now() > 0.2")
        lags = opened.evaluate(LAGS, 0)
        assert len(lags) == 2
        assert all(lag is not None and abs(lag) < 10 for lag in lags), lags
        opened.keyboard.press("2")  # the second lane alone
        assert opened.evaluate("unbraid.players[0].solo") == "vocals"
        opened.keyboard.press("b")
        assert opened.evaluate("['mixture', 'vocals'].map((n) => unbraid.players[0].audible(n))") == [True, False]
        opened.evaluate("unbraid.players[0].playing ? unbraid.players[0].seek(0) : unbraid.players[0].play()")
        opened.keyboard.press("Space")
        assert not opened.evaluate("unbraid.players[0].playing")
        before = opened.evaluate("unbraid.players[0].now()")
        opened.keyboard.press("ArrowLeft")
        assert opened.evaluate("unbraid.players[0].now()") == pytest.approx(max(0.0, before - 1), abs=0.01)
