"""Whether what a document promises is there; each check gives the place and what is wrong, or None."""

import importlib
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import typer
import typer.main
from fastapi import FastAPI

from serve.cases.protocol import Investigation
from serve.cli.main import app
from serve.console import api as console
from serve.console import policies_api
from serve.console.account_routes import account_routes
from serve.console.ring_routes import investigation_routes
from serve.console.service_settings import InvestigatorSettings
from serve.http.app import build_app
from serve.http.wire import Payment
from serve.settings import PREFIX, Settings
from tests.documents import ROOT, Command, Found, outside

FOLDERS = ("data", "graph", "gnn", "serve", "benchmarks", "tests", "docs", "notebooks", ".ci")
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # click's, or that of the copy that typer brings
RINGWATCH = typer.main.get_command(app)


def refused(command: Command, reason: object) -> str:
    return f"{command.found.where}: {reason}\n    {command.found.text}"


def wrong_ringwatch(command: Command) -> str | None:
    """Why `ringwatch` would refuse a command; None where it would not."""
    name, *words = command.words[1:]
    if name.startswith("-"):
        return None if name == "--help" else refused(command, f"ringwatch has no option {name}")
    found = RINGWATCH.get_command(None, name)
    if found is None:
        return refused(command, f"ringwatch has no command {name!r}; there are {', '.join(RINGWATCH.commands)}")
    if command.whole:
        try:
            found.make_context(name, list(words))
        except UsageError as error:
            return refused(command, error.format_message())
        return None
    if words and (inner := getattr(found, "commands", {}).get(words[0])) is not None:  # one of a group
        found, name, words = inner, f"{name} {words[0]}", words[1:]
    options = {text for option in found.params for text in [*option.opts, *option.secondary_opts]} | {"--help"}
    unknown = [word for word in words if word.startswith("-") and word.split("=")[0] not in options]
    return refused(command, f"ringwatch {name} has no option {', '.join(unknown)}") if unknown else None


def wrong_make(command: Command) -> str | None:
    """Why `make` would refuse a command."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    unknown = [word for word in command.words[1:] if "=" not in word and not word.startswith("-")]
    unknown = [word for word in unknown if word not in targets]
    return refused(command, f"the Makefile has no target {', '.join(unknown)}") if unknown else None


def source_of(module: str) -> str | None:
    """The source of a module that is run with `python -m`; None where there is none of ours."""
    path = ROOT.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__main__.py"):
        if file.exists():
            return file.read_text(encoding="utf-8")
    return None


def wrong_python(command: Command) -> str | None:
    """Why `python` would refuse a command: no such module or file, or an option that its source never names."""
    words = command.words[1:]
    if words[0] == "-m" and words[1].split(".")[0] not in FOLDERS:
        return None if importlib.util.find_spec(words[1]) else refused(command, f"no module {words[1]}")
    if words[0] not in ("-m", "-c"):
        return None if (ROOT / words[0]).exists() else refused(command, f"there is no {words[0]}")
    if words[0] == "-c":
        return None
    source = source_of(words[1])
    if source is None:
        return refused(command, f"there is no module {words[1]} to run")
    options = [word.split("=")[0] for word in words[2:] if word.startswith("--")]
    unknown = [word for word in options if f'"{word}"' not in source]
    return refused(command, f"{words[1]} has no option {', '.join(unknown)}") if unknown else None


def wrong_pip(command: Command) -> str | None:
    """Why `pip install` would not bring what is asked: extras of ours that there are not, or a file that is missing."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    asked = [
        extra.strip()
        for word in command.words
        for names in re.findall(r"^(?:ringwatch|\.)\[([^\]]*)\]$", word)
        for extra in names.split(",")
    ]
    missing = [extra for extra in asked if extra not in extras]
    files = [b for a, b in zip(command.words, command.words[1:], strict=False) if a == "-r" and not (ROOT / b).exists()]
    return refused(command, f"pyproject.toml has no {', '.join(missing + files)}") if missing or files else None


def wrong_curl(command: Command) -> str | None:
    """Why the service would refuse a call: no such route, or a body that is no payment."""
    url = next((word for word in command.words if re.search(r":\d+/|^/|https?:", word)), "")
    path = re.sub(r"^(https?://)?[^/]*", "", url).split("?")[0]
    if not any(route.fullmatch(path) for route in ROUTES):
        return refused(command, f"the service has no route {path!r}")
    body = next((b for a, b in zip(command.words, command.words[1:], strict=False) if a in ("-d", "--data")), None)
    if body is not None and path == "/v1/score":
        try:
            Payment.model_validate_json(body)
        except ValueError as error:
            return refused(command, error)
    return None


