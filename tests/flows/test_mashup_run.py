"""Mash-ups as a user makes them: two files, then a catalog."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import soundfile as sf
from click.testing import CliRunner

from flows.cli import main
from flows.mashup import mashup
from storage.files.layout import OutputLayout
from storage.results.rows import read_rows
from tasks.demo.synthesiser import RATE, compose
from tests.signals import noise

pytestmark = [pytest.mark.whole, pytest.mark.xdist_group("flows")]


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("songs")
    for name, seed, tempo in (("one", 71, 110.0), ("two", 72, 118.0)):
        sf.write(root / f"{name}.flac", compose(seed, 24.0, tempo=tempo).mixture.T, RATE)
    sf.write(root / "noise.flac", 0.1 * noise(2, RATE * 20).T, RATE)
    return root


def test_two_songs_a_catalog_and_a_misfit(folder, untrained, tmp_path):
    out = tmp_path / "out"
    made = run("mashup", folder / "one.flac", folder / "two.flac", "--out", out, "--model", untrained, "--workers", "1")
    assert made.exit_code == 0, made.output
    assert "alignment score" in made.output
    (row,) = read_rows(OutputLayout(out), "mashups").to_pylist()
    assert (out / row["folder"] / "mix.flac").exists()
    # The stems are there now: two mash-ups at once separate nothing, and make a mix each.
    songs = [str(folder / "one.flac"), str(folder / "two.flac")]
    with ThreadPoolExecutor() as pool:
        again, turned = pool.map(lambda pair: mashup(*pair, str(out), model=str(untrained)), [songs, songs[::-1]])
    assert (again.exit_code, again.rows[0].folder) == (0, row["folder"])
    assert (turned.exit_code, (out / turned.rows[0].folder / "mix.flac").exists()) == (0, True)
    assert len(list((out / "runs").glob("separate*.json"))) == 1
    misfit = run("mashup", folder / "one.flac", folder / "noise.flac", "--out", out, "--model", untrained)
    assert misfit.exit_code == 4, misfit.output
    assert "no beat" in misfit.output
    ranked = run("mashup", "--find", out, "--top", "5", "--render", "1", "--workers", "1")
    assert ranked.exit_code == 0, ranked.output
    assert "bpm" in ranked.output
    layout = OutputLayout(out)
    assert len(read_rows(layout, "analyses")) == 3
    assert {row["status"] for row in read_rows(layout, "mashups").to_pylist()} == {"ok", "misfit"}
    assert "one.flac" in run("query", out, "select vocals_of from pairs order by rank").output


def test_a_song_that_cannot_be_separated_is_a_sentence_and_exit_1(folder, untrained, tmp_path):
    (tmp_path / "broken.mp3").write_bytes(b"no music at all")
    broken = run(
        "mashup", folder / "one.flac", tmp_path / "broken.mp3", "--out", tmp_path / "out", "--model", untrained
    )
    assert broken.exit_code == 1
    assert "broken.mp3" in broken.output
    assert run("mashup", folder / "one.flac").exit_code == 2
    assert run("mashup", "--find", tmp_path / "nowhere").exit_code == 1
