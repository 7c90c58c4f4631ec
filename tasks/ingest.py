"""One dataset track into the zarr store: decode, resample, transform, write, verify."""

import time
from dataclasses import dataclass

import numpy as np

from storage import store
from storage.audio import reader as audio
from storage.errors import StorageError
from storage.files.fingerprint import joint_fingerprint
from storage.files.location import location
from storage.sources.datasets import DatasetTrack, Source

_PROBED_TRACKS = 200  # whose headers are read before an ingest begins
_BANDWIDTH_FLOOR = 1e-7  # −70 dB of the strongest bin: below it a stem has no content, only noise


@dataclass(frozen=True)
class IngestRecord:
    """What became of one track.

    Attributes:
        track_id: The track's id.
        status: "ok", "failed", or "done" where it was there already.
        error: What went wrong, as a sentence; None where nothing did.
        stems: The stems in the store; empty where it failed.
        duration: The length of what was written, seconds.
        seconds: How long it took.
    """

    track_id: str
    status: str
    error: str | None = None
    stems: tuple[str, ...] = ()
    duration: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class DiskNeed:
    """What an ingest would add to a store.

    Attributes:
        hours: Hours of music, each track counted once.
        waveforms: Bytes of the waveforms before compression: what they take at most.
        spectra: Bytes of the spectra, which are not compressed; 0 in a store of waveforms alone.
    """

    hours: float
    waveforms: int
    spectra: int

    @property
    def bytes(self) -> int:
        """The most it will take, in bytes."""
        return self.waveforms + self.spectra

    @property
    def least(self) -> int:
        """The least it will take, in bytes: compression rarely saves more than three quarters."""
        return self.spectra + self.waveforms // 4


