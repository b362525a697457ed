"""What README, CONTRIBUTING and docs say is there: commands and their options, files, modules, routes and links."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve.cli.main import app
from tests.document_checks import (
    CHECKS,
    wrong_file,
    wrong_link,
    wrong_name,
    wrong_route,
    wrong_variable,
)
from tests.documents import PROGRAMS, ROOT, Command, commands, documents, fenced, links, outside, spans

PAGES = documents()
COMMANDS = [command for page in PAGES for command in commands(page)]
SPANS = [span for page in PAGES for span in spans(page)]


def of(program: str) -> list[Command]:
    return [command for command in COMMANDS if command.words[0] == program]


def none_of(reasons: Iterator[str | None]) -> None:
    """No check has found anything wrong; else all that they found, one a line."""
    wrong = [reason for reason in reasons if reason]
    assert not wrong, "\n" + "\n".join(wrong)


def wrong_in(page: Path) -> list[str]:
    """All that the checks find wrong with a page."""
    found: list[str | None] = [CHECKS[c.words[0]](c) if c.words[0] in CHECKS else unchecked(c) for c in commands(page)]
    for check in (wrong_file, wrong_name, wrong_route):
        found += [check(span) for span in spans(page)]
    found += [wrong_variable(line) for line in [*outside(page), *fenced(page)]]
    found += [wrong_link(link) for link in links(page)]
    return [reason for reason in found if reason]


def unchecked(command: Command) -> str | None:
    known = command.words[0] in PROGRAMS
    return None if known else f"{command.found.where}: no check knows {command.words[0]!r}"


BLOCK = "```{}\n{}\n```\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BLOCK.format("sh", "ringwatch serve --model m --colour red"), "page.md:2: No such option: --colour"),
        (BLOCK.format("", "\nringwatch serve"), "page.md:3: Missing option '--model'"),
        (BLOCK.format("", "A=b ringwatch dance --model m"), "page.md:2: ringwatch has no command 'dance'"),
        (BLOCK.format("sh", "ringwatch capacity --accounts \\\n    many"), "page.md:2: Invalid value for '--accounts'"),
        ("One may `ringwatch serve --model m --colour red`.", "page.md:1: ringwatch serve has no option --colour"),
        ("One may `make coffee`.", "page.md:1: the Makefile has no target coffee"),
        (BLOCK.format("sh", "make test coffee"), "page.md:2: the Makefile has no target coffee"),
        ("`python -m benchmarks.nothing`", "page.md:1: there is no module benchmarks.nothing"),
        ("`python -m benchmarks.bench_serve --requets 1`", "benchmarks.bench_serve has no option --requets"),
        ("`python -m pyttest`", "page.md:1: no module pyttest"),
        ("`pip install 'ringwatch[gpus]'`", "page.md:1: pyproject.toml has no gpus"),
        (BLOCK.format("sh", "curl -s localhost:8000/v1/skore"), "the service has no route '/v1/skore'"),
        (BLOCK.format("sh", "curl localhost:8000/v1/score -d '{\n\"amount\": 4}'"), "page.md:2: "),
        (BLOCK.format("sh", "make test > log && make coffee"), "page.md:2: the Makefile has no target coffee"),
        (BLOCK.format("sh", "ls | sort"), "page.md:2: no check knows 'ls'"),
        (BLOCK.format("", "make test | make coffee"), "page.md:2: the Makefile has no target coffee"),
        (BLOCK.format("sh", "brew ringwatch"), "page.md:2: no check knows 'brew'"),
        ("See `graph/dag/rose.py`.", "page.md:1: there is no graph/dag/rose.py"),
        ("See `graph/dag/rows.py:rose`.", "page.md:1: graph/dag/rows.py has no rose"),
        ("See `benchmarks/resluts/cuda-<card>.json`.", "there is no benchmarks/resluts/cuda-<card>.json"),
        ("See `gnn.model.engines.make_motor`.", "page.md:1: gnn.model.engines has no make_motor"),
        ("See `gnn.model.motors`.", "page.md:1: gnn.model has no motors"),
        ("Ask `GET /v1/strings`.", "page.md:1: the service has no route /v1/strings"),
        ("Set `RINGWATCH_COLOUR`.", "page.md:1: nothing reads RINGWATCH_COLOUR"),
        ("See [there](nowhere.md).", "page.md:1: there is no nowhere.md"),
        ("# A title\n[there](#another-title)", "page.md:2: the page has no heading #another-title"),
    ],
)
def test_what_is_wrong_is_found_and_named_with_its_line(text: str, reason: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    (wrong,) = wrong_in(page)
    assert reason in wrong


def test_what_is_right_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        BLOCK.format("sh", "RINGWATCH_API_KEYS=a ringwatch serve --model m --insecure  # it's open\nmake test > log")
        + BLOCK.format("", "making is not a command, nor is ringwatcher\nmake lint && make test")
        + BLOCK.format("mermaid", "brew tea")
        + "# A title, with `code`\n[there](#a-title-with-code), `make lint`, `graph/dag/rows.py`, `docs/<page>.md`,"
        + " `GET /v1/ties/{id}`, `gnn.model.engines.make_engine`, `ringwatch train --without`, `a/b.py`\n"
    )
    assert wrong_in(page) == []


@pytest.mark.parametrize("program", sorted(CHECKS))
def test_every_command_of_the_documents_would_be_taken(program: str) -> None:
    none_of(CHECKS[program](command) for command in of(program))


def test_every_line_of_a_shell_block_is_a_command_that_is_checked() -> None:
    none_of(unchecked(command) for command in COMMANDS)
    assert len(of("ringwatch")) > 12
    assert len(of("make")) > 5
    assert len(of("curl")) > 0


@pytest.mark.parametrize("check", [wrong_file, wrong_name, wrong_route], ids=lambda check: check.__name__)
def test_every_file_module_and_route_that_the_documents_name_is_there(check: Callable[..., str | None]) -> None:
    none_of(check(span) for span in SPANS)


def test_every_variable_that_the_documents_name_is_read() -> None:
    none_of(wrong_variable(line) for page in PAGES for line in [*outside(page), *fenced(page)])


def test_every_link_between_the_documents_leads_somewhere() -> None:
    none_of(wrong_link(link) for page in PAGES for link in links(page))


def test_python_blocks_of_the_documents_run(tmp_path: Path) -> None:
    """Each in a process of its own; one that needs what is not there begins with a comment `# needs ...`."""
    for page in PAGES:
        for block in fenced(page):
            if block.fence not in ("python", "py"):
                continue
            compile(block.text, block.where, "exec")
            if not block.text.startswith("# needs "):
                done = subprocess.run(
                    [sys.executable, "-c", block.text],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
                assert done.returncode == 0, f"{block.where}:\n{done.stderr}"


def test_json_blocks_of_the_documents_are_json() -> None:
    for page in PAGES:
        for block in fenced(page):
            if block.fence == "json":
                json.loads(block.text)


def test_capacity_commands_of_the_documents_run(capsys: pytest.CaptureFixture[str]) -> None:
    done = 0
    for command in of("ringwatch"):
        if command.whole and command.words[1] == "capacity":
            app([*command.words[1:]], standalone_mode=False)
            assert "GiB" in capsys.readouterr().out, str(command)
            done += 1
    assert done
