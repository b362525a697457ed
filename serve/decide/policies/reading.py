"""The text of a policy as nodes that know their line and column, and mistakes that name them.

YAML is read without its types: every scalar is text here, and what it means is said by where it stands. So `NO` is a
country and `1e3` an id where they should be. Nothing is executed: tags, anchors and aliases are refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

import yaml

from serve.errors import ServeError

MOST_CHARACTERS: Final = 1 << 20  # of a policy
MOST_MISTAKES: Final = 50  # told of at once
DEEPEST: Final = 20  # levels of nesting


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the text something stands.

    Attributes:
        line: From 1.
        column: From 1.
        path: What it is, such as `rules[2].when`; empty for the whole.
    """

    line: int
    column: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong with a policy.

    Attributes:
        place: Where.
        reason: What is wrong.
        mend: What to write instead.
    """

    place: Place
    reason: str
    mend: str

    def __str__(self) -> str:
        where = f"{self.place.path}: " if self.place.path else ""
        return f"{self.place.line}:{self.place.column}: {where}{self.reason}; {self.mend}"


class PolicyError(ServeError):
    """A policy that cannot be used.

    Args:
        mistakes: What is wrong with it, in the order of its lines.
        file: Its name, for people.
    """

    def __init__(self, mistakes: Sequence[Mistake], file: str = "policy") -> None:
        self.mistakes, self.file = tuple(mistakes), file
        super().__init__("\n".join(f"{file}:{mistake}" for mistake in mistakes))


@dataclass
class Mistakes:
    """Collects what is wrong, so that a file is mended in one go."""

    found: list[Mistake] = field(default_factory=list)

    def add(self, place: Place, reason: str, mend: str) -> None:
        """Take note of one."""
        self.found.append(Mistake(place, reason, mend))

    def raise_any(self, file: str) -> None:
        """Raise them, if there are any.

        Raises:
            PolicyError: There are.
        """
        if self.found:
            ordered = sorted(self.found, key=lambda m: (m.place.line, m.place.column))
            raise PolicyError(ordered[:MOST_MISTAKES], file)


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar."""

    place: Place
    value: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    place: Place
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Keys:
    """A mapping; `places` are those of its keys."""

    place: Place
    values: "Mapping[str, Node]"
    places: Mapping[str, Place]


Node = Text | Items | Keys


class _Loader(yaml.BaseLoader):
    """Composes nodes of untyped text; aliases are refused, since they let a small text stand for a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.events.AliasEvent) or getattr(event, "anchor", None):
            mark = event.start_mark
            raise yaml.composer.ComposerError(None, None, "anchors", mark)
        return super().compose_node(parent, index)


# What YAML's scanner says, and what to tell people; the first that matches.
_SAID: Final[tuple[tuple[str, str, str], ...]] = (
    (r"anchors", "anchors and aliases (& and *) are not taken", "write it out, or put quotes around the text"),
    (r"\\t", "a tab stands where blanks are needed", "indent with blanks"),
    (
        r"while scanning a quoted scalar",
        "the quote that opens here is never closed",
        "end the text with the same quote",
    ),
    (r"expected a single document", "a second document begins here", "keep one policy in a file and leave out '---'"),
    (
        r"mapping values are not allowed",
        "a second 'key: value' on one line",
        "begin a new line, or put quotes around text that has a ': '",
    ),
    (r"could not find expected ':'", "a key without a value", "write 'key: value', with a blank behind the colon"),
    (
        r"expected ',' or",
        "the bracket that opens here is never closed",
        "close it with ] or }, and put commas between items",
    ),
    (r"expected <block end>", "this line is indented unlike those around it", "line it up with the line it belongs to"),
    (r"cannot start any token", "this character cannot begin a value", "put quotes around the value"),
    (
        r"control characters|unacceptable character|special characters",
        "a character that no text has",
        "remove it: it cannot be seen",
    ),
)


def read(text: str, file: str = "policy") -> Keys:
    """The nodes of a policy's text.

    Args:
        text: YAML.
        file: Its name, for people.

    Raises:
        PolicyError: It is no YAML, or no mapping.
    """
    if len(text) > MOST_CHARACTERS:
        at = Place(1, 1)
        mistake = Mistake(at, f"it has {len(text):,} characters", f"keep it to {MOST_CHARACTERS:,}")
        raise PolicyError([mistake], file)
    mistakes = Mistakes()
    try:
        root = yaml.compose(text, Loader=_Loader)
        found = None if root is None else _node(root, "", mistakes, 0)
    except yaml.MarkedYAMLError as error:
        raise PolicyError([_of_yaml(error)], file) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise PolicyError(
            [Mistake(Place(line, column), "a character that no text has", "remove it: it cannot be seen")], file
        ) from None
    except RecursionError:
        raise PolicyError([Mistake(Place(1, 1), "it is nested too deeply", "use fewer levels")], file) from None
    mistakes.raise_any(file)
    if not isinstance(found, Keys):
        mistake = Mistake(
            Place(1, 1), "this is no policy" if found else "the file is empty", "begin with 'policy: NAME' and 'rules:'"
        )
        raise PolicyError([mistake], file)
    return found


def children(node: Node) -> Iterator[Node]:
    """The nodes directly in a node."""
    if isinstance(node, Items):
        yield from node.items
    elif isinstance(node, Keys):
        yield from node.values.values()


def like(name: str, known: Sequence[str], most: int = 12) -> str:
    """What to write in place of a name that is not known."""
    close = get_close_matches(name.lower(), known, 1, 0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(list(known)[:most])
    return f"write one of {shown}" + (f" and {len(known) - most} more" if len(known) > most else "")


def _node(node: yaml.Node, path: str, mistakes: Mistakes, depth: int) -> Node:
    place = Place(node.start_mark.line + 1, node.start_mark.column + 1, path)
    if depth > DEEPEST:
        mistakes.add(place, "it is nested too deeply", f"use at most {DEEPEST} levels")
        return Text(place, "", False)
    if node.tag.startswith("!") or node.tag.startswith("tag:yaml.org,2002:python"):
        mistakes.add(place, f"the tag {node.tag} is not taken", "leave it out: a policy is data, nothing in it is run")
    if isinstance(node, yaml.ScalarNode):
        return Text(place, node.value, node.style is not None)
    if isinstance(node, yaml.SequenceNode):
        return Items(
            place, tuple(_node(one, f"{path}[{i}]", mistakes, depth + 1) for i, one in enumerate(node.value, 1))
        )
    values: dict[str, Node] = {}
    places: dict[str, Place] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        at = Place(key.start_mark.line + 1, key.start_mark.column + 1, f"{path}.{name}".lstrip("."))
        if not isinstance(key, yaml.ScalarNode):
            mistakes.add(at, "a list or mapping stands where a key should", "write 'key: value'")
        elif name in values:
            mistakes.add(at, f"{name!r} is here twice", f"keep one of them (the first is at line {places[name].line})")
        values[name], places[name] = _node(value, at.path, mistakes, depth + 1), at
    return Keys(place, values, places)


def _of_yaml(error: yaml.MarkedYAMLError) -> Mistake:
    said = f"{error.context or ''} {error.problem or ''}"
    begun = "scanning a quoted scalar" in said or "flow" in said or "expected ':'" in said
    mark = (error.context_mark if begun and error.context_mark else error.problem_mark) or error.context_mark
    place = Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)
    for pattern, reason, mend in _SAID:
        if re.search(pattern, said):
            return Mistake(place, reason, mend)
    return Mistake(
        place, f"this cannot be read ({' '.join(said.split())})", "compare it with the example in docs/policy.md"
    )
