import os
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.files import naming
from storage.files.layout import shown


@pytest.mark.parametrize("path", ["../../etc/x.wav", "/etc/x.wav", "a/../../x.wav", "CON", "con.wav/NUL", "...wav"])
def test_no_place_leaves_the_output_folder_or_names_a_device(path):
    for place in naming.candidates(path):
        parts = PurePosixPath(place).parts
        assert not {"..", ".", "/"} & set(parts)
        assert not {"con", "nul", "con.wav"} & {part.lower() for part in parts}


@given(path=st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=300))
def test_the_last_place_of_two_paths_is_never_one_whatever_the_file_system_folds(path):
    variants = {path, path.upper(), path.lower(), f"_{path}", f"{path}.", f"./{path}x"}
    places = [naming.folded(naming.candidates(variant)[2]) for variant in variants]
    assert len(set(places)) == len(variants)


@given(stem=st.sampled_from(["vocals", "accompaniment", "no_vocals"]), template=st.sampled_from(naming.TEMPLATES),
       place=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1))  # fmt: skip
def test_the_place_is_recovered_from_a_stems_name(place, stem, template):
    for folder in ("", "a/"):
        name = naming.stem_name(folder + place, stem, "flac", template)
        assert naming.place_of(name, stem) == folder + place


@given(path=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=400))
def test_names_of_stems_are_no_longer_than_file_systems_take(path):
    for template in naming.TEMPLATES:
        for place in naming.candidates(path, template):
            name = naming.stem_name(place, "accompaniment", "flac", template)
            assert all(len(os.fsencode(part)) <= 255 for part in PurePosixPath(name).parts)


@given(name=st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_two_file_names_are_never_shown_as_one(name):
    """The bytes come back from what is shown, also where a name has a backslash of its own."""
    text = shown(os.fsdecode(name))
    again = text.encode("utf-8").replace(b"\\x5c", b"\\x5C")
    decoded = bytearray()
    while again:
        if again[:2] == b"\\x" and len(again) >= 4 and again[2:4] != b"5C" and _is_byte(again[2:4]):
            decoded.append(int(again[2:4], 16))
            again = again[4:]
        elif again[:4] == b"\\x5C":
            decoded += b"\\"
            again = again[4:]
        else:
            decoded.append(again[0])
            again = again[1:]
    assert bytes(decoded) == name


def _is_byte(digits):
    return all(digit in b"0123456789abcdef" for digit in digits)


@given(path=st.text(st.sampled_from("ab./ \\é"), max_size=12))
def test_a_path_is_split_as_pathlib_does(path):
    expected = ["__" if part == ".." else part for part in PurePosixPath(path).parts if part not in ("/", "//")]
    assert list(naming.safe_parts(path)) == expected
    if expected and expected[-1].strip(". "):
        short = naming.candidates(path)[0].rpartition("/")[2]
        assert short == (
            PurePosixPath(expected[-1]).stem if PurePosixPath(expected[-1]).stem.strip(". ") else expected[-1]
        )


@given(place=st.text(st.sampled_from("aB./ é"), max_size=12))
def test_folding_plain_letters_is_folding_any(place):
    accented = naming.folded(f"é{place}")
    assert accented.removeprefix("é") == naming.folded(f"x{place}").removeprefix("x")
