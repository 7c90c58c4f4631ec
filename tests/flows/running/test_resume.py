"""What is done again and what is not: plan, separate and commit in this process, without a cluster."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from flows.running.plan import Planner
from storage.audio import reader as audio
from storage.files import naming
from storage.files.fingerprint import look
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.done import done_tracks
from storage.results.query import query
from storage.runs import new_run_id
from storage.sources.catalog import stream_catalog
from tasks.loading import resolved_arithmetic
from tasks.separate import SeparateSettings, interrupted_row, separate_batch
from tests.signals import noise

STEMS = ("vocals", "accompaniment")


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number, name in enumerate(("a.wav", "b.wav")):
        sf.write(folder / name, noise(2, 6000, number).T, 8000)
    return folder


@pytest.fixture
def separate(untrained, tmp_path):
    """As `unbraid separate`: what was to do, by path, with the stems that were made."""

    def run(
        source, model_id="stereo-1", *, stems=STEMS, killed=False, compact=True, force=False, retry=False, **options
    ):
        settings = SeparateSettings(
            out=str(tmp_path / "out"), model=str(untrained), model_id=model_id, stems=stems, **options
        )
        out, run_id = OutputLayout(tmp_path / "out"), new_run_id("separate")
        done = done_tracks(out, settings.target)
        adding = settings.made_on(*resolved_arithmetic(settings.model, settings.device, settings.precision))
        planner = Planner(done, force=force, retry_failed=retry, template=settings.names, adding=adding)
        run.counts = planner.count(stream_catalog(source))
        todo = list(planner.todo(stream_catalog(source)))
        settings = settings.replaced(known_stems=done.stems)
        if any(track.replaces for track in todo):
            metrics.write_part(out, run_id, [interrupted_row(settings, track) for track in todo])
        rows = separate_batch(settings, todo)
        if rows and not killed:
            metrics.write_part(out, run_id, rows)
        metrics.compact(out, run_id)
        return sorted((row.path, row.stem) for row in rows)

    return run


def files(tmp_path, folder="stems"):
    root = tmp_path / "out" / folder
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


BOTH = [(song, stem) for song in ("a.wav", "b.wav") for stem in sorted(STEMS)]


def test_what_is_done_is_not_done_again_and_force_does_all(songs, separate):
    assert separate(songs) == BOTH
    assert separate(songs) == []
    assert separate(songs, force=True) == BOTH


def test_a_stem_that_was_deleted_is_made_again_alone(songs, separate, tmp_path):
    separate(songs)
    (tmp_path / "out" / "stems" / "a" / "accompaniment.flac").unlink()
    assert separate(songs) == [("a.wav", "accompaniment")]
    assert separate(songs) == []
    vocals, accompaniment = (audio.read(tmp_path / "out/stems/a" / f"{stem}.flac")[0] for stem in STEMS)
    np.testing.assert_array_equal(vocals + accompaniment, audio.read(songs / "a.wav")[0])


def test_other_stems_and_another_format_do_only_what_is_missing(songs, separate, tmp_path):
    separate(songs, stems=("vocals",))
    assert separate(songs) == [(song, "accompaniment") for song in ("a.wav", "b.wav")]
    assert separate(songs, stems=("vocals",)) == []
    assert separate(songs, format="wav", stems=("vocals",)) == [(song, "vocals") for song in ("a.wav", "b.wav")]
    assert files(tmp_path) == [
        f"{song}/{name}" for song in "ab" for name in ("accompaniment.flac", "vocals.flac", "vocals.wav")
    ]
    rows = query(tmp_path / "out", "select count(*) as n, bool_and(on_disk) as there from metrics").to_pylist()
    assert rows == [{"n": 6, "there": True}]


def test_results_of_another_precision_never_pass_for_those_that_are_requested(songs, separate, tmp_path):
    separate(songs, precision="float32")
    rows = query(tmp_path / "out", "select distinct device, precision from metrics").to_pylist()
    assert rows == [{"device": resolved_arithmetic("stereo", "auto", "auto")[0], "precision": "float32"}]
    assert separate(songs) == []  # left open, every precision is as good
    assert separate(songs, precision="bfloat16") == BOTH
    assert separate(songs, precision="bfloat16", device="cpu") == separate(songs) == []
    assert separate(songs, precision="float32") == BOTH


def test_a_missing_stem_is_never_added_from_another_precision(songs, separate, tmp_path):
    here = resolved_arithmetic("stereo", "auto", "auto")[1]
    separate(songs, precision="float32" if here == "bfloat16" else "bfloat16")
    (tmp_path / "out" / "stems" / "a" / "accompaniment.flac").unlink()
    assert separate(songs) == [("a.wav", "accompaniment"), ("a.wav", "vocals")]
    vocals, accompaniment = (audio.read(tmp_path / "out/stems/a" / f"{stem}.flac")[0] for stem in STEMS)
    np.testing.assert_array_equal(vocals + accompaniment, audio.read(songs / "a.wav")[0])


def test_an_output_whose_rows_name_no_device_is_done_as_long_as_none_is_requested(songs, separate, tmp_path):
    separate(songs)
    (tmp_path / "out/metrics").rename(tmp_path / "new")
    older = SeparateSettings(out=str(tmp_path / "out"), model_id="stereo-1", stems=STEMS).target.settings[-2]
    for file in (tmp_path / "new").rglob("*.parquet"):
        table = pq.read_table(file, partitioning=None)
        place = table.schema.get_field_index("settings_hash")
        table = table.set_column(place, "settings_hash", pa.array([older] * table.num_rows))
        (tmp_path / "out/metrics" / file.parent.name).mkdir(parents=True)
        pq.write_table(table, tmp_path / "out/metrics" / file.parent.name / file.name)
    assert separate(songs) == separate(songs, stems=("vocals",)) == []
    assert separate(songs, device="cpu") == BOTH


def test_of_several_models_in_one_output_the_stems_of_one_are_on_the_disk(songs, separate, tmp_path):
    separate(songs)
    assert separate(songs, "hq-2") == BOTH
    assert separate(songs) == BOTH
    assert separate(songs, "four-3", stems=("vocals",)) == [(song, "vocals") for song in ("a.wav", "b.wav")]
    assert files(tmp_path) == ["a/vocals.flac", "b/vocals.flac"]
    rows = query(tmp_path / "out", "select distinct model_id, stem from metrics where on_disk").to_pylist()
    assert rows == [{"model_id": "four-3", "stem": "vocals"}]
    assert separate(songs) == BOTH


def test_models_can_be_kept_side_by_side(songs, separate, tmp_path):
    separate(songs, keep_models=True)
    separate(songs, "hq-2", keep_models=True)
    assert separate(songs, keep_models=True) == separate(songs, "hq-2", keep_models=True) == []
    assert files(tmp_path, "models") == [
        f"{model}/{song}/{stem}.flac" for model in ("hq-2", "stereo-1") for song in "ab" for stem in sorted(STEMS)
    ]
    rows = query(tmp_path / "out", "select count(*) as n from metrics where on_disk").to_pylist()
    assert rows == [{"n": 8}]


def test_a_run_killed_before_it_said_what_it_had_replaced_leaves_nothing_that_passes_for_the_old(
    songs, separate, tmp_path
):
    separate(songs)
    assert separate(songs, "hq-2", killed=True) == BOTH  # the files are hq's, and no row says so
    assert separate(songs) == BOTH
    assert separate(songs) == []


def test_stems_that_a_killed_run_left_without_rows_do_not_stay_beside_another_models(songs, separate, tmp_path):
    separate(songs, killed=True)
    assert separate(songs, "four-3", stems=("vocals",)) == [(song, "vocals") for song in ("a.wav", "b.wav")]
    assert files(tmp_path) == ["a/vocals.flac", "b/vocals.flac"]


def test_a_file_that_was_still_being_copied_is_tried_again_once_it_no_longer_changes(songs, separate, monkeypatch):
    import tasks.separate as module

    data = (songs / "a.wav").read_bytes()
    (songs / "a.wav").write_bytes(data[:2000])
    original = module.audio.with_decoders

    def copied_meanwhile(source, function):
        try:
            return original(source, function)
        finally:
            (songs / "a.wav").write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(module.audio, "with_decoders", copied_meanwhile)
        assert separate(songs)[0] == ("a.wav", None)
    assert separate(songs) == BOTH[:2]


def test_a_failure_is_kept_until_the_file_changes_or_a_retry_is_requested(songs, separate):
    (songs / "a.wav").write_text("no")
    assert separate(songs)[0] == ("a.wav", None)
    assert separate(songs) == []
    assert (separate.counts.failed, separate.counts.done) == (1, 1)
    assert separate(songs, retry=True) == [("a.wav", None)]
    sf.write(songs / "a.wav", noise(2, 6000).T, 8000)
    assert separate(songs) == BOTH[:2]


def test_two_sources_of_one_name_are_told_apart(tmp_path, separate):
    for number, folder in enumerate(("sA", "sB")):
        (tmp_path / folder).mkdir()
        sf.write(tmp_path / folder / "song.wav", noise(2, 6000, number).T, 8000)
    (first, _), *_ = separate(tmp_path / "sA" / "song.wav")
    before = audio.read(tmp_path / "out/stems/song/vocals.flac")[0]
    (second, _), *_ = separate(tmp_path / "sB" / "song.wav")
    assert (first, second) == ("song.wav", str(tmp_path / "sB" / "song.wav").lstrip("/"))
    assert separate.counts.told_apart == 1
    np.testing.assert_array_equal(audio.read(tmp_path / "out/stems/song/vocals.flac")[0], before)
    assert separate(tmp_path / "sA" / "song.wav") == separate(tmp_path / "sB" / "song.wav") == []
    assert separate(tmp_path / "sB") == []  # the folder, which lists the same file by the same name
    os.rename(tmp_path / "sA", tmp_path / "moved")
    assert separate(tmp_path / "moved") == []  # what was moved is the same catalog


def test_an_output_of_an_older_version_counts_as_done(songs, separate, tmp_path):
    """Its folders have the file's complete name, and its rows stems and format in the hash of the settings."""
    settings = SeparateSettings(out=str(tmp_path / "out"), model_id="stereo-1", stems=STEMS)
    out = OutputLayout(tmp_path / "out")
    for song in ("a.wav", "b.wav"):
        folder = tmp_path / "out" / "stems" / song
        folder.mkdir(parents=True)
        state = next(track.state or look(track.source) for track in stream_catalog(songs / song))
        rows = []
        for stem in STEMS:
            (folder / f"{stem}.flac").touch()
            # The last of the hashes is the oldest.
            rows.append(metrics.StemRow(
                "stereo-1", song, song, stem, "ok", stem_path=f"stems/{song}/{stem}.flac",
                source_fingerprint=state.fingerprint, settings_hash=settings.target.settings[-1],
            ))  # fmt: skip
        metrics.write_part(out, "separate-20250101T000000-aaaaaa", rows)
    metrics.compact(out, "separate-20250101T000000-aaaaaa")
    assert separate(songs) == []
    separate(songs, "hq-2")
    assert {name.split("/")[0] for name in files(tmp_path)} == {"a.wav", "b.wav"}


def test_flat_names_lie_side_by_side_and_change_with_the_template(songs, separate, tmp_path):
    separate(songs, names=naming.FLAT)
    assert files(tmp_path) == [f"{song}_{stem}.flac" for song in "ab" for stem in sorted(STEMS)]
    assert separate(songs, names=naming.FLAT) == []
    separate(songs, "hq-2", names=naming.FLAT, stems=("vocals",))
    assert files(tmp_path) == ["a_vocals.flac", "b_vocals.flac"]
