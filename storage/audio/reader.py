"""Audio files in, block by block.

Arrays are float32 (channels, samples) at the file's rate; full scale is 1.0. libsndfile (soundfile) reads first because
it is fast; FFmpeg (PyAV) reads what it cannot. A reader delivers the complete file or raises: never a part as if all.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from storage.audio.containers import missing_bytes
from storage.errors import AudioError
from storage.files.layout import shown
from storage.files.location import local_file, location

EXTENSIONS = frozenset(
    [
        ".wav",
        ".wave",
        ".w64",
        ".rf64",
        ".aif",
        ".aiff",
        ".aifc",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".m4a",
        ".mp4",
        ".m4b",
        ".aac",
        ".caf",
        ".au",
        ".wma",
        ".webm",
        ".mka",
    ]
)
# FFmpeg's formats: libsndfile would only fail on them.
_FFMPEG_ONLY = frozenset([".m4a", ".mp4", ".m4b", ".aac", ".wma", ".webm", ".mka"])
BLOCK = 1 << 17
# What a header may claim: beyond these the claim is damage or malice, and buffers in proportion fill the memory.
MAX_SAMPLE_RATE = 768_000
MAX_CHANNELS = 64

_DEPTHS = {
    "PCM_S8": "int16",
    "PCM_U8": "int16",
    "PCM_16": "int16",
    "PCM_24": "int24",
    "PCM_32": "int32",
    "ALAC_24": "int24",
    "ALAC_32": "int32",
    "FLOAT": "float",
    "DOUBLE": "float",
}
_SAMPLE_FORMAT_DEPTHS = {"s32": "int32", "s32p": "int32"}
# FFmpeg's durations are rounded to a time base or count the codec's padding.
_TOLERANCE_SECONDS = 0.06

Result = TypeVar("Result")


@dataclass(frozen=True)
class AudioInfo:
    """What a file says of itself."""

    path: str  # or URL, as `shown` writes it
    sample_rate: int  # Hz
    channels: int
    samples: int | None  # per channel; None where the container does not tell
    depth: str  # "int16", "int24", "int32" or "float"; "int16" for lossy codecs, as their stems are written with it
    lossy: bool

    @property
    def duration(self) -> float | None:
        """Seconds, or None where the container does not tell."""
        return None if self.samples is None else self.samples / self.sample_rate


class AudioReader:
    """One open file: `info`, then `blocks()` once. Use as a context manager."""

    info: AudioInfo
    file: Path  # what is read; of an object it is a scratch copy, while `info.path` is the object's name
    promised_elsewhere = 0  # samples another decoder promised, for a container that tells this one nothing

    def blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """Yield float32 blocks (channels, ≤ size) from the beginning of the file to its end.

        Args:
            size: The most samples per block.

        Raises:
            DamagedAudio: The file ends before its header says, stops decoding, or holds NaN or Inf.
        """
        samples = 0
        decoded = self._decoded(size)
        while True:
            try:
                block = next(decoded, None)
            except AudioError as error:
                rate, promised = self.info.sample_rate, self.info.samples
                total = f" of {promised / rate:.2f} s" if promised else ""
                raise DamagedAudio(
                    f"{self.info.path} is damaged or cut short: it stops decoding after {samples / rate:.2f} s{total}; "
                    f"copy or export it again ({_clause(error)})"
                ) from error
            if block is None:
                break
            if not np.isfinite(block).all():
                at = samples + int(np.argmax(~np.isfinite(block).all(axis=0)))
                raise DamagedAudio(
                    f"{self.info.path} holds a sample that is not a number (NaN or Inf) at "
                    f"{at / self.info.sample_rate:.3f} s; export it again without"
                )
            samples += block.shape[1]
            yield block
        self._check_length(samples)

    def _check_length(self, samples: int) -> None:
        rate = self.info.sample_rate
        promised = self.info.samples or self.promised_elsewhere
        if promised - samples > self._tolerance():
            raise DamagedAudio(
                f"{self.info.path} is cut short: its header promises {promised / rate:.2f} s, "
                f"{samples / rate:.2f} s could be read; copy or export it again"
            )

    def _tolerance(self) -> int:
        return 0

    def _decoded(self, size: int) -> Iterator[np.ndarray]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DamagedAudio(AudioError):
    """The file decodes, but what comes out is short or holds no numbers, or its header is absurd."""


class _SoundfileReader(AudioReader):
    def __init__(self, file: Path, name: str, stream: int) -> None:
        import soundfile

        self.file = file
        if stream:
            raise AudioError(f"{name} has one audio stream; stream {stream} was requested")
        try:
            self._file = soundfile.SoundFile(os.fsencode(file))
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioError(f"{name} is not audio that libsndfile reads ({error})") from error
        # libsndfile says 2^63-1 where a stream does not tell its length.
        known = self._file.frames < 1 << 62
        lossy = self._file.subtype not in _DEPTHS and self._file.subtype not in ("ALAC_16", "ALAC_20")
        self.info = AudioInfo(
            path=name,
            sample_rate=self._file.samplerate,
            channels=self._file.channels,
            samples=self._file.frames if known else None,
            depth=_DEPTHS.get(self._file.subtype, "int16"),
            lossy=lossy,
        )

    def _decoded(self, size: int) -> Iterator[np.ndarray]:
        import soundfile

        try:
            while True:
                block = self._file.read(size, dtype="float32", always_2d=True)
                if not len(block):
                    return
                yield np.ascontiguousarray(block.T)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise AudioError(f"{self.info.path} stops decoding in the middle ({error})") from error

    def close(self) -> None:
        self._file.close()


class _FFmpegReader(AudioReader):
    def __init__(self, file: Path, name: str, stream: int) -> None:
        import av

        self.file = file

        av.logging.set_level(None)  # FFmpeg prints its own opinion to stderr otherwise
        try:
            self._container = av.open(_openable(file))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise AudioError(f"{name} is not audio that FFmpeg reads ({_reason(error)})") from error
        streams = self._container.streams.audio
        if stream >= len(streams):
            self._container.close()
            raise AudioError(f"{name} has {len(streams)} audio streams; stream {stream} was requested")
        self._stream = streams[stream]
        codec = self._stream.codec_context
        if not codec.sample_rate or not codec.channels:
            self._container.close()
            raise AudioError(f"{name} does not state its sample rate or number of channels")
        lossless = codec.name.startswith("pcm_") or codec.name in ("flac", "alac", "wavpack", "ape", "tta")
        self.info = AudioInfo(
            path=name,
            sample_rate=codec.sample_rate,
            channels=codec.channels,
            samples=self._promised(),
            depth=_SAMPLE_FORMAT_DEPTHS.get(codec.format.name, "int16") if lossless else "int16",
            lossy=not lossless,
        )

    def _promised(self) -> int | None:
        if self._stream.duration is None or self._stream.time_base is None:
            return None
        return round(self._stream.duration * self._stream.time_base * self._stream.codec_context.sample_rate)

    def _tolerance(self) -> int:
        return round(_TOLERANCE_SECONDS * self.info.sample_rate)

    def _decoded(self, size: int) -> Iterator[np.ndarray]:
        import av

        resampler = av.AudioResampler(format="fltp", layout=self._stream.codec_context.layout)
        waiting: list[np.ndarray] = []
        length = 0
        try:
            for frame in self._frames():
                for planar in resampler.resample(frame):
                    part = planar.to_ndarray()
                    waiting.append(part)
                    length += part.shape[1]
                while length >= size:
                    joined = np.concatenate(waiting, axis=1)
                    yield joined[:, :size]
                    waiting, length = [joined[:, size:]], length - size
        except (av.FFmpegError, ValueError) as error:
            raise AudioError(
                f"{self.info.path} cannot be decoded ({_reason(error)}); copy or export it again"
            ) from error
        if length:
            yield np.concatenate(waiting, axis=1)

    def _frames(self) -> Iterator:
        for frame in self._container.decode(self._stream):
            # Rates or layouts that change in mid-file would be resampled in silence otherwise.
            if frame.sample_rate != self.info.sample_rate:
                raise AudioError(f"{self.info.path} changes its sample rate in the middle; export it again")
            frame.pts = None
            yield frame
        yield None

    def close(self) -> None:
        self._container.close()


def _openable(file: Path):
    """FFmpeg takes names in UTF-8 only; what has another one is opened for it."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return open(file, "rb")
    return str(file)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _check(path: Path, name: str) -> None:
    if path.is_dir():
        raise AudioError(f"{name} is a folder, not an audio file; rename it or name the files in it")
    if path.is_symlink() and not path.exists():
        raise AudioError(f"{name} is a link to {os.readlink(path)}, which is not there; repair or remove the link")
    if not path.exists():
        raise AudioError(f"{name} is not there; it may have been moved since the catalog was listed")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{name} cannot be read by this user; grant read permission (chmod +r)")
    if not path.stat().st_size:
        raise AudioError(f"{name} is empty (0 bytes); copy or export it again")
    lacking = missing_bytes(path)
    if lacking:
        raise DamagedAudio(f"{name} is cut short: {lacking}; copy or export it again")


