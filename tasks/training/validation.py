"""What a training is judged by as it goes on: songs kept out of it, and their scores."""

import hashlib
import unicodedata

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import trim_mean

from model.scoring.scores import score
from model.separation.stream import Separator
from storage.errors import StoreError
from storage.files.location import location
from storage.store import Store, StoredTrack
from tasks.training.spans import has_stem, read_stem

_SHARE = 25  # one song in this many is kept for validation
_TRACKS = 14
_SECONDS = 60
_EXTREME = 0.1  # share of the scores that do not count, at either end

Reference = tuple[dict[str, np.ndarray], int]  # stems (channels, samples) of a track, and their rate in Hz


def split_for_validation(
    tracks: list[StoredTrack], stems: tuple[str, ...] = ("vocals", "accompaniment")
) -> tuple[list[StoredTrack], list[StoredTrack]]:
    """Training and validation tracks. Tracks of one artist or of one song go the same way, whatever their dataset.

    The artist of a dataset that has only one does not count, or the entire dataset would go one way.

    Args:
        tracks: All tracks to learn from.
        stems: What the network separates; validation gets at least one track of each where there are any.

    Returns:
        The tracks to train on and the tracks to validate on, which share no song.
    """
    groups = _groups(tracks)
    names: dict[int, str] = {}
    for track, group in zip(tracks, groups, strict=True):
        names[group] = min(names.get(group, _song(track)), _song(track))
    held_out = {group for group, name in names.items() if _hash(name) % _SHARE == 0}
    validation = [track for track, group in zip(tracks, groups, strict=True) if group in held_out]
    if not all(any(has_stem(track, stem) for track in validation) for stem in stems):
        # A small store: keep the last song, or the last of each stem, rather than train without validation.
        complete = [track for track in tracks if all(has_stem(track, stem) for stem in stems)]
        validation += complete[-max(1, len(complete) // 5) :]
        for stem in stems:
            having = [track for track in tracks if has_stem(track, stem)]
            if having and not any(has_stem(track, stem) for track in validation):
                validation.append(having[-1])
    ids = {track.track_id for track in validation}
    songs = {_song(track) for track in validation}
    validation = [track for track in tracks if track.track_id in ids]
    return [track for track in tracks if track.track_id not in ids and _song(track) not in songs], validation


def _groups(tracks: list[StoredTrack]) -> np.ndarray:
    """The group of each track, (tracks,): those that share an artist or a song, directly or by way of others."""
    artists: dict[str, set[str]] = {}
    for track in tracks:
        artists.setdefault(track.dataset, set()).add(_plain(track.artist))
    telling = {artist for several in artists.values() if len(several) > 1 for artist in several}
    keys: dict[str, int] = {}
    pairs = []
    for index, track in enumerate(tracks):
        named = [f"song {_song(track)}"]
        if (artist := _plain(track.artist)) in telling and artist != _plain(track.dataset):
            named.append(f"artist {artist}")
        pairs += [(index, len(tracks) + keys.setdefault(name, len(keys))) for name in named]
    size = len(tracks) + len(keys)
    rows, columns = np.array(pairs, int).reshape(-1, 2).T
    links = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(size, size))
    return connected_components(links, directed=False)[1][: len(tracks)]


def _song(track: StoredTrack) -> str:
    """Artist and title without their spelling; the title alone where the artist is only the dataset's name."""
    known = _plain(track.artist) != _plain(track.dataset)
    return f"{_plain(track.artist)} {_plain(track.title)}" if known else f" {_plain(track.title)}"


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text).casefold()
    return "".join(letter for letter in letters if letter.isalnum())


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def validation_scores(
    separator: Separator, stems: dict[str, np.ndarray], rate: int
) -> list[tuple[float | None, float | None]]:
    """The scores of every estimated stem of one reference track, separated as a catalog's would be.

    Args:
        separator: The network as trained so far.
        stems: The track's stems by name, float32 (channels, samples) of one shape; their sum is separated.
        rate: Sample rate in Hz.

    Returns:
        (cSDR, uSDR) in dB per stem that the network estimates, in its order; None where a stem has no score.
    """
    estimates = separator.separate(np.add.reduce(list(stems.values()), axis=0, dtype=np.float32), rate)
    scores = []
    for stem in separator.preset.estimated:
        # Each by itself: without its fellows as references BSSEval's SDR is that of the waveforms.
        result = score({stem: stems[stem]}, {stem: estimates[stem]}, rate, engine="sdr").stems[stem]
        scores.append((result.sdr, result.usdr))
    return scores


def mean_score(scores: list[float | None]) -> float:
    """The mean without the highest and the lowest tenth of the scores.

    A stem that is nearly silent over its track scores −40 or +30 dB whatever the network does, and one such score
    would outweigh what a thousand steps change in all others.

    Args:
        scores: In dB; None where a stem has none.

    Returns:
        dB, −1e9 where there is no score.
    """
    known = [score for score in scores if score is not None]
    return float(trim_mean(known, _EXTREME)) if known else -1e9


def validation_mixtures(store_path: str, tracks: list[StoredTrack], stems: tuple[str, ...]) -> list[Reference]:
    """The first minute of up to 14 tracks, evenly from all datasets; loose stems are paired at equal energy.

    Args:
        store_path: Path or URL of the store.
        tracks: The tracks kept for validation.
        stems: What the network separates, the vocals first.

    Returns:
        Per track its stems, float32 (channels, samples) of one shape, and their rate in Hz.

    Raises:
        StoreError: No track, or pair of loose stems, has all of `stems`.
    """
    store = Store.open(location(store_path))
    rate = store.format.sample_rate
    lead, *others = stems
    having = {stem: _alternating([t for t in tracks if has_stem(t, stem)]) for stem in stems}
    loose = {stem: [t for t in having[stem] if not has_stem(t, lead)] or having[stem] for stem in others}
    references = []
    for index, track in enumerate(having[lead][:_TRACKS]):
        stop = min(track.samples, _SECONDS * rate)
        parts = {lead: read_stem(store, track, lead, 0, stop)}
        complete = all(has_stem(track, stem) for stem in others)
        for stem in others:
            candidates = [track] if complete else loose[stem]
            if candidates:
                source = candidates[index % len(candidates)]
                parts[stem] = read_stem(store, source, stem, 0, min(source.samples, stop))
        if len(parts) < len(stems) or not parts[lead].any():
            continue
        samples = min(part.shape[1] for part in parts.values())
        channels = max(part.shape[0] for part in parts.values())
        parts = {s: np.broadcast_to(part[:, :samples], (channels, samples)).copy() for s, part in parts.items()}
        if not complete:
            level = np.square(parts[lead]).mean()
            parts |= {s: parts[s] * np.sqrt(level / (np.square(parts[s]).mean() + 1e-12)) for s in others}
        references.append((parts, rate))
    if not references:
        raise StoreError(f"{store_path} leaves nothing to validate on; ingest more tracks with {' and '.join(stems)}")
    return references


def _alternating(tracks: list[StoredTrack]) -> list[StoredTrack]:
    """One of each dataset in turn."""
    by_dataset: dict[str, list[StoredTrack]] = {}
    for track in tracks:
        by_dataset.setdefault(track.dataset, []).append(track)
    turns = [(i, name, track) for name, group in by_dataset.items() for i, track in enumerate(group)]
    return [track for _, _, track in sorted(turns, key=lambda turn: turn[:2])]
