"""The commands and snippets in README, CONTRIBUTING and docs, for the tests that check and run them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
_SHELL = ("", "console", "bash")
_FENCED = r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$"
_INLINE = r"`(?P<code>unbraid [^`…]+)`"


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a document in one language; "" is none, and indented fences (tabs of the site) count."""
    return [text for name, text in steps(document) if name == language]


def steps(document: Path) -> list[tuple[str, str]]:
    """(language, text) of a document's fenced blocks and ("inline", command) of commands in its sentences, in order."""
    out = []
    for match in re.finditer(f"{_FENCED}|{_INLINE}", document.read_text(), re.MULTILINE | re.DOTALL):
        if match["code"]:
            out.append(("inline", " ".join(match["code"].split())))
        else:
            out.append((match["language"], re.sub(f"(?m)^{match['indent']}", "", match["text"])))
    return out


def commands(document: Path) -> list[str]:
    """Every `unbraid …` in the blocks, tables and sentences of a document, in order, with its comment."""
    lines = []
    for language, text in steps(document):
        if language in _SHELL or language == "inline":
            lines += [part.strip().removeprefix("$ ") for line in text.splitlines() for part in line.split(";")]
    return [line for line in lines if line.startswith("unbraid ")]