def routes() -> Iterator[re.Pattern[str]]:
    service = build_app(Settings(model=Path("m"), insecure=True))
    investigator = FastAPI()
    investigator.include_router(investigation_routes(cast(Investigation, None), lambda: "nobody"))
    investigator.include_router(account_routes(cast(Investigation, None), lambda: "nobody"))
    investigator.include_router(console.router)
    investigator.include_router(policies_api.router)
    for path in ["/openapi.json", *service.openapi()["paths"], *investigator.openapi()["paths"]]:
        yield re.compile(re.sub(r"\{\w+(:path)?\}", "[^/]+", path))


ROUTES = list(routes())
CHECKS = {
    "ringwatch": wrong_ringwatch,
    "make": wrong_make,
    "python": wrong_python,
    "python3": wrong_python,
    "pip": wrong_pip,
    "curl": wrong_curl,
}


def wrong_file(span: Found) -> str | None:
    """A file that is not there: `graph/dag/rows.py`, `graph/dag/rows.py:name` (stands in it), `docs/<any>.md`."""
    named = re.fullmatch(rf"((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./<>*,-]*)(?::(\w+))?", span.text)
    if not named:
        return None
    pattern = re.sub(r"<[^>]*>", "*", named[1])
    files = list(ROOT.glob(pattern.rstrip("/"))) if "*" in pattern else [ROOT / pattern]
    if not any(file.exists() for file in files) and not ("<" in named[1] and (ROOT / pattern).parent.exists()):
        return f"{span.where}: there is no {named[1]}"
    if named[2] and not any(re.search(rf"\b{named[2]}\b", file.read_text(encoding="utf-8")) for file in files):
        return f"{span.where}: {named[1]} has no {named[2]}"
    return None


def wrong_name(span: Found) -> str | None:
    """A module, function or attribute that is not there: `gnn.model.engines.make_engine`."""
    named = re.match(r"((?:data|graph|gnn|serve)(?:\.\w+)+)(?:\(.*\))?$", span.text)
    reason = missing_name(named[1]) if named else None
    return f"{span.where}: {reason}" if reason else None


def missing_name(dotted: str) -> str | None:
    """What of `package.module.name` is not there."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            if not hasattr(value, name) and name not in getattr(value, "__annotations__", {}):
                return f"{'.'.join(parts[:cut])} has no {name}"
            value = getattr(value, name, None)
        return None
    return f"there is no module {dotted}"


def wrong_route(span: Found) -> str | None:
    """A route that the service does not have: `GET /v1/ties/{id}`."""
    route = r"(?:(?:GET|POST|HEAD) )?(/(?:v1/|livez|readyz|metrics|openapi)[^\s?]*)(?:\?.*)?"
    named = re.fullmatch(route, span.text)
    if named and not any(route.fullmatch(re.sub(r"[{}<>]", "", named[1])) for route in ROUTES):
        return f"{span.where}: the service has no route {named[1]}"
    return None


def wrong_variable(line: Found) -> str | None:
    """A variable of the environment that nothing reads."""
    unknown = [name for name in re.findall(VARIABLE, line.text) if name not in VARIABLES]
    return f"{line.where}: nothing reads {', '.join(unknown)}" if unknown else None


VARIABLE = re.compile(rf"{PREFIX}[A-Z_]*[A-Z]")
SOURCES = [file.read_text(encoding="utf-8") for folder in FOLDERS[:5] for file in (ROOT / folder).rglob("*.py")]
VARIABLES = {PREFIX + name.upper() for name in InvestigatorSettings.model_fields} | {
    name for source in SOURCES for name in VARIABLE.findall(source)
}


def anchors(page: Path) -> set[str]:
    """What can be linked to within a page: its headings as GitHub spells them."""
    headings = [line.text for line in outside(page) if line.text.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-") for heading in headings}


def wrong_link(link: Found) -> str | None:
    """A link to a file or a heading that is not there; addresses elsewhere are not looked at."""
    target, _, anchor = link.text.partition("#")
    if re.match(r"[a-z]+:", target):
        return None
    file = link.page.parent / target if target else link.page
    if not file.exists():
        return f"{link.where}: there is no {target}"
    if anchor and file.suffix == ".md" and anchor not in anchors(file):
        return f"{link.where}: {target or 'the page'} has no heading #{anchor}"
    return None
