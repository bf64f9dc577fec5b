"""Whether a server can be reached, found out in bounded time."""

from __future__ import annotations

import socket
import threading
import urllib.request
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def is_reachable(url: str, seconds: float = 3.0) -> bool:
    """True if a TCP connection to the host of ``url``, or to the proxy that leads there, stands within ``seconds``.

    Nothing is sent. The name is looked up in a thread: on a machine without a name server that alone may take minutes.
    """
    address = _address(url)
    if address is None:
        return False
    found = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=seconds).close()
        except (OSError, UnicodeError):
            return
        found.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return found.is_set()


def _address(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        proxy = urllib.request.getproxies().get(parts.scheme)
        if proxy and parts.hostname and not urllib.request.proxy_bypass(parts.hostname):
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or _PORTS.get(parts.scheme, 443)
    except ValueError:  # no address
        return None
    return (parts.hostname, port) if parts.hostname else None