def _check_claims(info: AudioInfo) -> None:
    """Raise DamagedAudio for a sample rate or a number of channels that no recording has."""
    if not 1 <= info.sample_rate <= MAX_SAMPLE_RATE:
        raise DamagedAudio(
            f"{info.path} claims a sample rate of {info.sample_rate} Hz, which no recording has (at most "
            f"{MAX_SAMPLE_RATE}); its header is damaged, export it again"
        )
    if info.channels > MAX_CHANNELS:
        raise DamagedAudio(
            f"{info.path} claims {info.channels} channels, which no recording has (at most {MAX_CHANNELS}); "
            "its header is damaged, export it again"
        )


def with_decoders(path: str | os.PathLike, work: Callable[[AudioReader], Result], *, stream: int = 0) -> Result:
    """Return `work(reader)` of the first decoder that carries it to its end. An object is fetched first.

    Args:
        path: File or URL.
        work: Is called again where a decoder fails in mid-file, so it writes to temporary names and keeps nothing.
        stream: Which audio stream of the container to read, from 0.

    Raises:
        AudioError: No decoder reads the file; gives the reason of the one that knows the format best.
        StorageError: The object cannot be fetched.
    """
    with local_file(location(path)) as file:
        return _with_decoders(file, shown(path), work, stream)


