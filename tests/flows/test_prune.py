"""What leaves an output when its catalog changes, and what never does."""

import json
import os
import shutil

import pytest
import soundfile as sf
from click.testing import CliRunner

from flows.cli import main
from flows.prune import prune, prune_unwatched
from flows.running.plan import Planner
from flows.settings import PruneOptions, SeparateOptions
from storage import runs
from storage.errors import CatalogError, MetricsError
from storage.files.layout import OutputLayout
from storage.results import metrics, rows, windows
from storage.results.done import DoneTracks
from storage.results.hash_set import HashSet
from storage.results.mashup_rows import AnalysisRow
from storage.results.metrics import StemRow
from storage.results.windows import WindowScores
from storage.sources.catalog import CatalogTrack, stream_catalog
from tests.signals import noise

STEMS = ("vocals", "accompaniment")


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    (folder / "album").mkdir(parents=True)
    for name in ("album/a.wav", "album/b.wav", "c.wav", "d.wav"):
        (folder / name).touch()
    return folder


@pytest.fixture
def out(tmp_path, songs):
    """The rows and stems of these songs, by two runs, and a failed one."""
    out = OutputLayout(tmp_path / "out")
    out.mark()
    for run_id, names in {"separate-1": ("album/a.wav", "album/b.wav"), "separate-2": ("c.wav", "d.wav")}.items():
        metrics.write_part(out, run_id, [row for name in names for row in separated(out, songs, name)])
        metrics.compact(out, run_id)
    return out


def separated(out, songs, name, place=None):
    place = place or name.removesuffix(".wav")
    (out.stems / place).mkdir(parents=True, exist_ok=True)
    about = {"settings_hash": "h", "source": str(songs / name), "source_fingerprint": "f", "format": "flac"}
    if name == "d.wav":
        return [StemRow("m-1", name, name, None, metrics.FAILED, error="no", **about)]
    for stem in STEMS:
        (out.stems / place / f"{stem}.flac").touch()
    return [
        StemRow("m-1", name, name, stem, metrics.OK, stem_path=f"stems/{place}/{stem}.flac", **about) for stem in STEMS
    ]


def analysis(name):
    figures = {"duration_s": 1.0, "tempo": 100.0, "clarity": 1.0, "tonic": 0, "minor": False, "key_confidence": 1.0}
    return AnalysisRow(name, name, "m-1", "f", **figures, vocal_activity=1.0, predicted_sdr=None, seconds=1.0)


def options(out, songs, **more):
    return PruneOptions(out=str(out.root), source=str(songs), **more)


def tracks(out):
    return sorted(set(metrics.read_all(out, columns=["track_id"]).column(0).to_pylist()))


def test_nothing_is_removed_before_it_is_confirmed(out, songs):
    (songs / "album/a.wav").rename(songs / "album/new.wav")
    summary = prune(options(out, songs))
    assert (summary.tracks, summary.stems, summary.kept) == (("album/a.wav",), None, 0)
    assert (out.stems / "album/a/vocals.flac").exists()
    assert len(tracks(out)) == 4


def test_what_was_renamed_or_deleted_loses_stems_and_rows_and_nothing_else_does(out, songs):
    (songs / "album/a.wav").rename(songs / "album/new.wav")
    (songs / "d.wav").unlink()
    scores = [WindowScores("m-1", name, "vocals", predicted_sdr=(1.0,)) for name in ("album/a.wav", "c.wav")]
    for run_id in ("separate-1", "evaluate-1"):
        windows.write_windows(out, run_id, scores)
    metrics.write_part(out, "evaluate-1", [StemRow("m-1", "album/a.wav", "album/a.wav", "vocals", metrics.OK)])
    rows.write_rows(out, "mashup-1", [analysis(name) for name in ("album/a.wav", "c.wav")])
    summary = prune(options(out, songs, yes=True))
    assert (summary.tracks, summary.stems) == (("album/a.wav", "d.wav"), 2)
    assert sorted(path.name for path in out.stems.rglob("*")) == sorted(
        ["album", "b", "c", "d", *(f"{stem}.flac" for stem in STEMS * 2)]
    )
    kept = metrics.read_all(out).to_pylist()
    assert {(row["run_id"], row["track_id"]) for row in kept} == {
        ("separate-1", "album/b.wav"), ("separate-2", "c.wav"), ("evaluate-1", "album/a.wav"),
    }  # fmt: skip
    assert rows.read_rows(out, "analyses").column("track_id").to_pylist() == ["c.wav"]
    left = windows.read_windows(out).to_pylist()
    assert sorted((row["run_id"], row["track_id"]) for row in left) == [
        ("evaluate-1", "album/a.wav"), ("evaluate-1", "c.wav"), ("separate-1", "c.wav"),
    ]  # fmt: skip
    (record,) = [json.loads(path.read_text()) for path in out.runs.glob("prune-*.json")]
    assert (record["state"], record["summary"]["tracks"]) == ("completed", ["album/a.wav", "d.wav"])
    assert prune(options(out, songs, yes=True)).tracks == ()


