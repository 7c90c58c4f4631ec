"""What the masks say is added up as defined, and predictions are lines that were fitted and checked."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from model.checkpoint import Weights, build
from model.errors import CheckpointError
from model.preset import load_preset
from model.separation.evidence import CERTAIN, ENERGY, SHARED, SIDE, Evidence, mask_sums
from model.separation.fitting import LEAST_SONGS, Observation, carried_over, fit, observe
from model.separation.foreign import ForeignModel, ForeignSeparator
from model.separation.prediction import Calibration, predict, vocal_presence
from model.separation.stream import Separator
from tests.signals import noise

RATE = 8000
STEMS = ("vocals", "accompaniment")


@pytest.mark.parametrize("stems", [2, 4])
def test_sums_are_those_of_their_definition(stems):
    random = torch.Generator().manual_seed(1)
    magnitude = torch.rand(2, 9, 33, generator=random)
    masks = torch.rand(stems, 2, 9, 33, generator=random)
    masks = masks / masks.sum(0)
    sums = mask_sums(magnitude, masks[:-1])
    for index, mask in enumerate(masks):
        m, power = mask[:, ::2].double(), magnitude[:, ::2].double().square()
        certain, shared = (m * m * power).sum((0, 2)), (m * (1 - m) * power).sum((0, 2))
        torch.testing.assert_close(sums[index, :, CERTAIN].double(), certain, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sums[index, :, SHARED].double(), shared, rtol=1e-4, atol=1e-4)


def test_samples_are_added_up_by_the_second_however_they_come():
    audio = noise(2, RATE * 3 + 500)
    one, many = Evidence(2, RATE), Evidence(2, RATE)
    one.add_samples([audio, audio * 0])
    for start in range(0, audio.shape[1], 1700):
        part = audio[:, start : start + 1700]
        many.add_samples([part, part * 0])
    np.testing.assert_allclose(one.sums, many.sums, rtol=1e-5)
    assert one.sums.shape == (3, 2, 5)  # the partial second at the end is dropped, as SDR's windows drop it
    second = audio[:, RATE : 2 * RATE].astype(np.float64)
    np.testing.assert_allclose(one.sums[1, 0, ENERGY], np.square(second).sum(), rtol=1e-4)
    np.testing.assert_allclose(one.sums[1, 0, SIDE], np.square(second[0] - second[1]).sum() / 2, rtol=1e-4)


@pytest.mark.parametrize("name", ["jansson", "four-stem"])
def test_a_stream_gives_the_same_evidence_in_blocks_and_at_once(name):
    torch.manual_seed(0)
    preset = load_preset(name)
    separator = Separator(preset, build(preset))
    audio = noise(2, 44100 * 3)
    at_once, blocks = separator.stream(44100, 2), separator.stream(44100, 2)
    list(at_once.push(audio))
    list(at_once.finish())
    for start in range(0, audio.shape[1], 30_000):
        list(blocks.push(audio[:, start : start + 30_000]))
    list(blocks.finish())
    assert at_once.evidence.sums.shape == (3, len(separator.stems), 5)
    np.testing.assert_array_equal(at_once.evidence.sums, blocks.evidence.sums)
    assert (at_once.evidence.sums[..., CERTAIN] > 0).all()


def test_a_foreign_separators_stems_give_evidence_too():
    sure = ForeignSeparator(ForeignModel("fake:a-0", ("vocals",), lambda audio, _: {"vocals": audio * 0.99}))
    unsure = ForeignSeparator(ForeignModel("fake:b-0", ("vocals",), lambda audio, _: {"vocals": audio * 0.5}))
    doubts = []
    for separator in (sure, unsure):
        stream = separator.stream(RATE, 1)
        list(stream.push(noise(1, RATE * 4)))
        list(stream.finish())
        total = stream.evidence.sums[:, 0].sum(axis=0)
        doubts.append(10 * np.log10(total[CERTAIN] / total[SHARED]))
    assert doubts[0] == pytest.approx(10 * np.log10(0.99 / 0.01), abs=0.5)
    assert doubts[1] == pytest.approx(0, abs=0.5)


def observed(song: int, doubt: float, score: float, *, voice: bool = True) -> Observation:
    """A song of four seconds whose vocals have this doubt in dB."""
    evidence = Evidence(2, RATE)
    audio = noise(1, RATE * 4, seed=song)
    evidence.add_samples([audio * (0.5 if voice else 0.01), audio])
    shared = 1.0 if voice else 0.01
    frames = torch.tensor([[shared * 10 ** (doubt / 10), shared], [20.0, shared]])[:, None].expand(2, 32, 2)
    evidence.add_frames(frames, 0, RATE / 16)
    scores = {"vocals": score, "accompaniment": score + 4} if voice else {"accompaniment": 20.0}
    return Observation(str(song), STEMS, evidence, scores, {stem: np.full(4, value) for stem, value in scores.items()})


@pytest.fixture(scope="module")
def calibration():
    random = np.random.default_rng(3)
    doubts = random.uniform(-5, 12, 60)
    songs = [observed(i, doubt, 2 + 0.7 * doubt + random.normal(0, 1)) for i, doubt in enumerate(doubts)]
    return fit(songs + [observed(100 + i, -8.0, 0.0, voice=False) for i in range(10)])


def test_a_known_line_is_fitted_and_its_interval_holds_four_fifths(calibration):
    random = np.random.default_rng(4)
    errors, held = [], []
    for index, doubt in enumerate(random.uniform(-5, 12, 200)):
        true = 2 + 0.7 * doubt + random.normal(0, 1)
        prediction = predict(observed(1000 + index, doubt, 0).evidence, STEMS, calibration)["vocals"]
        errors.append(abs(prediction.sdr - (2 + 0.7 * doubt)))
        held.append(prediction.low <= true <= prediction.high)
    assert np.mean(errors) < 0.4
    assert 0.65 < np.mean(held) < 0.95


def test_an_interval_holds_songs_at_their_own_balance_and_is_not_widened_by_remixes_of_twelve_decibels():
    random = np.random.default_rng(5)
    natural = [observed(i, doubt, 2 + 0.7 * doubt + random.normal(0, 0.5)) for i, doubt in enumerate(range(-5, 12))]
    remixes = [
        dataclasses.replace(observed(100 + i, doubt, 2 + 0.7 * doubt + random.normal(0, 5)), gain=-12.0)
        for i, doubt in enumerate(random.uniform(-5, 12, 40))
    ]
    weighed = fit(natural + remixes).stems["vocals"]
    unweighed = fit(natural + [dataclasses.replace(seen, gain=0.0) for seen in remixes]).stems["vocals"]
    assert weighed.weights == unweighed.weights
    assert weighed.high - weighed.low < 3 < 6 < unweighed.high - unweighed.low


def test_each_song_counts_once_however_many_mixtures_were_made_of_it():
    random = np.random.default_rng(6)
    songs = [observed(i, doubt, 2 + 0.7 * doubt + random.normal(0, 0.5)) for i, doubt in enumerate(range(-5, 12))]
    far = observed(100, 6.0, 20.0)
    once, often = (fit([*songs, *[far] * times]).stems["vocals"] for times in (1, 12))
    assert often.weights == pytest.approx(once.weights, abs=0.1)
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.1)
    assert often.songs == once.songs == 18
    assert fit([*songs * 12]).stems["vocals"].weights == pytest.approx(fit(songs).stems["vocals"].weights, abs=1e-6)


def test_a_calibration_carried_over_to_another_network_keeps_what_it_knows_of_unseen_songs(calibration):
    """Both score 3 dB better on songs they learned than their doubt says; the new one is surer and 0.4 dB better."""
    learned, better = 3.0, 0.4
    pairs = []
    for index, doubt in enumerate(np.linspace(-4, 9, 30)):
        score = 2 + 0.7 * doubt + learned
        pairs.append((observed(index, doubt, score), observed(index, 1 + 1.2 * doubt, score + better)))
    for index in range(10):
        pairs.append(tuple(observed(100 + index, doubt, 0.0, voice=False) for doubt in (-8.0, -8.6)))
    carried = carried_over(calibration, pairs)
    for doubt in (-3.0, 2.0, 8.0):
        old = predict(observed(200, doubt, 0).evidence, STEMS, calibration)["vocals"]
        new = predict(observed(200, 1 + 1.2 * doubt, 0).evidence, STEMS, carried)["vocals"]
        assert new.sdr == pytest.approx(old.sdr + better, abs=0.15)
        assert np.array(new.windows) == pytest.approx(np.array(old.windows) + better, abs=0.3)
        assert new.high - new.low == pytest.approx(old.high - old.low)
    song, _ = vocal_presence(observed(1, 8.2, 0).evidence, STEMS, carried)
    music, _ = vocal_presence(observed(2, -8.6, 0, voice=False).evidence, STEMS, carried)
    assert music < 0.5 < song
    with pytest.raises(ValueError, match=r"7 songs have vocals, 8 are needed"):
        carried_over(calibration, pairs[:7])


@pytest.mark.parametrize(("level", "known"), [(0.1, True), (1e-3, False)])
def test_a_reference_that_is_hardly_there_teaches_nothing(level, known):
    """Of 60 dB below the mixture: noise between phrases, on which any separation scores tens of dB below zero."""
    separator = ForeignSeparator(ForeignModel("fake:c-0", ("vocals",), lambda audio, _: {"vocals": audio * 0.5}))
    references = {"vocals": noise(1, RATE * 4, seed=1) * level, "accompaniment": noise(1, RATE * 4, seed=2)}
    seen = observe(separator, "song", references, RATE)
    assert ("vocals" in seen.scores) is known
    assert np.isfinite(seen.windows["vocals"]).all() == known
    assert "vocals" in observe(separator, "song", references, RATE, faint=None).scores


def test_a_remix_moves_the_first_stem_alone():
    separator = ForeignSeparator(ForeignModel("fake:d-0", ("vocals",), lambda audio, _: {"vocals": audio * 0}))
    references = {"vocals": noise(1, RATE * 4, seed=1), "accompaniment": noise(1, RATE * 4, seed=2)}
    seen = observe(separator, "song", references, RATE, -6.0)
    # Nothing comes out as vocals, so the accompaniment's error is the vocals, 6 dB below their level.
    assert seen.gain == -6.0
    level = 10 * np.log10(np.square(references["accompaniment"]).sum() / np.square(references["vocals"]).sum())
    assert seen.scores["accompaniment"] == pytest.approx(level + 6, abs=0.2)


def test_presence_recognises_music_without_a_voice(calibration):
    song, _ = vocal_presence(observed(1, 6.0, 0).evidence, STEMS, calibration)
    music, windows = vocal_presence(observed(2, -8.0, 0, voice=False).evidence, STEMS, calibration)
    assert 0 <= music < 0.5 < song <= 1
    assert len(windows) == 4


def test_a_missing_prediction_says_why(calibration):
    silent = Evidence(2, RATE)
    silent.add_samples([np.zeros((1, RATE * 2), np.float32)] * 2)
    assert predict(silent, STEMS, calibration)["vocals"].reason == "the stem is silent"
    assert "no calibration" in predict(silent, STEMS, None)["vocals"].reason
    assert predict(Evidence(2, RATE), STEMS, calibration)["vocals"].sdr is None
    assert vocal_presence(silent, STEMS, None) == (None, ())


def test_too_few_songs_make_no_calibration():
    assert fit([observed(i, i, i) for i in range(LEAST_SONGS - 1)]).stems == {}


def test_a_calibration_is_read_back_from_the_weights_header(calibration):
    preset = load_preset("jansson")
    weights = Weights(preset, build(preset).state_dict(), {}, {"jansson": calibration.to_dict()})
    again = Weights.from_bytes(weights.to_bytes(), "x")
    assert Separator.from_weights(again).calibration == calibration
    assert Separator.from_weights(dataclasses.replace(again, calibrations={})).calibration is None


@pytest.mark.parametrize(
    "damage", [{"version": 99}, {"stems": 3}, {"presence": [1.0]}, {"presence": [float("nan")] * 5}]
)
def test_a_hostile_calibration_is_a_sentence(calibration, damage):
    fields = json.loads(json.dumps(calibration.to_dict())) | damage
    with pytest.raises(CheckpointError, match="calibration"):
        Calibration.from_dict(fields)
