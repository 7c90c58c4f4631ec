"""The notebooks of the documentation run from top to bottom, and what they show is stored in them."""

from pathlib import Path

import pytest

from storage.audio.reader import read
from storage.audio.writer import write

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def pictures(cells) -> list[int]:
    """How many pictures each cell of code shows."""
    shown = [[output.get("data", {}) for output in cell.outputs] for cell in cells if cell.cell_type == "code"]
    return [sum("image/png" in data for data in outputs) for outputs in shown]


@pytest.mark.whole
@pytest.mark.xdist_group("flows")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored_in_it(path, tmp_path, monkeypatch):
    monkeypatch.delenv("DSD100", raising=False)
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    resources = {"metadata": {"path": str(tmp_path)}}
    ran = nbclient.NotebookClient(nbformat.from_dict(stored), timeout=300, resources=resources).execute()
    assert pictures(ran.cells) == pictures(nbformat.read(path, as_version=4).cells)


def test_there_are_two_and_they_are_small():
    assert [path.stem for path in NOTEBOOKS] == ["dsd100", "spectrograms"]
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 2_000_000


@pytest.mark.proof
@pytest.mark.real
@pytest.mark.xdist_group("flows")
def test_the_notebook_on_dsd100_takes_one_that_is_there(shared_data, tmp_path, monkeypatch):
    """Six real songs in DSD100's layout, named by its variable, in place of the synthetic ones."""
    songs = sorted(path for path in (shared_data / "musdb18_7s" / "train").iterdir() if path.is_dir())[:6]
    for number, song in enumerate(songs):
        half = "Test" if number == 5 else "Dev"
        stems = {file.stem: read(file) for file in sorted(song.iterdir())}
        samples = min(audio.shape[1] for audio, _ in stems.values())
        for stem, (audio, rate) in stems.items():
            write(tmp_path / "DSD100" / "Sources" / half / song.name / f"{stem}.wav", audio[:, :samples], rate)
        mixture = sum(audio[:, :samples] for audio, _ in stems.values())
        write(tmp_path / "DSD100" / "Mixtures" / half / song.name / "mixture.wav", mixture, rate)
    monkeypatch.setenv("DSD100", str(tmp_path / "DSD100"))
    stored = nbformat.read(FOLDER / "dsd100.ipynb", as_version=4)
    ran = nbclient.NotebookClient(stored, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in ran.cells for output in cell.get("outputs", []))
    assert "6 tracks, stems:" in printed
    assert "songs in both halves:   none" in printed
    assert pictures(ran.cells) == pictures(nbformat.read(FOLDER / "dsd100.ipynb", as_version=4).cells)
