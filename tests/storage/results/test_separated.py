"""Which separated tracks a run folder holds, from rows alone."""

import dataclasses
import datetime

import pytest

from storage.files.fingerprint import fingerprint
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.mashup_rows import AnalysisRow
from storage.results.metrics import OK, StemRow
from storage.results.rows import write_rows
from storage.results.separated import failure_of, separated_sources, separated_tracks, unanalysed_tracks

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def rows(track, stems, *, model="stereo-1", settings="s", minutes=0, **values):
    return [
        StemRow(model, track, f"{track}.wav", stem, OK, stem_path=f"stems/{track}/{stem}.flac", settings_hash=settings,
                source_fingerprint="f", finished_at=NOON + datetime.timedelta(minutes=minutes), **values)
        for stem in stems
    ]  # fmt: skip


@pytest.fixture
def out(tmp_path):
    layout = OutputLayout(tmp_path)
    metrics.write_part(layout, "r1", rows("a", ["vocals", "accompaniment"], predicted_sdr=7.0))
    metrics.write_part(layout, "r1", rows("b", ["vocals", "drums", "bass", "other"]))
    metrics.write_part(layout, "r1", rows("c", ["accompaniment"]))
    metrics.compact(layout, "r1")
    return layout


def test_tracks_with_vocals_and_another_stem_have_all_their_stems_in_order(out):
    a, b = separated_tracks(out)
    assert (a.track_id, b.track_id) == ("a", "b")
    assert [stem for stem, _ in b.stems] == ["bass", "drums", "other", "vocals"]
    assert dict(a.stems)["vocals"] == str(out.root / "stems/a/vocals.flac")
    assert a.predicted_sdr == 7.0


def test_only_the_requested_ids_are_returned(out):
    assert [track.track_id for track in separated_tracks(out, ["b", "nobody"])] == ["b"]
    assert list(separated_tracks(out, [])) == []


def test_stems_that_another_model_replaced_are_not_mixed_with_its_own(out):
    metrics.write_part(out, "r2", rows("a", ["vocals", "accompaniment"], model="hq-2", minutes=9))
    (track,) = separated_tracks(out, ["a"])
    assert track.model_id == "hq-2"


def test_what_was_analysed_as_it_is_now_is_not_analysed_again(out):
    assert [track.track_id for track in unanalysed_tracks(out)] == ["a", "b"]
    row = AnalysisRow("a", "a.wav", "stereo-1", "f", 1.0, 120.0, 1.0, 0, False, 1.0, 0.5, None, 0.1)
    write_rows(out, "m1", [row])
    assert [track.track_id for track in unanalysed_tracks(out)] == ["b"]


@pytest.fixture
def song(tmp_path):
    """A file that was separated as part of a catalog: its rows call it by its path there, its stems are on the disk."""
    layout = OutputLayout(tmp_path / "out")
    source = tmp_path / "music" / "song.wav"
    for path in (source, *(layout.root / f"stems/band/song/{stem}.flac" for stem in ("vocals", "accompaniment"))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"audio")
    separated = [
        dataclasses.replace(row, source=str(source), source_fingerprint=fingerprint(source))
        for row in rows("band/song", ["vocals", "accompaniment"])
    ]
    metrics.write_part(layout, "r1", separated)
    return layout, source


def test_a_files_stems_are_there_whatever_its_name_in_the_catalog(song):
    layout, source = song
    (track,) = separated_sources(layout, [str(source), "/elsewhere.wav"], "stereo-1").values()
    assert track.track_id == "band/song"
    assert separated_sources(layout, [str(source)], "hq-2") == {}
    assert separated_sources(OutputLayout(layout.root / "none"), [str(source)], "stereo-1") == {}


def test_a_file_that_has_changed_has_no_stems(song):
    layout, source = song
    source.write_bytes(b"another recording")
    assert separated_sources(layout, [str(source)], "stereo-1") == {}


def test_stems_that_were_deleted_are_not_there(song):
    layout, source = song
    (layout.root / "stems/band/song/accompaniment.flac").unlink()
    assert separated_sources(layout, [str(source)], "stereo-1") == {}


def test_vocals_that_were_made_again_alone_keep_the_songs_other_stems(song):
    layout, source = song
    again = rows("band/song", ["vocals"], minutes=9)
    metrics.write_part(layout, "r2", [dataclasses.replace(again[0], source=str(source),
                                                          source_fingerprint=fingerprint(source))])  # fmt: skip
    (track,) = separated_sources(layout, [str(source)], "stereo-1").values()
    assert [stem for stem, _ in track.stems] == ["accompaniment", "vocals"]


def test_the_latest_failure_of_a_file_is_returned(song):
    layout, source = song
    assert failure_of(layout, str(source)) is None
    failed = StemRow("stereo-1", "song.wav", "song.wav", None, metrics.FAILED, source=str(source))
    metrics.write_part(layout, "r2", [dataclasses.replace(failed, error="old", finished_at=NOON)])
    metrics.write_part(layout, "r3", [dataclasses.replace(failed, error="it is no audio file")])
    assert failure_of(layout, str(source)) == "it is no audio file"
