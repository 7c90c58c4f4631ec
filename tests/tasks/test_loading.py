import subprocess
from pathlib import Path

import pytest

from model.errors import PresetError
from model.preset import borrowing_presets, load_preset, load_trainable
from tasks.loading import load_separator, load_weights, model_stems, registry

ROOT = Path(__file__).resolve().parents[2]


def test_the_shipped_hq_is_stereos_file_with_other_views():
    stereo, hq = registry().find("stereo"), registry().find("hq")
    assert hq.path == stereo.path
    assert hq.model_id == stereo.model_id.replace("stereo", "hq")
    separator = load_separator("hq", device="cpu")
    assert separator.model_id == hq.model_id
    assert separator.preset.inference.views == load_preset("hq").inference.views != (1.0,)
    assert separator.preset.network_options == load_weights("stereo")[1].preset.network_options
    assert model_stems("hq") == (hq.model_id, ("vocals", "accompaniment"))


def test_a_preset_that_borrows_weights_sets_only_how_it_looks_at_a_song_and_is_not_trained():
    assert borrowing_presets() == {"hq": "stereo"}
    hq, stereo = load_preset("hq"), load_preset("stereo")
    assert (hq.network_options, hq.training, hq.mixing) == (stereo.network_options, stereo.training, stereo.mixing)
    assert hq.inference.core_frames > stereo.inference.core_frames
    assert hq.inference.spatial_hz == stereo.inference.spatial_hz  # what it does not say is the lender's
    with pytest.raises(PresetError, match="train stereo"):
        load_trainable("hq")


def test_the_tracked_files_stay_small_enough_to_clone():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert sum(file.stat().st_size for file in files if file.exists()) < 62e6
