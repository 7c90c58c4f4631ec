import csv
import io
import json
import socket
import threading
import time
import urllib.parse

import pytest
from starlette.testclient import TestClient

from flows.pages.server import application
from storage.audio.reader import read
from storage.sources.catalog import list_catalog
from tests.chromium import LAGS, chromium, page, until
from tests.tasks.pages.made import HOSTILE, MODEL, made_run

TOKEN = "key"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    source = tmp_path_factory.mktemp("music")
    root = tmp_path_factory.mktemp("out")
    made_run(root, source=source)
    made = made_run(root, "separate-20260102T000000-bbbbbb", source=source)
    (source / "song 1.wav").write_bytes((root / "stems" / "track-1" / "vocals.wav").read_bytes())
    (root.parent / "secret.wav").write_bytes((root / "stems" / "track-1" / "vocals.wav").read_bytes())
    return made


@pytest.fixture(scope="module")
def app(out):
    return application(out, TOKEN)


@pytest.fixture
def client(app):
    with_host = TestClient(app, base_url="http://127.0.0.1")
    return with_host


def url(path: str, **values: str) -> str:
    return f"/{TOKEN}/{path}" + (f"?{urllib.parse.urlencode(values)}" if values else "")


def of(name: str) -> dict[str, str]:
    return {"id": f"id/{name}", "model": MODEL}


@pytest.mark.parametrize("path", ["/", "/wrong/", "/key", "//", "/wrong/file?id=id/song 1.wav"])
def test_nothing_is_shown_without_the_key(client, path):
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code in (404, 307)
    assert "song" not in answer.text


def test_another_name_for_this_machine_is_refused(client):
    assert client.get(url(""), headers={"Host": "evil.example"}).status_code == 404
    assert client.get(url(""), headers={"Host": "localhost:8000"}).status_code == 200


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_it_only_reads(client, method):
    assert getattr(client, method)(url("track", **of("song 1.wav"))).status_code == 405


def test_names_are_escaped(client):
    for path in (url(""), url("track", **of(HOSTILE))):
        text = client.get(path).text
        assert "&lt;script&gt;document.title" in text
        assert HOSTILE not in text
        assert "<img src=x" not in text


def test_search_filter_sort_and_sql_return_the_matching_tracks(client):
    assert "1 track of 5" in client.get(url("", text="SONG 2")).text
    assert "2 tracks of 5" in client.get(url("", column="sdr", **{"is": "≥"}, value="6")).text
    assert "2 tracks of 5" in client.get(url("", where="sdr < 6")).text
    text = client.get(url("", order="sdr", descending="1")).text
    assert text.index("song 3.wav") < text.index("song 2.wav") < text.index("song 1.wav")
    assert "<td>5.50</td>" in client.get(url("", sql="select median(sdr) as m from tracks")).text


@pytest.mark.parametrize(
    "condition",
    ["nonsense <", "1=1) or (1=1", "exists(from read_text('/etc/hostname'))", "1=1); drop table tracks; --"],
)
def test_a_condition_cannot_write_or_reach_a_file(client, condition):
    text = client.get(url("", where=condition)).text
    assert "does not work" in text or "one SELECT" in text or "5 tracks" in text
    assert "5 tracks" in client.get(url("")).text


@pytest.mark.parametrize(
    "sql", ["drop table tracks", "copy tracks to '/tmp/x'", "set threads = 1", "select 1; select 2"]
)
def test_a_statement_that_is_not_a_select_is_a_sentence(client, sql):
    assert 'role="alert"' in client.get(url("", sql=sql)).text


def test_a_value_of_another_type_is_a_sentence(client):
    assert "many is not a number; sdr needs one" in client.get(url("", column="sdr", **{"is": "<"}, value="many")).text


