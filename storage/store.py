"""The zarr store of a training set: one group per track, with waveforms and complex spectra of its stems.

    STORE/<split>/<dataset>/<track>/<stem>/waveform      int16   (samples, channels)
    STORE/<split>/<dataset>/<track>/<stem>/spectrogram   float16 (frames, channels, bins, 2: real, imaginary)

Time comes first and a shard holds a span of time, so that a reader takes one span in one read and cuts many patches
from it. One task writes a track's entire group (two writers in one shard lose data); the group's attribute `complete`,
set last, is its commit mark.

Arrays name their dimensions and carry `units`, `scale_factor` and the step of their time axis, so that
`xarray.open_datatree(STORE, engine="zarr")` shows them at the level of the source.
"""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import StoreError
from storage.files.location import location, make_folder

VERSION = 1
_TRACK_DEPTH = 2  # split / dataset / track
_SAMPLES_PER_CHUNK = 1 << 17
_SAMPLES_PER_SHARD = 1 << 22
_FRAMES_PER_CHUNK = 256
FRAMES_PER_SHARD = 4096


@dataclass(frozen=True)
class StoreFormat:
    """The store's sample rate in Hz and front end in samples; `n_fft` 0 keeps waveforms alone (1/12 of the disk)."""

    sample_rate: int = 44100
    n_fft: int = 4096
    hop: int = 1024


@dataclass(frozen=True)
class StoredTrack:
    """What the store knows of a track.

    `stems` are sorted names; `samples` is their length at the store's rate, `source_rate` (Hz) the rate of the files.
    `bandwidth_hz` is where a stem's content ends, `checksums` are the SHA-256 of the waveforms' bytes, and `scales`
    multiply the int16 waveforms / 32768 and the spectra back to the level of the source.
    """

    track_id: str
    dataset: str
    split: str
    artist: str
    title: str
    song: str
    samples: int
    stems: tuple[str, ...]
    scales: dict[str, float]
    channels: dict[str, int]
    bandwidth_hz: dict[str, float]
    fingerprint: str
    checksums: dict[str, str]
    source_rate: int

    @property
    def group(self) -> str:
        return group_path(self.split, self.track_id)


def group_path(split: str, track_id: str) -> str:
    """The path of a track's group in the store, or of the group above a dataset's tracks.

    Args:
        split: "train" or "test".
        track_id: `<dataset>/<name>`, or the dataset alone.
    """
    return f"{split}/{track_id}"


