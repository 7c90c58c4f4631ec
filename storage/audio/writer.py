"""Audio files out: written block by block to a temporary name, renamed when complete."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from storage.audio.reader import AudioInfo
from storage.audio.tags import Tags, write_tags
from storage.errors import AudioError
from storage.files.atomic import replacing
from storage.files.location import location, not_written

FORMATS = ("flac", "wav", "ogg", "opus", "mp3")
LOSSLESS = ("flac", "wav")
DEPTHS = ("int16", "int24", "int32", "float")

_CONTAINERS = {"flac": "FLAC", "wav": "WAV", "ogg": "OGG", "opus": "OGG", "mp3": "MP3"}
_CODECS = {"ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III"}
_CHANNELS = {"flac": 8, "mp3": 2}
_RATES = {
    "opus": (8000, 12000, 16000, 24000, 48000),
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
# libsndfile crashes the process on one long Ogg Vorbis write (240 s of stereo did), so write little.
_SLICE = 1 << 16
# A RIFF header counts bytes in 32 bits; beyond that RF64 is the same file with a 64-bit count.
_RIFF_LIMIT = 4_000_000_000


@dataclass(frozen=True)
class StemFormat:
    """How stems are written: a format of `FORMATS`, a depth of `DEPTHS`, and a bitrate in kbit/s."""

    name: str
    depth: str
    kbps: int | None = None  # of mp3; None leaves it to the encoder

    @property
    def bits(self) -> int | None:
        """Integer bits of the samples written, or None where they are float or lossy."""
        return {"int16": 16, "int24": 24, "int32": 32}.get(self.depth) if self.name in LOSSLESS else None

    @classmethod
    def keeping(cls, source: AudioInfo, name: str, kbps: int | None = None) -> "StemFormat":
        """The format `name` at the source's own depth, or at the deepest that the format has.

        Args:
            source: What the source file says of itself.
            name: One of `FORMATS`.
            kbps: The bitrate of mp3 in kbit/s; None leaves it to the encoder.

        Raises:
            AudioError: There is no such format, or it cannot hold the source's channels.
        """
        if name not in FORMATS:
            raise AudioError(f"{name} is not a stem format; choose one of {', '.join(FORMATS)}")
        if source.channels > _CHANNELS.get(name, 255):
            raise AudioError(
                f"{source.path} has {source.channels} channels, but {name} holds {_CHANNELS[name]}; use --format wav"
            )
        # FLAC as libsndfile writes it ends at 24 bits.
        deep = name == "flac" and source.depth in ("int32", "float")
        return cls(name, "int24" if deep else source.depth, kbps)

    def rate(self, source_rate: int) -> int:
        """The sample rate to write at: the source's where the codec has it, else the next higher one, else the highest.

        Args:
            source_rate: The source's sample rate in Hz.

        Returns:
            The rate in Hz.
        """
        rates = _RATES.get(self.name)
        if rates is None or source_rate in rates:
            return source_rate
        return next((rate for rate in rates if rate > source_rate), rates[-1])

    def encoding(self, rate: int) -> dict[str, Any]:
        """What libsndfile is told of the compression or the bitrate.

        For mp3 it is a level from 0 (the codec's highest bitrate) to below 1 (its lowest).

        Args:
            rate: The sample rate written, in Hz, on which the range of mp3's bitrates depends.

        Returns:
            Keyword arguments of `soundfile.SoundFile`; none where there is nothing to choose.
        """
        if self.name == "flac":
            return {"compression_level": 0.5}  # FLAC's level 4: a tenth faster than its usual 5, and 0.2 % larger
        if self.name != "mp3" or self.kbps is None:
            return {}
        lowest, highest = (32, 320) if rate >= 32000 else (8, 160) if rate >= 16000 else (8, 64)
        kbps = min(max(self.kbps, lowest), highest)
        level = min((highest - kbps) / (highest - lowest), 0.999)  # 1 itself is refused
        return {"bitrate_mode": "CONSTANT", "compression_level": level}

    def subtype(self) -> str:
        """libsndfile's name of the sample format."""
        depth = {"int16": "PCM_16", "int24": "PCM_24", "int32": "PCM_32", "float": "FLOAT"}[self.depth]
        return _CODECS.get(self.name, depth)


class AudioWriter(contextlib.AbstractContextManager):
    """Write blocks of audio to a file, which appears complete when the `with` ends, or not at all.

    Args:
        target: The file or object to write.
        stem_format: Its format, depth and bitrate.
        rate: Sample rate of the blocks in Hz; they are resampled where the codec lacks it.
        channels: Channels of the blocks.
        samples: Samples per channel that will come, None where unknown: a long WAV becomes RF64.
        tags: Tags and pictures to write into the file.

    Raises:
        OutputError: The disk is full or gone.
        AudioError: The codec refuses the rate or the channels, or the tags cannot be written.
    """

    def __init__(
        self, target: Path, stem_format: StemFormat, rate: int, channels: int, samples: int | None,
        tags: Tags | None = None,
    ) -> None:  # fmt: skip
        self._target = target
        self._tags = tags or Tags()
        self._format = stem_format
        self._source_rate = rate
        self._rate = stem_format.rate(rate)
        self._channels = channels
        self._samples = samples
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "AudioWriter":
        import soundfile

        self.temporary = self._stack.enter_context(replacing(self._target))
        container = _CONTAINERS[self._format.name]
        bytes_each = {"int16": 2, "int24": 3}.get(self._format.depth, 4) * self._channels
        if container == "WAV" and (self._samples is None or self._samples * bytes_each > _RIFF_LIMIT):
            container = "RF64"
        try:
            self._file = soundfile.SoundFile(
                self.temporary, "w", self._rate, self._channels, self._format.subtype(), format=container,
                **self._format.encoding(self._rate),
            )  # fmt: skip
        except (soundfile.SoundFileError, RuntimeError) as error:
            self._stack.close()
            if "System error" in str(error):  # the file could not be made, whatever its format
                raise not_written(self._target.parent, str(error)) from error
            raise AudioError(
                f"{self._target} cannot be written as {self._format.name} at {self._rate} Hz with "
                f"{self._channels} channels ({error}); use --format wav"
            ) from error
        self._resampler = None
        if self._rate != self._source_rate:
            import soxr

            self._resampler = soxr.ResampleStream(self._source_rate, self._rate, self._channels, dtype="float32")
        return self

    def write(self, block: np.ndarray, *, last: bool = False) -> None:
        """Append a block.

        Args:
            block: Float (channels, samples) at the rate of the blocks; full scale is 1.0.
            last: Whether this is the last block, which flushes the resampler where there is one.

        Raises:
            OutputError: The disk is full or gone.
        """
        frames = block.T
        if self._resampler is not None:
            frames = self._resampler.resample_chunk(np.ascontiguousarray(frames), last=last)
        import soundfile

        try:
            for start in range(0, len(frames), _SLICE):
                self._file.write(frames[start : start + _SLICE])
        except (soundfile.SoundFileError, RuntimeError, OSError, AssertionError) as error:
            # soundfile asserts that all frames were taken: on a full disk they are not.
            raise not_written(self._target.parent, str(error) or "not all samples were taken") from error

    def __exit__(self, kind, error, trace) -> bool | None:
        self._file.close()
        if error is None:
            try:
                write_tags(self.temporary, self._tags, self._format.name)
            except Exception as refused:  # mutagen raises what its parsers raise
                failure = AudioError(f"the tags of {self._target} cannot be written ({refused}); use --no-tags")
                self._stack.__exit__(AudioError, failure, None)
                raise failure from refused
        return self._stack.__exit__(kind, error, trace)


def write(target: Path, audio: np.ndarray, rate: int, *, name: str = "wav", depth: str = "int16") -> None:
    """Write a complete array at once.

    Args:
        target: The file or URL to write.
        audio: Float (channels, samples); full scale is 1.0.
        rate: Sample rate in Hz.
        name: One of `FORMATS`.
        depth: One of `DEPTHS`; lossy formats ignore it.

    Raises:
        OutputError: The disk is full or gone.
        AudioError: The codec refuses the rate or the channels.
    """
    with AudioWriter(location(target), StemFormat(name, depth), rate, audio.shape[0], audio.shape[1]) as writer:
        writer.write(np.asarray(audio, np.float32), last=True)