def test_a_long_file_is_sent_in_ranges(client, out):
    complete = client.get(url("file", stem="vocals", **of("song 1.wav")))
    part = client.get(url("file", stem="vocals", **of("song 1.wav")), headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == complete.content[100:200]
    assert complete.content == (out.root / "stems" / "track-1" / "vocals.wav").read_bytes()


def test_a_chunk_is_that_stretch_of_the_stem(client, out, tmp_path):
    answer = client.get(url("audio", stem="vocals", start="1", seconds="0.5", **of("song 1.wav")))
    (tmp_path / "chunk.wav").write_bytes(answer.content)
    chunk, rate = read(tmp_path / "chunk.wav")
    stem, _ = read(out.root / "stems" / "track-1" / "vocals.wav")
    assert chunk.shape == (2, rate // 2)
    assert abs(chunk - stem[:, rate : rate + rate // 2]).max() < 1e-4


def test_a_mixture_that_is_gone_is_the_sum_of_its_stems(client, out, tmp_path):
    answer = client.get(url("audio", stem="mixture", start="0", seconds="2", **of("song 2.wav")))
    (tmp_path / "chunk.wav").write_bytes(answer.content)
    chunk, rate = read(tmp_path / "chunk.wav")
    stems = [read(out.root / "stems" / "track-2" / f"{stem}.wav")[0] for stem in ("vocals", "accompaniment")]
    assert abs(chunk - sum(stems)[:, : 2 * rate]).max() < 1e-4


@pytest.mark.parametrize("stem", ["../../secret", "/etc/passwd", "drums", ""])
def test_only_stems_of_the_track_are_sent(client, stem):
    for path in ("file", "audio", "picture"):
        assert client.get(url(path, stem=stem, **of("song 1.wav"))).status_code == 404


def test_a_row_that_names_a_file_elsewhere_opens_nothing(out):
    from storage.errors import MetricsError
    from tasks.pages.catalog import CatalogFiles

    files = CatalogFiles(out)
    with pytest.raises(MetricsError, match="does not lie under"):
        files.stem("../secret.wav")
    assert files.source(str(out.root.parent / "secret.wav")) is None
    assert files.source("/etc/passwd") is None
    assert files.source(None) is None


def test_a_shortlist_is_a_manifest_that_separate_reads(client, tmp_path):
    ids = ["id/song 1.wav", "id/nobody", f"id/{HOSTILE}"]
    answer = client.post(url("shortlist.csv"), data={"ids": json.dumps(ids)})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["track_id"] for row in rows] == ["id/song 1.wav", f"id/{HOSTILE}"]
    (tmp_path / "list.csv").write_text(answer.text)
    assert {track.track_id for track in list_catalog(tmp_path / "list.csv")} == {row["track_id"] for row in rows}


def test_pages_may_run_our_scripts_and_no_others(client):
    first, second = (client.get(url("")) for _ in range(2))
    policy = first.headers["content-security-policy"]
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert f'<script nonce="{nonce}">' in first.text
    assert nonce not in second.text
    assert "default-src 'none'" in policy


@pytest.fixture(scope="module")
def address(app):
    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/{TOKEN}/"
        server.should_exit = True
        thread.join(10)


def test_in_a_browser_the_catalog_is_searched_heard_and_shortlisted(address, tmp_path):
    with chromium(tmp_path / "profile") as browser:
        for width, dark in ((1280, False), (400, True)):
            with page(browser, address, width=width, dark=dark) as opened:
                assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
                opened.locator(".star[aria-pressed=false]").first.click()
                assert opened.locator("#shortlist b").inner_text() == ("2 tracks" if dark else "1 track")
                opened.get_by_label("Part of a path").fill("song 1")
                opened.keyboard.press("Enter")
                opened.get_by_role("link", name="song 1.wav").click()
                opened.wait_for_selector(".player[data-player]")
                until(opened, "[...document.images].every((image) => image.complete && image.naturalWidth > 100)")
                assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
                opened.locator(".player").focus()
                opened.keyboard.press("Space")
                until(opened, "unbraid.players[0].playing && unbraid.players[0].now() > 0.2")
                lags = opened.evaluate(LAGS, 0)
                assert all(lag is not None and abs(lag) < 10 for lag in lags), lags
                opened.keyboard.press("Space")
