"""A PostgreSQL of the tests' own: a cluster in a temporary folder, on a Unix socket, as a user without rights."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARIES = ("initdb", "postgres")


def binaries() -> dict[str, str] | None:
    """Where PostgreSQL's programs are; None where there is none."""
    folders = [str(p) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    path = os.pathsep.join([os.environ.get("PATH", ""), *folders])
    found = {name: shutil.which(name, path=path) for name in BINARIES}
    return {name: where for name, where in found.items() if where} if all(found.values()) else None


@contextmanager
def cluster() -> Iterator[str]:
    """A server while the context lasts; gives the address of its database `postgres`.

    Raises:
        RuntimeError: It cannot be started here; the message says why.
    """
    programs = binaries()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="ringwatch-pg-", dir="/tmp"))  # a socket's path must be short
    data, sockets = folder / "data", folder / "s"
    sockets.mkdir()
    user = _user(folder, sockets)
    try:
        options = ["-D", str(data), "-U", "ringwatch", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run([programs["initdb"], *options], capture_output=True, text=True, cwd="/", user=user)
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr.strip()[-300:]}")
        quick = ["-c", "fsync=off", "-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs["postgres"], "-D", str(data), *quick], stdout=log, stderr=log, cwd="/", user=user
            )
        try:
            _wait(server, sockets, folder / "log")
            yield f"postgresql://ringwatch@/postgres?host={sockets}"
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user(*folders: Path) -> int | None:
    """Whom to run as: PostgreSQL refuses root. The folders become theirs."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = known.get("postgres") or known.get("nobody")
    if entry is None:
        raise RuntimeError("PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody'")
    for folder in folders:
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    return entry.pw_uid


def _wait(server: "subprocess.Popen[bytes]", sockets: Path, log: Path) -> None:
    import psycopg

    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            psycopg.connect(f"host={sockets} user=ringwatch dbname=postgres").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL does not start: {log.read_text(errors='replace').strip()[-300:]}")
