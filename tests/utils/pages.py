"""The code blocks and commands of Markdown pages, and of docstrings that show how to run."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN_MARK = "<!-- run -->"  # on the line above a block that tests run


@dataclass
class Block:
    """A code block.

    Arguments
    ---------
    language : str
        What its fence says; of an indented block ``python`` if it imports something, else ``""``.
    text : str
        Its lines without indentation.
    line : int
        Its first line in the page, from 1.
    runs : bool
        Whether the page says that tests run it.
    """

    language: str
    text: str
    line: int
    runs: bool = False

    def commands(self) -> list[list[str]]:
        """Return the block's command lines as words, without comments and assignments in front."""
        if self.language not in ("", "sh", "bash", "shell", "console"):
            return []
        text = re.sub(r"\\\n\s*", " ", self.text)
        parts = [part for line in text.splitlines() for part in re.split(r"&&|;", line)]
        return list(filter(None, map(_words, parts)))


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line.strip().removeprefix("$ "), comments=True)
    except ValueError:  # prose or data with a lone quotation mark
        return []
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return words[:-1] if words[-1:] == ["&"] else words


def blocks_of(path: Path) -> list[Block]:
    """Return the blocks of a Markdown page, or the lines after > in a Python or YAML file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return _fenced(text) + _indented(text)
    lines = re.sub(r"\\\n(?:#|\s)*", " ", text).splitlines()
    shown = [re.fullmatch(r"\s*(?:# ?)?> ((?:python|torchrun|clsp|make) .*)", x) for x in lines]
    return [Block("sh", match[1], number) for number, match in enumerate(shown, 1) if match]


def _fenced(text: str) -> list[Block]:
    found = []
    fence = r"^( *)```(?:{code-cell} )?(\w*)[^\n]*\n((?: *:tags:.*\n)?)(.*?)^ *```$"
    for match in re.finditer(fence, text, flags=re.M | re.S):
        before = text[: match.start(4)]
        runs = text[: match.start()].rstrip("\n").endswith(RUN_MARK)
        line = before.count("\n") + 1
        found.append(Block(match[2], textwrap.dedent(match[4]), line, runs))
    return found


def _indented(text: str) -> list[Block]:
    text = re.sub(r"^ *```.*?^ *```$", lambda m: "\n" * m[0].count("\n"), text, flags=re.M | re.S)
    found: list[Block] = []
    lines = [*text.splitlines(), "end"]
    start = None
    for number, line in enumerate(lines):
        inside = line.startswith("    ") or (start is not None and not line.strip())
        if inside and start is None:
            start = number
        elif not inside and start is not None:
            body = textwrap.dedent("\n".join(lines[start:number]))
            python = re.search(r"^(?:from \S+ )?import ", body, flags=re.M)
            found.append(Block("python" if python else "", body, start + 1))
            start = None
    return found
