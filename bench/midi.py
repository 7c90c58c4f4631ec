"""Plays MIDI songs with General MIDI sound fonts, stem by stem: backings of many instruments for a training.

    python bench/midi.py FOLDER SOURCE … [--font FILE …] [--seconds 110]

SOURCE is a folder with .mid files or a .wad of a Doom game, whose music is MIDI. FOLDER/<song>/ gets drums.flac,
bass.flac and other.flac, which add up to the song; a song that is there stays. Each song is played by one of the fonts
and transposed by up to three semitones, as its name decides. What sings in a font is played by strings and pads
instead: in a backing it would teach a network to leave voices there. Then `unbraid ingest FOLDER --name midi`.

On Debian: apt install fluidsynth fluid-soundfont-gm, perhaps musescore-general-soundfont for a second font, and for
songs under free licences openttd-openmsx freedoom freedm planetblupi-music-midi.
"""

import argparse
import io
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mido
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from storage.audio.reader import read
from storage.audio.writer import write
from storage.files.atomic import temporary_beside
from tasks.score import to_length

RATE = 44100
STEMS = ("drums", "bass", "other")
_FONT = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
_DRUM_CHANNEL = 9
_BASSES = range(32, 40)
# General MIDI programs, from 0: choir aahs, voice oohs, synth voice, lead (voice), pad (choir) and what plays instead.
_SINGING = {52: 48, 53: 49, 54: 50, 85: 80, 91: 89}
_SUSTAIN, _SOUND_OFF, _NOTES_OFF = 64, 120, 123
_SHORTEST = 20.0  # seconds
_PEAK = 0.9
_SILENT = 1e-3  # of the song's peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--font", nargs="+", default=[_FONT])
    parser.add_argument("--seconds", type=float, default=110.0)
    options = parser.parse_args()
    if shutil.which("fluidsynth") is None:
        parser.error("fluidsynth is not installed; on Debian: apt install fluidsynth fluid-soundfont-gm")
    for path in (*options.font, *options.sources):
        if not Path(path).exists():
            parser.error(f"there is no {path}")
    for name, data in songs(options.sources):
        folder = options.folder / name
        if folder.exists():
            continue
        draw = random.Random(name)
        font, shift = draw.choice(options.font), draw.randint(-3, 3)
        try:
            song = mido.MidiFile(file=io.BytesIO(data), clip=True)
        except (OSError, EOFError, ValueError, KeyError) as error:
            print(f"{name} is not a MIDI file that can be read: {error}", file=sys.stderr)
            continue
        if song.length >= _SHORTEST:
            save({stem: played(part, font) for stem, part in parts(song, options.seconds, shift).items()}, folder)


def songs(sources: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every MIDI file, each once.

    Args:
        sources: Folders that are searched, and .wad files.
    """
    seen: set[bytes] = set()
    for source in sources:
        files = ((file.stem, file.read_bytes()) for file in sorted(source.rglob("*.mid")))
        for name, data in lumps(source) if source.suffix == ".wad" else files:
            if data not in seen:
                seen.add(data)
                yield f"{source.stem}_{name}", data


def lumps(wad: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the MIDI files in a Doom game's archive: a directory of (offset, size, name) at its end."""
    data = wad.read_bytes()
    count, directory = struct.unpack_from("<II", data, 4)
    for entry in range(count):
        offset, size, name = struct.unpack_from("<II8s", data, directory + 16 * entry)
        if data[offset : offset + 4] == b"MThd":
            yield name.rstrip(b"\0").decode().lower(), data[offset : offset + size]


def parts(song: mido.MidiFile, seconds: float, shift: int) -> dict[str, mido.MidiFile]:
    """A song's beginning as one MIDI file per stem that has notes.

    Args:
        song: The song.
        seconds: Where it is cut; every note has ended there.
        shift: Semitones by which all but the drums are moved.
    """
    tracks = {stem: mido.MidiTrack() for stem in STEMS}
    written = dict.fromkeys(STEMS, 0)  # ticks up to each track's last message
    programs = [0] * 16
    sounding: dict[tuple[int, int], str] = {}  # (channel, note) → the stem that plays it
    heard = set()
    tempo, ticks, clock = 500_000, 0, 0.0
    for message in mido.merge_tracks(song.tracks):
        clock += mido.tick2second(message.time, song.ticks_per_beat, tempo)
        if clock > seconds or message.type == "end_of_track":
            break
        ticks += message.time
        stems: tuple[str, ...] = STEMS  # tempo and controllers are everybody's
        if message.type == "set_tempo":
            tempo = message.tempo
        elif message.type == "sysex":
            continue
        elif message.type == "program_change":
            programs[message.channel] = message.program
            message = message.copy(program=_SINGING.get(message.program, message.program))
        elif message.type in ("note_on", "note_off"):
            drum = message.channel == _DRUM_CHANNEL
            stem = "drums" if drum else "bass" if programs[message.channel] in _BASSES else "other"
            key = (message.channel, message.note)
            if message.type == "note_on" and message.velocity:
                sounding[key] = stem
                heard.add(stem)
            stems = (sounding.get(key, stem),)  # a note ends where it began, also after a change of program
            if not drum:
                message = message.copy(note=min(127, max(0, message.note + shift)))
        for stem in stems:
            tracks[stem].append(message.copy(time=ticks - written[stem]))
            written[stem] = ticks
    made = {}
    for stem in sorted(heard, key=STEMS.index):
        # fluidsynth plays on until the last note has ended, forever where a cut took its end.
        tracks[stem].extend(
            mido.Message("control_change", channel=channel, control=control, value=0)
            for channel in range(16)
            for control in (_SUSTAIN, _SOUND_OFF, _NOTES_OFF)
        )
        made[stem] = mido.MidiFile(ticks_per_beat=song.ticks_per_beat)
        made[stem].tracks.append(tracks[stem])
    return made


def played(part: mido.MidiFile, font: str) -> np.ndarray:
    """What fluidsynth makes of a MIDI file, float32 (2, samples) at `RATE`.

    Args:
        part: The file; all its notes end.
        font: Path of the sound font.
    """
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder, "score.mid"), Path(folder, "sound.wav")
        part.save(score)
        settings = ["synth.dynamic-sample-loading=1", "synth.polyphony=256", "synth.gain=0.6"]
        options = [word for setting in settings for word in ("-o", setting)]
        command = ["fluidsynth", "-ni", "-q", *options, "-r", str(RATE), "-O", "float", "-T", "wav"]
        subprocess.run([*command, "-F", str(sound), font, str(score)], check=True, capture_output=True, timeout=600)
        return read(sound)[0]


def save(stems: dict[str, np.ndarray], folder: Path) -> None:
    """Write the stems of a song, its peak at 0.9 of full scale, silent ones left out.

    Args:
        stems: Stem → (2, samples) of any length.
        folder: The song's folder, which is there complete or not at all.
    """
    samples = max(audio.shape[1] for audio in stems.values())
    even = {stem: to_length(audio, samples) for stem, audio in stems.items()}
    peak = float(np.abs(np.sum(list(even.values()), axis=0)).max())
    if not peak:
        return
    new = temporary_beside(folder)  # `unbraid ingest` passes over it where a killed run left it
    for stem, audio in even.items():
        if np.abs(audio).max() > _SILENT * peak:
            write(new / f"{stem}.flac", audio * (_PEAK / peak), RATE)
    new.rename(folder)


if __name__ == "__main__":
    main()
