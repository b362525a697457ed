"""The listener: a port that a crash does not take away, and connections that cannot be held or filled without end."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from serve.errors import ServeError
from serve.http.listener import Limits, Listener, listen

ROOT = Path(__file__).resolve().parents[3]
QUICK = Limits(connections=50, header_bytes=2048, header_s=0.4, body_s=0.8, stop_s=2)


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with the length of what it was sent."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message.get("more_body", False)
    body = b"%d" % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port() -> Iterator[int]:
    listener = Listener(echo, listen("127.0.0.1", [0]), QUICK)
    listener.start()
    yield listener.port
    listener.stop()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def answer(connection: socket.socket) -> bytes:
    """All that comes until the other side closes, or until a whole answer is there."""
    found = b""
    while not found.endswith((b"}", b"\r\n\r\n4", b"\r\n\r\n0")):
        part = connection.recv(65536)
        if not part:
            break
        found += part
    return found


def status(connection: socket.socket) -> int:
    return int(answer(connection).split()[1])


def closes(connection: socket.socket) -> bool:
    """Whether the other side closes the connection within ten seconds."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


POST = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"


def test_requests_are_answered_one_after_the_other_on_a_kept_connection(port: int) -> None:
    with connected(port) as connection:
        for _ in range(3):
            connection.sendall(POST + b"four")
            assert status(connection) == 200
        time.sleep(1)  # longer than headers or a body may take: an idle connection is no unfinished request
        connection.sendall(POST + b"four")
        assert status(connection) == 200


@pytest.mark.parametrize("sent", [b"", b"POST /x HT", b"POST /x HTTP/1.1\r\nhost: x\r\n"])
def test_a_connection_that_does_not_finish_its_headers_is_closed(port: int, sent: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(sent)
        assert status(connection) == 408
        assert closes(connection)


def test_one_that_does_not_finish_its_body_is_closed_and_so_is_one_that_trickles(port: int) -> None:
    with connected(port) as still, connected(port) as trickling:
        still.sendall(POST + b"fo")
        trickling.sendall(b"POST /x HTTP/1.1\r\n")
        begin = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - begin < 10:
                trickling.sendall(b"a: b\r\n")
                time.sleep(0.05)
        assert time.monotonic() - begin < 10
        assert status(still) == 408
        assert closes(still)


@pytest.mark.parametrize("pieces", [1, 40])
def test_headers_without_end_are_refused_in_one_piece_or_in_many(port: int, pieces: int) -> None:
    with connected(port) as connection:
        head = (
            b"POST /x HTTP/1.1\r\nhost: x\r\n" + b"".join(b"h%d: %s\r\n" % (i, b"x" * 90) for i in range(40)) + b"\r\n"
        )
        try:
            for i in range(pieces):
                connection.sendall(head[i * len(head) // pieces : (i + 1) * len(head) // pieces])
        except ConnectionError:
            pass
        assert status(connection) == 431
        assert closes(connection)


def test_more_connections_than_allowed_are_closed_and_the_others_served(port: int) -> None:
    held = [connected(port) for _ in range(QUICK.connections)]
    for connection in held[:3]:
        connection.sendall(POST + b"four")
        assert status(connection) == 200
    with connected(port) as further:
        assert closes(further)
    held[5].sendall(POST + b"four")
    assert status(held[5]) == 200
    for connection in held:
        connection.close()


def test_half_open_connections_make_room_again(port: int) -> None:
    held = [connected(port) for _ in range(QUICK.connections)]
    time.sleep(1.5)
    with connected(port) as connection:
        connection.sendall(POST + b"four")
        assert status(connection) == 200
    for connection in held:
        connection.close()


def test_a_port_in_use_is_said_and_the_next_of_several_is_taken() -> None:
    with listen("127.0.0.1", [0]) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            listen("127.0.0.1", [port])
        with listen("127.0.0.1", [port, 0]) as other:
            assert other.getsockname()[1] != port


CRASHING = """
    import sys
    from serve.http.listener import Listener, listen
    from tests.serve.http.test_listener import echo

    listener = Listener(echo, listen("127.0.0.1", [int(sys.argv[1])]))
    listener.start()
    print(listener.port, flush=True)
    sys.stdin.read()
"""


def test_a_port_is_there_again_at_once_after_kill_9_with_connections_in_use() -> None:
    port = 0
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CRASHING), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert process.stdout is not None
        given = int(process.stdout.readline())
        assert port in (0, given)
        port = given
        kept = [connected(port) for _ in range(20)]
        for connection in kept:
            connection.sendall(POST + b"four")
            assert status(connection) == 200
        kept[0].sendall(POST)  # in the middle of a request
        process.send_signal(signal.SIGKILL)
        process.wait()
        # No pause, and the clients still hold their ends.
        with listen("127.0.0.1", [port]):
            pass
        for connection in kept:
            connection.close()


def test_a_stopped_listener_answers_what_it_has_and_lets_its_port_go() -> None:
    listener = Listener(echo, listen("127.0.0.1", [0]), QUICK)
    listener.start()
    with connected(listener.port) as connection:
        connection.sendall(POST + b"four")
        assert status(connection) == 200
        listener.stop()
        with listen("127.0.0.1", [listener.port]):
            pass
