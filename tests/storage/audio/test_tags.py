import io

import pytest
import soundfile as sf

from storage.audio.tags import Picture, Tags, read_tags
from storage.audio.writer import FORMATS, AudioWriter, StemFormat
from tests.signals import noise

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489") + io.BytesIO(b"x" * 64).read()
TAGS = Tags(
    {"title": ["Żółta łódź"], "artist": ["Somebody & Co"], "album": ["Album"], "tracknumber": ["3"], "date": ["1999"]},
    (Picture(PNG, "image/png"),),
)


def tagged(path, name):
    with AudioWriter(path, StemFormat(name, "int16"), 48000, 2, 48000, TAGS) as writer:
        writer.write(noise(2, 48000), last=True)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_tags_and_cover_are_read_back_from_every_stem_format(tmp_path, name):
    tags = read_tags(tagged(tmp_path / f"x.{name}", name))
    assert {key: tags.text[key] for key in TAGS.text} == TAGS.text
    assert [(p.data, p.mime) for p in tags.pictures] == [(PNG, "image/png")]


@pytest.mark.parametrize("source", FORMATS)
def test_tags_travel_from_any_format_to_flac(tmp_path, source):
    tags = read_tags(tagged(tmp_path / f"x.{source}", source))
    with AudioWriter(tmp_path / "y.flac", StemFormat("flac", "int16"), 48000, 1, 10, tags) as writer:
        writer.write(noise(1, 10), last=True)
    assert read_tags(tmp_path / "y.flac").text["title"] == TAGS.text["title"]
    assert sf.info(tmp_path / "y.flac").frames == 10


def test_a_file_without_readable_tags_has_none(tmp_path):
    sf.write(tmp_path / "x.wav", noise(1, 10).T, 44100)
    (tmp_path / "y.mp3").write_text("nothing")
    assert read_tags(tmp_path / "x.wav") == Tags()
    assert read_tags(tmp_path / "y.mp3") == Tags()
