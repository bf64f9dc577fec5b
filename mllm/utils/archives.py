"""Unpacking zip and tar archives that nobody vouches for: every member is judged before the first one is written.

Members are copied as plain bytes. Modes, owners, links and devices are never taken over from an archive.
"""

from __future__ import annotations

import gzip
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from mllm.errors import DataError

MAX_TOTAL_BYTES = 500 << 30
MAX_MEMBERS = 5_000_000
# Images hardly shrink and JSON shrinks about twentyfold; deflate's bombs reach a thousandfold.
MAX_EXPANSION = 200
EXPANSION_COUNTS_FROM_BYTES = 100 << 20

_CHUNK_BYTES = 1 << 20
_LINK, _SPECIAL = "is a link", "is a device or another special file"
# RuntimeError is what zipfile raises for a compression that it does not know.
_BROKEN = (gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, RuntimeError)
_PLAIN_NAME = re.compile(r"(?!/|[A-Za-z]:)[^\x00-\x1f]+")


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there (``/`` between folders) and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class _Entry:
    name: str
    size: int
    fault: str
    is_folder: bool
    open: Callable[[], IO[bytes]]


def is_archive(path: str | Path) -> bool:
    """Whether the file is a zip or a tar, compressed or not, judged by its content."""
    with _named_faults(path), open(path, "rb") as stream:
        return stream.read(2) == b"PK" or tarfile.is_tarfile(path)


def list_members(path: str | Path) -> list[Member]:
    """The files of an archive, all of its members checked; what macOS adds (``__MACOSX``, ``._name``) is passed over.

    Raises:
        DataError: an absolute path or one with ``..``, a link, a device, an encrypted file, a name that occurs twice,
            more bytes than ``MAX_TOTAL_BYTES`` or than ``MAX_EXPANSION`` times the archive, no archive at all.
    """
    packed, total, names = os.path.getsize(_existing(path)), 0, set()
    found = []
    with _named_faults(path):
        for number, entry in enumerate(_entries(path)):
            name = posixpath.normpath(entry.name.replace("\\", "/"))
            total += entry.size
            fault = entry.fault or _name_fault(entry.name) or _size_fault(number, total, packed)
            if not fault and not entry.is_folder and name in names:
                fault = "occurs twice"
            if fault:
                raise DataError(f"{path}: member {entry.name!r} {fault}; nothing was unpacked: get another archive")
            if not entry.is_folder and not _is_debris(name):
                names.add(name)
                found.append(Member(name, entry.size))
    return found


def unpack(
    path: str | Path, folder: str | Path, targets: Mapping[str, str] | None = None, *, overwrite: bool = False
) -> tuple[int, int]:
    """Copy files of an archive below ``folder``; gives how many were written and how many were there already.

    ``targets`` says which members and to which paths below ``folder``; by default all, to their own. A file that is
    there with the same size is left alone; with another size it is a DataError unless ``overwrite``.
    """
    members = {member.name: member.size for member in list_members(path)}
    places = {name: Path(folder, place) for name, place in (targets or {name: name for name in members}).items()}
    new = {name: place for name, place in places.items() if not _is_there(place, members[name], path, overwrite)}
    _check_space(path, Path(folder), sum(members[name] for name in new))
    with _named_faults(path), tqdm(total=len(new), desc=Path(path).name, unit=" files", disable=None) as bar:
        for entry in _entries(path):
            name = posixpath.normpath(entry.name.replace("\\", "/"))
            if name in new and not entry.is_folder:
                with entry.open() as stream:
                    _copy(stream, new[name], members[name])
                bar.update()
    return len(new), len(places) - len(new)


def _entries(path: str | Path) -> Iterator[_Entry]:
    with open(path, "rb") as stream:
        is_zip = stream.read(2) == b"PK"
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                yield _zip_entry(archive, info)
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for info in archive:
                yield _tar_entry(archive, info)
    else:
        raise DataError(f"{path}: expected a zip, tar or tar.gz archive; unpack one of another kind by other means")


def _tar_entry(archive: tarfile.TarFile, info: tarfile.TarInfo) -> _Entry:
    fault = "" if info.isreg() or info.isdir() else _SPECIAL
    if info.islnk() or info.issym():
        fault = _LINK
    return _Entry(info.name, info.size, fault, info.isdir(), lambda: archive.extractfile(info))


def _zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    kind = stat.S_IFMT(info.external_attr >> 16)
    fault = "is encrypted" if info.flag_bits & 1 else ""
    if kind == stat.S_IFLNK:
        fault = _LINK
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = _SPECIAL
    return _Entry(info.orig_filename, info.file_size, fault, info.is_dir(), lambda: archive.open(info))


def _name_fault(name: str) -> str:
    plain = name.replace("\\", "/")
    if ".." in plain.split("/"):
        return "leads out of its folder"
    return "" if _PLAIN_NAME.fullmatch(plain) else "has an absolute path or a name that no file can have"


def _size_fault(number: int, total: int, packed: int) -> str:
    if number >= MAX_MEMBERS:
        return f"is one too many: at most {MAX_MEMBERS:,} are unpacked"
    if total > MAX_TOTAL_BYTES:
        return f"brings the content to {total:,} bytes: at most {MAX_TOTAL_BYTES:,} are unpacked"
    if total > EXPANSION_COUNTS_FROM_BYTES and total > MAX_EXPANSION * packed:
        return f"brings the content to {total:,} bytes, over {MAX_EXPANSION} times the archive, as a zip bomb does"
    return ""


def _is_debris(name: str) -> bool:
    return name.startswith("__MACOSX/") or posixpath.basename(name).startswith("._")


def _is_there(place: Path, size: int, path: str | Path, overwrite: bool) -> bool:
    if not place.exists():
        return False
    if place.is_file() and place.stat().st_size == size:
        return True
    if not overwrite or not place.is_file():
        raise DataError(f"{place} is there already and is not the file in {path}; --overwrite replaces it")
    return False


def _check_space(path: str | Path, folder: Path, needed: int) -> None:
    existing = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(f"{path}: unpacking needs {needed:,} bytes but {folder} has {free:,} left; make room")


def _copy(stream: IO[bytes], place: Path, size: int) -> None:
    """Copy exactly ``size`` bytes; the file appears when it is complete."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as target:
            left = size
            while chunk := stream.read(min(left + 1, _CHUNK_BYTES)):
                left -= len(chunk)
                if left < 0:
                    break
                target.write(chunk)
        if left:
            raise EOFError(f"{place.name!r} does not have the {size:,} bytes that the archive announces")
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)


def _existing(path: str | Path) -> str | Path:
    if not os.path.isfile(path):
        raise DataError(f"archive {str(path)!r} does not exist; check the path")
    return path


@contextmanager
def _named_faults(path: str | Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); is it complete? Get it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be unpacked: {error}") from error
