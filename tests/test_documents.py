"""README and docs say what is so: commands parse, snippets run, tables have the columns that they are said to have."""

import re
import shlex
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from flows.cli import main
from storage.files.layout import OutputLayout
from storage.results.metrics import FAILED, OK, SCHEMA, StemRow, compact, write_part
from storage.results.query import query
from tests.signals import noise

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a document in one language; "" is none, and indented fences (tabs of the site) count."""
    fenced = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", document.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(f"(?m)^{indent}", "", text) for indent, named, text in fenced if named == language]


def commands() -> list[tuple[str, str]]:
    """(document, command) for every `unbraid …` in a block or in a table's code."""
    lines = []
    for document in DOCUMENTS:
        text = "\n".join([*blocks(document, ""), *blocks(document, "console"), *blocks(document, "bash")])
        lines += [(document.name, part.strip()) for line in text.splitlines() for part in line.split(";")]
        lines += [(document.name, code) for code in re.findall(r"`(unbraid [^`…]+)`", document.read_text())]
    return [(name, line.removeprefix("$ ")) for name, line in lines if line.removeprefix("$ ").startswith("unbraid ")]


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """A run folder with rows of two models and a failed track."""
    root = tmp_path_factory.mktemp("documents") / "OUT"
    layout = OutputLayout(root)
    broken = StemRow("stereo-00000000", "bad.wav", "bad.wav", None, FAILED, error="broken", error_class="AudioError")
    rows = [broken]
    for track in ("a.wav", "b.wav"):
        for model, sdr in (("stereo-00000000", 5.0), ("hq-00000000", 6.0), ("ceiling:irm", 10.0)):
            rows += [
                StemRow(
                    model, track, track, stem, OK, sdr=sdr, scenario="vocals/accompaniment", duration_s=60.0,
                    seconds=1.0, loudness_lufs=-20.0, true_peak_db=0.5, activity=0.7,
                )
                for stem in ("vocals", "accompaniment")
            ]  # fmt: skip
    write_part(layout, "separate-20260101T000000-000000", rows)
    compact(layout, "separate-20260101T000000-000000")
    return root


@pytest.mark.parametrize(("document", "line"), commands())
def test_every_command_is_one_that_unbraid_takes(document, line, out, tmp_path, monkeypatch):
    for name in ("JSON", "Music", "OUT"):  # folders that options check
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(line, comments=True)[1:]
    if arguments[0] == "query" and len(arguments) > 2:
        arguments[1] = str(out)
        tables = re.search(r"from (mashups|decisions|trials)", arguments[2])
        if tables is None:  # asked for real; the other tables are not in this folder
            query(Path(arguments[1]), arguments[2])
    context = click.Context(main, info_name="unbraid")
    command: click.Command = main
    while isinstance(command, click.Group) and arguments:
        verb = command.get_command(context, arguments[0])
        assert verb is not None, f"{document}: unbraid has no verb {arguments[0]}"
        command, arguments = verb, arguments[1:]
    if len(shlex.split(line, comments=True)) > 2:  # a bare verb is only mentioned
        command.make_context(command.name, arguments)


def test_there_are_commands_to_check():
    assert len(commands()) > 50


@pytest.mark.parametrize(
    ("document", "snippet"),
    [(document.name, code) for document in DOCUMENTS for code in blocks(document, "python")],
)
def test_every_python_snippet_runs(document, snippet, out, untrained, tmp_path, monkeypatch):
    import unbraid

    (tmp_path / "OUT").symlink_to(out)
    sf.write(tmp_path / "song.flac", noise(2, 8000).T, 44100)
    monkeypatch.chdir(tmp_path)
    # The shipped weights would say the same and take longer.
    weights = unbraid.load(str(untrained), device="cpu")
    monkeypatch.setattr(unbraid, "load", lambda *_, **__: weights)
    exec(compile(snippet, document, "exec"), {})


@pytest.mark.parametrize("sql", blocks(ROOT / "docs" / "schema.md", "sql"))
def test_every_question_of_the_tables_page_has_an_answer(sql, out):
    assert query(out, sql).num_rows > 0


def test_there_are_ten_questions():
    assert len(blocks(ROOT / "docs" / "schema.md", "sql")) == 10


def test_the_tables_page_lists_the_columns_that_there_are(out):
    text = (ROOT / "docs" / "schema.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE)
    assert listed == [(field.name, str(field.type).split("[")[0].replace("double", "float64")) for field in SCHEMA]
    (file,) = out.glob("metrics/run_id=*/*.parquet")
    assert {name for name, _ in listed} - {"run_id"} <= set(pq.read_schema(file).names)


def test_commands_of_other_tools_name_what_is_there():
    text = "\n".join(document.read_text() for document in [*DOCUMENTS, ROOT / "ARCHITECTURE.md"])
    absent = {script for script in re.findall(r"(?:python |`)(bench/\w+\.\w+)", text) if not (ROOT / script).exists()}
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    absent |= {target for target in re.findall(r"^make (\w+)", text, re.MULTILINE) if target not in targets}
    assert not absent
