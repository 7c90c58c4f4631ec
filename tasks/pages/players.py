"""What a player on a page needs: stems of one stretch of time as audio and as pictures, on one time axis."""

import base64
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from storage.audio.excerpt import opus, read_excerpt
from storage.audio.reader import probe
from storage.errors import StorageError
from storage.files.location import is_url, location
from tasks.pages.spectrogram import Mark, levels, marks, picture

MIXTURE = "mixture"
EXCERPT_SECONDS = 8.0
_SEARCHED_SECONDS = 600.0  # of a track's beginning, for the stretch that is most worth hearing
_STEP_SECONDS = 0.5
_WIDTH, _ROWS = 480, 112


@dataclass(frozen=True)
class Lane:
    """One stem of a player.

    Attributes:
        name: The stem's name.
        image: URI of its spectrogram.
        audio: Data URI of its sound, "" where that is fetched.
        url: Where its sound is fetched from, "" where it is in the page.
    """

    name: str
    image: str
    audio: str = ""
    url: str = ""


@dataclass(frozen=True)
class Player:
    """Stems that play together.

    Attributes:
        title: The track's name.
        lanes: The mixture first.
        seconds: How long it plays.
        marks: Frequencies on the edge of each picture.
        start: Where the excerpt begins in the track, in seconds.
        rate: Sample rate of what is fetched by URL; 0 where the audio is in the page.
        chunk: Seconds of audio that are fetched at a time; 0 where the audio is in the page.
        problem: Why nothing can be heard, None where something can.
        facts: (name, value) pairs shown beside it.
        label: Why this track is shown, "" for no reason.
        muted: Names of the lanes that are silent at first; the first lane alone where None.
    """

    title: str
    lanes: list[Lane] = field(default_factory=list)
    seconds: float = 0.0
    marks: list[Mark] = field(default_factory=list)
    start: float = 0.0
    rate: int = 0
    chunk: float = 0.0
    problem: str | None = None
    facts: list[tuple[str, str]] = field(default_factory=list)
    label: str = ""
    muted: list[str] | None = None

    @property
    def size(self) -> int:
        """How many bytes of a page its sounds and pictures take."""
        return sum(len(lane.audio) + len(lane.image) for lane in self.lanes)

    @property
    def spec(self) -> dict:
        """What the page's script is given."""
        muted = self.muted
        if muted is None:
            muted = [self.lanes[0].name] if len(self.lanes) > 1 else []
        return {
            "seconds": self.seconds, "rate": self.rate, "chunk": self.chunk, "muted": muted,
            "lanes": [{"name": lane.name, "audio": lane.audio, "url": lane.url} for lane in self.lanes],
        }  # fmt: skip


def player(title: str, signals: dict[str, np.ndarray], rate: int, *, start: float = 0.0, label: str = "",
           facts: list[tuple[str, str]] | None = None, muted: list[str] | None = None) -> Player:  # fmt: skip
    """A player with its audio and pictures inside.

    Args:
        title: The track's name.
        signals: Stem name → (channels, samples); all of one length.
        rate: Sample rate in Hz.
        start: Where the excerpt begins in the track, in seconds.
        label: Why this track is shown.
        facts: (name, value) pairs shown beside it.
        muted: Names of the stems that are silent at first; the first alone where None.
    """
    with ThreadPoolExecutor() as pool:  # encoders and transforms leave Python's lock alone
        powers = list(pool.map(lambda signal: levels(signal, rate, width=_WIDTH, rows=_ROWS), signals.values()))
        sounds = pool.map(lambda signal: opus(signal, rate), signals.values())
        loudest = max((float(power.max(initial=0)) for power in powers), default=0.0)
        images = list(pool.map(lambda power: picture(power, loudest=loudest), powers))
        lanes = [
            Lane(name, data_uri(image, "image/webp"), data_uri(sound, "audio/ogg"))
            for name, image, sound in zip(signals, images, sounds, strict=True)
        ]
    seconds = max((signal.shape[1] for signal in signals.values()), default=0) / rate
    return Player(title, lanes, seconds, marks(rate, rows=_ROWS), start, label=label, facts=facts or [], muted=muted)