class Store:
    """An open store. Open it in the process that reads: zarr handles do not survive a fork."""

    def __init__(self, path: Path, group, form: StoreFormat) -> None:
        self.path = path
        self.format = form
        self._group = group
        self._arrays: dict[tuple[str, str, str], object] = {}

    @classmethod
    def create(cls, path: Path, form: StoreFormat) -> "Store":
        """Open the store at `path` for writing, or make it.

        Args:
            path: Folder or URL of the store.
            form: The format of all its tracks.

        Raises:
            StoreError: The store has another format or version, or the folder holds something else.
        """
        import zarr

        path = location(path)
        if (path / "zarr.json").exists():
            store = cls.open(path, consolidated=False)
            if store.format != form:
                raise StoreError(
                    f"{path} was made with {store.format}, not {form}; use another store, or those settings"
                )
            return store
        if path.exists() and any(path.iterdir()):
            raise StoreError(f"{path} exists and is not a store; give an empty or a new folder")
        make_folder(path)
        group = zarr.create_group(str(path), attributes={"unbraid": VERSION, **asdict(form)})
        return cls(path, group, form)

    @classmethod
    def open(cls, path: Path, *, consolidated: bool = True) -> "Store":
        """Open an existing store.

        Args:
            path: Folder or URL of the store.
            consolidated: True to read only, by the metadata gathered in the root; False to write, group by group.

        Raises:
            StoreError: There is no store, or one of another version.
        """
        import zarr

        path = location(path)
        try:
            group = zarr.open_group(
                str(path), mode="r" if consolidated else "r+", use_consolidated=None if consolidated else False
            )
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise StoreError(f"{path} is not a finished store; make it with `unbraid ingest`") from error
        attributes: dict[str, Any] = dict(group.attrs)
        if attributes.get("unbraid") != VERSION:
            raise StoreError(f"{path} is not a store of version {VERSION}; ingest into a new one")
        form = StoreFormat(*(attributes[name] for name in ("sample_rate", "n_fft", "hop")))
        return cls(path, group, form)

    # -- writing ---------------------------------------------------------------------------------

    def prepare(self, parents: set[str]) -> None:
        """Make the groups above the tracks, before many tasks would make them at once.

        Args:
            parents: Paths of groups, as `group_path` makes them.
        """
        for parent in sorted(parents):
            self._group.require_group(parent)

    def finished(self, group: str, fingerprint: str) -> bool:
        """Is a track complete in the store, and made from the same sources?

        Args:
            group: Path of the track's group.
            fingerprint: The joint fingerprint of the sources as they are now.
        """
        attributes = self._attributes(group)
        return bool(attributes.get("complete")) and attributes.get("fingerprint") == fingerprint

    def begin_track(self, group: str):
        """Make an empty group for a track, in place of whatever a killed task left.

        Args:
            group: Path of the track's group.

        Returns:
            The zarr group, to write arrays to.
        """
        return self._group.create_group(group, overwrite=True)

    def finish_track(self, track: StoredTrack) -> None:
        """Set the commit mark: from here on the track is in the store.

        Args:
            track: The track whose arrays are all written.
        """
        fields = asdict(track)
        fields["stems"] = list(track.stems)
        self._group[track.group].attrs.update({**fields, "complete": True})

    def consolidate(self) -> int:
        """Delete unfinished tracks and gather all metadata in the root, as the last step of a single writer.

        Returns:
            How many tracks the store has.
        """
        import zarr

        for group in self._unfinished():
            del self._group[group]
        with warnings.catch_warnings():
            # zarr warns that other readers may not know consolidated metadata; they read the store without it.
            warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
            self._group = zarr.consolidate_metadata(self._group.store)
        return len(self.tracks())

    def _unfinished(self) -> list[str]:
        return [name for name, attributes in self._track_attributes() if not attributes.get("complete")]

    def _track_attributes(self) -> Iterator[tuple[str, dict]]:
        """(group, attributes) of every track, from the consolidated metadata where it was opened with it."""
        consolidated = self._group.metadata.consolidated_metadata
        if consolidated is not None:
            nodes = ((name, node.attributes) for name, node in consolidated.flattened_metadata.items())
        else:
            nodes = ((name, node.attrs) for name, node in self._group.members(max_depth=_TRACK_DEPTH))
        return ((name, dict(attributes)) for name, attributes in nodes if name.count("/") == _TRACK_DEPTH)

    def _attributes(self, group: str) -> dict:
        try:
            return dict(self._group[group].attrs)
        except KeyError:
            return {}

    # -- reading ---------------------------------------------------------------------------------

    def tracks(self, split: str | None = None) -> list[StoredTrack]:
        """The finished tracks, sorted by id.

        Args:
            split: "train" or "test"; None for both.
        """
        stored = []
        for _, attributes in self._track_attributes():
            if attributes.pop("complete", False) and split in (None, attributes["split"]):
                attributes["stems"] = tuple(attributes["stems"])
                stored.append(StoredTrack(**attributes))
        return sorted(stored, key=lambda track: track.track_id)

    def waveform(self, track: StoredTrack, stem: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """A stretch of a stem's waveform.

        Args:
            track: A track of this store.
            stem: One of its stems.
            start: The first sample.
            stop: The sample after the last; None for the end.

        Returns:
            float32 (channels, samples) at the source's level.
        """
        raw = self._array(track, stem, "waveform")[start:stop]
        return np.ascontiguousarray(raw.T, np.float32) * np.float32(track.scales[stem] / 32768)

    def spectrogram(self, track: StoredTrack, stem: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """A stretch of a stem's spectrogram.

        Args:
            track: A track of this store.
            stem: One of its stems.
            start: The first frame.
            stop: The frame after the last; None for the end.

        Returns:
            complex64 (channels, frames, bins) at the source's level.

        Raises:
            StoreError: The store keeps waveforms alone.
        """
        if not self.format.n_fft:
            raise StoreError(f"{self.path} holds waveforms only; compute spectra from them")
        raw = self._array(track, stem, "spectrogram")[start:stop].astype(np.float32)
        return np.ascontiguousarray(raw).view(np.complex64)[..., 0].swapaxes(0, 1) * np.float32(track.scales[stem])

    def frames(self, track: StoredTrack) -> int:
        """How many frames the track's spectra have. Raises StoreError where the store keeps waveforms alone.

        Args:
            track: A track of this store.
        """
        stem = next(stem for stem in track.stems if stem != "mixture")
        return self._array(track, stem, "spectrogram").shape[0]

    def _array(self, track: StoredTrack, stem: str, kind: str):
        key = (track.group, stem, kind)
        if key not in self._arrays:
            try:
                self._arrays[key] = self._group[f"{track.group}/{stem}/{kind}"]
            except KeyError as error:
                raise StoreError(f"{self.path} has no {kind} of {stem} in {track.track_id}") from error
        return self._arrays[key]


def write_waveform(group, stem: str, waveform: np.ndarray, *, rate: int, scale: float) -> str:
    """Write a stem's samples, read them back, and compare.

    Args:
        group: The track's zarr group.
        stem: Name of the stem.
        waveform: int16 (samples, channels).
        rate: Sample rate in Hz.
        scale: What the samples / 32768 are multiplied by to get the level of the source.

    Returns:
        The SHA-256 of the samples' bytes.

    Raises:
        StoreError: The disk gives back something else.
    """
    from zarr.codecs import ZstdCodec

    array = group.create_array(
        f"{stem}/waveform",
        shape=waveform.shape,
        dtype="int16",
        chunks=(min(_SAMPLES_PER_CHUNK, len(waveform)), waveform.shape[1]),
        shards=_shards(len(waveform), _SAMPLES_PER_CHUNK, _SAMPLES_PER_SHARD, waveform.shape[1:]),
        compressors=ZstdCodec(level=1),
        dimension_names=("time", "channel"),
        attributes={
            "long_name": f"{stem}, waveform",
            "units": "1",  # full scale
            "scale_factor": scale / 32768,
            "axis_time": {"units": "s", "step": 1 / rate, "start": 0.0},
        },
    )
    array[:] = waveform
    if not np.array_equal(array[:], waveform):
        raise StoreError(f"{group.path}/{stem} read back differs from what was written; check the disk")
    return hashlib.sha256(np.ascontiguousarray(waveform).data).hexdigest()


class SpectrogramWriter:
    """Writes a stem's spectra shard by shard, each verified as it lands.

    Args:
        group: The track's zarr group.
        stem: Name of the stem.
        frames: Frames of the complete spectrogram.
        channels: Channels of the stem.
        bins: Frequency bins per frame.
        form: The store's format.
        scale: What the spectra are multiplied by to get the level of the source.
    """

    def __init__(
        self, group, stem: str, frames: int, channels: int, bins: int, *, form: StoreFormat, scale: float
    ) -> None:
        step = form.hop / form.sample_rate
        self._array = group.create_array(
            f"{stem}/spectrogram",
            shape=(frames, channels, bins, 2),
            dtype="float16",
            chunks=(min(_FRAMES_PER_CHUNK, frames), channels, bins, 2),
            shards=_shards(frames, _FRAMES_PER_CHUNK, FRAMES_PER_SHARD, (channels, bins, 2)),
            compressors=None,  # zstd saves 19 % and costs three quarters of the reading speed
            dimension_names=("frame", "channel", "frequency", "part"),
            attributes={
                "long_name": f"{stem}, complex short-time Fourier transform",
                "units": "1",  # full scale
                "scale_factor": scale,
                # Frame f begins (f + 1) · hop − n_fft samples into the signal; this is where its middle lies.
                "axis_frame": {"units": "s", "step": step, "start": step - form.n_fft / 2 / form.sample_rate},
                "axis_frequency": {"units": "Hz", "step": form.sample_rate / form.n_fft, "start": 0.0},
                "axis_part": ["real", "imaginary"],
            },
        )
        self._name = f"{group.path}/{stem}"

    def write(self, start: int, spectrum: np.ndarray) -> None:
        """Write a complete shard, or the last piece, and read it back.

        Args:
            start: The first frame, a multiple of `FRAMES_PER_SHARD`.
            spectrum: complex64 (channels, frames, bins) of the waveform as stored: the source's level / the scale.

        Raises:
            StoreError: The disk gives back something else.
        """
        pairs = np.ascontiguousarray(spectrum.swapaxes(0, 1)).view(np.float32)
        halves = pairs.reshape(*pairs.shape[:2], -1, 2).astype(np.float16)
        self._array[start : start + len(halves)] = halves
        if not np.array_equal(self._array[start : start + len(halves)], halves):
            raise StoreError(f"{self._name} read back differs from what was written; check the disk")


def spectrogram_bytes(form: StoreFormat, samples: int, channels: int) -> int:
    """Bytes that the spectra of a stem take: they are not compressed, and their last chunk is filled up.

    Args:
        form: The store's format.
        samples: Length of the stem at the store's rate.
        channels: Channels of the stem.
    """
    frames = samples // form.hop + form.n_fft // form.hop
    chunk = min(_FRAMES_PER_CHUNK, frames)
    return -(-frames // chunk) * chunk * channels * (form.n_fft // 2 + 1) * 4


def _shards(length: int, chunk: int, shard: int, rest: tuple[int, ...]) -> tuple[int, ...]:
    """A shard is a whole number of chunks; short tracks get one of their own size."""
    chunk = min(chunk, length)
    return (max(chunk, min(shard, -(-length // chunk) * chunk)), *rest)