def _with_decoders(file: Path, name: str, work: Callable[[AudioReader], Result], stream: int) -> Result:
    _check(file, name)
    ffmpeg_only = file.suffix.lower() in _FFMPEG_ONLY
    decoders = [_FFmpegReader] if ffmpeg_only else [_SoundfileReader, _FFmpegReader]
    failures: list[AudioError] = []
    promised = 0
    for decoder in decoders:
        try:
            with contextlib.closing(decoder(file, name, stream)) as reader:
                _check_claims(reader.info)
                reader.promised_elsewhere = promised
                promised = reader.info.samples or 0
                return work(reader)
        except AudioError as error:
            failures.append(error)
    for failure in reversed(failures):
        if isinstance(failure, DamagedAudio):
            raise failure
    raise AudioError(
        f"{name} is not audio that can be read: neither libsndfile nor FFmpeg decodes it; "
        f"copy or export it again, or take it out of the catalog ({_clause(failures[-1])})"
    ) from failures[-1]


def _clause(failure: AudioError) -> str:
    """A decoder's own reason, which our sentences carry in parentheses."""
    clauses = re.findall(r"\(([^()]+)\)", str(failure))
    return clauses[-1] if clauses else str(failure)


def probe(path: str | os.PathLike, *, stream: int = 0) -> AudioInfo:
    """Read the header. Raises AudioError when no decoder knows the file.

    Args:
        path: File or URL.
        stream: Which audio stream of the container to read, from 0.
    """
    return with_decoders(path, lambda reader: reader.info, stream=stream)


def read(path: str | os.PathLike, *, stream: int = 0) -> tuple[np.ndarray, int]:
    """Read a complete file as (float32 (channels, samples), rate in Hz). Raises AudioError when no decoder reads it.

    Args:
        path: File or URL.
        stream: Which audio stream of the container to read, from 0.
    """

    def read_all(reader: AudioReader) -> tuple[np.ndarray, int]:
        parts = list(reader.blocks())
        empty = np.zeros((reader.info.channels, 0), np.float32)
        return np.concatenate(parts, axis=1) if parts else empty, reader.info.sample_rate

    return with_decoders(path, read_all, stream=stream)


def stream_count(path: str | os.PathLike) -> int:
    """Count the audio streams of a container (a .stem.mp4 has five). Raises AudioError when FFmpeg cannot.

    Args:
        path: File or URL.
    """
    import av

    with local_file(location(path)) as file:
        _check(file, shown(path))
        try:
            with av.open(_openable(file)) as container:
                return len(container.streams.audio)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise AudioError(f"{shown(path)} is not audio that FFmpeg reads ({_reason(error)})") from error
