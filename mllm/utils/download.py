"""Downloads that can be interrupted: resumed where they stopped, checked, and in their place only when complete."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import posixpath
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from mllm.errors import ConfigError, DataError
from mllm.utils.files import atomic_write

TIMEOUT_SECONDS = 60
# A connection that breaks is taken up again at once as long as each one has brought something.
MAX_CONNECTIONS = 20
_CHUNK_BYTES = 1 << 20
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class _BrokenOff(Exception):
    """The connection ended before the content did."""


def download(url: str, path: str | Path, sha256: str | None = None) -> Path:
    """Fetch ``url`` to ``path``, with a progress bar on a terminal; a file that is there is checked and kept.

    Until it is complete and its checksum right the content lies in ``NAME.part``; a later call goes on from there if
    the server can (HTTP Range) and still has the same content (ETag or time of change), and else starts anew.

    Raises:
        ConfigError: no http(s) address, no checksum of 64 hexadecimal digits.
        DataError: the server says no, cannot be reached or breaks off; the checksum is another; the disk is full.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"url {url!r}: expected http://… or https://…")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"sha256 {sha256!r}: expected 64 hexadecimal digits")
    path = Path(path)
    if path.exists():
        _check(path, sha256, url, "name another place, correct the checksum, or delete it to fetch it anew")
        return path
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    _fetch(url, part)
    _check(part, sha256, url, "correct the checksum, or delete it to fetch it anew")
    os.replace(part, path)
    _note(part).unlink(missing_ok=True)
    return path


def name_of(url: str) -> str:
    """The file name at the end of an address; ConfigError where there is none."""
    name = unquote(posixpath.basename(urlsplit(url).path))
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ConfigError(f"url {url!r} does not end in the name of a file")
    return name


def _fetch(url: str, part: Path) -> None:
    for _ in range(MAX_CONNECTIONS):
        before = _size(part)
        try:
            with _named_faults(url, part):
                return _connect(url, part)
        except _BrokenOff as fault:
            if _size(part) <= before:
                raise DataError(f"{url}: {fault}; run the same again to go on from {part}") from fault
    raise DataError(f"{url}: {MAX_CONNECTIONS} connections broke off; run the same again to go on from {part}")


def _connect(url: str, part: Path) -> None:
    offset, note = _size(part), _read_note(part)
    identity = hashlib.sha256(url.encode()).hexdigest()
    if note.get("url_sha256") != identity:
        offset = 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "mllm"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if note.get("validator"):
            headers["If-Range"] = note["validator"]
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        if not offset or error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if _range(error.headers)[1] != offset:
            part.unlink()
            _connect(url, part)
        return
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            offset = 0
        elif _range(response.headers)[0] != offset:
            raise _BrokenOff(f"the server sent another part than the one from byte {offset:,}")
        atomic_write(_note(part), json.dumps({"url_sha256": identity, "validator": _validator(response.headers)}))
        _receive(response, part, offset)


def _receive(response: Any, part: Path, offset: int) -> None:
    length = response.headers.get("Content-Length", "")
    total = offset + int(length) if length.isdecimal() else None
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - offset > free:
        raise DataError(f"{part}: {total - offset:,} bytes are to come but {free:,} are left on the disk; make room")
    bar = {"desc": part.stem, "total": total, "initial": offset, "unit": "B", "unit_scale": True, "disable": None}
    with part.open("ab" if offset else "wb") as target, tqdm(**bar) as shown:
        while chunk := response.read(_CHUNK_BYTES):
            target.write(chunk)
            shown.update(len(chunk))
    if total is not None and _size(part) < total:
        raise _BrokenOff(f"the connection ended after {_size(part):,} of {total:,} bytes")


@contextmanager
def _named_faults(url: str, part: Path) -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        advice = "check the address" if error.code in (404, 410) else "try later, or fetch it by other means"
        raise DataError(f"{url}: the server answers {error.code} {error.reason}; {advice}") from error
    except URLError as error:
        raise DataError(
            f"{url}: cannot be reached ({error.reason}); check address and network, or fetch it by other means"
        ) from error
    except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise _BrokenOff(f"the connection broke off after {_size(part):,} bytes ({reason})") from error
    except OSError as error:
        raise DataError(f"{part}: cannot be written ({error.strerror or error})") from error


def _check(path: Path, sha256: str | None, url: str, advice: str) -> None:
    if sha256 is None:
        return
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != sha256.lower():
        raise DataError(
            f"{path}, from {url}: its SHA-256 is {digest.hexdigest()}, expected {sha256.lower()}; it is kept: {advice}"
        )


def _range(headers: Any) -> tuple[int | None, int | None]:
    """First byte sent and size of the whole, each None where the server does not say."""
    match = _RANGE.fullmatch(headers.get("Content-Range", ""))
    first, total = match.groups() if match else (None, None)
    return (int(first) if first else None), (int(total) if total and total.isdecimal() else None)


def _validator(headers: Any) -> str:
    """What tells the server's content from another: a strong ETag, else the time of change, else nothing."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> dict[str, Any]:
    try:
        return json.loads(_note(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
