"""Multitrack datasets as they lie on disk, read into one vocabulary.

Six layouts: DSD100, MUSDB18 (`.stem.mp4`), MUSDB18-HQ (folders of wav), a folder of stems (one
folder per track), a folder of pairs (voice/ and music/ with files of one name), and loose files that
are each one stem.

Anyone's layout joins by an entry point of the group `unbraid.datasets` that names a `Layout`:

    [project.entry-points."unbraid.datasets"]
    mine = "my_package:LAYOUT"
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from storage.audio.reader import EXTENSIONS, stream_count
from storage.errors import DatasetError

GROUP = "unbraid.datasets"
SPLITS = ("train", "test")
STEMS = ("vocals", "drums", "bass", "other", "accompaniment")

_NAMES = {
    "mixture": "mixture", "mix": "mixture",
    "vocals": "vocals", "vocal": "vocals", "voice": "vocals", "voices": "vocals",
    "drums": "drums", "bass": "bass", "other": "other",
    "accompaniment": "accompaniment", "instrumental": "accompaniment", "music": "accompaniment",
    "karaoke": "accompaniment", "backing": "accompaniment",
}  # fmt: skip
_STEM_MP4_STREAMS = ("mixture", "drums", "bass", "other", "vocals")  # the order MUSDB18 fixes
_DSD100_SPLITS = {"Dev": "train", "Test": "test"}
_NUMBERED = re.compile(r"^\d+ - ")


@dataclass(frozen=True)
class Source:
    """One stem's audio: a file, and the audio stream in it."""

    path: str
    stream: int = 0


@dataclass(frozen=True)
class DatasetTrack:
    """One track of a dataset. `stems` maps stem names to sources; `mixture` is None where none is given.

    `systems` are (name, vocals) of other separators' results that lie beside the stems in `systems/`.
    """

    dataset: str
    split: str
    name: str
    artist: str
    title: str
    stems: dict[str, Source]
    mixture: Source | None = None
    systems: tuple[tuple[str, Source], ...] = ()

    @property
    def track_id(self) -> str:
        return f"{self.dataset}/{self.name}"

    @property
    def song(self) -> str:
        """What makes two recordings the same song in a leak check: artist and title without their spelling."""
        return _plain(f"{self.artist} {self.title}")


@dataclass(frozen=True)
class Layout:
    """A way in which multitrack datasets lie on disk.

    Attributes:
        recognises: Whether a folder is of this layout. The first layout that says so reads it.
        tracks: The tracks below a folder, from (the folder, the dataset's name, the split for layouts that have none
            of their own: "train" or "test").
    """

    recognises: Callable[[Path], bool]
    tracks: Callable[[Path, str, str], Iterable[DatasetTrack]]


