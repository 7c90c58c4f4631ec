"""A stretch of an audio file without the rest of it, and copies encoded for a page."""

import io
import os
from pathlib import Path

import numpy as np

from storage.audio.reader import with_decoders
from storage.errors import AudioError
from storage.files.location import local_file, location

_OPUS_RATE = 48000
_OPUS_LEVEL = 0.82  # of libsndfile's scale: about 96 kbit/s for two channels
_OPUS_SLICE = 1 << 16


def read_excerpt(path: str | os.PathLike, start: float, seconds: float) -> tuple[np.ndarray, int]:
    """Decode a stretch of a file.

    Args:
        path: File or URL.
        start: Where the stretch begins, in seconds.
        seconds: How long it is; what lies past the end of the file is left out.

    Returns:
        float32 audio (channels, samples) and its rate in Hz.

    Raises:
        AudioError: No decoder reads the file.
    """
    with local_file(location(path)) as file:
        quick = _seek(file, start, seconds)
    return quick if quick is not None else _decode(path, start, seconds)


def opus(audio: np.ndarray, rate: int) -> bytes:
    """Encode audio as Ogg Opus of about 48 kbit/s per channel, at 48 kHz.

    Args:
        audio: Float (channels, samples), clipped at full scale 1.0; only the first two channels are kept.
        rate: Sample rate in Hz.

    Returns:
        The bytes of the file.
    """
    import soundfile
    import soxr

    frames = np.clip(audio[:2].T, -1.0, 1.0)
    if rate != _OPUS_RATE and len(frames):
        frames = np.clip(soxr.resample(frames, rate, _OPUS_RATE), -1.0, 1.0)
    target = io.BytesIO()
    with soundfile.SoundFile(target, "w", _OPUS_RATE, frames.shape[1], "OPUS", format="OGG",
                             compression_level=_OPUS_LEVEL) as file:  # fmt: skip
        for begin in range(0, len(frames), _OPUS_SLICE):
            file.write(frames[begin : begin + _OPUS_SLICE])
    return target.getvalue()


def wav(audio: np.ndarray, rate: int) -> bytes:
    """Encode audio as 16-bit WAV, which every browser decodes to the sample.

    Args:
        audio: Float (channels, samples), clipped at full scale 1.0.
        rate: Sample rate in Hz.

    Returns:
        The bytes of the file.
    """
    import soundfile

    target = io.BytesIO()
    soundfile.write(target, np.clip(audio.T, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return target.getvalue()


def _seek(file: Path, start: float, seconds: float) -> tuple[np.ndarray, int] | None:
    """By libsndfile, which seeks to the sample in lossless files; None where it cannot."""
    import soundfile

    try:
        with soundfile.SoundFile(os.fsencode(file)) as opened:
            if not opened.seekable() or opened.format not in ("WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF"):
                return None
            rate = opened.samplerate
            begin = min(round(start * rate), opened.frames)
            opened.seek(begin)
            length = max(0, round((start + seconds) * rate) - begin)
            return np.ascontiguousarray(opened.read(length, dtype="float32", always_2d=True).T), rate
    except (soundfile.SoundFileError, RuntimeError, OSError):
        return None


def _decode(path: str | os.PathLike, start: float, seconds: float) -> tuple[np.ndarray, int]:
    """By decoding from the beginning and keeping the stretch."""

    def stretch(reader) -> tuple[np.ndarray, int]:
        rate, at, parts = reader.info.sample_rate, 0, []
        begin, end = round(start * rate), round((start + seconds) * rate)
        blocks = reader.blocks()
        while at < end:
            block = next(blocks, None)
            if block is None:
                break
            parts.append(block[:, max(0, begin - at) : max(0, end - at)])
            at += block.shape[1]
        return np.concatenate([np.zeros((reader.info.channels, 0), np.float32), *parts], axis=1), rate

    try:
        return with_decoders(path, stretch)
    except OSError as error:
        raise AudioError(f"{path} cannot be read ({error.strerror or error})") from error
