"""Tags and cover pictures carried from a source file to its stems."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Picture:
    """A cover: its bytes, MIME type and ID3 picture type (3 is the front cover)."""

    data: bytes
    mime: str
    kind: int = 3


@dataclass(frozen=True)
class Tags:
    """Text tags by Vorbis-style lower-case names, and pictures."""

    text: dict[str, list[str]] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()


def read_tags(path: Path) -> Tags:
    """Read the tags and pictures of an audio file.

    Args:
        path: A local file.

    Returns:
        The tags; empty where the file has none or they cannot be parsed.
    """
    import mutagen

    try:
        easy = mutagen.File(path, easy=True)
        full = mutagen.File(path)
    except Exception:  # mutagen raises what its parsers raise; a song without readable tags is still a song
        return Tags()
    if full is None or full.tags is None:
        return Tags()
    return Tags(_text(easy, full), tuple(_pictures(full)))


def write_tags(path: Path, tags: Tags, stem_format: str) -> None:
    """Write tags and pictures into an audio file.

    Args:
        path: A local file that exists.
        tags: The tags to add; the file is left alone where they are empty.
        stem_format: The file's format: "flac", "wav", "ogg", "opus" or "mp3".

    Raises:
        Exception: mutagen cannot write them; it raises what its parsers raise.
    """
    if not tags.text and not tags.pictures:
        return
    from mutagen import flac, oggopus, oggvorbis

    file: Any
    if stem_format == "flac":
        file = flac.FLAC(path)
        file.update(tags.text)
        for picture in tags.pictures:
            file.add_picture(_flac_picture(picture))
        file.save()
    elif stem_format in ("ogg", "opus"):
        file = oggopus.OggOpus(path) if stem_format == "opus" else oggvorbis.OggVorbis(path)
        file.update(tags.text)
        if tags.pictures:
            encoded = [base64.b64encode(_flac_picture(p).write()).decode() for p in tags.pictures]
            file["metadata_block_picture"] = encoded
        file.save()
    else:
        _write_id3(path, tags, stem_format)


def _text(easy: Any, full: Any) -> dict[str, list[str]]:
    from mutagen.aiff import AIFF
    from mutagen.wave import WAVE

    if isinstance(full, (WAVE, AIFF)):  # mutagen has no easy view of ID3 inside RIFF or AIFF
        from mutagen.easyid3 import EasyID3

        id3_tags: Any = full.tags
        easy_names = {frame: name for name, frame in _easy_frames(EasyID3).items()}
        return {
            easy_names[frame.FrameID]: [str(text) for text in frame.text]
            for frame in id3_tags.values()
            if frame.FrameID in easy_names
        }
    texts: dict[str, list[str]] = {}
    for key, values in (easy.tags or {}).items():
        if key.lower() == "metadata_block_picture":
            continue
        texts[key.lower()] = [str(value) for value in (values if isinstance(values, list) else [values])]
    return texts


def _easy_frames(easy_id3) -> dict[str, str]:
    """Easy name → ID3 frame for the plain text frames."""
    frame_names = {
        "title": "TIT2", "artist": "TPE1", "album": "TALB", "albumartist": "TPE2", "date": "TDRC",
        "genre": "TCON", "tracknumber": "TRCK", "discnumber": "TPOS", "composer": "TCOM", "bpm": "TBPM",
        "isrc": "TSRC", "copyright": "TCOP", "organization": "TPUB", "language": "TLAN",
    }  # fmt: skip
    return {name: frame for name, frame in frame_names.items() if name in easy_id3.valid_keys}


def _pictures(full: Any) -> list[Picture]:
    from mutagen.flac import Picture as FlacPicture
    from mutagen.mp4 import MP4, MP4Cover

    if hasattr(full, "pictures"):
        return [Picture(p.data, p.mime, p.type) for p in full.pictures]
    tags: Any = full.tags
    if isinstance(full, MP4):
        kinds = {MP4Cover.FORMAT_PNG: "image/png"}
        return [Picture(bytes(c), kinds.get(c.imageformat, "image/jpeg")) for c in tags.get("covr", [])]
    if hasattr(tags, "getall"):
        return [Picture(p.data, p.mime, int(p.type)) for p in tags.getall("APIC")]
    pictures = []
    for encoded in tags.get("metadata_block_picture", []):
        try:
            block = FlacPicture(base64.b64decode(encoded))
        except Exception:  # a damaged picture is no reason to lose the song
            continue
        pictures.append(Picture(block.data, block.mime, block.type))
    return pictures


def _flac_picture(picture: Picture):
    from mutagen.flac import Picture as FlacPicture

    block = FlacPicture()
    block.data, block.mime, block.type = picture.data, picture.mime, picture.kind
    return block


def _write_id3(path: Path, tags: Tags, stem_format: str) -> None:
    from mutagen import id3, mp3, wave
    from mutagen.easyid3 import EasyID3

    frames = _easy_frames(EasyID3)
    file: Any = mp3.MP3(path) if stem_format == "mp3" else wave.WAVE(path)
    if file.tags is None:
        file.add_tags()
    for name, values in tags.text.items():
        if name in frames:
            file.tags.add(id3.Frames[frames[name]](encoding=3, text=values))
        else:
            file.tags.add(id3.TXXX(encoding=3, desc=name, text=values))
    for picture in tags.pictures:
        file.tags.add(id3.APIC(encoding=3, mime=picture.mime, type=picture.kind, data=picture.data))
    file.save()
