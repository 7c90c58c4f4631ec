"""Other people's separators through our stream: their packages' own code on tiny networks with random weights."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.errors import ModelError
from model.separation import foreign
from model.separation.adapters.openunmix import loader
from model.separation.foreign import ForeignModel, ForeignSeparator
from tests.signals import noise

RATE = 8000


def scaled(stems=("vocals", "drums"), rate=None, channels=None):
    """A model whose stems are the mixture at a gain each."""
    gains = {stem: np.float32(0.5 / (i + 1)) for i, stem in enumerate(stems)}
    return ForeignModel(
        "fake:x-00000000", stems, lambda audio, _: {s: audio * g for s, g in gains.items()}, rate, channels
    )


def total(stems):
    return np.sum(list(stems.values()), axis=0, dtype=np.float64)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("model_rate", [None, 11025])
def test_stems_add_up_at_any_rate_and_number_of_channels(channels, model_rate):
    audio = noise(channels, RATE * 3)
    stems = ForeignSeparator(scaled(rate=model_rate, channels=2)).separate(audio, RATE)
    assert list(stems) == ["vocals", "drums", "other"]
    np.testing.assert_allclose(total(stems), audio, atol=1e-6)
    if model_rate is None:
        np.testing.assert_allclose(stems["vocals"], audio * 0.5, atol=1e-6)


@pytest.mark.parametrize("seconds", [0.01, 5, 59.8, 60, 66, 133.3])
def test_parts_are_joined_without_a_seam_or_a_missing_sample(seconds):
    audio = noise(1, round(RATE * seconds))
    stems = ForeignSeparator(scaled()).separate(audio, RATE)
    assert stems["vocals"].shape == audio.shape
    np.testing.assert_allclose(stems["vocals"], audio * 0.5, atol=1e-6)


def test_blocks_and_the_complete_file_give_the_same_samples():
    audio = noise(2, RATE * 140)
    separator = ForeignSeparator(scaled())
    stream = separator.stream(RATE, 2)
    pieces = []
    for start in range(0, audio.shape[1], 12345):
        pieces += stream.push(audio[:, start : start + 12345])
    pieces += stream.finish()
    joined = np.concatenate([p.stems["drums"] for p in pieces], axis=1)
    np.testing.assert_array_equal(joined, separator.separate(audio, RATE)["drums"])


def test_the_stem_that_takes_the_rest_is_last():
    assert ForeignSeparator(scaled(("drums", "other", "vocals"))).stems == ("drums", "vocals", "other")
    assert ForeignSeparator(scaled(("vocals",))).stems == ("vocals", "accompaniment")


def test_an_entry_point_makes_another_packages_separator_a_model(monkeypatch):
    entry = SimpleNamespace(load=lambda: lambda name, device: scaled((name, "rest")))
    monkeypatch.setattr(foreign, "_entry_points", lambda: {"mine": entry})
    from tasks.loading import load_separator, model_stems

    assert model_stems("mine:voice")[1] == ("voice", "rest", "other")
    assert load_separator("mine:voice", device="cpu").model_id == "fake:x-00000000"


def test_ours_are_entry_points_too():
    assert {"demucs", "openunmix"} <= foreign._entry_points().keys()


@pytest.mark.parametrize("family", ["demucs", "openunmix"])
def test_a_package_that_is_not_there_is_named(family, monkeypatch):
    import sys

    for module in (family, f"{family}.apply", f"{family}.pretrained", f"{family}.utils"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModelError, match=rf"pip install 'unbraid\[{family}\]'"):
        foreign.load_foreign(f"{family}:x", "cpu")


def test_openunmix_with_weights_in_its_own_format(tmp_path):
    loader()
    from openunmix.model import OpenUnmix

    torch.manual_seed(0)
    for target in ("vocals", "drums"):
        network = OpenUnmix(nb_bins=2049, nb_channels=2, hidden_size=32, max_bin=1487)
        torch.save(network.state_dict(), tmp_path / f"{target}.pth")
        (tmp_path / f"{target}.json").write_text(json.dumps({"args": {
            "nfft": 4096, "nhop": 1024, "nb_channels": 2, "hidden_size": 32, "bandwidth": 16000}}))  # fmt: skip
    (tmp_path / "separator.json").write_text(
        json.dumps({"sample_rate": 44100, "nfft": 4096, "nhop": 1024, "nb_channels": 2})
    )
    separator = foreign.load_foreign(f"openunmix:{tmp_path}", "cpu")
    audio = noise(2, 44100 * 2)
    stems = separator.separate(audio, 44100)
    assert list(stems) == [*separator.stems]
    assert {"vocals", "drums", "other"} <= stems.keys()
    np.testing.assert_allclose(total(stems), audio, atol=1e-5)
    assert separator.model_id == foreign.load_foreign(f"openunmix:{tmp_path}", "cpu").model_id


def test_demucs_with_weights_in_its_own_format(tmp_path):
    from demucs.htdemucs import HTDemucs
    from demucs.states import save_with_checksum

    torch.manual_seed(0)
    network = HTDemucs(
        sources=["drums", "bass", "other", "vocals"], channels=8, t_layers=1, depth=4, bottom_channels=32, segment=4
    )
    arguments, named = network._init_args_kwargs
    package = {
        "klass": type(network),
        "args": arguments,
        "kwargs": named,
        "state": network.state_dict(),
        "training_args": {},
    }
    save_with_checksum(package, tmp_path / "00000000.th")
    separator = foreign.load_foreign(f"demucs:{tmp_path}#00000000", "cpu")
    audio = noise(2, 44100 * 5)
    stems = separator.separate(audio, 44100)
    assert list(stems) == ["drums", "bass", "vocals", "other"]
    np.testing.assert_allclose(total(stems), audio, atol=1e-5)
    np.testing.assert_array_equal(stems["vocals"], separator.separate(audio, 44100)["vocals"])


@pytest.mark.parametrize("family", ["demucs", "openunmix"])
def test_a_model_that_does_not_exist_is_a_sentence(family, tmp_path):
    name = f"{tmp_path}#nothing" if family == "demucs" else str(tmp_path / "nothing")
    with pytest.raises(ModelError, match=f"{family} cannot load"):
        foreign.load_foreign(f"{family}:{name}", "cpu")
