from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from storage.audio import reader as audio
from storage.audio.writer import write
from storage.errors import OutputError
from storage.results.metrics import StemRow
from storage.results.windows import WindowScores
from storage.sources.catalog import CatalogTrack, list_catalog
from storage.sources.datasets import Source
from tasks.separate import SeparateSettings, lost_row, score_batch, separate_batch
from tests.signals import noise

STEMS = ("vocals", "accompaniment")


@pytest.fixture
def settings(untrained, tmp_path):
    return SeparateSettings(
        out=str(tmp_path / "out"), model=str(untrained), device="cpu", model_id=untrained.stem, stems=STEMS
    )


def track(path, **fields):
    return CatalogTrack(path.name, path.name, str(path), **fields)


def stems(settings, rows):
    return {row.stem: audio.read(f"{settings.out}/{row.stem_path}") for row in rows}


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "channels"),
    [("a.wav", "PCM_16", 44100, 2), ("b.flac", "PCM_24", 48000, 1), ("c.wav", "PCM_24", 192000, 2),
     ("d.wav", "PCM_16", 8000, 1), ("e.wav", "PCM_16", 48000, 6), ("f.aiff", "PCM_16", 22050, 2)],
)  # fmt: skip
def test_stems_keep_rate_channels_depth_and_length_and_add_up_exactly(
    settings, tmp_path, name, subtype, rate, channels
):
    mixture = noise(channels, rate * 2 + 17, level=0.5)
    sf.write(tmp_path / name, mixture.T, rate, subtype)
    rows = separate_batch(settings, [track(tmp_path / name)])
    assert [(r.stem, r.status, r.sample_rate, r.channels) for r in rows] == [(s, "ok", rate, channels) for s in STEMS]
    separated = stems(settings, rows)
    assert all(stem_rate == rate and signal.shape == mixture.shape for signal, stem_rate in separated.values())
    assert all(sf.info(f"{settings.out}/{r.stem_path}").subtype == subtype for r in rows)
    np.testing.assert_array_equal(separated["vocals"][0] + separated["accompaniment"][0], mixture)


def test_stems_of_a_loud_lossy_song_add_up_within_a_step_without_clipping(settings, tmp_path):
    """A decoder overshoots full scale where the encoder's input touched it."""
    time = np.arange(44100 * 3) / 44100
    square = np.sign(np.sin(2 * np.pi * 220 * time))[None].repeat(2, 0).astype(np.float32)
    write(tmp_path / "loud.ogg", square * 0.98, 44100, name="ogg")
    mixture, _ = audio.read(tmp_path / "loud.ogg")
    assert np.abs(mixture).max() > 1
    separated = stems(settings, separate_batch(settings, [track(tmp_path / "loud.ogg")]))
    total = separated["vocals"][0].astype(np.float64) + separated["accompaniment"][0]
    assert np.abs(total - mixture).max() <= 1 / 32768


def test_float_wav_of_an_integer_source_is_exact(settings, tmp_path):
    mixture = noise(2, 44100)
    sf.write(tmp_path / "x.wav", mixture.T, 44100, "FLOAT")
    rows = separate_batch(settings.replaced(format="wav"), [track(tmp_path / "x.wav")])
    separated = stems(settings, rows)
    np.testing.assert_array_equal(separated["vocals"][0] + separated["accompaniment"][0], mixture)


def test_the_same_track_twice_is_the_same_bytes(settings, tmp_path):

    sf.write(tmp_path / "x.wav", noise(2, 44100 * 2).T, 44100)
    contents = []
    for name in ("one", "two"):
        changed = settings.replaced(out=str(tmp_path / name))
        separate_batch(changed, [track(tmp_path / "x.wav")])
        contents.append({p.name: p.read_bytes() for p in Path(changed.out).rglob("*.flac")})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2


def test_a_bad_track_is_a_row_and_the_others_are_done(settings, tmp_path):
    sf.write(tmp_path / "good.wav", noise(2, 20000).T, 44100)
    (tmp_path / "bad.mp3").write_text("no music")
    rows = separate_batch(settings, [track(tmp_path / "bad.mp3"), track(tmp_path / "good.wav")])
    assert [(row.track_id, row.stem, row.status) for row in rows] == [
        ("bad.mp3", None, "failed"), ("good.wav", "vocals", "ok"), ("good.wav", "accompaniment", "ok")
    ]  # fmt: skip
    assert "copy or export it again" in rows[0].error
    assert rows[0].error_class == "AudioError"


def test_what_a_killed_worker_left_of_a_track_is_swept_when_the_track_is_done_or_lost(settings, tmp_path):
    sf.write(tmp_path / "a.wav", noise(2, 5000).T, 44100)
    song = track(tmp_path / "a.wav")
    folder = tmp_path / "out" / "stems" / "a"
    for end in (lambda: separate_batch(settings, [song]), lambda: lost_row(settings, song, "it died")):
        folder.mkdir(parents=True, exist_ok=True)
        left = folder / ".unbraid-0123456789ab.tmp"
        left.write_bytes(b"half")
        assert end()
        assert not left.exists()


def test_a_track_that_fails_leaves_no_files(settings, tmp_path):
    from pathlib import Path

    broken = noise(2, 44100 * 3)
    broken[0, -10] = np.nan
    sf.write(tmp_path / "x.wav", broken.T, 44100, "FLOAT")
    separate_batch(settings, [track(tmp_path / "x.wav")])
    assert [p for p in Path(settings.out).rglob("*") if p.is_file()] == []


def test_a_source_that_changes_while_it_is_read_is_not_trusted(settings, tmp_path, monkeypatch):
    import tasks.separate as module

    sf.write(tmp_path / "x.wav", noise(2, 20000).T, 44100)
    monkeypatch.setattr(module, "fingerprint", lambda path: "after")
    (row,) = separate_batch(settings, [track(tmp_path / "x.wav")])
    assert "changed while it was read" in row.error