def rehearse() -> None:
    """Import and compute once what `player` needs for stereo at 44.1 kHz, such as encoders and the frequency axis."""
    player("", {MIXTURE: np.zeros((2, 1 << 14), np.float32)}, 44100)


def excerpt_player(title: str, stems: dict[str, str | os.PathLike], source: str | None = None, *, label: str = "",
                   facts: list[tuple[str, str]] | None = None, seconds: float = EXCERPT_SECONDS) -> Player:  # fmt: skip
    """A player of the stretch of a track in which its stems overlap most.

    Args:
        title: The track's name.
        stems: Stem name → file.
        source: File of the mixture; where it is None or gone, the stems' sum is the mixture.
        label: Why this track is shown.
        facts: (name, value) pairs shown beside it.
        seconds: Length of the stretch.

    Returns:
        The player, with a `problem` instead of lanes where the stems cannot be read.
    """
    try:
        compared = [read_excerpt(path, 0.0, _SEARCHED_SECONDS) for path in list(stems.values())[:2]]
        start = interesting_start(compared, seconds)
        parts = {name: read_excerpt(path, start, seconds) for name, path in stems.items()}
        rates = {rate for _, rate in parts.values()}
        if len(rates) != 1:
            raise StorageError(f"the stems of {title} have different sample rates")
        (rate,) = rates
        signals = {name: signal for name, (signal, _) in parts.items()}
        mixture = _mixture(source, start, seconds, rate) if source else None
    except (StorageError, OSError, RuntimeError) as error:  # a stem that was damaged since must not cost the page
        return Player(title, problem=str(error), label=label, facts=facts or [])
    samples = min(signal.shape[1] for signal in signals.values())
    if mixture is not None:
        samples = min(samples, mixture.shape[1])
    elif len(signals) > 1:
        mixture = np.add.reduce([signal[:, :samples] for signal in signals.values()])
    if not samples:
        return Player(title, problem=f"the stems of {title} are empty", label=label, facts=facts or [])
    ordered = ({MIXTURE: mixture} if mixture is not None else {}) | signals
    cut = {name: signal[:, :samples] for name, signal in ordered.items()}
    return player(title, cut, rate, start=start, label=label, facts=facts)


def interesting_start(signals: Iterable[tuple[np.ndarray, int]], seconds: float) -> float:
    """Where the weakest of several stems, each relative to its peak, is loudest: there is something to hear in all.

    Args:
        signals: Stems of one track, each (channels, samples) with its rate in Hz; the first ten minutes count.
        seconds: Length of the stretch.

    Returns:
        Seconds from the track's beginning, in steps of half a second; 0 where the track is no longer than the stretch.
    """
    powers = []
    for signal, rate in signals:
        step = max(1, round(_STEP_SECONDS * rate))
        steps = min(signal.shape[1], round(_SEARCHED_SECONDS * rate)) // step
        powers.append(np.square(signal[:, : steps * step]).mean(axis=0).reshape(steps, step).mean(axis=1))
    length = min((len(power) for power in powers), default=0)
    window = round(seconds / _STEP_SECONDS)
    if length <= window:
        return 0.0
    sums = [np.convolve(power[:length] / (power.max() + 1e-12), np.ones(window), mode="valid") for power in powers]
    return float(np.min(sums, axis=0).argmax()) * _STEP_SECONDS


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a URI inside a page.

    Args:
        data: Contents of a file.
        kind: Their media type, e.g. "audio/ogg".
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _mixture(source: str, start: float, seconds: float, rate: int) -> np.ndarray | None:
    """The stretch of the source, None where it is gone or has another rate than its stems."""
    if not is_url(source) and not location(source).exists():
        return None
    try:
        if probe(source).sample_rate != rate:
            return None
        return read_excerpt(source, start, seconds)[0]
    except StorageError:
        return None
