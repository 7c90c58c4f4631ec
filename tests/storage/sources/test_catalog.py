import csv
import os
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import runs
from storage.audio.reader import read
from storage.errors import CatalogError, StorageError
from storage.files.layout import OutputLayout, source_name
from storage.sources.catalog import list_catalog, stream_catalog
from storage.sources.manifest import _prefix, _source_and_place


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.zeros((10, 1)), 8000, format="WAV")


def test_a_folder_lists_every_audio_file_below_once(tmp_path):
    for name in ("a/x.wav", "b/x.wav", "b/c/Y.FLAC", "z.mp3"):
        touch(tmp_path / name)
    for name in ("cover.jpg", ".hidden.wav", "a/._x.wav"):
        (tmp_path / name).write_text("")
    (tmp_path / "b" / "up").symlink_to(tmp_path)  # a link back up must not end in a circle
    assert [t.path for t in list_catalog(tmp_path)] == ["a/x.wav", "b/c/Y.FLAC", "b/x.wav", "z.mp3"]


def test_a_stream_lists_the_same_tracks_in_the_same_order_each_time(tmp_path):
    for name in ("b/x.wav", "a/x.wav", "z.mp3", "b/c/Y.FLAC"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    streamed = [track.path for track in stream_catalog(tmp_path)]
    assert streamed == [track.path for track in stream_catalog(tmp_path)]
    assert sorted(streamed) == [track.path for track in list_catalog(tmp_path)]


def test_a_glob_names_the_files_that_match_below_its_fixed_part(tmp_path):
    for name in ("m/a/one.flac", "m/b/two.flac", "m/b/two.txt", "n/three.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [t.path for t in stream_catalog(f"{tmp_path}/m/**/*.flac")] == ["a/one.flac", "b/two.flac"]
    with pytest.raises(CatalogError, match="nothing matches"):
        list(stream_catalog(f"{tmp_path}/m/*.ogg"))


def test_what_is_named_like_a_track_is_listed_even_if_it_is_not_one(tmp_path):
    touch(tmp_path / "good.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "dangling.flac").symlink_to("/nowhere")
    assert [t.path for t in list_catalog(tmp_path)] == ["dangling.flac", "folder.wav", "good.wav"]


def test_a_folder_named_like_a_file_with_songs_in_it_is_a_folder(tmp_path):
    touch(tmp_path / "Live.wav" / "one.wav")
    assert [t.path for t in list_catalog(tmp_path)] == ["Live.wav/one.wav"]


def test_a_file_name_that_is_not_utf8_can_be_shown(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    touch(tmp_path / "x.wav")
    (tmp_path / "x.wav").rename(tmp_path / name)
    (track,) = list_catalog(tmp_path)
    assert track.path == "caf\\xe9.wav"
    assert os.path.exists(track.source)
    assert read(track.source)[0].shape == (1, 10)


def test_a_dataset_is_its_mixtures_with_references(dsd100):
    tracks = list_catalog(dsd100)
    assert len(tracks) == 4
    assert all(t.path.endswith("mixture.wav") and dict(t.references).keys() >= {"vocals", "bass"} for t in tracks)


def test_a_dataset_with_other_songs_in_it_is_a_plain_folder(tmp_path):
    for stem in ("mixture", "vocals", "drums"):
        touch(tmp_path / "A - One" / f"{stem}.wav")
    assert [t.path for t in list_catalog(tmp_path)] == ["A - One/mixture.wav"]
    touch(tmp_path / "another.wav")
    assert len(list_catalog(tmp_path)) == 4


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_manifest_lists_paths_beside_it_with_ids_and_references(tmp_path, kind):
    touch(tmp_path / "songs" / "x.wav")
    rows = {"path": ["songs/x.wav", "songs/y.wav"], "track_id": ["one", ""], "vocals": ["ref.wav", ""]}
    manifest = tmp_path / f"list.{kind}"
    if kind == "csv":
        lines = ["path,track_id,vocals", *(",".join(row) for row in zip(*rows.values(), strict=True))]
        manifest.write_text("\n".join(lines))
    else:
        pq.write_table(pa.table(rows), manifest)
    one, two = list_catalog(manifest)
    assert (one.track_id, one.source) == ("one", str(tmp_path / "songs/x.wav"))
    assert [stem for stem, _ in one.references] == ["vocals"]
    assert (two.track_id, two.references) == ("songs/y.wav", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\nx.wav\n", "no column 'path'"),
        ('path\n""\n', "no path in row 1"),
        ("path\na.wav\na.wav\n", "more than once"),
    ],
)
def test_a_malformed_manifest_is_a_sentence(tmp_path, text, words):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(CatalogError, match=words):
        list_catalog(tmp_path / "list.csv")


def test_an_empty_source_is_a_sentence(tmp_path):
    with pytest.raises(CatalogError, match="holds no audio"):
        list_catalog(tmp_path)
    with pytest.raises(CatalogError, match="is not there"):
        list_catalog(tmp_path / "absent")


def test_a_link_to_itself_does_not_end_the_listing(tmp_path):
    touch(tmp_path / "songs" / "a.wav")
    (tmp_path / "songs" / "latest").symlink_to("latest")
    (tmp_path / "songs" / "latest.wav").symlink_to("latest.wav")
    assert [t.path for t in list_catalog(tmp_path / "songs")] == ["a.wav", "latest.wav"]
    assert [t.path for t in list_catalog(f"{tmp_path}/songs/**/*.wav")] == ["a.wav"]


def test_a_glob_over_a_looped_link_lists_each_file_once(tmp_path):
    touch(tmp_path / "m" / "a" / "one.wav")
    (tmp_path / "m" / "a" / "up").symlink_to(tmp_path / "m")
    (tmp_path / "m" / "b").symlink_to(tmp_path / "m")
    assert [t.path for t in stream_catalog(f"{tmp_path}/m/**/*.wav")] == ["a/one.wav"]
    assert [t.path for t in stream_catalog(f"{tmp_path}/m/?/o*[!x]e.wav")] == ["a/one.wav"]


def test_a_name_that_is_not_utf8_and_its_escaped_text_are_two_tracks(tmp_path):
    for name in (b"caf\xe9.wav", rb"caf\xe9.wav"):
        touch(tmp_path / "x.wav")
        (tmp_path / "x.wav").rename(tmp_path / os.fsdecode(name))
    assert len({t.track_id for t in list_catalog(tmp_path)}) == 2


@pytest.mark.parametrize("root", ["songs", "songs/**/*.wav"])
def test_an_output_inside_the_catalog_is_skipped_with_a_message(tmp_path, root, caplog):
    touch(tmp_path / "songs" / "a.wav")
    out = OutputLayout(tmp_path / "songs" / "separated")
    runs.begin(out, "separate-1", {})
    touch(out.stems / "a" / "vocals.wav")
    assert [t.path for t in list_catalog(tmp_path / root)] == ["a.wav"]
    assert "separated is an output of unbraid and is skipped" in caplog.text or root != "songs"


def test_a_link_into_an_output_is_passed_over_and_one_to_songs_beside_it_is_not(tmp_path):
    touch(tmp_path / "songs" / "a.wav")
    out = OutputLayout(tmp_path / "elsewhere")
    out.mark()
    touch(out.stems / "a" / "vocals.wav")
    touch(out.root / "new" / "b.wav")
    (tmp_path / "songs" / "stems").symlink_to(out.stems)
    (tmp_path / "songs" / "one").symlink_to(out.stems / "a")
    (tmp_path / "songs" / "more").symlink_to(out.root / "new")
    assert [t.path for t in list_catalog(tmp_path / "songs")] == ["a.wav", "more/b.wav"]
    assert [t.path for t in list_catalog(f"{tmp_path}/songs/**/*.wav")] == ["a.wav", "more/b.wav"]


def test_a_catalog_that_is_its_own_output_lists_its_songs_and_no_stems(tmp_path):
    touch(tmp_path / "a.wav")
    out = OutputLayout(tmp_path)
    out.mark()
    touch(out.stems / "a" / "vocals.wav")
    assert [t.path for t in list_catalog(tmp_path)] == ["a.wav"]
    assert [t.path for t in list_catalog(out.stems)] == ["a/vocals.wav"]  # asked for by name


@pytest.mark.parametrize("ids", [[3, 7], [3.0, None], ["  x ", " "], ["x", None]])
def test_ids_of_a_manifest_are_text_and_blank_ones_are_the_path(tmp_path, ids):
    pq.write_table(pa.table({"path": ["a.wav", "b.wav"], "track_id": ids}), tmp_path / "list.parquet")
    expected = [str(int(i)) if isinstance(i, (int, float)) else (i or "").strip() for i in ids]
    assert [t.track_id for t in stream_catalog(tmp_path / "list.parquet")] == [expected[0], expected[1] or "b.wav"]


@pytest.mark.parametrize("rows", ["a.wav,x\nb.wav,x\n", "a.wav,b.wav\nb.wav,\n"])
def test_a_repeated_id_is_named_before_anything_runs(tmp_path, rows):
    (tmp_path / "list.csv").write_text(f"path,track_id\n{rows}")
    with pytest.raises(CatalogError, match=r"lists the track_id (x|b\.wav) more than once, again as number 2"):
        list_catalog(tmp_path / "list.csv")


@pytest.mark.parametrize("line", ["http://example.org/a.wav,", "a.wav,https://example.org/v.wav"])
def test_what_a_manifest_names_on_the_web_is_fetched_only_where_that_is_allowed(tmp_path, line):
    (tmp_path / "list.csv").write_text(f"path,vocals\n{line}\n")
    with pytest.raises(CatalogError, match="in row 1; give --allow-http"):
        list_catalog(tmp_path / "list.csv")
    assert len(list_catalog(tmp_path / "list.csv", allow_http=True)) == 1


@pytest.mark.parametrize(
    "line", ["HTTP://example.org/a.wav,", "webhdfs://example.org:80/a,", "a.wav,data://text/plain"]
)
def test_a_manifest_does_not_choose_the_servers_that_are_asked(tmp_path, line):
    (tmp_path / "list.csv").write_text(f"path,vocals\n{line}\n")
    with pytest.raises(CatalogError, match="in row 1; give --allow-http"):
        list_catalog(tmp_path / "list.csv")


@pytest.mark.parametrize("address", ["github://a.wav", "ftp://127.0.0.1:1/a.wav"])
def test_an_address_that_its_package_cannot_open_is_a_sentence(tmp_path, address):
    (tmp_path / "list.csv").write_text(f"path\n{address}\n")
    with pytest.raises(StorageError, match="cannot be opened"):
        list_catalog(tmp_path / "list.csv", allow_http=True)


def test_a_column_of_bytes_names_files(tmp_path):
    pq.write_table(pa.table({"path": [b"a.wav", b"caf\xe9.wav"]}), tmp_path / "list.parquet")
    first, second = stream_catalog(tmp_path / "list.parquet")
    assert (first.path, second.path) == ("a.wav", "caf\\xe9.wav")
    assert os.fsencode(second.source) == os.fsencode(tmp_path) + b"/caf\xe9.wav"


@settings(max_examples=200, deadline=None)
@given(
    name=st.text(st.sampled_from("ab./ ~"), min_size=1, max_size=10), folder=st.sampled_from([".", "/", "x", "/y/z"])
)
def test_what_a_manifest_names_lies_where_pathlib_would_put_it(name, folder):
    source, place = _source_and_place(_prefix(Path(folder)), name)
    assert source == str(Path(folder) / name)
    if not name.startswith("/") and ".." not in name.split("/"):
        assert place == PurePosixPath(name).as_posix()


@given(start=st.sampled_from(["/", ""]), name=st.text(st.sampled_from("ab./ ~é"), min_size=1, max_size=10))
def test_a_source_is_named_by_its_absolute_path(start, name):
    assert source_name(start + name) == os.path.abspath(start + name)


def test_lines_of_a_manifest_may_be_blank_short_or_long(tmp_path):
    lines = ["vocals,path,track_id"]
    for number in range(2500):  # more than are read at a time
        end = {0: ",", 1: f",id {number}", 2: f",id {number},more,fields"}.get(number % 4, "")
        lines += [f"v{number}.wav,{number}.wav{end}"] + [""] * (number % 5 == 0)
    (tmp_path / "list.csv").write_text("\n".join(lines))
    expected = [
        (row["path"], row["track_id"] or row["path"], str(tmp_path / row["vocals"])) for row in csv.DictReader(lines)
    ]
    tracks = stream_catalog(tmp_path / "list.csv")
    assert [(track.path, track.track_id, track.references[0][1].path) for track in tracks] == expected
