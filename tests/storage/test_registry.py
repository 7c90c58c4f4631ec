import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.errors import RegistryError
from storage.files.atomic import remove_leftovers, replacing
from storage.registry import Registry
from storage.registry import _pointers as registry_pointers


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "shipped", tmp_path / "own")


def test_the_first_model_of_a_preset_is_its_champion_and_promotion_moves_it(registry):
    one, two = registry.add("stereo", b"one", "card one"), registry.add("stereo", b"two", "card two")
    assert registry.find("stereo").model_id == one
    registry.promote(two)
    assert registry.find("stereo").model_id == two
    assert registry.find(one).card == "card one"
    assert registry.read("stereo") == (two, b"two")


def test_the_users_champion_comes_before_the_shipped_one(registry, tmp_path):
    shipped = Registry(tmp_path / "none", tmp_path / "shipped").add("stereo", b"shipped", "")
    assert registry.find("stereo").model_id == shipped
    added = registry.add("stereo", b"own", "", champion=True)
    assert registry.find("stereo").model_id == added
    assert {m.model_id: m.shipped for m in registry.models()} == {shipped: True, added: False}


def test_rollback_goes_back_through_the_champions_to_the_shipped_one(registry, tmp_path):
    shipped = Registry(tmp_path / "none", tmp_path / "shipped").add("stereo", b"shipped", "")
    one, two = (registry.add("stereo", data, "", champion=True) for data in (b"one", b"two"))
    assert registry.rollback("stereo") == one
    assert registry.find("stereo").model_id == one
    assert registry.rollback("stereo") == shipped
    assert registry.find("stereo").model_id == shipped
    with pytest.raises(RegistryError, match="no champion before"):
        registry.rollback("stereo")
    assert registry.find(two).model_id == two  # nothing is deleted


def test_rollback_without_a_champion_before_changes_nothing(registry):
    model_id = registry.add("stereo", b"one", "")
    with pytest.raises(RegistryError, match="no champion before"):
        registry.rollback("stereo")
    assert registry.find("stereo").model_id == model_id


def test_a_damaged_model_is_never_handed_out(registry):
    model_id = registry.add("stereo", b"weights", "")
    registry.find(model_id).path.write_bytes(b"weight")
    with pytest.raises(RegistryError, match="is damaged"):
        registry.read(model_id)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "absent", "forbidden", "huge"])
def test_what_is_no_weights_file_is_a_sentence_at_once(registry, tmp_path, kind, monkeypatch):
    path = tmp_path / "x.safetensors"
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path),
        "absent": lambda: None,
        "forbidden": path.touch,
        "huge": path.touch,
    }[kind]()
    if kind == "huge":
        os.truncate(path, 1 << 40)  # of which the disk holds nothing
    if kind == "forbidden":  # as root one may read all files
        monkeypatch.setattr(Path, "read_bytes", lambda path: os.listdir(path))
    with pytest.raises(RegistryError, match="x.safetensors") as raised:
        registry.read(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ['{"stereo": [[["x"]], 3]}', "[1", "[]", '{"stereo": 3}', "\xff"])
def test_pointers_that_are_damaged_are_a_sentence(registry, text):
    model_id = registry.add("stereo", b"weights", "")
    (registry.folder / "champions.json").write_bytes(text.encode("latin-1"))
    for use in (registry.models, lambda: registry.promote(model_id), lambda: registry.find("stereo")):
        with pytest.raises(RegistryError, match=r"champions\.json cannot be read"):
            use()


def test_what_has_a_models_name_and_is_no_file_is_no_model(registry):
    model_id = registry.add("stereo", b"weights", "")
    (registry.folder / "stereo-00000000.safetensors").mkdir()
    (registry.folder / "stereo-00000001.safetensors").symlink_to("nowhere")
    os.mkfifo(registry.folder / "stereo-00000002.safetensors")
    assert [model.model_id for model in registry.models()] == [model_id]


def test_an_unknown_model_is_a_sentence_that_names_those_there_are(registry):
    model_id = registry.add("stereo", b"weights", "")
    with pytest.raises(RegistryError, match=f"hq is not a registered model.*{model_id}"):
        registry.read("hq")


@pytest.fixture
def lending(tmp_path):
    return Registry(tmp_path / "shipped", tmp_path / "own", borrowers={"hq": "stereo"})


def test_a_preset_that_borrows_is_the_lenders_file_under_its_own_name(lending):
    stereo = lending.add("stereo", b"weights", "the card of stereo")
    borrowed = lending.find("hq")
    assert borrowed.model_id == stereo.replace("stereo", "hq")
    assert borrowed.path == lending.find("stereo").path
    assert lending.read("hq") == (borrowed.model_id, b"weights")
    assert lending.champions() == {"stereo": stereo, "hq": borrowed.model_id}
    assert [model.model_id for model in lending.models() if model.champion] == [borrowed.model_id, stereo]


def test_a_borrowed_model_has_the_card_beside_the_weights_or_its_own(lending):
    stereo = lending.add("stereo", b"weights", "the card of stereo")
    assert lending.find("hq").card == "the card of stereo"
    (lending.folder / f"{stereo.replace('stereo', 'hq')}.md").write_text("the card of hq")
    assert lending.find("hq").card == "the card of hq"
    assert lending.find("stereo").card == "the card of stereo"


def test_a_borrowing_preset_follows_its_lenders_champion_until_it_is_promoted_itself(lending):
    one, two = (lending.add("stereo", data, "", champion=True) for data in (b"one", b"two"))
    first, second = (model_id.replace("stereo", "hq") for model_id in (one, two))
    assert lending.find("hq").model_id == second
    assert lending.find(first).path == lending.find(one).path
    lending.promote(first)
    assert lending.find("hq").model_id == first
    assert lending.read("hq")[1] == b"one"
    assert lending.rollback("hq") == second
    assert lending.find("hq").model_id == second
    with pytest.raises(RegistryError, match="not a registered model"):
        lending.find("hq-00000000")


def test_a_file_appears_complete_or_not_at_all(tmp_path):
    target = tmp_path / "x"
    with pytest.raises(KeyboardInterrupt), replacing(target) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with replacing(target) as temporary:
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"


def test_what_a_killed_process_left_is_swept(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".unbraid-0123.tmp").touch()
    (tmp_path / "a" / "vocals.flac").touch()
    assert remove_leftovers(tmp_path) == 1
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["vocals.flac"]


def test_a_promotion_against_a_former_champion_is_refused(registry):
    one, two, three = (registry.add("stereo", data, "") for data in (b"one", b"two", b"three"))
    registry.promote(two, instead_of=one)
    with pytest.raises(RegistryError, match=f"{two} has become champion of stereo in the meantime"):
        registry.promote(three, instead_of=one)
    assert registry.find("stereo").model_id == two
    registry.promote(three, instead_of=two)
    assert registry.find("stereo").model_id == three


def test_promotions_of_different_presets_at_once_lose_none(registry):
    ids = [registry.add(f"preset{number}", bytes([number]), "") for number in range(12)]
    again = Registry(registry._shipped, registry.folder)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(again.promote, ids))
        list(pool.map(lambda n: again.add(f"preset{n}", b"more" + bytes([n]), "", champion=True), range(12)))
    assert all(len(before) == 2 for before in registry_pointers(registry.folder).values())
