from pathlib import Path

import numpy as np
import pytest

from model.errors import PresetError
from storage.sources.datasets import discover
from storage.store import Store, StoreFormat
from tasks.ingest import ingest_batch
from tasks.training.tune import Dimension, TuneSettings, run_trials, trials


def test_a_range_is_drawn_evenly_in_its_logarithm():
    random = np.random.default_rng(0)
    drawn = np.array([Dimension.parse("learning_rate=1e-4..1e-2").draw(random) for _ in range(400)])
    assert drawn.min() >= 1e-4
    assert drawn.max() <= 1e-2
    assert np.median(drawn) == pytest.approx(1e-3, rel=0.3)


def test_a_grid_is_every_combination_once():
    drawn = trials([Dimension.parse("batch_size=2,4"), Dimension.parse("loss=mask,magnitude_l1")], "grid", 99, 0)
    assert len(drawn) == 4
    assert {"batch_size": 4, "loss": "mask"} in drawn


def test_a_random_search_repeats_with_its_seed_and_never_a_trial():
    space = [Dimension.parse("batch_size=2,4,8"), Dimension.parse("ema=0.9..0.999")]
    assert trials(space, "random", 5, 3) == trials(space, "random", 5, 3)
    assert len(trials([Dimension.parse("batch_size=2,4,8")], "random", 10, 0)) == 3


@pytest.mark.parametrize("text", ["learning_rate", "learning_rate=", "ema=0.9..0.1", "ema=a..b"])
def test_what_is_not_a_dimension_is_a_sentence(text):
    with pytest.raises(PresetError, match="is not a dimension"):
        Dimension.parse(text)


def test_a_grid_over_a_range_is_refused():
    with pytest.raises(PresetError, match="needs choices"):
        trials([Dimension.parse("ema=0.9..0.99")], "grid", 3, 0)


def test_trials_are_rows_and_failed_ones_give_their_reason(dsd100, tmp_path):
    opened = Store.create(tmp_path / "s.zarr", StoreFormat(n_fft=0, hop=0))
    ingest_batch(str(tmp_path / "s.zarr"), discover(dsd100))
    opened.consolidate()
    settings = TuneSettings(
        store=str(tmp_path / "s.zarr"),
        folder=str(tmp_path / "runs"),
        preset="jansson",
        steps=2,
        device="cpu",
        threads=1,
    )
    small = {"batch_size": 2, "frames": 64}
    good, bad = run_trials(settings, [(0, small), (1, {**small, "mixing.speeed": 1})])
    assert good.status == "ok"
    assert good.csdr is not None
    assert Path(good.weights).exists()
    assert bad.status == "failed"
    assert "speeed" in bad.error
