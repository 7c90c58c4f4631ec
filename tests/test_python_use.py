"""What a notebook does."""

import numpy as np
import pytest
import soundfile as sf

import unbraid
from storage.errors import AudioError, RegistryError
from tests.signals import noise


def test_three_lines_give_stems_of_a_file_and_of_an_array(untrained, tmp_path):
    mixture = noise(2, 30000)
    sf.write(tmp_path / "song.wav", mixture.T, 44100)
    model = unbraid.load(str(untrained))
    stems = model(tmp_path / "song.wav")
    assert tuple(stems) == model.stems == ("vocals", "accompaniment")
    np.testing.assert_array_equal(stems["vocals"] + stems["accompaniment"], mixture)
    again = model(mixture, rate=44100)
    np.testing.assert_array_equal(again["vocals"], stems["vocals"])
    assert model(mixture[0], rate=44100)["vocals"].shape == (30000,)


def test_what_cannot_be_done_is_told(untrained, tmp_path):
    model = unbraid.load(str(untrained))
    with pytest.raises(TypeError, match="sample rate"):
        model(noise(1, 100))
    with pytest.raises(AudioError, match="is not there"):
        model(tmp_path / "absent.wav")
    with pytest.raises(RegistryError, match="not a registered model"):
        unbraid.load("nothing")


def test_the_shipped_default_loads_by_its_presets_name():
    from tasks.loading import registry

    shipped = [model for model in registry().models() if model.shipped]
    assert any(model.preset == "stereo" and model.champion for model in shipped)
    assert sum(model.path.stat().st_size for model in shipped) <= 90e6
    for model in shipped:
        assert unbraid.load(model.model_id).model_id == model.model_id
        assert model.card
        assert "Trained" in model.card
