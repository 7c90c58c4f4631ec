"""A spectrogram of an audio file as a PNG."""

import os
from pathlib import Path

from storage.audio.excerpt import read_excerpt
from storage.errors import AudioError
from storage.files.atomic import write_bytes
from storage.files.layout import shown
from tasks.pages.spectrogram import draw

_MOST_SECONDS = 1200.0


def draw_file(
    file: str | os.PathLike, target: Path, *, axis: str = "warped", channel: int | None = None, start: float = 0.0,
    seconds: float | None = None,
) -> Path:  # fmt: skip
    """Draw a stretch of a file.

    Args:
        file: The audio file or URL.
        target: The PNG.
        axis: Frequency axis: "linear", "mel" or "warped".
        channel: One channel, counted from 1; the mean power of all where None.
        start: Where the stretch begins, in seconds.
        seconds: How long it is; to the end of the file, 20 minutes at most, where None.

    Returns:
        `target`.

    Raises:
        AudioError: The file cannot be read, has no such channel, or ends before `start`.
    """
    audio, rate = read_excerpt(file, start, min(seconds or _MOST_SECONDS, _MOST_SECONDS))
    if not audio.shape[1]:
        raise AudioError(f"{shown(file)} ends before {start:g} s; choose an earlier --from")
    if channel is not None:
        if channel > audio.shape[0]:
            raise AudioError(f"{shown(file)} has {audio.shape[0]} channels; there is no channel {channel}")
        audio = audio[channel - 1 : channel]
    title = f"{Path(shown(file)).name}, {axis}" + (f", channel {channel}" if channel else "")
    write_bytes(target, draw(audio, rate, axis=axis, title=title, start=start), durable=False)
    return target
