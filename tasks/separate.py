"""One catalog track into stems: decode, separate, write, measure, as one stream in constant memory."""

import contextlib
import errno
import functools
import logging
import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from model.errors import DeviceLostError, ModelError
from model.scoring.meters import RUN, LoudnessMeter, TruePeakMeter, activity
from model.separation.foreign import ForeignSeparator
from model.separation.grid import on_grid
from model.separation.stream import Piece, Separator
from storage.audio import reader as audio
from storage.audio.tags import Tags, read_tags
from storage.audio.writer import AudioWriter, StemFormat
from storage.errors import ModelLost, OutputError, StorageError
from storage.files import naming
from storage.files.atomic import remove_leftovers, write_bytes
from storage.files.fingerprint import ABSENT, fingerprint, look
from storage.files.layout import OutputLayout, source_name
from storage.files.location import is_url, location, not_written
from storage.results.separation_rows import FAILED, INTERRUPTED, OK, StemRow, WindowScores
from storage.sources.catalog import CatalogTrack
from storage.sources.datasets import STEMS
from tasks.prediction import arithmetic_columns, predicted_columns, predicted_windows
from tasks.score import read_references, score_stems, window_rows
from tasks.separation import SeparateSettings
from tasks.worker import deadline, end_if_worker, run_separator

_LONGEST_NAME = 255  # bytes; a longer one no file system has
log = logging.getLogger("unbraid.separate")


def separate_batch(settings: SeparateSettings, tracks: list[CatalogTrack]) -> list[StemRow | WindowScores]:
    """Separate tracks one after the other; each ends as one row per stem, or as one failed row.

    Where windows are kept, the predictions of each stem's windows follow its track's rows.

    Args:
        settings: What the run does to every track.
        tracks: The batch, separated in this order.

    Raises:
        OutputError: The output cannot be written, so that every other track would fail alike.
        ModelLost: So it would because the model is gone or has become another.
    """
    rows: list[StemRow | WindowScores] = []
    for track in tracks:
        with deadline(settings.seconds_per_track):
            rows += separate_track(settings, track)
    return rows


def separate_track(settings: SeparateSettings, track: CatalogTrack) -> list[StemRow | WindowScores]:
    """Separate one track and write its stems; bad input is a failed row, not an exception.

    Args:
        settings: What the run does to every track.
        track: The track as the run planned it.

    Returns:
        One row per stem, followed by its windows' predictions where they are kept; or the one failed row.

    Raises:
        OutputError: The output cannot be written: full, read-only, gone or not seen by this worker.
        ModelLost: The model is gone, or has become another.
    """
    began = time.perf_counter()
    # A failure counts for the file as it was before: one that is still being copied is tried again once it is complete.
    track = replace(track, state=look(track.source))
    try:
        if settings.marked and not OutputLayout(location(settings.out)).marker.exists():
            raise not_written(settings.out, "it is no longer there, or this worker does not see it")
        _sweep(settings, track)
        if track.problem:
            raise StorageError(track.problem)
        separator = run_separator(settings.request, settings.model_id if settings.run_id else None)
        rows = audio.with_decoders(track.source, lambda reader: _stream(settings, track, separator, reader))
        if fingerprint(track.source) != _fingerprint(track):
            raise StorageError(f"{track.source} changed while it was read; run again once it no longer changes")
    except (OutputError, ModelLost):  # not the track's fault, and every other would fail alike
        raise
    except DeviceLostError:  # and every other track of this process would fail alike
        end_if_worker()
        raise
    except (StorageError, ModelError) as error:
        return [failed_row(settings, track, str(error), type(error).__name__, time.perf_counter() - began)]
    except MemoryError:
        sentence = f"{track.source} needs more memory than is available; give workers more, or use fewer of them"
        return [failed_row(settings, track, sentence, "MemoryError", time.perf_counter() - began)]
    except OSError as error:
        if _of_output(settings, error):
            raise not_written(settings.out, error) from error
        sentence = f"{track.source}: {error.strerror or error} ({error.filename}); check the disk and the permissions"
        return [failed_row(settings, track, sentence, type(error).__name__, time.perf_counter() - began)]
    except Exception as error:  # one track's surprise must not cost the others
        log.debug("unexpected failure of %s", track.path, exc_info=True)
        sentence = f"{track.source} caused an internal error ({type(error).__name__}: {error}); please report it"
        sentence += _keep_traceback(settings, track)
        return [failed_row(settings, track, sentence, type(error).__name__, time.perf_counter() - began)]
    spent = time.perf_counter() - began
    return [replace(row, seconds=spent) if isinstance(row, StemRow) else row for row in rows]


def _keep_traceback(settings: SeparateSettings, track: CatalogTrack) -> str:
    """Write the traceback of the exception at hand beside the run's report; returns where, as the end of a sentence."""
    if not settings.run_id:
        return ""
    file = OutputLayout(location(settings.out)).traceback(settings.run_id, track.track_id)
    try:
        write_bytes(file, f"{track.path}\n{traceback.format_exc()}".encode("utf-8", "replace"), durable=False)
    except OSError:
        return ""
    return f" with {file}"


