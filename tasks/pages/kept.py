"""Players kept in files, for pages that are written when their sound is no longer at hand."""

import dataclasses
import json
from pathlib import Path

from storage.files.atomic import write_bytes
from tasks.pages.players import Lane, Player
from tasks.pages.spectrogram import Mark


def keep_players(file: Path, players: list[Player]) -> None:
    """Write players with their sounds and pictures to a file, which appears complete or not at all.

    Args:
        file: The JSON file; its folder is made.
        players: What to keep.

    Raises:
        OSError: The disk or the object store refuses the file.
    """
    entries = [dataclasses.asdict(player) for player in players]
    write_bytes(file, json.dumps(entries).encode(), durable=False)


def kept_players(file: Path) -> list[Player]:
    """The players in a file.

    Args:
        file: What `keep_players` wrote.

    Returns:
        The players; none where the file is missing or was written by a version that kept something else.
    """
    try:
        return [_player(entry) for entry in json.loads(file.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _player(entry: dict) -> Player:
    lanes = [Lane(**lane) for lane in entry["lanes"]]
    marks = [Mark(**mark) for mark in entry["marks"]]
    facts = [(name, value) for name, value in entry["facts"]]
    return Player(**{**entry, "lanes": lanes, "marks": marks, "facts": facts})
