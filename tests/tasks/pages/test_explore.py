import itertools
import shutil

import numpy as np
import pytest

from storage.errors import DatasetError
from storage.store import Store, StoreFormat
from tasks.ingest import ingest_batch
from tasks.pages.explore import _discovered, _measured, _stored, exploration, warnings, write_exploration
from tasks.pages.spectrogram import AXES, draw, levels, marks, row_frequencies


@pytest.fixture(scope="module")
def spoiled(dsd100, tmp_path_factory):
    """The made songs with one of each fault: a leak, a broken file, silence, a copy."""
    root = tmp_path_factory.mktemp("spoiled") / "DSD100"
    shutil.copytree(dsd100, root)
    test = next((root / "Mixtures" / "Test").iterdir())
    for half in ("Mixtures", "Sources"):
        shutil.copytree(root / half / "Test" / test.name, root / half / "Dev" / test.name)
    dev = sorted((root / "Sources" / "Dev").iterdir())[0]
    (dev / "vocals.wav").write_bytes(b"RIFF")
    return root


def test_a_page_says_first_what_is_wrong(spoiled, tmp_path):
    page = write_exploration(spoiled, tmp_path / "page.html").read_text()
    assert page.index("in a training and a test split") < page.index("Splits")
    assert page.index("that cannot be read") < page.index("Splits")
    assert "sound the same in several tracks" not in page.split("Splits")[0].split("that cannot be read")[0]


def test_a_clean_dataset_has_no_bad_warning(dsd100):
    items = _discovered(dsd100, None, None)
    context = exploration(items)
    assert not [warning for warning in context["warnings"] if warning["bad"]]
    assert context["tracks"] == 4
    assert context["hours"] == pytest.approx(4 * 8 / 3600, rel=0.01)
    assert {chart.name for chart in context["histograms"]} >= {"vocals", "bass", ""}


def test_a_store_is_measured_like_the_dataset_it_was_made_from(dsd100, tmp_path):
    from storage.sources.datasets import discover

    opened = Store.create(tmp_path / "s.zarr", StoreFormat(n_fft=0, hop=0))
    tracks = discover(dsd100)[:1]
    opened.prepare({f"{track.split}/{track.dataset}" for track in tracks})
    ingest_batch(str(tmp_path / "s.zarr"), tracks)
    opened.consolidate()
    (stored,) = _stored(tmp_path / "s.zarr")
    before = {one.stem: one for one in _measured(_discovered(dsd100, None, None)[0])}
    for one in _measured(stored):
        assert one.loudness == pytest.approx(before[one.stem].loudness, abs=0.05)
        assert one.power == pytest.approx(before[one.stem].power, rel=0.01)


def test_silence_and_equal_channels_are_reported(dsd100):
    items = _discovered(dsd100, None, None)[:1]
    for stem in items[0].stems.values():
        stem.read = lambda start, seconds: (np.zeros((2, 44100), np.float32), 44100)
    texts = [warning["text"] for warning in warnings(items, _measured(items[0]))]
    assert any("silent where they were measured" in text for text in texts)


def test_a_folder_that_is_not_a_dataset_is_a_sentence(tmp_path):
    with pytest.raises(DatasetError):
        write_exploration(tmp_path, tmp_path / "page.html")


@pytest.mark.parametrize("axis", ["linear", "warped"])
@pytest.mark.parametrize("hz", [220.0, 1000.0, 6000.0])
def test_a_tone_lies_where_the_axis_says(axis, hz):
    tone = np.sin(2 * np.pi * hz * np.arange(44100) / 44100).astype(np.float32)[None]
    power = levels(tone, 44100, axis=axis, rows=256)
    centres = row_frequencies(44100, axis=axis, rows=256)
    row = int(power.mean(axis=1).argmax())
    width = max(np.diff(centres)[min(row, len(centres) - 2)], 44100 / 4096)
    assert abs(centres[row] - hz) <= 1.5 * width


def test_labels_at_the_edge_do_not_overlap():
    for axis in ("linear", "warped"):
        places = [mark.at for mark in marks(44100, axis=axis)]
        assert len(places) >= 3
        assert all(above - below > 0.05 for above, below in itertools.pairwise(places))


def test_a_drawn_spectrogram_is_a_png_whatever_its_title():
    png = draw(np.zeros((1, 44100), np.float32), 44100, axis=AXES[0], title="$\\frac{ <b>")
    assert png.startswith(b"\x89PNG")
