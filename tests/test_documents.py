"""README and docs say what is so: commands parse and the cheap ones run, snippets run, tables have the columns they are
said to have. `test_walkthroughs.py` runs all commands.
"""

import contextlib
import re
import shlex
import shutil
import textwrap
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from click.testing import CliRunner

from flows.cli import main
from storage import runs
from storage.files.layout import OutputLayout
from storage.results import rows, windows
from storage.results.metrics import FAILED, OK, SCHEMA, StemRow, compact, write_part
from storage.results.query import query
from storage.results.training_rows import TrialRow
from tests.documents import DOCUMENTS, ROOT, blocks, commands
from tests.signals import noise

SCHEMA_PAGE = ROOT / "docs" / "schema.md"
RUN = "separate-20260101T000000-000000"


COMMANDS = [(document.name, line) for document in DOCUMENTS for line in commands(document)]


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
    write_part(layout, RUN, rows)
    compact(layout, RUN)
    return root


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_unbraid_accepts_every_command(document, line, out, tmp_path, monkeypatch):
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


@pytest.fixture(scope="module")
def studio(out, tmp_path_factory) -> Path:
    """A folder with what the documents' commands name: songs, a run folder, a search."""
    root = tmp_path_factory.mktemp("studio")
    (root / "Music").mkdir()
    for name, seconds in (("song.flac", 41), ("Music/A.flac", 1), ("Music/B.flac", 1)):
        sf.write(root / name, noise(2, seconds * 8000).T, 8000)
    shutil.copytree(out, root / "OUT")
    runs.begin(OutputLayout(root / "OUT"), RUN, {"source": "Music"})
    runs.end(OutputLayout(root / "OUT"), RUN, runs.COMPLETED, {})
    rows.write_rows(
        OutputLayout(root / "TRIALS"), "tune-20260101T000000-000000", [TrialRow(0, "stereo", "{}", "ok", 5.0)]
    )
    return root


def run(folder: Path, line: str) -> str:
    """What a command prints, run in this process."""
    with contextlib.chdir(folder):
        result = CliRunner().invoke(main, shlex.split(line, comments=True)[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


CHEAP = ("spectrogram", "query OUT", "report OUT #", "report TRIALS", "models")


def cheap(line: str) -> bool:
    """Is it done in a second in the studio, and are the models and runs that it names there?"""
    if re.search(r"from (mashups|decisions|trials)|show|promote|rollback|…|~", line):
        return False
    rest = line.removeprefix("unbraid ")
    return (
        "--dry-run" in line
        or rest == "report OUT"
        or any(rest == start or rest.startswith(f"{start} ") for start in CHEAP)
    )


def test_commands_that_take_a_second_run(studio):
    """In one test, since its folder is what costs: every cheap command of README and docs, for real."""
    lines = dict.fromkeys(shlex.join(shlex.split(line, comments=True)) for _, line in COMMANDS if cheap(line))
    assert len(lines) >= 12
    for line in lines:
        assert run(studio, line).strip(), line


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 50


@pytest.mark.parametrize(
    ("document", "snippet"),
    [
        (document.name, code)
        for document in DOCUMENTS
        for code in blocks(document, "python")
        if document != SCHEMA_PAGE or "import" in code  # its questions go on from what was loaded: below
    ],
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


def questions() -> list[tuple[str, dict[str, str]]]:
    """(question, tool → code) of the tables page."""
    parts = re.split(r"(?m)^### \d+\. ", SCHEMA_PAGE.read_text().partition("\n## Without Unbraid")[0])[1:]
    tab = r'^=== "(\w+)"\n\n    ```\w+\n(.*?)^    ```$'
    return [(part.splitlines()[0], dict(re.findall(tab, part, re.MULTILINE | re.DOTALL))) for part in parts]


def test_there_are_ten_questions_for_each_of_three_tools():
    assert [list(code) for _, code in questions()] == [["DuckDB", "pandas", "polars"]] * 10


@pytest.fixture(scope="module")
def loaded(out) -> dict[str, dict]:
    """What the page's first snippets of pandas and polars leave behind."""
    text = SCHEMA_PAGE.read_text().partition("## Ten useful questions")[2].partition("### 1. ")[0]
    spaces: dict[str, dict] = {}
    with contextlib.chdir(out.parent):
        for tool, code in re.findall(r'^=== "(\w+)"\n\n    ```python\n(.*?)^    ```$', text, re.MULTILINE | re.DOTALL):
            spaces[tool] = {}
            exec(textwrap.dedent(code), spaces[tool])
    return spaces


@pytest.mark.parametrize(("question", "code"), questions(), ids=lambda value: value if isinstance(value, str) else "")
def test_three_tools_give_the_same_answer(question, code, out, loaded):
    sql = query(out, textwrap.dedent(code["DuckDB"]))
    assert sql.num_rows > 0
    answers = [sql.to_pylist()]
    for tool in ("pandas", "polars"):
        space = dict(loaded[tool])
        exec(textwrap.dedent(code[tool]), space)
        rows = space["answer"]
        answers.append(rows.to_dict("records") if tool == "pandas" else rows.to_dicts())
    assert [plain(rows) for rows in answers] == [plain(answers[0])] * 3


def plain(rows: list[dict]) -> list[list[str]]:
    """Rows in sorted order, without the columns' names, in which None and NaN are one."""
    return sorted([_text(value) for value in row.values()] for row in rows)


def _text(value) -> str:
    if value is None or value != value:
        return ""
    if hasattr(value, "timestamp"):
        return f"{value.timestamp():.3f}"
    return str(value) if isinstance(value, str) else f"{value:.6f}"


def test_the_tables_page_lists_the_columns_that_there_are(out):
    listed = documented_columns("The columns of `metrics`")
    assert listed == types_of(SCHEMA)
    (file,) = out.glob("metrics/run_id=*/*.parquet")
    assert {name for name, _ in listed} - {"run_id"} <= set(pq.read_schema(file).names)


@pytest.mark.parametrize("table", ["windows", *rows.TABLES])
def test_the_tables_page_lists_the_columns_of_every_table(table):
    schema = windows.SCHEMA if table == "windows" else rows.schema(table)
    assert documented_columns(f"# {table}\n") == types_of(schema)[1:]  # all but run_id


def documented_columns(heading: str) -> list[tuple[str, str]]:
    text = re.split(r"(?m)^##", SCHEMA_PAGE.read_text().partition(heading)[2])[0]
    return re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE)


def types_of(schema) -> list[tuple[str, str]]:
    return [(field.name, str(field.type).split("[")[0].replace("double", "float64")) for field in schema]


def test_commands_of_other_tools_name_existing_files():
    text = "\n".join(document.read_text() for document in [*DOCUMENTS, ROOT / "ARCHITECTURE.md"])
    absent = {script for script in re.findall(r"(?:python |`)(bench/\w+\.\w+)", text) if not (ROOT / script).exists()}
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    absent |= {target for target in re.findall(r"^make (\w+)", text, re.MULTILINE) if target not in targets}
    assert not absent
