import numpy as np
import pytest
import soundfile as sf

from storage.audio import reader as audio
from storage.audio.reader import AudioInfo
from storage.audio.writer import AudioWriter, StemFormat, write
from storage.errors import AudioError
from tests.signals import noise


def info(depth="int16", rate=44100, channels=2, lossy=False):
    return AudioInfo("in.wav", rate, channels, 1000, depth, lossy)


def written(path, signal, stem_format, rate=44100, size=10_000):
    with AudioWriter(path, stem_format, rate, signal.shape[0], signal.shape[1]) as writer:
        for start in range(0, signal.shape[1], size):
            writer.write(signal[:, start : start + size])
        writer.write(signal[:, :0], last=True)
    return path


@pytest.mark.parametrize(
    ("name", "depth", "subtype"),
    [
        ("flac", "int16", "PCM_16"), ("flac", "int24", "PCM_24"), ("flac", "int32", "PCM_24"),
        ("flac", "float", "PCM_24"), ("wav", "int16", "PCM_16"), ("wav", "int24", "PCM_24"),
        ("wav", "int32", "PCM_32"), ("wav", "float", "FLOAT"),
    ],
)  # fmt: skip
def test_the_depth_of_the_source_is_kept_as_far_as_the_format_goes(tmp_path, name, depth, subtype):
    path = written(tmp_path / f"x.{name}", noise(2, 5000), StemFormat.keeping(info(depth), name))
    assert sf.info(path).subtype == subtype
    np.testing.assert_array_equal(audio.read(path)[0], noise(2, 5000))


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_rate_and_channels_are_kept(tmp_path, rate, channels):
    for name in ("flac", "wav"):
        stem_format = StemFormat.keeping(info(rate=rate, channels=channels), name)
        header = sf.info(written(tmp_path / f"x.{name}", noise(channels, 999), stem_format, rate))
        assert (header.samplerate, header.channels, header.frames) == (rate, channels, 999)


@pytest.mark.parametrize("name", ["ogg", "opus", "mp3"])
def test_a_lossy_stem_keeps_length_and_place(tmp_path, name):
    """An encoder's delay must not shift a stem against the other: clicks come back where they were."""
    rate = 48000
    signal = np.zeros((2, rate * 3), np.float32)
    time = np.arange(4000) / rate
    for at in (rate // 2, rate, 2 * rate):
        signal[:, at : at + 4000] = 0.5 * np.sin(2 * np.pi * 700 * time) * np.hanning(4000)
    decoded, stem_rate = audio.read(written(tmp_path / f"x.{name}", signal, StemFormat(name, "int16"), rate))
    assert stem_rate == rate
    assert decoded.shape == signal.shape
    lag = np.argmax(np.correlate(decoded[0], signal[0, rate // 2 : rate // 2 + 4000], "valid")[:rate]) - rate // 2
    assert abs(lag) <= 2


def test_opus_and_mp3_take_the_next_rate_that_they_have(tmp_path):
    for name, rate in (("opus", 44100), ("mp3", 96000)):
        path = written(tmp_path / f"x.{name}", noise(2, rate), StemFormat(name, "int16"), rate)
        assert sf.info(path).samplerate == 48000
        assert abs(sf.info(path).frames - 48000) <= 2


def test_channels_that_a_format_cannot_hold_are_refused_with_a_way_out():
    with pytest.raises(AudioError, match="6 channels, but mp3 holds 2; use --format wav"):
        StemFormat.keeping(info(channels=6), "mp3")


def test_an_interrupted_file_leaves_nothing(tmp_path):
    with (
        pytest.raises(RuntimeError, match="stop"),
        AudioWriter(tmp_path / "x.flac", StemFormat("flac", "int16"), 44100, 1, None) as writer,
    ):
        writer.write(noise(1, 5000))
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_long_vorbis_does_not_crash_the_process(tmp_path):
    """One libsndfile call for 240 s of stereo Vorbis ends in a segmentation fault."""
    write(tmp_path / "x.ogg", noise(2, 44100 * 240), 44100, name="ogg")
    assert sf.info(tmp_path / "x.ogg").frames == 44100 * 240


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises((AudioError, OSError)):
        write(tmp_path / "file" / "x.wav", noise(1, 10), 44100)