def discover(
    root: Path,
    *,
    kind: str | None = None,
    dataset: str | None = None,
    split: str = "train",
    stem: str | None = None,
    test_artists: Iterable[str] = (),
) -> list[DatasetTrack]:
    """All tracks of a dataset, sorted by split and name.

    Args:
        root: The folder that holds the dataset.
        kind: The layout, one of `kinds()`; None to recognise it from the folder.
        dataset: The dataset's name; None for the folder's.
        split: "train" or "test", for layouts that have no splits of their own.
        stem: Which stem loose files are, one of `STEMS`; it implies the kind "loose".
        test_artists: Artists whose tracks go to the test split, whatever their case, accents and punctuation.

    Raises:
        DatasetError: The folder is of no layout or not of this one, or has no tracks; the split, the stem or the kind
            is unknown; loose files have no stem given; or a test artist has no track.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; give the folder that holds the dataset")
    if split not in SPLITS:
        raise DatasetError(f"{split} is not a split; choose one of {', '.join(SPLITS)}")
    if stem is not None:
        kind = kind or "loose"
        if stem not in STEMS:
            raise DatasetError(f"{stem} is not a stem; choose one of {', '.join(STEMS)}")
    kind = kind or recognise(root)
    name = dataset or _slug(root.resolve().name)
    if kind == "loose":
        if stem is None:
            raise DatasetError(f"say which stem the files of {root} are: --stem vocals or --stem accompaniment")
        tracks = _loose(root, name, split, stem)
    else:
        tracks = list(_layout(kind).tracks(root, name, split))
    if not tracks:
        raise DatasetError(f"{root} has no tracks in the layout '{kind}'")
    held_out = {_plain(artist) for artist in test_artists}
    tracks = [replace(t, split="test") if _plain(t.artist) in held_out else t for t in tracks]
    absent = held_out - {_plain(t.artist) for t in tracks}
    if absent:
        raise DatasetError(f"no track in {root} is by {', '.join(sorted(absent))}; check the spelling")
    return sorted(tracks, key=lambda track: (track.split, track.name))


def kinds() -> tuple[str, ...]:
    """The names of all layouts: ours, those that installed packages bring, and "loose" for files that are one stem."""
    return (*_LAYOUTS, *sorted(metadata.entry_points(group=GROUP).names), "loose")


def _layout(kind: str) -> "Layout":
    """The layout of a kind. Raises DatasetError when there is none or its package cannot be imported."""
    if kind in _LAYOUTS:
        return _LAYOUTS[kind]
    entries = metadata.entry_points(group=GROUP)
    if kind not in entries.names:
        raise DatasetError(f"{kind} is not a dataset layout; choose one of {', '.join(kinds())}")
    try:
        return entries[kind].load()
    except (ImportError, AttributeError) as error:
        raise DatasetError(f"the layout {kind} cannot be loaded ({error}); install its package again") from error


def recognise(root: Path) -> str:
    """The kind of dataset that a folder is.

    Args:
        root: The folder that holds the dataset.

    Returns:
        One of `kinds()` other than "loose".

    Raises:
        DatasetError: The folder is of no layout; the error names what was searched for.
    """
    for kind in kinds():
        if kind != "loose" and _layout(kind).recognises(root):
            return kind
    raise DatasetError(
        f"{root} is not a dataset: it has neither Mixtures/ and Sources/ (DSD100), nor *.stem.mp4 or train/ and "
        "test/ (MUSDB18), nor a folder per track with vocals/drums/bass/other files, nor voice/ and music/ with "
        "files of the same names; for a folder of single stems give --stem vocals or --stem accompaniment"
    )


def leaks(tracks: Iterable[tuple[str, str, str]]) -> list[str]:
    """Songs that are in both a training and a test split.

    Args:
        tracks: (song key, shown name, split) per track; the key is `DatasetTrack.song`.

    Returns:
        One shown name per such song, sorted.
    """
    shown: dict[str, str] = {}
    splits: dict[str, set[str]] = {}
    for key, name, split in tracks:
        shown.setdefault(key, name)
        splits.setdefault(key, set()).add(split)
    return sorted(shown[key] for key, seen in splits.items() if len(seen) > 1)


def _is_dsd100(root: Path) -> bool:
    return (root / "Mixtures").is_dir() and (root / "Sources").is_dir()


def _dsd100(root: Path, dataset: str, split: str) -> list[DatasetTrack]:
    tracks = []
    for folder, split in _DSD100_SPLITS.items():  # it has splits of its own
        for track in _folders(root / "Mixtures" / folder):
            sources = root / "Sources" / folder / track.name
            if not sources.is_dir():
                raise DatasetError(f"{track} has no sources: {sources} is missing; unpack the dataset again")
            mixture = _stem_files(track).get("mixture")
            stems = _stem_files(sources)
            stems.pop("mixture", None)
            tracks.append(_track(dataset, split, track.name, stems, mixture))
    return tracks


def _is_musdb18(root: Path) -> bool:
    return any(root.glob("*.stem.mp4")) or any(root.glob("*/*.stem.mp4"))


def _musdb18(root: Path, dataset: str, split: str) -> list[DatasetTrack]:
    tracks = []
    for path in sorted(root.rglob("*.stem.mp4")):
        if stream_count(path) != len(_STEM_MP4_STREAMS):
            raise DatasetError(f"{path} does not hold the five streams of a stem file; download it again")
        of_folder = path.parent.name if path.parent.name in SPLITS and path.parent != root else split
        streams = {name: Source(str(path), i) for i, name in enumerate(_STEM_MP4_STREAMS)}
        mixture = streams.pop("mixture")
        tracks.append(_track(dataset, of_folder, path.name.removesuffix(".stem.mp4"), streams, mixture))
    return tracks


def _is_musdb18hq(root: Path) -> bool:
    return any((root / split).is_dir() and _has_stem_folder(root / split) for split in SPLITS)


def _musdb18hq(root: Path, dataset: str, split: str) -> list[DatasetTrack]:
    return [t for folder in SPLITS if (root / folder).is_dir() for t in _stem_folders(root / folder, dataset, folder)]


def _stem_folders(root: Path, dataset: str, split: str) -> list[DatasetTrack]:
    tracks = []
    for folder in _folders(root):
        stems = _stem_files(folder)
        mixture = stems.pop("mixture", None)
        if stems:
            systems = tuple((p.stem, Source(str(p))) for p in _audio_files(folder / "systems"))
            tracks.append(replace(_track(dataset, split, folder.name, stems, mixture), systems=systems))
    return tracks


def _pairs(root: Path, dataset: str, split: str) -> list[DatasetTrack]:
    folders = _pair_folders(root)
    if len(folders) != 2:
        raise DatasetError(f"{root} has no pair of folders such as voice/ and music/")
    files = {stem: {p.stem: p for p in _audio_files(folder)} for stem, folder in folders.items()}
    lonely = set(files["vocals"]) ^ set(files["accompaniment"])
    if lonely:
        raise DatasetError(
            f"{len(lonely)} files of {root} have no partner of the same name, e.g. {min(lonely)}; "
            "add the other half or take them out"
        )
    tracks = []
    for name in sorted(files["vocals"]):
        stems = {stem: Source(str(files[stem][name])) for stem in files}
        # Karaoke corpora (MIR-1K) write the singer before the first underscore.
        singer = name.split("_")[0]
        tracks.append(DatasetTrack(dataset, split, name, singer, name, stems))
    return tracks


def _loose(root: Path, dataset: str, split: str, stem: str) -> list[DatasetTrack]:
    tracks = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and _is_audio(path):
            name = path.relative_to(root).with_suffix("").as_posix().replace("/", "__")
            tracks.append(_track(dataset, split, name, {stem: Source(str(path))}, None))
    return tracks


def _track(dataset: str, split: str, name: str, stems: dict[str, Source], mixture: Source | None) -> DatasetTrack:
    bare = _NUMBERED.sub("", name)
    artist, separator, title = bare.partition(" - ")
    if not separator:
        artist, title = dataset, bare
    return DatasetTrack(dataset, split, name, artist, title, stems, mixture)


def _stem_files(folder: Path) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    for path in sorted(_audio_files(folder)):
        stem = _NAMES.get(path.stem.lower())
        if stem is None:
            continue
        if stem in sources:
            raise DatasetError(f"{folder} has two files for {stem}: {sources[stem].path} and {path}; remove one")
        sources[stem] = Source(str(path))
    return sources


def _pair_folders(root: Path) -> dict[str, Path]:
    named = {_NAMES.get(folder.name.lower()): folder for folder in _folders(root)}
    return {stem: named[stem] for stem in ("vocals", "accompaniment") if stem in named}


def _has_stem_folder(root: Path) -> bool:
    return any(set(_stem_files(folder)) - {"mixture"} for folder in _folders(root))


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")) if root.is_dir() else []


def _audio_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and _is_audio(p)) if folder.is_dir() else []


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text).casefold()
    return re.sub(r"[^\w]+", "", letters)


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text) or "dataset"


_LAYOUTS = {
    "dsd100": Layout(_is_dsd100, _dsd100),
    "musdb18": Layout(_is_musdb18, _musdb18),
    "musdb18hq": Layout(_is_musdb18hq, _musdb18hq),
    "pairs": Layout(lambda root: len(_pair_folders(root)) == 2, _pairs),
    "stems": Layout(_has_stem_folder, _stem_folders),
}
