"""The page on predictions: its ten questions, asked of a small output that the shipped weights made."""

import re
from pathlib import Path

import numpy as np
import pytest

from storage.audio.writer import write
from storage.files.layout import OutputLayout
from storage.results import metrics
from storage.results.metrics import StemRow
from storage.results.query import query
from storage.sources.catalog import CatalogTrack
from storage.sources.datasets import Source
from tasks.demo.synthesiser import RATE, compose
from tasks.loading import model_stems
from tasks.separate import score_batch, separate_batch
from tasks.separation import SeparateSettings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "predictions.md"
QUESTIONS = re.findall(r"^(\w[^\n]*\?)\n\n```sql\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
SECONDS = 6.0


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> OutputLayout:
    """Three made songs of six seconds, one with its voice 20 dB down, by `stereo`; the worst again by `hq`."""
    from mutagen.flac import FLAC

    root = tmp_path_factory.mktemp("predictions")
    tracks = []
    for seed, gain in enumerate((1.0, 1.0, 0.1)):
        name = f"Pop/{seed}.flac"
        stems = compose(seed, SECONDS).stems
        stems["vocals"] = stems["vocals"] * gain
        accompaniment = np.sum([audio for stem, audio in stems.items() if stem != "vocals"], axis=0)
        references = {"vocals": stems["vocals"], "accompaniment": accompaniment}
        for stem, audio in references.items():
            write(root / "stems" / str(seed) / f"{stem}.flac", audio, RATE, name="flac")
        write(root / name, stems["vocals"] + accompaniment, RATE, name="flac")
        file = FLAC(root / name)
        file["genre"] = "Synthetic"
        file.save()
        sources = tuple((stem, Source(str(root / "stems" / str(seed) / f"{stem}.flac"))) for stem in references)
        tracks.append(CatalogTrack(name, name, str(root / name), references=sources))
    layout = OutputLayout(root / "OUT")
    for run_id, model, chosen in (
        ("separate-20260101T000000-aaaaaa", "stereo", tracks),
        ("separate-20260102T000000-bbbbbb", "hq", tracks[2:]),
    ):
        model_id, separated = model_stems(model)
        settings = SeparateSettings(
            out=str(layout.root), model=model, device="cpu", model_id=model_id, stems=separated, engine="sdr"
        )
        results = score_batch(settings, chosen, separate_batch(settings, chosen))
        rows = [row for row in results if isinstance(row, StemRow)]
        metrics.write_part(layout, run_id, rows)
        metrics.compact(layout, run_id)
    return layout


def test_there_are_ten_questions():
    assert len(QUESTIONS) == 10


@pytest.mark.parametrize(("question", "sql"), QUESTIONS, ids=[question for question, _ in QUESTIONS])
def test_every_question_has_an_answer(out, question, sql):
    answer = query(out.root, sql)
    assert answer.num_rows > 0
    assert all(column.null_count < len(column) for column in answer.columns)


def test_the_answers_match_the_songs_that_were_made(out):
    answers = {question: query(out.root, sql).to_pylist() for question, sql in QUESTIONS}
    buried = "Pop/2.flac"  # its voice can hardly be found
    assert answers["Which tracks came out worst?"][0]["path"] == buried
    assert [row["path"] for row in answers["What did the slower model change?"]] == [buried]
    (much,) = answers["How much would it be to do the worst again?"]
    assert much["hours"] == pytest.approx(much["tracks"] * SECONDS / 3600)
    assert answers["Which genres?"][0]["genre"] == "Synthetic"
    assert [row["tracks"] for row in answers["Does the quality drift from run to run?"]] == [3, 1]
