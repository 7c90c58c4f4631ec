"""Stretch, pitch, loudness, gate and morph, by numbers."""

import librosa
import numpy as np
import pyloudnorm
import pytest
from scipy import signal as dsp

from tasks.demo.synthesiser import RATE, compose
from tasks.mashup import denoise, loudness
from tasks.mashup.align import TimeMap
from tasks.mashup.beats import track_beats
from tasks.mashup.errors import Misfit
from tasks.mashup.morph import transition
from tasks.mashup.stretch import stretch, warp

SECONDS = 12.0


@pytest.fixture(scope="module")
def song():
    return compose(41, SECONDS, tempo=110.0, tonic=2)


def vowel(frequency, seconds=3.0, formants=(700, 1200, 2600)):
    """Harmonics of a pitch under the resonances of a mouth."""
    time = np.arange(int(seconds * RATE)) / RATE
    out = np.zeros_like(time)
    for k in range(1, int(8000 / frequency)):
        gain = sum(1 / np.sqrt(1 + ((k * frequency - f) / 90) ** 2) for f in formants)
        out += gain * np.sin(2 * np.pi * k * frequency * time + k)
    return np.stack([out, out]).astype(np.float32) * (0.2 / np.abs(out).max())


def fundamental(audio):
    pitches = librosa.yin(audio.mean(axis=0)[RATE // 2 : -RATE // 2], fmin=80, fmax=800, sr=RATE, frame_length=8192)
    return float(np.median(pitches))


def cents(a, b):
    return 1200 * np.log2(a / b)


@pytest.mark.parametrize("semitones", [-4, -2, 1, 3, 4])
def test_pitch_moves_within_five_cents(semitones):
    moved = stretch(vowel(220.0), RATE, 1.0, semitones)
    assert moved.shape == vowel(220.0).shape
    assert abs(cents(fundamental(moved), 220.0 * 2 ** (semitones / 12))) <= 5


@pytest.mark.parametrize("semitones", [-4, 4])
def test_formants_stay_where_they_were(semitones):
    def envelope(audio):
        frequencies, power = dsp.welch(audio.mean(axis=0)[RATE // 2 : -RATE // 2], RATE, nperseg=4096)
        around = [10 * np.log10(power[(frequencies > f - 150) & (frequencies < f + 150)].max()) for f in BANDS]
        return np.array(around) - max(around)

    BANDS = (450, 700, 950, 1200, 1600, 2100, 2600, 3200)
    original = envelope(vowel(110.0))
    kept = envelope(stretch(vowel(110.0), RATE, 1.0, semitones))
    moved = envelope(stretch(vowel(110.0), RATE, 1.0, semitones, keep_formants=False))
    assert np.abs(kept - original).mean() < 0.6 * np.abs(moved - original).mean()


@pytest.mark.parametrize("speed", [0.8, 0.937, 1.0, 1.25])
def test_stretching_keeps_pitch_and_moves_events_where_they_belong(speed):
    tone = vowel(220.0)
    assert abs(cents(fundamental(stretch(tone, RATE, speed)), 220.0)) <= 5
    clicks = np.zeros((1, RATE * 5), np.float32)
    clicks[:, RATE::RATE] = 1.0
    out = warp(clicks, RATE, TimeMap(np.array([0.0, 5.0]), np.array([0.0, 5.0 / speed])), 0.0, 5.0 / speed)
    assert out.shape[1] == pytest.approx(5 * RATE / speed, abs=1)
    for k in range(1, 5):
        around = out[0, int((k - 0.2) / speed * RATE) : int((k + 0.2) / speed * RATE)]
        at = np.argmax(np.convolve(np.abs(around), np.ones(300), "same")) / RATE + (k - 0.2) / speed
        assert at == pytest.approx(k / speed, abs=0.01)


def test_pieces_of_different_speed_are_joined_without_clicks_or_holes():
    tone = vowel(196.0, seconds=8.0)
    knots = np.arange(0, 9.0)
    target = np.concatenate([[0], np.cumsum(1 / np.array([1.0, 1.05, 0.97, 1.1, 0.94, 1.02, 1.0, 1.03]))])
    out = warp(tone, RATE, TimeMap(knots, target), 0.0, float(target[-1]))
    steps = np.abs(np.diff(out[0]))
    assert steps.max() < 2.0 * np.abs(np.diff(tone[0])).max()
    level = np.sqrt(np.convolve(np.square(out[0]), np.ones(2048) / 2048, "valid"))[RATE // 4 : -RATE // 4]
    assert level.min() > 0.35 * np.median(level)


@pytest.mark.parametrize("balance", [-6.0, -1.0, 3.0])
def test_vocals_are_as_loud_over_the_accompaniment_as_requested(song, balance):
    """Measured by pyloudnorm, which is not what sets the level."""
    vocals, rest = 0.2 * song.stems["vocals"], song.mixture - song.stems["vocals"]
    gain = loudness.whole_song_gain(vocals, rest, RATE, balance)
    meter = pyloudnorm.Meter(RATE)
    level, other_level = (meter.integrated_loudness(x.T.astype(float)) for x in (vocals * 10 ** (gain / 20), rest))
    assert level - other_level == pytest.approx(balance, abs=0.5)


def test_a_gain_per_frame_levels_a_fading_voice_where_one_gain_does_not(song):
    rest = song.mixture - song.stems["vocals"]
    fading = song.stems["vocals"] * np.linspace(1.0, 0.1, rest.shape[1], dtype=np.float32)

    def spread(vocals):
        levels = []
        for part in np.array_split(np.arange(rest.shape[1]), 4):
            levels.append(loudness.integrated(vocals[:, part], RATE) - loudness.integrated(rest[:, part], RATE))
        return np.ptp(levels)

    once = fading * 10 ** (loudness.whole_song_gain(fading, rest, RATE, 0.0) / 20)
    always = fading * loudness.frame_gains(fading, rest, RATE, 0.0)
    assert spread(always) < 0.5 * spread(once)


def test_no_true_peak_passes_the_ceiling_and_quiet_mixes_stay_as_they_are(song):
    loud = 4.0 * song.mixture
    limited = loud * loudness.limiting_gain(loud, RATE)
    assert loudness.true_peak(limited) <= loudness.CEILING_DB + 0.1
    assert loudness.true_peak(limited) > loudness.CEILING_DB - 1.0
    np.testing.assert_array_equal(loudness.limiting_gain(0.1 * song.mixture, RATE), 1.0)


def test_the_soft_gate_spares_a_clean_voice_that_the_hard_one_harms(song):
    """What is taken from a clean voice, in dB below it, and what is taken from noise in its pauses."""
    voice = song.stems["vocals"].copy()
    voice[:, 5 * RATE : 7 * RATE] = 0
    hiss = voice + 10 ** (-62 / 20) * np.random.default_rng(0).standard_normal(voice.shape).astype(np.float32)

    def lost(kind):
        difference = denoise.gate(voice, RATE, kind) - voice
        return 10 * np.log10(np.square(difference).sum() / np.square(voice).sum())

    assert lost("soft") < lost("hard") < -15
    quiet = slice(int(5.5 * RATE), int(6.5 * RATE))
    for kind in denoise.KINDS:
        gated = denoise.gate(hiss, RATE, kind)
        assert np.square(gated[:, quiet]).mean() < 0.1 * np.square(hiss[:, quiet]).mean()


@pytest.fixture(scope="module")
def two_songs():
    songs = [compose(seed, 30.0, tempo=tempo) for seed, tempo in ((51, 112.0), (52, 120.0))]
    return [(song.mixture, track_beats(song.mixture, RATE)) for song in songs]


@pytest.mark.parametrize("kind", ["morph", "crossfade"])
def test_a_transition_is_one_song_before_and_the_other_after_on_the_beat_between(two_songs, kind):
    (a, a_grid), (b, b_grid) = two_songs
    made = transition(a, a_grid, b, b_grid, RATE, 4, kind)
    first, last = round(made.begin * RATE), round(made.end * RATE)
    margin = RATE // 50
    np.testing.assert_array_equal(made.audio[:, : first - margin], a[:, : first - margin])
    tail = made.audio[:, last + RATE : last + 3 * RATE].mean(axis=0)
    source = b.mean(axis=0)
    correlation = np.correlate(source[: RATE * 25], tail[: RATE // 2], "valid")
    at = int(np.argmax(correlation))
    overlap = source[at : at + RATE // 2]
    assert np.corrcoef(overlap, tail[: RATE // 2])[0, 1] > 0.95
    # Beats heard in the transition lie on the glide.
    onsets = librosa.onset.onset_detect(
        y=made.audio[:, first:last].mean(axis=0), sr=RATE, hop_length=256, units="time", backtrack=False
    )
    nearest = np.abs(onsets[:, None] + made.begin - made.beats[None]).min(axis=1)
    assert np.mean(nearest < 0.05) > 0.3
    period = np.diff(made.beats)
    assert (np.diff(period) < 1e-6).all()
    assert 60 / period[0] == pytest.approx(112, rel=0.02)
    assert 60 / period[-1] == pytest.approx(120, rel=0.02)


@pytest.mark.parametrize("kind", ["morph", "crossfade"])
def test_a_transition_has_neither_clicks_nor_a_hole(two_songs, kind):
    (a, a_grid), (b, b_grid) = two_songs
    made = transition(a, a_grid, b, b_grid, RATE, 4, kind)
    first, last = round(made.begin * RATE), round(made.end * RATE)
    level = lambda x: float(np.sqrt(np.square(x).mean()))  # noqa: E731
    low = min(level(a[:, first - 4 * RATE : first]), level(made.audio[:, last : last + 4 * RATE]))
    for part in np.array_split(made.audio[:, first:last], 8, axis=1):
        assert level(part) > 0.5 * low
    steepest = max(np.abs(np.diff(a)).max(), np.abs(np.diff(b)).max())
    for seam in (first, last):
        assert np.abs(np.diff(made.audio[:, seam - 200 : seam + 200])).max() <= 1.2 * steepest


def test_songs_too_short_for_a_transition_are_a_misfit(two_songs):
    (a, a_grid), (b, b_grid) = two_songs
    with pytest.raises(Misfit, match="choose fewer"):
        transition(a, a_grid, b, b_grid, RATE, 32)
