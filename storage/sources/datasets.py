"""Multitrack datasets as they lie on disk, read into one vocabulary.

Five layouts: DSD100, MUSDB18 (`.stem.mp4`), MUSDB18-HQ (folders of wav), a folder of stems (one
folder a track), a folder of pairs (voice/ and music/ with files of one name), and loose files that
are each one stem.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from storage.audio.reader import EXTENSIONS, stream_count
from storage.errors import DatasetError

KINDS = ("dsd100", "musdb18", "musdb18hq", "stems", "pairs", "loose")
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


def discover(
    root: Path,
    *,
    kind: str | None = None,
    dataset: str | None = None,
    split: str = "train",
    stem: str | None = None,
    test_artists: Iterable[str] = (),
) -> list[DatasetTrack]:
    """All tracks below `root`, sorted by name.

    `kind` is found from the folder where it is None. `split` is that of layouts that have none of
    their own; tracks of `test_artists` go to the test split. `stem` names what loose files are.
    Raises DatasetError when the folder is none of the layouts.
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
    if kind == "dsd100":
        found = _dsd100(root, name)
    elif kind == "musdb18":
        found = _musdb18(root, name, split)
    elif kind == "musdb18hq":
        found = [t for s in SPLITS if (root / s).is_dir() for t in _stem_folders(root / s, name, s)]
    elif kind == "stems":
        found = _stem_folders(root, name, split)
    elif kind == "pairs":
        found = _pairs(root, name, split)
    elif kind == "loose":
        if stem is None:
            raise DatasetError(f"say which stem the files of {root} are: --stem vocals or --stem accompaniment")
        found = _loose(root, name, split, stem)
    else:
        raise DatasetError(f"{kind} is not a dataset kind; choose one of {', '.join(KINDS)}")
    if not found:
        raise DatasetError(f"{root} has no tracks in the layout '{kind}'")
    held_out = {_plain(artist) for artist in test_artists}
    found = [replace(t, split="test") if _plain(t.artist) in held_out else t for t in found]
    absent = held_out - {_plain(t.artist) for t in found}
    if absent:
        raise DatasetError(f"no track in {root} is by {', '.join(sorted(absent))}; see the artists it has")
    return sorted(found, key=lambda track: (track.split, track.name))


def recognise(root: Path) -> str:
    """The kind of dataset a folder is. Raises DatasetError, naming what it looked for."""
    if (root / "Mixtures").is_dir() and (root / "Sources").is_dir():
        return "dsd100"
    if any(root.glob("*.stem.mp4")) or any(root.glob("*/*.stem.mp4")):
        return "musdb18"
    if any((root / s).is_dir() and _has_stem_folder(root / s) for s in SPLITS):
        return "musdb18hq"
    if len(_pair_folders(root)) == 2:
        return "pairs"
    if _has_stem_folder(root):
        return "stems"
    raise DatasetError(
        f"{root} is no dataset: it has neither Mixtures/ and Sources/ (DSD100), nor *.stem.mp4 or train/ and "
        "test/ (MUSDB18), nor a folder a track with vocals/drums/bass/other files, nor voice/ and music/ with "
        "files of one name; for a folder of single stems say --stem vocals or --stem accompaniment"
    )


def leaks(tracks: Iterable[tuple[str, str, str]]) -> list[str]:
    """Songs found in a training and in a test split, from (song key, shown name, split) triples."""
    shown: dict[str, str] = {}
    splits: dict[str, set[str]] = {}
    for key, name, split in tracks:
        shown.setdefault(key, name)
        splits.setdefault(key, set()).add(split)
    return sorted(shown[key] for key, seen in splits.items() if len(seen) > 1)


def _dsd100(root: Path, dataset: str) -> list[DatasetTrack]:
    found = []
    for folder, split in _DSD100_SPLITS.items():
        for track in _folders(root / "Mixtures" / folder):
            sources = root / "Sources" / folder / track.name
            if not sources.is_dir():
                raise DatasetError(f"{track} has no sources: {sources} is missing; unpack the dataset again")
            mixture = _stem_files(track).get("mixture")
            stems = _stem_files(sources)
            stems.pop("mixture", None)
            found.append(_track(dataset, split, track.name, stems, mixture))
    return found


def _musdb18(root: Path, dataset: str, split: str) -> list[DatasetTrack]:
    found = []
    for path in sorted(root.rglob("*.stem.mp4")):
        if stream_count(path) != len(_STEM_MP4_STREAMS):
            raise DatasetError(f"{path} does not hold the five streams of a stem file; download it again")
        own = path.parent.name if path.parent.name in SPLITS and path.parent != root else split
        streams = {name: Source(str(path), i) for i, name in enumerate(_STEM_MP4_STREAMS)}
        mixture = streams.pop("mixture")
        found.append(_track(dataset, own, path.name.removesuffix(".stem.mp4"), streams, mixture))
    return found


def _stem_folders(root: Path, dataset: str, split: str) -> list[DatasetTrack]:
    found = []
    for folder in _folders(root):
        stems = _stem_files(folder)
        mixture = stems.pop("mixture", None)
        if stems:
            systems = tuple((p.stem, Source(str(p))) for p in _audio_files(folder / "systems"))
            found.append(replace(_track(dataset, split, folder.name, stems, mixture), systems=systems))
    return found


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
    found = []
    for name in sorted(files["vocals"]):
        stems = {stem: Source(str(files[stem][name])) for stem in files}
        # Karaoke corpora (MIR-1K) write the singer before the first underscore.
        singer = name.split("_")[0]
        found.append(DatasetTrack(dataset, split, name, singer, name, stems))
    return found


def _loose(root: Path, dataset: str, split: str, stem: str) -> list[DatasetTrack]:
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and _is_audio(path):
            name = path.relative_to(root).with_suffix("").as_posix().replace("/", "__")
            found.append(_track(dataset, split, name, {stem: Source(str(path))}, None))
    return found


def _track(dataset: str, split: str, name: str, stems: dict[str, Source], mixture: Source | None) -> DatasetTrack:
    bare = _NUMBERED.sub("", name)
    artist, separator, title = bare.partition(" - ")
    if not separator:
        artist, title = dataset, bare
    return DatasetTrack(dataset, split, name, artist, title, stems, mixture)


def _stem_files(folder: Path) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for path in sorted(_audio_files(folder)):
        stem = _NAMES.get(path.stem.lower())
        if stem is None:
            continue
        if stem in found:
            raise DatasetError(f"{folder} has two files for {stem}: {found[stem].path} and {path}; remove one")
        found[stem] = Source(str(path))
    return found


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
