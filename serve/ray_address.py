"""Whether the Ray cluster that RAY_ADDRESS names is there: Ray itself tries for two minutes, and says nothing."""

import os
import socket

from serve.errors import ServeError

WAIT_S = 5.0


def check_address() -> None:
    """Raise where RAY_ADDRESS names a place on which nobody listens.

    Raises:
        ServeError: It does.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return  # none, or "auto" or "local", which Ray looks for by itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), WAIT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServeError(
            f"RAY_ADDRESS is {address}, and no Ray cluster answers there ({reason}): start it, or unset RAY_ADDRESS to "
            "use this machine"
        ) from None