def _of_output(settings: SeparateSettings, error: OSError) -> bool:
    """Does the error say that the output cannot be written, and not that a track has an impossible name?"""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    named = str(error.filename or "").startswith(str(location(settings.out)))
    return named and error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)


def lost_row(settings: SeparateSettings, track: CatalogTrack, sentence: str) -> StemRow:
    """The one row of a track that no worker finished; what they left of it is swept up.

    Args:
        settings: What the run does to every track.
        track: The track that was lost.
        sentence: Why it was lost, for the user.
    """
    _sweep(settings, track)
    return failed_row(settings, track, f"{track.source}: {sentence}", "LostTrack")


def interrupted_row(settings: SeparateSettings, track: CatalogTrack) -> StemRow:
    """The row of a track whose stems are about to be replaced: what counts where the run is killed meanwhile, when
    nobody knows which run the stems in its place are from.

    Args:
        settings: What the run does to every track.
        track: The track, in whose place there are stems of an earlier separation.
    """
    sentence = f"the separation of {track.source} was started but did not finish; run again"
    row = failed_row(settings, track, sentence, "Interrupted")
    root = location(settings.out)
    return replace(
        row, status=INTERRUPTED, stem_path=f"{(settings.folder() / _place(settings, track)).relative_to(root)}/"
    )


def _place(settings: SeparateSettings, track: CatalogTrack) -> str:
    return settings.place(track.place, track.path)


def _target(settings: SeparateSettings, track: CatalogTrack, stem: str, extension: str) -> Path:
    return settings.folder() / naming.stem_name(_place(settings, track), stem, extension, settings.names)


def _fingerprint(track: CatalogTrack) -> str:
    return track.state.fingerprint if track.state else ABSENT


def _sweep(settings: SeparateSettings, track: CatalogTrack) -> None:
    """Delete what a killed worker left half-written of this track, where the folder is the track's alone."""
    if settings.names == naming.FOLDERS:
        remove_leftovers(settings.folder() / _place(settings, track), deep=False)


def _clear(settings: SeparateSettings, track: CatalogTrack, making: Collection[Path]) -> None:
    """Delete the stems of earlier separations from the track's place, but for those that stay and those about to be
    replaced, so that stems of two models are never side by side.
    """
    folder, place = settings.folder(), _place(settings, track)
    if track.keeps or (is_url(folder) and not track.replaces):
        return
    stems = {*settings.known_stems, *settings.stems, *STEMS}
    names = [
        folder / naming.stem_name(place, stem, extension, template)
        for template in naming.TEMPLATES
        for stem in stems
        for extension in naming.STEM_EXTENSIONS
    ]
    if is_url(folder):  # each deletion is a request
        there = {*(folder / place).glob("*"), *(folder / place).parent.glob("*")}
        names = [name for name in names if name in there]
    for name in names:
        if name not in making and len(name.name.encode(errors="surrogateescape")) <= _LONGEST_NAME:
            with contextlib.suppress(NotADirectoryError):
                name.unlink(missing_ok=True)


def failed_row(
    settings: SeparateSettings, track: CatalogTrack, sentence: str, error_class: str, seconds: float | None = None
) -> StemRow:
    """The one row of a track that could not be separated.

    Args:
        settings: Names the model, the format and the settings' hash that the row is filed under.
        track: The track that failed.
        sentence: What went wrong and what to do about it, for the user.
        error_class: The exception's class name, to group failures by.
        seconds: How long the attempt took; None where nobody measured it.
    """
    return StemRow(
        model_id=settings.model_id,
        track_id=track.track_id,
        path=track.path,
        stem=None,
        status=FAILED,
        error=sentence,
        error_class=error_class,
        seconds=seconds,
        source=source_name(track.source),
        source_fingerprint=_fingerprint(track),
        settings_hash=settings.hash,
        format=settings.format,
    )


