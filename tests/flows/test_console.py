import pytest

from flows.cli.console import printable, show, show_table


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("song.wav", "song.wav"),
        ("\x1b]0;owned\x07song", "\\x1b]0;owned\\x07song"),
        ("a\rb", "a\\x0db"),
        ("\x9b2J", "\\x9b2J"),
        ("gpj.\u202egnos", "gpj.\\u202egnos"),
        ("Käse ünd 日本\n", "Käse ünd 日本\n"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(name, shown):
    assert printable(name) == shown


def test_a_table_keeps_a_name_on_its_line_and_its_controls_out(capsys):
    show(["failed"], [["evil\x1b[2J\nname [bold]"]])
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "evil\\x1b[2J\\nname [bold]" in text


def test_a_wide_table_that_is_piped_is_not_folded(capsys):
    names = [f"column_{n}" for n in range(40)]
    show_table(names, [[f"value {n}" for n in range(40)]])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert len(lines) == 3
    assert lines[0].split() == names
