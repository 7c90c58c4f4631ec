"""Whole runs as a user starts them: in a separate process, on real worker processes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile as sf
import torch

from model.checkpoint import Weights, build
from model.preset import load_preset
from storage.audio import reader as audio
from storage.files.layout import OutputLayout
from storage.results.metrics import read_all
from storage.results.query import query
from storage.runs import read as read_record
from tests.signals import noise

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("runs")]


def unbraid(*arguments, **options):
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def rows(out):
    return read_all(OutputLayout(out)).to_pylist()


def put(path, signal, rate, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, signal.T, rate, **options)
    return path


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory):
    """What people's folders really hold."""
    root = tmp_path_factory.mktemp("bad")
    stereo = noise(2, 44100)
    (root / "empty.wav").touch()
    (root / "text.mp3").write_text("I am no music\n" * 40)
    complete = put(root / "truncated.flac", noise(2, 44100 * 4), 44100).read_bytes()
    (root / "truncated.flac").write_bytes(complete[: len(complete) // 2])
    put(root / "zero.wav", stereo[:, :0], 44100)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        broken = stereo.copy()
        broken[0, 999] = value
        put(root / f"{name}.wav", broken, 44100, subtype="FLOAT")
    (root / "x.wav").mkdir()
    (root / "dangling.wav").symlink_to("/nowhere/song.wav")
    put(root / "secret.wav", stereo, 44100).chmod(0)
    good = {
        "8k mono.wav": (noise(1, 16000), 8000), "192k.wav": (noise(2, 192000), 192000),
        "six.wav": (noise(6, 48000), 48000), "one sample.wav": (stereo[:, :1], 44100),
        "50 ms.wav": (stereo[:, :2205], 44100), "Ünï 歌 🎤.wav": (stereo, 44100), "n" * 246 + ".wav": (stereo, 44100),
        "a/same.wav": (noise(2, 44100, 1), 44100), "b/same.wav": (noise(2, 44100, 2), 44100),
    }  # fmt: skip
    for name, (signal_, rate) in good.items():
        put(root / name, signal_, rate)
    if os.geteuid() == 0:  # root reads everything
        good["secret.wav"] = (stereo, 44100)
    return root, good


@pytest.fixture(scope="module")
def bad_run(bad_folder, untrained, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, unbraid("separate", bad_folder[0], "--out", out, "--model", untrained)


def test_a_folder_of_bad_input_ends_with_exit_3_and_no_traceback(bad_run):
    _, process = bad_run
    assert process.returncode == 3, process.stderr
    assert "Traceback" not in process.stdout + process.stderr


def test_every_track_ends_as_ok_or_as_one_failed_row_with_a_sentence(bad_folder, bad_run):
    _, good = bad_folder
    out, _ = bad_run
    written = rows(out)
    failed = {row["path"]: row["error"] for row in written if row["status"] == "failed"}
    assert {row["path"] for row in written if row["status"] == "ok"} == set(good)
    assert len([row for row in written if row["status"] == "failed"]) == len(failed)
    expected = {"empty.wav": "is empty", "text.mp3": "not audio", "truncated.flac": "cut short",
                "zero.wav": "no samples", "nan.wav": "NaN or Inf", "inf.wav": "NaN or Inf", "x.wav": "is a folder",
                "dangling.wav": "a link to",
                "secret.wav": "may not be read"}  # fmt: skip
    assert set(failed) == set(expected) - set(good)
    for path, words in expected.items():
        assert path in good or words in failed[path]


def test_every_good_track_adds_up_exactly(bad_folder, bad_run):
    _, good = bad_folder
    out, _ = bad_run
    for row in rows(out):
        if row["stem"] == "vocals":
            vocals, rate = audio.read(out / row["stem_path"])
            rest, _ = audio.read(out / row["stem_path"].replace("vocals.flac", "accompaniment.flac"))
            mixture, source_rate = good[row["path"]]
            assert rate == source_rate
            np.testing.assert_array_equal(vocals + rest, mixture)


def test_run_again_it_does_nothing_and_still_says_what_failed(bad_folder, bad_run, untrained):
    out, _ = bad_run
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    again = unbraid("separate", bad_folder[0], "--out", out, "--model", untrained)
    assert again.returncode == 0  # nothing failed that had not failed before
    assert "0 tracks separated" in again.stdout
    assert "failed before" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")} == before


def test_a_repaired_file_is_done_and_a_failed_one_is_tried_on_request(tmp_path, untrained):
    put(tmp_path / "songs" / "a.wav", noise(2, 30000), 44100)
    (tmp_path / "songs" / "b.wav").write_text("no")
    arguments = ("separate", tmp_path / "songs", "--out", tmp_path / "out", "--model", untrained)
    assert unbraid(*arguments).returncode == 3
    put(tmp_path / "songs" / "b.wav", noise(2, 30000), 44100)
    repaired = unbraid(*arguments)
    assert repaired.returncode == 0, repaired.stderr
    assert "1 track separated, 1 done before" in repaired.stdout
    answer = unbraid("query", tmp_path / "out", "select path, status from metrics group by all order by path", "--csv")
    assert answer.stdout.split() == ['"path","status"', '"a.wav","ok"', '"b.wav","ok"']


@pytest.mark.proof
def test_killed_and_started_again_every_track_is_there_exactly_once(tmp_path, untrained):
    names = [f"{number:02}.wav" for number in range(24)]
    for number, name in enumerate(names):
        put(tmp_path / "songs" / name, noise(2, 44100 * 4, number), 44100)
    out = tmp_path / "out"
    arguments = [sys.executable, "-m", "flows.cli", "separate", str(tmp_path / "songs"), "--out", str(out)]
    arguments += ["--model", str(untrained)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    limit = time.monotonic() + 120
    while not list(out.glob("runs/*/metrics/part-*.parquet")) and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {row["path"] for row in rows(out)}
    assert 0 < len(done) < len(names)
    (killed,) = (out / "runs").glob("*.json")
    time.sleep(2)  # its workers see that they are orphans and end
    again = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert f"{len(names) - len(done)} tracks separated, {len(done)} done before" in again.stdout
    written = [(row["path"], row["stem"]) for row in rows(out)]
    assert sorted(written) == sorted((name, stem) for name in names for stem in ("vocals", "accompaniment"))
    assert not list(out.rglob(".unbraid-*"))
    assert read_record(OutputLayout(out), killed.stem)["state"] == "killed"


def test_formats_stems_and_tags_are_as_requested(tmp_path, untrained):
    import mutagen.flac

    path = put(tmp_path / "song.flac", noise(2, 44100), 44100)
    tagged = mutagen.flac.FLAC(path)
    tagged["title"] = "A Song"
    tagged.save()
    out = tmp_path / "out"
    result = unbraid("separate", path, "--out", out, "--model", untrained, "--format", "mp3", "--stems", "vocals")
    assert result.returncode == 0, result.stderr
    assert [p.name for p in out.rglob("*.mp3")] == ["vocals.mp3"]
    assert mutagen.File(out / "stems" / "song" / "vocals.mp3", easy=True)["title"] == ["A Song"]
    unknown = unbraid("separate", path, "--out", out, "--model", untrained, "--stems", "drums")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "has no stem drums; it has vocals, accompaniment" in unknown.stderr


def test_a_report_and_a_record_say_what_the_run_was(bad_run):
    out, _ = bad_run
    (page,) = (out / "reports").glob("*.html")
    assert "truncated.flac" in page.read_text()
    record = read_record(OutputLayout(out), page.stem)
    assert record["state"] == "completed"
    assert record["parameters"]["model_id"].startswith("stereo-")
    assert record["summary"]["failed"] >= 8


def test_ctrl_c_stops_in_seconds_keeps_what_is_done_and_leaves_nothing_half_written(tmp_path, untrained):
    """The terminal sends the signal to the whole process group: workers and embedded server too."""
    for number in range(40):
        put(tmp_path / "songs" / f"{number:02}.wav", noise(2, 44100 * 20, number), 44100)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "flows.cli", "separate", str(tmp_path / "songs"), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--model", str(untrained)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    limit = time.monotonic() + 120
    while not list(out.glob("runs/*/metrics/part-*.parquet")) and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"what is finished is kept. To go on: unbraid separate {tmp_path / 'songs'} --out {out}" in errors
    assert "Traceback" not in errors
    assert 0 < len({row["path"] for row in rows(out)}) < 40
    assert not list(out.rglob(".unbraid-*"))


def test_a_dry_run_writes_nothing_and_a_limit_is_kept(untrained, tmp_path):
    for name in "abc":
        put(tmp_path / "songs" / f"{name}.wav", noise(1, 8000), 8000)
    common = ["separate", tmp_path / "songs", "--out", tmp_path / "out", "--model", untrained, "--workers", "1"]
    dry = unbraid(*common, "--dry-run")
    assert "3 tracks would be separated; 0 done" in dry.stdout
    assert not (tmp_path / "out").exists()
    unbraid(*common, "--limit", "2")
    assert {row["path"] for row in rows(tmp_path / "out")} == {"a.wav", "b.wav"}
    assert "1 track would be separated; 2 done" in unbraid(*common, "--dry-run").stdout
    unbraid(*common)
    assert len(rows(tmp_path / "out")) == 6
    old = unbraid(*common[:2], "--out", tmp_path / "other", *common[4:], "--since", "2100-01-01", "--dry-run")
    assert "0 tracks would be separated" in old.stdout


def test_a_condition_chooses_which_tracks_another_model_does_again(untrained, tmp_path):
    preset = load_preset("jansson")
    other = tmp_path / "jansson.safetensors"
    other.write_bytes(Weights(preset, build(preset).state_dict(), {}).to_bytes(torch.float16))
    for seconds in (1, 2, 3):
        put(tmp_path / "songs" / f"{seconds}.wav", noise(1, 8000 * seconds), 8000)
    common = ["separate", tmp_path / "songs", "--out", tmp_path / "out", "--workers", "1"]
    unbraid(*common, "--model", untrained)
    again = [*common, "--model", other, "--where", "duration_s > 1.5"]
    dry = unbraid(*again, "--dry-run")
    assert "2 tracks (0.00 hours) would be separated; 0 done, 0 failed before, 1 not chosen" in dry.stdout
    assert unbraid(*again).returncode == 0
    on_disk = query(tmp_path / "out", "select distinct path, model_id from metrics where on_disk order by path")
    first, *others = on_disk.to_pylist()
    assert first["path"] == "1.wav"
    assert {row["model_id"] for row in others}.isdisjoint({first["model_id"]})
    misspelt = unbraid(*common, "--where", "duration > 2")
    assert misspelt.returncode == 1
    (sentence,) = misspelt.stderr.splitlines()
    assert "duration_s" in sentence
