"""What a mash-up separates, and what it finds separated already."""

import contextlib
from types import SimpleNamespace

import pytest

import flows.mashup
from flows.mashup import find_mashups, mashup
from flows.settings import FindMashupsOptions, MashupOptions
from storage.errors import CatalogError
from storage.files.atomic import temporary_beside
from storage.files.fingerprint import fingerprint
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.metrics import OK, StemRow
from tasks.loading import model_stems

TWO = ("vocals", "accompaniment")


@pytest.fixture
def out(tmp_path):
    return OutputLayout(tmp_path / "out")


@pytest.fixture
def pairs(monkeypatch):
    """The tracks that would be mashed up, and none is."""
    mashed = []
    monkeypatch.setattr(flows.mashup, "one_process", lambda modules: contextlib.nullcontext())
    monkeypatch.setattr(flows.mashup, "mash_phase", lambda settings, pairs, *_: mashed.extend(pairs) or [])
    return mashed


@pytest.fixture
def separations(monkeypatch, out, tmp_path):
    """The sources of each separation. It writes rows and empty stems; a source called broken fails."""
    calls = []

    class Separate:
        check = staticmethod(lambda options: None)

        def __call__(self, **options):
            calls.append(options["source"])
            for source in options["source"]:
                name = source.rpartition("/")[2]
                # Where another file already has the name, the full path is the name, as in a real run.
                taken = any(name in other for call in calls[:-1] for other in call)
                separated(out, source, source if taken else name, TWO, broken="broken" in source)

    monkeypatch.setattr(flows.mashup, "separate", Separate())
    return calls


def separated(out, source, track_id, stems, *, model="stereo", broken=False):
    model_id, _ = model_stems(model)
    names = {"source": str(source), "source_fingerprint": fingerprint(source), "settings_hash": "s"}
    if broken:
        rows = [StemRow(model_id, track_id, track_id, None, metrics.FAILED, error="it is broken", **names)]
    else:
        paths = {stem: f"stems/{len(str(source))}-{track_id}/{stem}.flac" for stem in stems}
        rows = [StemRow(model_id, track_id, track_id, stem, OK, stem_path=paths[stem], **names) for stem in stems]
        for path in paths.values():
            (out.root / path).parent.mkdir(parents=True, exist_ok=True)
            (out.root / path).touch()
    metrics.write_part(out, f"run-{len(list(out.root.rglob('*.parquet')))}", rows)


@pytest.fixture
def songs(tmp_path):
    for name in ("a/one.wav", "a/two.wav", "b/one.wav", "a/broken.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return lambda name: str(tmp_path / name)


def test_two_songs_are_separated_together(songs, separations, pairs, out):
    mashup(songs("a/one.wav"), songs("a/two.wav"), str(out.root))
    assert separations == [(songs("a/one.wav"), songs("a/two.wav"))]
    assert [[song.track_id for song in pair] for pair in pairs] == [["one.wav", "two.wav"]]


def test_songs_of_a_separated_catalog_are_not_separated_again(songs, separations, pairs, out):
    for name in ("a/one.wav", "a/two.wav"):
        separated(out, songs(name), f"music/{name}", TWO)
    mashup(songs("a/two.wav"), songs("a/one.wav"), str(out.root))
    assert separations == []
    assert [[song.track_id for song in pair] for pair in pairs] == [["music/a/two.wav", "music/a/one.wav"]]


def test_only_the_song_that_is_not_there_is_separated(songs, separations, pairs, out):
    separated(out, songs("a/one.wav"), "music/one.wav", TWO)
    mashup(songs("a/one.wav"), songs("a/two.wav"), str(out.root))
    assert separations == [(songs("a/two.wav"),)]


def test_songs_of_one_name_in_two_folders_are_separated_one_after_the_other(songs, separations, pairs, out):
    mashup(songs("a/one.wav"), songs("b/one.wav"), str(out.root))
    assert separations == [(songs("a/one.wav"),), (songs("b/one.wav"),)]


def test_stems_that_do_not_add_up_to_the_song_are_not_enough(songs, separations, pairs, out):
    separated(out, songs("a/one.wav"), "one.wav", ("vocals", "drums"), model="four-stem")
    with pytest.raises(CatalogError):  # what the stand-in separates is not four-stem's
        mashup(songs("a/one.wav"), songs("a/one.wav"), str(out.root), model="four-stem")
    assert separations == [(songs("a/one.wav"),)]


def test_a_song_that_cannot_be_separated_says_why(songs, separations, pairs, out):
    with pytest.raises(CatalogError, match="it is broken"):
        mashup(songs("a/one.wav"), songs("a/broken.wav"), str(out.root))


def test_no_list_of_songs_is_written_that_another_mashup_would_overwrite(songs, separations, pairs, out):
    mashup(songs("a/one.wav"), songs("a/two.wav"), str(out.root))
    assert not (out.root / "mixes").exists()


def test_a_mashup_that_is_stopped_leaves_nothing_half_written(tmp_path, monkeypatch, pairs):
    leftover = temporary_beside(tmp_path / "mixes" / "a over b" / "mix.flac")

    def stopped(*_):
        leftover.parent.mkdir(parents=True)
        leftover.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(flows.mashup, "mash_phase", stopped)
    options = MashupOptions(vocals_of="a", accompaniment_of="b", out=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        mashup.function(options, (["a", "b"], {"a": None, "b": None}))
    assert not leftover.exists()


def test_workers_of_a_cluster_are_told_where_the_catalog_is_by_its_absolute_path(tmp_path, monkeypatch):
    told = []

    @contextlib.contextmanager
    def elsewhere(**_):
        yield SimpleNamespace(must_see=told.append)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flows.mashup, "cluster", elsewhere)
    monkeypatch.setattr(flows.mashup, "unanalysed_tracks", lambda out: told.append(str(out.root)) or ["song"])
    monkeypatch.setattr(flows.mashup, "analyse_phase", lambda *_: None)
    monkeypatch.setattr(flows.mashup, "rank_pairs", lambda *_: ["pair"])
    monkeypatch.setattr(flows.mashup, "write_rows", lambda *_: None)
    monkeypatch.setattr(flows.mashup, "_songs_of", lambda *_: ["pair"])
    monkeypatch.setattr(flows.mashup, "mash_phase", lambda settings, *_: told.append(settings.out) or [])
    find_mashups.function(FindMashupsOptions(out="out", dask="tcp://far:1", render=1), None)
    assert set(told) == {str(tmp_path / "out")}
