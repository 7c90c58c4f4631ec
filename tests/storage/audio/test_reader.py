import os

import av
import numpy as np
import pytest
import soundfile as sf

from storage.audio import reader as audio
from storage.errors import AudioError
from tests.signals import noise

FORMATS = {
    "wav": ("WAV", "PCM_16"), "aiff": ("AIFF", "PCM_24"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip


def written(folder, name, signal, rate=48000):
    container, subtype = FORMATS[name]
    path = folder / f"song.{name}"
    sf.write(path, signal.T, rate, subtype, format=container)
    return path


def m4a(path, signal, rate=44100, codec="aac"):
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(signal), format="fltp", layout="stereo")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_reads_the_same_in_blocks_and_at_once(tmp_path, name, channels):
    signal = noise(channels, 48000 * 2)
    path = written(tmp_path, name, signal)
    at_once, rate = audio.read(path)
    assert rate == 48000
    assert at_once.shape == signal.shape
    assert at_once.dtype == np.float32
    parts = audio.with_decoders(path, lambda reader: list(reader.blocks(4321)))
    # mpg123's arithmetic depends on where a read begins, in the last bit of float32.
    np.testing.assert_allclose(np.concatenate(parts, axis=1), at_once, atol=1e-6 if name == "mp3" else 0)
    if name in ("wav", "flac", "aiff"):
        np.testing.assert_array_equal(at_once, signal)


def test_a_lossless_file_states_its_depth(tmp_path):
    for subtype, depth in (("PCM_16", "int16"), ("PCM_24", "int24"), ("PCM_32", "int32"), ("FLOAT", "float")):
        sf.write(tmp_path / "x.wav", noise(2, 100).T, 44100, subtype)
        info = audio.probe(tmp_path / "x.wav")
        assert (info.depth, info.lossy, info.samples, info.channels) == (depth, False, 100, 2)
    assert audio.probe(written(tmp_path, "mp3", noise(1, 48000))).lossy


def test_m4a_is_read_through_ffmpeg_without_one_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    time = np.arange(44100 * 2) / 44100
    tone = np.repeat((0.3 * np.sin(2 * np.pi * 440 * time))[None].astype(np.float32), 2, 0)
    decoded, rate = audio.read(m4a(tmp_path / "x.m4a", tone))
    assert rate == 44100
    assert abs(decoded.shape[1] - tone.shape[1]) <= 2048
    inside = decoded[0, 22050:66150]
    assert np.argmax(np.abs(np.fft.rfft(inside))) == 440
    assert np.sqrt(np.mean(inside**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.02)


def test_when_one_decoder_fails_in_the_middle_the_other_reads_it_all(tmp_path, monkeypatch):
    """libsndfile stops in the middle of some Opus files that FFmpeg decodes to their end."""
    path = written(tmp_path, "flac", noise(2, 96000))
    first = audio._SoundfileReader._decoded

    def stumbling(self, size):
        yield next(first(self, size))
        raise AudioError("malformed")

    monkeypatch.setattr(audio._SoundfileReader, "_decoded", stumbling)
    np.testing.assert_array_equal(audio.read(path)[0], noise(2, 96000))


@pytest.mark.parametrize("name", ["wav", "aiff", "flac", "ogg", "opus", "mp3"])
@pytest.mark.parametrize("share", [0.25, 0.6, 0.97])
def test_a_file_cut_short_is_an_error_and_never_a_shorter_song(tmp_path, name, share):
    path = written(tmp_path, name, noise(2, 48000 * 3))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(AudioError, match="cut short|stops decoding"):
        audio.read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_a_number_is_an_error_that_says_where(tmp_path, value):
    signal = noise(2, 44100)
    signal[1, 22050] = value
    sf.write(tmp_path / "x.wav", signal.T, 44100, "FLOAT")
    with pytest.raises(AudioError, match=r"NaN or Inf.*0\.500 s"):
        audio.read(tmp_path / "x.wav")


def test_what_is_not_audio_is_one_sentence(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.mp3").write_text("no music here\n" * 30)
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to("/nowhere/x.wav")
    for name, words in {
        "empty.wav": "is empty", "text.mp3": "not audio", "folder.wav": "is a folder",
        "link.wav": "a link to /nowhere/x.wav", "absent.wav": "is not there",
    }.items():  # fmt: skip
        with pytest.raises(AudioError, match=words) as caught:
            audio.read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_read_permission_is_a_sentence(tmp_path):
    path = written(tmp_path, "wav", noise(1, 100))
    path.chmod(0)
    with pytest.raises(AudioError, match="may not be read"):
        audio.read(path)


def test_a_header_without_samples_gives_an_empty_array(tmp_path):
    sf.write(tmp_path / "x.wav", np.zeros((0, 2)), 44100)
    assert audio.read(tmp_path / "x.wav")[0].shape == (2, 0)


def test_six_channels_and_192_khz_are_kept(tmp_path):
    sf.write(tmp_path / "x.wav", noise(6, 5000).T, 192000, "PCM_24")
    signal, rate = audio.read(tmp_path / "x.wav")
    assert rate == 192000
    np.testing.assert_array_equal(signal, noise(6, 5000))


@pytest.mark.parametrize("rate", [100_000_000, 2**31 - 1])
def test_a_rate_that_no_recording_has_is_refused_from_the_header(tmp_path, rate):
    path = tmp_path / "fast.wav"
    sf.write(path, np.zeros((100, 2)), 44100, "PCM_16")
    header = bytearray(path.read_bytes())
    header[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(header)
    with pytest.raises(AudioError, match=rf"fast.wav claims a sample rate of {rate} Hz"):
        audio.probe(path)


def test_a_thousand_channels_are_refused_from_the_header(tmp_path):
    path = tmp_path / "wide.wav"
    sf.write(path, np.zeros((10, 1000), np.float32), 44100, "PCM_16")
    with pytest.raises(AudioError, match="claims 1000 channels"):
        audio.probe(path)