def _stream(
    settings: SeparateSettings, track: CatalogTrack, separator: Separator | ForeignSeparator, reader: audio.AudioReader
) -> list[StemRow | WindowScores]:
    """Write all stems of an open file; they appear under their names together, when the last block is through."""
    info = reader.info
    stem_format = StemFormat.keeping(info, settings.format, settings.kbps)
    chosen = track.stems or settings.stems
    targets = {stem: _target(settings, track, stem, stem_format.name) for stem in chosen}
    tags = read_tags(reader.file)
    carried = tags if settings.tags else Tags()
    meters = {stem: _Meters(info.sample_rate, info.channels) for stem in chosen}
    mixture_meter = LoudnessMeter(info.sample_rate, info.channels)
    stream = separator.stream(info.sample_rate, info.channels)
    samples = 0
    with contextlib.ExitStack() as stack:
        writers = {
            stem: stack.enter_context(
                AudioWriter(target, stem_format, info.sample_rate, info.channels, info.samples, carried)
            )
            for stem, target in targets.items()
        }

        def write(piece: Piece) -> int:
            estimates, rest = piece.stems, separator.stems[-1]
            if settings.two_stems:
                estimates, rest = two_stems(piece, settings.stems), settings.stems[-1]
            stems = on_grid(piece.mixture, estimates, rest, stem_format.bits)
            for start in range(0, piece.mixture.shape[1], RUN):
                part = slice(start, start + RUN)
                weighted = []
                for stem, writer in writers.items():
                    writer.write(stems[stem][:, part])
                    weighted.append(meters[stem].push(stems[stem][:, part]))
                # Stems add up to the mixture, and so do their weighted samples.
                together = len(writers) == len(stems)
                mixture_meter.add(
                    functools.reduce(np.add, weighted) if together else mixture_meter.weighted(piece.mixture[:, part])
                )
            return piece.mixture.shape[1]

        for block in reader.blocks():
            for piece in stream.push(block):
                samples += write(piece)
        for piece in stream.finish():
            samples += write(piece)
        if not samples:
            raise audio.DamagedAudio(
                f"{info.path} has a header but no samples; export it again or take it out of the catalog"
            )
        for writer in writers.values():
            writer.write(np.zeros((info.channels, 0), np.float32), last=True)
        _clear(settings, track, targets.values())
    loudness = mixture_meter.integrated()
    arithmetic = arithmetic_columns(separator)
    predicted = predicted_columns(separator, stream.evidence)
    windows = predicted_windows(separator, stream.evidence, settings.model_id, track.track_id)
    rows: list[StemRow | WindowScores] = [
        StemRow(
            model_id=settings.model_id,
            track_id=track.track_id,
            path=track.path,
            stem=stem,
            status=OK,
            duration_s=samples / info.sample_rate,
            sample_rate=info.sample_rate,
            channels=info.channels,
            loudness_lufs=meters[stem].loudness.integrated(),
            true_peak_db=meters[stem].peak.decibels(),
            activity=activity(meters[stem].loudness.blocks(), loudness),
            stem_path=targets[stem].relative_to(location(settings.out)).as_posix(),
            settings_hash=settings.made_on(**arithmetic),
            source=source_name(track.source),
            source_fingerprint=_fingerprint(track),
            format=stem_format.name,
            genre="; ".join(tags.text.get("genre", ())) or None,
            **arithmetic,
            **predicted.get(stem, {}),  # nothing is said of several stems together
        )
        for stem in chosen
    ]
    return rows + [entry for entry in windows if settings.windows and entry.stem in chosen]


def two_stems(piece: Piece, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The first of two stems, and under the second's name what the mixture is without it.

    Args:
        piece: A stretch of the separated song, its arrays (channels, samples).
        names: The stem to keep, which the model has, and a name for the rest.

    Returns:
        Name → (channels, samples); the two add up to the mixture.
    """
    stem, rest = names
    return {stem: piece.stems[stem], rest: piece.mixture - piece.stems[stem]}


class _Meters:
    def __init__(self, rate: int, channels: int) -> None:
        self.loudness = LoudnessMeter(rate, channels)
        self.peak = TruePeakMeter(channels)

    def push(self, block: np.ndarray) -> np.ndarray:
        """Measure a block of at most RUN samples; returns it K-weighted."""
        self.peak.push(block)
        weighted = self.loudness.weighted(block)
        self.loudness.add(weighted)
        return weighted


def score_batch(
    settings: SeparateSettings, tracks: list[CatalogTrack], rows: list[StemRow | WindowScores]
) -> list[StemRow | WindowScores]:
    """The rows of a separated batch, with scores where a track has references: of the files as delivered.

    A separate future after `separate_batch`, chained by path: it needs no model and no GPU. What goes wrong
    with a reference is said in the rows; the stems are good all the same.

    Args:
        settings: What the run does to every track, with the engine that scores.
        tracks: The batch that was separated.
        rows: What `separate_batch` returned for it.
    """
    scored: list[StemRow | WindowScores] = [row for row in rows if isinstance(row, WindowScores)]
    for track in tracks:
        stems = [row for row in rows if isinstance(row, StemRow) and row.track_id == track.track_id]
        if track.references and all(row.status == OK for row in stems):
            with deadline(settings.seconds_per_track):
                scored += _scored(settings, track, stems)
        else:
            scored += stems
    return scored


def _scored(settings: SeparateSettings, track: CatalogTrack, rows: list[StemRow]) -> list[StemRow | WindowScores]:
    try:
        references, rate = read_references(dict(track.references), settings.stems)
        estimates = {}
        for row in rows:
            assert row.stem is not None  # rows of a track that went well name their stem and its file
            assert row.stem_path is not None
            estimates[row.stem], stem_rate = audio.read(location(settings.out) / row.stem_path)
            if stem_rate != rate:
                raise audio.AudioError(f"the references are at {rate} Hz and the stems at {stem_rate} Hz")
        scores = score_stems(references, estimates, rate, engine=settings.engine)
    except (StorageError, ValueError) as error:
        return [replace(row, error=f"not scored: {error}", error_class=type(error).__name__) for row in rows]
    scored = [
        replace(row, **asdict(scores.stems[row.stem]), scenario=scores.scenario) if row.stem in scores.stems else row
        for row in rows
    ]
    return [*scored, *(window_rows(settings.model_id, track.track_id, scores) if settings.windows else [])]