def test_a_run_without_any_row_left_has_no_file(out, songs):
    shutil.rmtree(songs / "album")
    prune(options(out, songs, yes=True))
    assert [folder.name for folder in out.metrics.iterdir()] == ["run_id=separate-2"]


@pytest.mark.parametrize("missing", ["unmounted", "empty"])
def test_a_missing_or_empty_catalog_removes_nothing_unless_the_user_says_so(out, songs, missing):
    shutil.rmtree(songs)
    if missing == "empty":
        songs.mkdir()
    with pytest.raises(CatalogError, match="nothing is removed"):
        prune(options(out, songs, yes=True))
    assert len(tracks(out)) == 4
    if missing == "empty":
        assert len(prune(options(out, songs, yes=True, empty=True)).tracks) == 4
        assert not list(out.stems.rglob("*.flac"))


@pytest.mark.skipif(os.getuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_removes_nothing(out, songs):
    (songs / "album").chmod(0)
    try:
        with pytest.raises(CatalogError, match="nothing is removed as long as a part"):
            prune(options(out, songs, yes=True))
    finally:
        (songs / "album").chmod(0o700)


def test_a_listing_that_reports_an_unreadable_folder_removes_nothing(out, songs, monkeypatch):
    seen = [CatalogTrack("c.wav", "c.wav", str(songs / "c.wav")), CatalogTrack("x", "x", "x", problem="x is locked")]
    monkeypatch.setattr("flows.prune.stream_catalog", lambda *_, **__: iter(seen))
    (songs / "album/a.wav").unlink()
    with pytest.raises(CatalogError, match="x is locked; nothing is removed"):
        prune(options(out, songs, yes=True))


def test_tracks_of_another_catalog_stay_unless_all_that_is_not_listed_goes(out, songs, tmp_path):
    """Also where the other catalog is not there at the moment."""
    metrics.write_part(out, "separate-3", separated(out, tmp_path / "other disk", "e.wav"))
    metrics.compact(out, "separate-3")
    summary = prune(options(out, songs, yes=True))
    assert (summary.tracks, summary.stems, summary.kept) == ((), None, 1)
    assert prune(options(out, songs, yes=True, unlisted=True)).tracks == ("e.wav",)
    assert not (out.stems / "e").exists()


def test_a_file_that_another_tracks_row_names_too_stays(out, songs):
    (songs / "c.wav").unlink()
    metrics.write_part(out, "separate-3", separated(out, songs, "album/b.wav", place="c"))
    metrics.compact(out, "separate-3")
    assert prune(options(out, songs, yes=True)).stems == 0
    assert (out.stems / "c/vocals.flac").exists()


def test_a_row_that_leads_out_of_the_output_deletes_nothing_there(out, songs, tmp_path):
    precious = tmp_path / "precious.flac"
    precious.touch()
    about = {"settings_hash": "h", "source": str(songs / "gone.wav")}
    for number, path in enumerate(["stems/../../precious.flac", str(precious)]):
        row = StemRow("m-1", "gone.wav", "gone.wav", "vocals", metrics.OK, stem_path=path, **about)
        metrics.write_part(out, f"separate-{7 + number}", [row])
    assert prune(options(out, songs, yes=True)).tracks == ("gone.wav",)
    assert precious.exists()


def test_beside_a_run_that_writes_nothing_is_removed(out, songs, monkeypatch):
    (songs / "c.wav").unlink()
    monkeypatch.setattr(runs, "_namespace", lambda: "one")
    runs.begin(out, "separate-9", {})
    runs.beat(out, "separate-9")
    monkeypatch.setattr(runs, "_namespace", lambda: "two")
    with pytest.raises(MetricsError, match="is being written to by separate-9"):
        prune(options(out, songs, yes=True))
    assert (out.stems / "c/vocals.flac").exists()


def planned(songs):
    planner = Planner(DoneTracks(), listed=HashSet())
    planner.count(stream_catalog(songs))
    return planner


def test_unattended_pruning_removes_at_most_half(out, songs):
    shutil.rmtree(songs / "album")
    assert prune_unwatched(options(out, songs), planned(songs).listed) == 2
    (songs / "c.wav").rename(songs / "x.wav")
    (songs / "d.wav").unlink()
    with pytest.raises(CatalogError, match="2 of 2 tracks .* more than --prune removes"):
        prune_unwatched(options(out, songs), planned(songs).listed)


def test_unattended_pruning_removes_nothing_where_the_run_did_not_see_all_of_the_catalog(out, songs):
    (songs / "album/a.wav").unlink()
    planner = Planner(DoneTracks(), listed=HashSet())
    planner.count([*stream_catalog(songs), CatalogTrack("x", "x", "x", problem="x is locked")])
    with pytest.raises(CatalogError, match="x is locked; nothing is removed as long as a part"):
        prune_unwatched(options(out, songs), planner.listed, planner.unseen)
    assert len(tracks(out)) == 4


def test_a_run_with_pruning_lists_its_catalog_no_third_time(out, songs, monkeypatch):
    from flows import separate

    read = []
    monkeypatch.setattr("flows.prune.stream_catalog", lambda *_, **__: read.append("catalog"))
    monkeypatch.setattr("flows.prune.done_tracks", lambda *_: read.append("rows"))
    (songs / "c.wav").unlink()
    run = SeparateOptions(source=str(songs), out=str(out.root), prune=True)
    assert separate.prune_phase(run, planned(songs)) == 1
    assert not read


def test_the_command_lists_first_and_removes_with_yes(out, songs):
    (songs / "c.wav").unlink()
    arguments = ["prune", str(out.root), str(songs)]
    listed = CliRunner().invoke(main, arguments)
    assert (listed.exit_code, listed.output.splitlines()) == (
        0, ["c.wav", "1 track would be removed; run again with --yes to do it"],
    )  # fmt: skip
    done = CliRunner().invoke(main, [*arguments, "--yes"])
    assert (done.exit_code, done.output.splitlines()) == (0, ["c.wav", "1 track and 2 stems removed"])
    again = CliRunner().invoke(main, [*arguments, "--json"])
    assert json.loads(again.output) == {"out": str(out.root), "tracks": [], "stems": None, "kept": 0}
    nothing = CliRunner().invoke(main, ["prune", str(songs), str(songs)])
    assert nothing.exit_code == 1
    assert "has no rows of separated tracks" in nothing.output


@pytest.mark.whole
def test_a_separation_prunes_after_the_renamed_song_has_its_new_stems(tmp_path, untrained):
    from flows.separate import separate

    songs, out = tmp_path / "songs", tmp_path / "out"
    songs.mkdir()
    for name in ("a", "b"):
        sf.write(songs / f"{name}.wav", noise(1, 6000).T, 8000)
    run = {"source": str(songs), "out": str(out), "model": str(untrained), "workers": 1, "prune": True}
    assert separate(**run).pruned == 0
    (songs / "a.wav").rename(songs / "c.wav")
    summary = separate(**run)
    assert (summary.done, summary.before, summary.pruned) == (1, 1, 1)
    assert sorted(path.name for path in (out / "stems").iterdir()) == ["b", "c"]
    assert tracks(OutputLayout(out)) == ["b.wav", "c.wav"]