def test_tracks_with_references_are_scored_as_delivered(settings, dsd100):
    tracks = list_catalog(dsd100)[:1]
    kept = settings.replaced(windows=True)
    results = score_batch(kept, tracks, separate_batch(kept, tracks))
    rows = [row for row in results if isinstance(row, StemRow)]
    assert len(rows) == 2
    assert all(row.sdr is not None and row.sar is not None and row.windows == 8 for row in rows)
    assert {row.scenario for row in rows} == {"vocals/accompaniment"}
    for windows in (row for row in results if isinstance(row, WindowScores)):
        assert np.median([v for v in windows.sdr if v is not None]) in {row.sdr for row in rows}


def test_a_reference_that_cannot_be_read_costs_the_score_and_not_the_stems(settings, tmp_path):
    sf.write(tmp_path / "x.wav", noise(2, 20000).T, 44100)
    tracks = [track(tmp_path / "x.wav", references=(("vocals", Source(str(tmp_path / "absent.wav"))),))]
    rows = score_batch(settings, tracks, separate_batch(settings, tracks))
    assert all(row.status == "ok" and row.sdr is None and row.error.startswith("not scored") for row in rows)


def test_measurements_are_those_of_the_stem(settings, tmp_path):
    import pyloudnorm

    sf.write(tmp_path / "x.wav", noise(2, 44100 * 4).T, 44100)
    rows = separate_batch(settings, [track(tmp_path / "x.wav")])
    for row in rows:
        signal, _ = audio.read(f"{settings.out}/{row.stem_path}")
        assert row.loudness_lufs == pytest.approx(pyloudnorm.Meter(44100).integrated_loudness(signal.T), abs=0.02)
        assert row.true_peak_db >= 20 * np.log10(np.abs(signal).max()) - 1e-6
        assert row.duration_s == 4.0


@pytest.mark.parametrize(("carried", "tagged"), [(True, ["Jazz"]), (False, None)])
def test_a_row_names_its_sources_genre_whether_or_not_the_stems_carry_it(settings, tmp_path, carried, tagged):
    from mutagen.flac import FLAC

    sf.write(tmp_path / "song.flac", noise(1, 8000).T, 8000)
    file = FLAC(tmp_path / "song.flac")
    file["genre"] = "Jazz"
    file.save()
    row, *_ = separate_batch(settings.replaced(tags=carried), [track(tmp_path / "song.flac")])
    assert row.genre == "Jazz"
    assert FLAC(f"{settings.out}/{row.stem_path}").get("genre") == tagged


def test_an_output_that_cannot_be_written_or_is_gone_ends_the_run_and_fails_no_song(settings, tmp_path):
    sf.write(tmp_path / "x.wav", noise(2, 5000).T, 44100)
    (tmp_path / "file").touch()
    for other in ({"out": str(tmp_path / "file")}, {"out": str(tmp_path / "gone"), "marked": True}):
        with pytest.raises(OutputError, match=f"{other['out']}.* cannot be written .*MB free; .*another --out"):
            separate_batch(settings.replaced(**other), [track(tmp_path / "x.wav")])
    assert not (tmp_path / "gone").exists()


@pytest.mark.skipif(not __import__("os").path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("name", ["flac", "wav"])
def test_a_disk_that_fills_up_under_a_song_ends_the_run(settings, tmp_path, monkeypatch, name):
    from contextlib import contextmanager

    import storage.audio.writer as module

    @contextmanager
    def full(target):
        yield "/dev/full"

    sf.write(tmp_path / "x.wav", noise(2, 400_000).T, 44100)
    monkeypatch.setattr(module, "replacing", full)
    with pytest.raises(OutputError, match="stems.* cannot be written"):
        separate_batch(settings.replaced(format=name), [track(tmp_path / "x.wav")])


@pytest.mark.skipif(not __import__("os").path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    """Writing through a link to /dev/full, which takes nothing."""
    from contextlib import contextmanager

    import storage.audio.writer as module

    @contextmanager
    def full(target):
        yield "/dev/full"

    monkeypatch.setattr(module, "replacing", full)
    with pytest.raises(OutputError, match="MB free; free some space"):
        write(tmp_path / "x.flac", noise(2, 400_000), 44100, name="flac")


def test_two_stems_of_a_model_of_four_add_up_to_the_mixture_exactly(settings, tmp_path):
    mixture = np.round(noise(2, 44100) * 2**15) / 2**15
    sf.write(tmp_path / "x.wav", mixture.T, 44100, "PCM_16")
    four = settings.replaced(model="four-stem", two_stems="vocals")
    separated = stems(four, separate_batch(four, [track(tmp_path / "x.wav")]))
    assert set(separated) == {"vocals", "accompaniment"}
    np.testing.assert_array_equal(separated["vocals"][0] + separated["accompaniment"][0], mixture.astype(np.float32))


def test_an_internal_error_keeps_its_traceback_beside_the_report(settings, tmp_path, monkeypatch):
    def broken(*_):
        raise KeyError("nobody expects this")

    sf.write(tmp_path / "x.wav", noise(2, 4410).T, 44100)
    monkeypatch.setattr("tasks.separate._stream", broken)
    (row,) = separate_batch(settings.replaced(run_id="separate-1"), [track(tmp_path / "x.wav")])
    (file,) = (tmp_path / "out" / "reports" / "separate-1.errors").iterdir()
    assert row.error.endswith(f"please report it with {file}")
    assert "in broken" in file.read_text()
    assert "nobody expects this" in file.read_text()
