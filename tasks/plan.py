"""What is left to do, cut into batches."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from storage.catalog import CatalogTrack
from storage.fingerprint import fingerprint
from storage.metrics import FAILED, DoneKey

# A batch is what a lost worker loses: at most so many tracks, and so many bytes of source.
_TRACKS_PER_BATCH = 16
_BYTES_PER_BATCH = 64 << 20
_BATCHES_PER_SLOT = 4  # at the least, where there are tracks enough, so that workers end together

Item = TypeVar("Item")


@dataclass(frozen=True)
class Plan:
    """`todo` are the tracks to do; `done` and `failed` count those that have their rows already."""

    todo: list[CatalogTrack]
    done: int
    failed: int


def plan(
    tracks: Sequence[CatalogTrack],
    done: dict[DoneKey, str],
    *,
    model_id: str,
    settings_hash: str,
    retry_failed: bool = False,
) -> Plan:
    """The catalog minus what is done: same source bytes, model and settings, and a row that says so."""
    todo, ok, failed = [], 0, 0
    for track in tracks:
        status = done.get(DoneKey(track.track_id, fingerprint(track.source), model_id, settings_hash))
        if status is None or (status == FAILED and retry_failed):
            todo.append(track)
        elif status == FAILED:
            failed += 1
        else:
            ok += 1
    return Plan(todo, ok, failed)


def batches(items: Sequence[Item], slots: int, size: Callable[[Item], int]) -> list[list[Item]]:
    """Cut items into batches in their order; `size` gives an item's bytes, `slots` the workers' places."""
    most = max(1, min(_TRACKS_PER_BATCH, -(-len(items) // (slots * _BATCHES_PER_SLOT))))
    found: list[list[Item]] = []
    current: list[Item] = []
    weight = 0
    for item in items:
        if current and (len(current) >= most or weight + size(item) > _BYTES_PER_BATCH):
            found.append(current)
            current, weight = [], 0
        current.append(item)
        weight += size(item)
    return [*found, current] if current else found


def source_bytes(track: CatalogTrack) -> int:
    """The size of a track's file, 0 where it cannot be looked at."""
    try:
        return os.stat(track.source).st_size
    except OSError:
        return 0
