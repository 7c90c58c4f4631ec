"""The documents' commands typed by a reader, for real: by a shell, one after the other, in a folder of songs."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import soundfile as sf

from storage.results.query import query
from tasks.demo.compose import write_songs
from tasks.demo.synthesiser import RATE, compose
from tests.documents import DOCUMENTS, ROOT, commands, steps
from tests.presets import write_own_preset

pytestmark = [pytest.mark.proof, pytest.mark.whole, pytest.mark.xdist_group("flows"), pytest.mark.timeout(2400)]

# Options that make a command short; nothing else is changed but ids, which differ from machine to machine.
_SMALL = "--set batch_size=2 --set frames=128 --set warmup=1 --set validate_every=2"
SHORTER = {"train": f"--steps 2 {_SMALL}", "retrain": f"--steps 2 {_SMALL}", "tune": "--trials 1 --steps 1"}
# What a reader has and a test has not, and where it is tested instead.
ELSEWHERE = {
    "demucs:": "tests/model/separation/test_foreign.py",
    "openunmix:": "tests/model/separation/test_foreign.py",
    "tcp://": "tests/flows/test_cluster_run.py",
    "s3://": "tests/flows/test_object_store_run.py",
    "unbraid demo": "tests/flows/test_demo.py",
}
_ALONE = ("unbraid models",)  # the only verbs that do something without arguments and at once


class Reader:
    """Types commands in a folder. HOME is the folder too, so that ~/Music is the folder's Music."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._trained = ""
        quiet = {"HOME": str(folder), "UNBRAID_MODELS": str(folder / "models"), "UNBRAID_QUIET": "1"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, **quiet, "PATH": path}

    def types(self, line: str) -> str:
        """What a command prints; it must end with exit code 0."""
        verb = line.split()[1]
        line = self._with_ids(line.partition(" #")[0].strip())
        print(line, flush=True)  # pytest -s shows how far it is
        if verb == "browse":
            return self._browses(line)
        if verb in SHORTER:
            line = f"{line} {SHORTER[verb]}"
        done = self._shell(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, f"{line}\n{done.stderr}"
        assert done.stdout.strip(), f"{line} prints nothing"
        if verb == "train" and (trained := re.match(r"stereo-[0-9a-f]{8}", done.stdout)):
            self._trained = trained[0]
        return done.stdout

    def python(self, code: str) -> None:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=self.folder, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stderr}"

    def _shell(self, line: str) -> subprocess.CompletedProcess:
        command = ["bash", "-c", line]
        return subprocess.run(command, cwd=self.folder, env=self._environment, capture_output=True, text=True)

    def _browses(self, line: str) -> str:
        """Opens the address that is printed, and presses Ctrl-C."""
        server = subprocess.Popen(
            ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            address = said.split()[-1]
            assert address.startswith("http://127.0.0.1:"), said
            with urllib.request.urlopen(address) as answer:
                page = answer.read().decode()
            assert "<table>" in page
            server.send_signal(signal.SIGINT)
            assert server.wait(30) in (0, 130)
            return page
        finally:
            server.kill()
            server.wait()

    def _with_ids(self, line: str) -> str:
        """The line with the ids of this folder's models and runs in place of the document's."""
        line = re.sub(r"\b(ID|stereo-1a2b3c4d)\b", self._trained, line)
        for kind in ("separate", "evaluate"):
            names = sorted(path.stem for path in (self.folder / "OUT" / "runs").glob(f"{kind}-*.json"))
            for document, run in zip(re.findall(rf"{kind}-\d{{8}}T\d{{6}}-[0-9a-f]{{6}}", line), names, strict=False):
                line = line.replace(document, run)
        return line


def song(file: Path, seed: int, seconds: float = 24.0) -> None:
    """A song with a beat, at a tempo that goes with the other songs'."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sf.write(file, compose(seed, seconds, tempo=110.0 + seed % 3 * 4).mixture.T, RATE)


@pytest.fixture
def reader(tmp_path) -> Reader:
    return Reader(tmp_path)


def test_the_tutorial_runs_from_a_folder_of_songs_to_a_mash_up(reader):
    for seed, name in enumerate("AB", 71):
        song(reader.folder / "Music" / f"{name}.flac", seed)
    (reader.folder / "Music" / "broken.flac").write_bytes(b"")
    separated = "unbraid separate Music --out OUT"
    said = ""
    for language, text in steps(ROOT / "docs" / "tutorial.md"):
        if language == "python":
            reader.python(text)
        for line in text.splitlines() if language in ("", "inline") else ():
            if line == separated:  # the broken file is a row, and exit code 3, which the tutorial explains
                assert reader._shell(separated).returncode == 3
            else:
                said += reader.types(line)
    assert "2 tracks" in said or "3 tracks" in said
    assert "broken.flac" in said
    assert (reader.folder / "OUT" / "stems" / "A" / "vocals.flac").exists()
    mixed = query(reader.folder / "OUT", "select status from mashups").to_pylist()
    assert {"status": "ok"} in mixed
    assert list((reader.folder / "OUT" / "mixes").glob("A over B */mix.flac"))


def test_the_guide_to_training_runs_from_a_dataset_to_a_decision(reader):
    write_songs(reader.folder / "DSD100", train=5, test=1, seconds=8.0)
    write_songs(reader.folder / "more-songs", train=2, test=0, seconds=8.0, seed=40)
    write_own_preset(reader.folder)
    for line in commands(ROOT / "docs" / "training.md"):
        if line != "unbraid demo":
            reader.types(line)
    assert query(reader.folder / "OUT", "select reason from decisions").num_rows == 1


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Reader:
    """A folder with everything that the commands of the other documents name."""
    root = tmp_path_factory.mktemp("studio")
    lengths = {"song.flac": 42.0, "A.mp3": 24.0, "B.flac": 24.0}  # to draw from 0:30 on, and to have a beat
    names = ("Lithium.flac", "song.wav", "song.mp3", "a.mp3", "b.mp3", "b.flac", "Music/A.flac", *lengths)
    for seed, name in enumerate(names, 71):
        song(root / name, seed, lengths.get(name, 8.0))
    for name in ("list.csv", "shortlist.csv"):
        with open(root / name, "w", newline="") as file:
            csv.writer(file).writerows([["path"], [root / "song.flac"]])
    write_songs(root / "DSD100", train=5, test=1, seconds=8.0)
    write_songs(root / "new-songs", train=2, test=0, seconds=8.0, seed=40)
    for track in (root / "DSD100" / "Sources" / "Dev").iterdir():
        for stem, folder in (
            ("vocals", "karaoke-pairs/voice"), ("other", "karaoke-pairs/music"), ("bass", "instrumentals"),
        ):  # fmt: skip
            (root / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(track / f"{stem}.wav", root / folder / f"{track.name[:3]}.wav")
    for half in ("Dev", "Test"):
        for track in (root / "DSD100" / "Sources" / half).iterdir():
            split = "train" if half == "Dev" else "test"
            shutil.copytree(track, root / "musdb18" / split / track.name)
    for name in ("data", "FOLDER"):
        shutil.copytree(root / "musdb18", root / name)
    write_own_preset(root)
    return Reader(root)


def test_every_other_command_runs_where_it_can(studio):
    """In one test and in the documents' order: later ones go on with what earlier ones made."""
    done, failures = set(), []
    for document in DOCUMENTS:
        for line in commands(document) if document.name not in ("tutorial.md", "training.md") else ():
            mentioned = " " not in line.removeprefix("unbraid ") and line not in _ALONE
            if mentioned or line in done or any(word in line for word in ELSEWHERE):
                continue
            done.add(line)
            try:
                studio.types(line)
            except AssertionError as error:  # the others are worth running: this takes long
                failures.append(f"{document.name}: {error}")
    assert not failures, "\n\n".join(failures)
    assert len(done) > 50


def test_what_runs_elsewhere_is_tested_there():
    assert all((ROOT / test).is_file() for test in ELSEWHERE.values())
