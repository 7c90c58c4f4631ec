"""A dataset or a store on one page: its contents, how it sounds, and what is wrong with it, warnings first."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model.scoring.meters import LoudnessMeter, activity
from storage.audio.excerpt import read_excerpt
from storage.audio.reader import probe
from storage.errors import StorageError
from storage.files.atomic import write_bytes
from storage.files.location import location
from storage.sources.datasets import discover, leaks
from storage.store import Store
from tasks.pages.charts import Histogram, LineChart, histogram, line_chart
from tasks.pages.players import Player, player
from tasks.pages.render import count, number, render
from tasks.pages.spectrogram import levels, row_frequencies

MEASURED_TRACKS = 60  # whose sound is measured, spread evenly over the dataset; the headers of all are read
MEASURED_SECONDS = 30.0  # of each, from the middle
_PLAYERS, _PLAYER_SECONDS = 3, 8.0
_ROWS = 96
_CLIPPED = 0.999
_NARROW_HZ = 15000.0
_NAMED = 12  # tracks named in a warning
_DUAL_MONO = 0.9999

Read = Callable[[float, float], tuple[np.ndarray, int]]


@dataclass
class StemItem:
    """One stem of a track.

    Attributes:
        seconds: Its length.
        rate: Sample rate in Hz.
        channels: How many.
        read: From start and length in seconds to the audio (channels, samples) and its rate.
    """

    seconds: float
    rate: int
    channels: int
    read: Read


@dataclass
class Item:
    """One track of a dataset or a store.

    Attributes:
        track_id: Its id, which begins with the dataset's name and a slash.
        split: The split it belongs to.
        artist: As the dataset names it.
        title: As the dataset names it.
        song: The same for every recording of one song, by artist and title.
        stems: The stems that can be read, by name.
        broken: One sentence per stem that cannot be read.
        bandwidths: Stem → highest frequency with content, in Hz; empty where it was not measured.
    """

    track_id: str
    split: str
    artist: str
    title: str
    song: str
    stems: dict[str, StemItem] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    bandwidths: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return max((stem.seconds for stem in self.stems.values()), default=0.0)


@dataclass(frozen=True)
class Measured:
    """What was measured of a stretch of a stem.

    Attributes:
        track_id: The track.
        stem: The stem's name.
        loudness: Integrated, in LUFS; None where it is silent.
        peak: The largest magnitude; full scale is 1.
        power: Mean square of the samples.
        active: Share of the time in which it sounds, 0 … 1.
        correlation: Of its two channels, −1 … 1; None where it has not two.
        spectrum: Mean power per row of `levels`, (rows,).
        rate: Sample rate in Hz.
        digest: Hash of the samples.
    """

    track_id: str
    stem: str
    loudness: float | None
    peak: float
    power: float
    active: float | None
    correlation: float | None
    spectrum: np.ndarray
    rate: int
    digest: str


def write_exploration(source: Path, target: Path, *, kind: str | None = None, stem: str | None = None) -> Path:
    """Write the page of a dataset folder or a zarr store.

    Args:
        source: A store, or a dataset in a layout that `unbraid ingest` reads.
        target: The page's file.
        kind: The dataset's layout; recognised by its folders where None.
        stem: Which stem the files in a folder of loose files are.

    Returns:
        `target`.

    Raises:
        DatasetError: The folder is neither a store nor a dataset.
        StoreError: The store is of another version.
    """
    items = _stored(source) if (source / "zarr.json").exists() else _discovered(source, kind, stem)
    write_bytes(target, render("explore.html", name=str(source), **exploration(items)).encode(), durable=False)
    return target


def exploration(items: list[Item]) -> dict:
    """Everything that the template of a dataset's page shows.

    Args:
        items: The tracks; stems that turn out unreadable are added to their `broken`.

    Returns:
        The template's values by name; sound is measured of `MEASURED_TRACKS` tracks, all else of every track.
    """
    step = max(1, -(-len(items) // MEASURED_TRACKS))
    chosen = [item for item in items[::step] if item.stems]
    measured: list[Measured] = []
    for item in chosen:
        measured += _measured(item)
    stems = sorted({name for item in items for name in item.stems}, key=lambda name: (name != "vocals", name))
    return {
        "warnings": warnings(items, measured),
        "tracks": len(items),
        "hours": sum(item.seconds for item in items) / 3600,
        "artists": len({item.artist for item in items}),
        "splits": _splits(items),
        "stems": stems,
        "formats": _formats(items),
        "measured": len(chosen),
        "measured_seconds": MEASURED_SECONDS,
        "histograms": _histograms(items, measured, stems),
        "spectra": _spectra(measured, stems),
        "players": _players(chosen),
    }


def warnings(items: list[Item], measured: list[Measured]) -> list[dict]:
    """What is wrong or odd in a dataset, the worst first.

    Args:
        items: All tracks.
        measured: Stretches of the stems whose sound was measured.

    Returns:
        Dicts of `text`, whether it is `bad`, and `named`: up to 12 of the tracks or stems it is about.
    """
    out: list[dict] = []

    def warn(text: str, tracks: list[str], *, bad: bool = False) -> None:
        if tracks:
            more = f" and {len(tracks) - _NAMED} more" if len(tracks) > _NAMED else ""
            out.append({"text": text, "named": "; ".join(tracks[:_NAMED]) + more, "bad": bad})

    songs = leaks((item.song, f"{item.artist} - {item.title}", item.split) for item in items)
    warn(f"{count(len(songs), 'song')} in a training and a test split: scores on them mean nothing", songs, bad=True)
    broken = [f"{item.track_id}: {why}" for item in items for why in item.broken]
    warn(f"{count(len(broken), 'stem')} that cannot be read", broken, bad=True)
    by_song = defaultdict(list)
    for item in items:
        by_song[item.song, item.split].append(item.track_id)
    twice = [" = ".join(names) for names in by_song.values() if len(names) > 1]
    warn(f"{count(len(twice), 'song')} more than once in a split, by artist and title", twice)
    by_sound = defaultdict(set)
    for one in measured:
        if one.power > 0:
            by_sound[one.stem, one.digest].add(one.track_id)
    same = [f"{stem} of {' = '.join(sorted(names))}" for (stem, _), names in by_sound.items() if len(names) > 1]
    warn(f"{count(len(same), 'stem')} that sound the same in several tracks, sample by sample", same)
    splits = defaultdict(set)
    for item in items:
        splits[item.artist].add(item.split)
    both = sorted(artist for artist, where in splits.items() if len(where) > 1)
    warn(f"{count(len(both), 'artist')} in several splits: a network may know the voice", both)
    quiet = [f"{one.stem} of {one.track_id}" for one in measured if one.power == 0]
    warn(f"{count(len(quiet), 'stem')} silent where they were measured", quiet)
    loud = [f"{one.stem} of {one.track_id}" for one in measured if one.peak >= _CLIPPED]
    warn(f"{count(len(loud), 'stem')} at full scale: probably clipped", loud)
    narrow = [f"{stem} of {item.track_id} ({number(hz / 1000, 1)} kHz)" for item in items
              for stem, hz in item.bandwidths.items() if stem != "bass" and 0 < hz < _NARROW_HZ]  # fmt: skip
    warn(f"{count(len(narrow), 'stem')} without content above {_NARROW_HZ / 1000:.0f} kHz: a lossy or narrow source",
         narrow)  # fmt: skip
    alike = [f"{one.stem} of {one.track_id}" for one in measured if (one.correlation or 0) > _DUAL_MONO]
    warn(f"{count(len(alike), 'stem')} with two equal channels", alike)
    rates = Counter(stem.rate for item in items for stem in item.stems.values())
    if len(rates) > 1:
        warn("several sample rates", [f"{rate} Hz: {count(n, 'stem')}" for rate, n in rates.most_common()])
    return sorted(out, key=lambda warning: not warning["bad"])


def _stored(path: Path) -> list[Item]:
    store = Store.open(location(path))
    items, rate = [], store.format.sample_rate
    for track in store.tracks():
        item = Item(track.track_id, track.split, track.artist, track.title, track.song, bandwidths=track.bandwidth_hz)
        for name in track.stems:

            def read(start: float, seconds: float, track=track, name=name) -> tuple[np.ndarray, int]:
                return store.waveform(track, name, round(start * rate), round((start + seconds) * rate)), rate

            item.stems[name] = StemItem(track.samples / rate, rate, track.channels[name], read)
        items.append(item)
    return items


def _discovered(path: Path, kind: str | None, stem: str | None) -> list[Item]:
    items = []
    for track in discover(path, kind=kind, stem=stem):
        item = Item(track.track_id, track.split, track.artist, track.title, track.song)
        sources = {**track.stems, **({"mixture": track.mixture} if track.mixture else {})}
        for name, source in sources.items():
            try:
                info = probe(source.path, stream=source.stream)
            except StorageError as error:
                item.broken.append(str(error))
                continue

            def read(start: float, seconds: float, source=source) -> tuple[np.ndarray, int]:
                if not source.stream:
                    return read_excerpt(source.path, start, seconds)
                from storage.audio.reader import read as read_whole

                signal, rate = read_whole(source.path, stream=source.stream)
                return signal[:, round(start * rate) : round((start + seconds) * rate)], rate

            item.stems[name] = StemItem(info.duration or 0.0, info.sample_rate, info.channels, read)
        items.append(item)
    return items


def _measured(item: Item) -> list[Measured]:
    """Measure a stretch from the middle of every stem of a track; stems that cannot be read join the broken ones."""
    signals: dict[str, tuple[np.ndarray, int]] = {}
    start = max(0.0, item.seconds / 2 - MEASURED_SECONDS / 2)
    for name, stem in item.stems.items():
        try:
            signals[name] = stem.read(start, MEASURED_SECONDS)
        except StorageError as error:
            item.broken.append(str(error))
    total = _mixture({name: signal for name, (signal, _) in signals.items()})
    out = []
    for name, (signal, rate) in signals.items():
        if not signal.shape[1]:
            continue
        meter = LoudnessMeter.of(signal, rate)
        mixture = LoudnessMeter.of(total, rate).integrated() if total is not None else meter.integrated()
        left, right = signal[0], signal[-1]
        norm = float(np.sqrt(np.square(left).sum() * np.square(right).sum()))
        out.append(
            Measured(
                item.track_id, name, meter.integrated(), float(np.abs(signal).max()), float(np.square(signal).mean()),
                activity(meter.blocks(), mixture),
                float(left @ right) / norm if signal.shape[0] == 2 and norm > 0 else None,
                levels(signal, rate, width=64, rows=_ROWS).mean(axis=1), rate,
                hashlib.sha256(np.ascontiguousarray(signal).data).hexdigest(),
            )
        )  # fmt: skip
    return out


def _mixture(signals: dict[str, np.ndarray]) -> np.ndarray | None:
    if "mixture" in signals:
        return signals["mixture"]
    parts = list(signals.values())
    if not parts or any(part.shape[0] != parts[0].shape[0] for part in parts):
        return None
    samples = min(part.shape[1] for part in parts)
    return np.sum([part[:, :samples] for part in parts], axis=0) if samples else None


def _splits(items: list[Item]) -> list[dict]:
    groups = defaultdict(list)
    for item in items:
        groups[item.split, item.track_id.split("/", 1)[0]].append(item)
    return [
        {"split": split, "dataset": dataset, "tracks": len(group), "artists": len({item.artist for item in group}),
         "hours": sum(item.seconds for item in group) / 3600,
         "stems": ", ".join(sorted({name for item in group for name in item.stems}))}
        for (split, dataset), group in sorted(groups.items())
    ]  # fmt: skip


def _formats(items: list[Item]) -> list[dict]:
    counts = Counter((stem.rate, stem.channels) for item in items for stem in item.stems.values())
    return [{"rate": rate, "channels": channels, "stems": n} for (rate, channels), n in counts.most_common()]


def _histograms(items: list[Item], measured: list[Measured], stems: list[str]) -> list[Histogram]:
    charts = [_chart("duration", "s", [item.seconds for item in items], "")]
    by_track: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for one in measured:
        by_track[one.track_id][one.stem] = one.power
    ratios = []
    for powers in by_track.values():
        backing = sum(power for name, power in powers.items() if name not in ("vocals", "mixture"))
        if powers.get("vocals") and backing:
            ratios.append(10 * float(np.log10(powers["vocals"] / backing)))
    charts.append(_chart("vocals over accompaniment", "dB", ratios, ""))
    for stem in stems:
        theirs = [one for one in measured if one.stem == stem]
        charts += [
            _chart("loudness", "LUFS", [one.loudness for one in theirs if one.loudness is not None], stem, -60.0, 0.0),
            _chart("activity", "of the time", [one.active for one in theirs if one.active is not None], stem, 0.0, 1.0),
            _chart("left and right correlate", "", [one.correlation for one in theirs if one.correlation is not None],
                   stem, -1.0, 1.0),
        ]  # fmt: skip
    return [chart for chart in charts if chart is not None]


def _chart(title: str, unit: str, values: list[float], name: str, low: float | None = None,
           high: float | None = None) -> Histogram | None:  # fmt: skip
    if not values:
        return None
    low = float(np.floor(min(values))) if low is None else low
    high = float(np.ceil(max(values))) if high is None else high
    high = high if high > low else low + 1.0
    counts, _ = np.histogram(np.clip(values, low, high), bins=24, range=(low, high))
    low_decile, median, high_decile = (float(value) for value in np.quantile(values, [0.1, 0.5, 0.9]))
    return histogram(title, unit, low, high, counts.tolist(), quantiles=(low_decile, median, high_decile), name=name)


def _spectra(measured: list[Measured], stems: list[str]) -> LineChart | None:
    """Average spectrum per stem, each relative to its loudest row, over tracks of the most frequent rate."""
    rates = Counter(one.rate for one in measured)
    if not rates:
        return None
    rate = rates.most_common(1)[0][0]
    hertz = [float(hz) for hz in row_frequencies(rate, rows=_ROWS)]
    curves: dict[str, tuple[list[float], list[float | None]]] = {}
    for stem in stems:
        spectra = [one.spectrum / one.spectrum.max() for one in measured
                   if one.stem == stem and one.rate == rate and one.spectrum.max() > 0]  # fmt: skip
        if spectra:
            mean = np.mean(spectra, axis=0)
            decibels = 10 * np.log10(np.maximum(mean / mean.max(), 1e-9))
            curves[stem] = (hertz[1:], [float(value) for value in decibels[1:]])
    return line_chart(
        "Average spectrum per stem", "dB below its loudest", curves, x_label="Hz", low=-80.0, high=0.0, log_x=True,
        width=900.0, height=220.0, x_text=lambda hz: f"{hz / 1000:g}k" if hz >= 1000 else f"{hz:g}",
    )  # fmt: skip


def _players(items: list[Item]) -> list[Player]:
    """Examples to hear: tracks spread evenly over those that were measured."""
    players = []
    for item in items[:: max(1, len(items) // _PLAYERS)][:_PLAYERS]:
        start = max(0.0, item.seconds / 2 - _PLAYER_SECONDS / 2)
        try:
            signals = {name: stem.read(start, _PLAYER_SECONDS) for name, stem in item.stems.items()}
        except StorageError as error:
            players.append(Player(item.track_id, problem=str(error)))
            continue
        rates = {rate for _, rate in signals.values()}
        samples = min(signal.shape[1] for signal, _ in signals.values())
        if len(rates) == 1 and samples:
            cut = {name: signal[:, :samples] for name, (signal, _) in signals.items()}
            mixture = _mixture(cut)
            ordered = ({"mixture": mixture} if mixture is not None and len(cut) > 1 else {}) | cut
            facts = [("split", item.split), ("artist", item.artist)]
            players.append(player(item.track_id, ordered, rates.pop(), start=start, facts=facts))
    return players
