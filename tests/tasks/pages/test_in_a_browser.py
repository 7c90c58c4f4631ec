"""The pages of a dataset, a training and a search in Chromium: nothing on the console, no sideways scroll, in step."""

import json

import numpy as np
import pytest

from storage.files.layout import OutputLayout, TrainingLayout
from storage.results.rows import write_rows
from storage.results.training_rows import TrialRow
from tasks.pages.explore import write_exploration
from tasks.pages.folders import write_page
from tasks.pages.kept import keep_players
from tasks.pages.players import player
from tasks.pages.training import write_training_page
from tests.chromium import LAGS, chromium, page, until
from tests.tasks.pages.made import HOSTILE, RATE, clicks


def dataset_page(folder, dsd100):
    return write_exploration(dsd100, folder / "explore.html")


def training_page(folder, _):
    lines = [{"step": n, "loss": 1 / n, "seconds": 1.0 * n, "learning_rate": 1e-3, "gradient_norm": 0.1, "waiting": 0.0,
              "examples_per_second": 18.0} for n in range(1, 9)]  # fmt: skip
    layout = TrainingLayout(folder)
    layout.log.write_text("\n".join(json.dumps(line) for line in [*lines, {"step": 8, "csdr": 5.0, "usdr": 6.0}]))
    lanes = ["mixture", "true vocals", "vocals at step 100", "vocals at step 700", "vocals at step 800"]
    signals = {name: clicks() * np.float32(0.5) for name in lanes}
    keep_players(layout.players, [player(HOSTILE, signals, RATE, muted=lanes[:-1])])
    return write_training_page(layout)


def search_page(folder, _):
    settings = ({"learning_rate": 10.0**-n, "loss": HOSTILE} for n in range(3))
    trials = [TrialRow(n, "stereo", json.dumps(values), "ok", csdr=float(n)) for n, values in enumerate(settings)]
    write_rows(OutputLayout(folder), "tune-20260101T000000-aaaaaa", trials)
    return write_page(folder)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("make", [dataset_page, training_page, search_page])
def test_a_page_fits_logs_nothing_and_plays_in_step(make, browser, dsd100, tmp_path):
    made = make(tmp_path, dsd100)
    for width, dark in ((1280, False), (400, True)):
        with page(browser, made.as_uri(), width=width, dark=dark) as opened:
            assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert opened.title() != "owned"
            if make is search_page:
                continue
            opened.locator(".player[data-player]").first.focus()
            opened.keyboard.press("Space")
            until(opened, "unbraid.players[0].playing && unbraid.players[0].now() > 0.2")
            if make is training_page and not dark:  # one stem three times: what is apart can be told
                lags = opened.evaluate(LAGS, 0)
                assert len(lags) == 4
                assert all(lag is not None and abs(lag) < 10 for lag in lags), lags
                sounds = "(n) => unbraid.players[0].audible(n)"
                assert [opened.evaluate(sounds, f"vocals at step {step}") for step in (100, 800)] == [False, True]
                opened.keyboard.press("3")  # the first validation alone
                assert [opened.evaluate(sounds, f"vocals at step {step}") for step in (100, 800)] == [True, False]
            opened.keyboard.press("Space")
            assert not opened.evaluate("unbraid.players[0].playing")