def disk_need(tracks: list[DatasetTrack], form: store.StoreFormat) -> DiskNeed:
    """How much disk `tracks` will take, from the headers of their files (of a sample of 200 or more where there are
    many).

    Files that cannot be read count as nothing: they will be failed records.

    Args:
        tracks: The tracks that are not in the store yet.
        form: The store's format: its sample rate, and its STFT where it keeps spectra.
    """
    step = max(1, len(tracks) // _PROBED_TRACKS)
    probed = tracks[::step]
    hours = waveforms = spectra = 0.0
    for track in probed:
        longest = 0.0
        sources = [(source, True) for source in track.stems.values()]
        for source, transformed in [*sources, *([(track.mixture, False)] if track.mixture else [])]:
            try:
                info = audio.probe(source.path, stream=source.stream)
            except StorageError:
                continue
            samples = (info.duration or 0.0) * form.sample_rate
            longest = max(longest, info.duration or 0.0)
            waveforms += samples * info.channels * 2
            if transformed and form.n_fft:
                spectra += store.spectrogram_bytes(form, round(samples), info.channels)
        hours += longest / 3600
    share = len(tracks) / max(1, len(probed))
    return DiskNeed(hours * share, round(waveforms * share), round(spectra * share))


def source_fingerprint(track: DatasetTrack) -> str:
    """One fingerprint of all of a track's source files; a stored track with another one is out of date.

    Args:
        track: The track, whose stems and mixture (where it has one) count.
    """
    sources = [*track.stems.values(), *([track.mixture] if track.mixture else [])]
    return joint_fingerprint(source.path for source in sources)


def ingest_batch(store_path: str, tracks: list[DatasetTrack]) -> list[IngestRecord]:
    """Ingest tracks one after the other; a track that cannot be read is a failed record, not an exception.

    Args:
        store_path: Path or URL of a store that exists already.
        tracks: The tracks to write; those that are stored already from the same source bytes are left alone.

    Returns:
        One record per track, in order.

    Raises:
        StoreError: There is no such store, or it is of another version.
    """
    opened = store.Store.open(location(store_path), consolidated=False)
    return [_ingest(opened, track) for track in tracks]


def _ingest(opened: store.Store, track: DatasetTrack) -> IngestRecord:
    began = time.perf_counter()
    fingerprint = source_fingerprint(track)
    if opened.finished(store.group_path(track.split, track.track_id), fingerprint):
        return IngestRecord(track.track_id, "done", stems=tuple(sorted(track.stems)))
    try:
        written = _write(opened, track, fingerprint)
    except StorageError as error:
        return IngestRecord(track.track_id, "failed", str(error), seconds=time.perf_counter() - began)
    return IngestRecord(
        track.track_id,
        "ok",
        stems=written.stems,
        duration=written.samples / opened.format.sample_rate,
        seconds=time.perf_counter() - began,
    )


def _write(opened: store.Store, track: DatasetTrack, fingerprint: str) -> store.StoredTrack:
    rate = opened.format.sample_rate
    signals, source_rate = _decoded(track, rate)
    samples = max(signal.shape[1] for signal in signals.values())
    if not samples:
        raise audio.AudioError(f"{track.track_id} has no samples; take it out of the dataset")
    group = opened.begin_track(store.group_path(track.split, track.track_id))
    scales, channels, bandwidths, checksums = {}, {}, {}, {}
    for stem, signal in signals.items():
        signal = np.pad(signal, ((0, 0), (0, samples - signal.shape[1])))
        # Stems may exceed full scale (a lossy decoder overshoots): keep their shape, remember the scale.
        scales[stem] = max(1.0, float(np.abs(signal).max()) * 32768 / 32767)
        integers = np.round(signal.T * (32767 / scales[stem])).astype(np.int16)
        scales[stem] *= 32768 / 32767
        checksums[stem] = store.write_waveform(group, stem, integers, rate=rate, scale=scales[stem])
        channels[stem] = signal.shape[0]
        exact = np.ascontiguousarray(integers.T, np.float32) / np.float32(32768)
        bandwidths[stem] = _write_spectra(group, stem, exact, opened.format, scales[stem])
    written = store.StoredTrack(
        track_id=track.track_id,
        dataset=track.dataset,
        split=track.split,
        artist=track.artist,
        title=track.title,
        song=track.song,
        samples=samples,
        stems=tuple(sorted(signals)),
        scales=scales,
        channels=channels,
        bandwidth_hz=bandwidths,
        fingerprint=fingerprint,
        checksums=checksums,
        source_rate=source_rate,
    )
    opened.finish_track(written)
    return written


def _decoded(track: DatasetTrack, rate: int) -> tuple[dict[str, np.ndarray], int]:
    """All stems (and the mixture, where it is not just their sum) at the store's rate."""
    signals = {}
    source_rate = rate
    for stem, source in sorted(track.stems.items()):
        signals[stem], source_rate = _resampled(source, rate)
    if track.mixture is not None:
        mixture, source_rate = _resampled(track.mixture, rate)
        if not _is_sum(mixture, list(signals.values())):
            signals["mixture"] = mixture
    return signals, source_rate


def _resampled(source: Source, rate: int) -> tuple[np.ndarray, int]:
    signal, source_rate = audio.read(source.path, stream=source.stream)
    if signal.shape[0] > 2:
        raise audio.AudioError(f"{source.path} has {signal.shape[0]} channels; a training stem has one or two")
    if source_rate != rate and signal.shape[1]:
        import soxr

        signal = np.ascontiguousarray(soxr.resample(signal.T, source_rate, rate).T)
    return signal, source_rate


def _is_sum(mixture: np.ndarray, stems: list[np.ndarray]) -> bool:
    """Does the mixture equal its stems' sum to what 16 bits can tell, one step per stem?"""
    if any(stem.shape != mixture.shape for stem in stems):
        return False
    return float(np.abs(mixture - sum(stems)).max(initial=0)) <= (len(stems) + 1) / 32768


def _write_spectra(group, stem: str, signal: np.ndarray, form: store.StoreFormat, scale: float) -> float:
    """Write the spectra shard by shard where the store keeps them; returns the stem's bandwidth in Hz."""
    import torch

    from model.spectra.frontend import FrontEnd, analysis

    n_fft, hop = form.n_fft or 4096, form.hop or 1024
    frames = FrontEnd(form.sample_rate, n_fft, hop).frames(signal.shape[1])
    left = n_fft - hop
    padded = np.pad(signal, ((0, 0), (left, (frames - 1) * hop + n_fft - left - signal.shape[1])))
    writer = None
    if form.n_fft and stem != "mixture":  # a mixture's spectrum is computed on demand
        channels, bins = signal.shape[0], n_fft // 2 + 1
        writer = store.SpectrogramWriter(group, stem, frames, channels, bins, form=form, scale=scale)
    power = np.zeros(n_fft // 2 + 1)
    for start in range(0, frames, store.FRAMES_PER_SHARD):
        stop = min(frames, start + store.FRAMES_PER_SHARD)
        span = torch.from_numpy(padded[:, start * hop : (stop - 1) * hop + n_fft])
        spectrum = analysis(span, n_fft, hop).numpy()
        power += np.square(np.abs(spectrum)).sum(axis=(0, 1))
        if writer is not None:
            writer.write(start, spectrum)
    audible = np.flatnonzero(power > _BANDWIDTH_FLOOR * power.max(initial=0))
    return float(audible[-1] + 1) * form.sample_rate / n_fft if len(audible) else 0.0
