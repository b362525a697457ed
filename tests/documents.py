"""What the documents promise: commands, paths, names and links, each with the file and line where it stands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHELL = {"sh", "bash", "shell", "console"}
ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=.*")  # VARIABLE=value before a command
PROGRAMS = {"ringwatch", "make", "python", "python3", "pip", "curl", "pre-commit", "git", "cd", "docker", ".ci/run"}


def documents() -> list[Path]:
    """The pages that are checked."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Found:
    """A piece of a document.

    Attributes:
        page: The document.
        line: Where the piece begins, from 1 on.
        text: The piece.
        fence: Language of the fenced block that it stands in; "" for a block that names none, None outside of blocks.
    """

    page: Path
    line: int
    text: str
    fence: str | None = None

    @property
    def where(self) -> str:
        """`README.md:17`."""
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name}:{self.line}"

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(frozen=True)
class Command:
    """A command as a document gives it.

    Attributes:
        found: Where.
        words: Its words without variables before it, comments and redirections.
        whole: Whether it is to run as it stands (in a block), or may leave out what it needs (within a sentence).
    """

    found: Found
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return str(self.found)


def fenced(page: Path) -> Iterator[Found]:
    """Fenced blocks; `line` is that of their first line within."""
    begin, language, lines = 0, None, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.match(r"\s*```\s*([\w-]*)", line)
        if language is None and mark:
            begin, language, lines = number + 1, mark[1], []
        elif mark:
            yield Found(page, begin, "\n".join(lines), language)
            language = None
        elif language is not None:
            lines.append(line)
    assert language is None, f"{page.name}:{begin - 1}: this block is never closed"


def outside(page: Path) -> Iterator[Found]:
    """Lines that stand in no fenced block."""
    within = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if re.match(r"\s*```", line):
            within = not within
        elif not within:
            yield Found(page, number, line)


def spans(page: Path) -> Iterator[Found]:
    """`Code` within sentences."""
    for line in outside(page):
        for text in re.findall(r"(?<!`)`([^`]+)`(?!`)", line.text):
            yield Found(page, line.line, text)


def links(page: Path) -> Iterator[Found]:
    """Targets of links and pictures."""
    for line in outside(page):
        for target in re.findall(r"\]\(([^)\s]+)\)", line.text):
            yield Found(page, line.line, target)


def _commands(text: str) -> Iterator[tuple[str, ...]]:
    """Words of the commands of a shell line, without variables before them, comments and redirections.

    What a pipe leads to is one only where it is a known program: `... | sort` is nobody's promise.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;><")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words, before, skip = list[str](), "", False
    for word in [*lexer, ";"]:
        if word and set(word) <= set("><"):
            skip = True  # the file that it leads to is no argument
        elif word and set(word) <= set("|&;"):
            if words and (before != "|" or words[0] in PROGRAMS):
                yield tuple(words)
            words, before = [], word
        elif skip:
            skip = False
        elif words or not ASSIGNMENT.fullmatch(word):
            words.append(word)


def _logical(block: Found) -> Iterator[Found]:
    """Lines of a block, those joined that a backslash or an open quotation carries on."""
    held, begin = "", 0
    for number, line in enumerate(block.text.splitlines(), block.line):
        held, begin = (f"{held}\n{line}", begin) if held else (line, number)
        if held.endswith("\\"):
            held = held[:-1]
            continue
        if held.split("#")[0].count("'") % 2:
            continue
        yield Found(block.page, begin, held.strip().removeprefix("$ "), block.fence)
        held = ""


def commands(page: Path) -> Iterator[Command]:
    """Commands of fenced blocks and within sentences.

    Every line of a block in a shell's language is one; of a block without a language those that begin with a known
    program, since such blocks also show what is printed.
    """
    for block in fenced(page):
        if block.fence and block.fence not in SHELL:
            continue
        for line in _logical(block):
            for words in _commands(line.text) if block.fence or _begins(line.text) else ():
                yield Command(line, words, whole=True)
    for span in spans(page):
        if _begins(span.text):
            for words in _commands(span.text):
                yield Command(span, words, whole=False)


def _begins(text: str) -> bool:
    """Whether a line begins with a known program, variables before it aside."""
    words = text.split()
    while words and ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    return bool(words) and words[0] in PROGRAMS and (len(words) > 1 or "/" in words[0])
