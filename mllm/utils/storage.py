"""Where bytes come from: local paths directly, ``s3://`` and ``cluster:s3://`` through ``mllm.utils.object_store``.

With ``MLLM_OBJECT_CACHE`` set, images of a store are kept there and taken for unchangeable; annotation files are copied
once and asked for their ETag at every start (``mllm.utils.object_cache``).
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from mllm.errors import ConfigError, DataError

# Below Pillow's own warning limit (89,478,485): what Pillow would warn of is an error here first.
MAX_IMAGE_PIXELS = 80_000_000
_EXIF_ORIENTATION = 0x0112
_PNG_EXIF_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
_REMOTE = re.compile(r"^(?:[\w.-]+:)?(?:s3|petrel)://", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class OpenedImage:
    """An image as it was given out within ``header_only``: where it lies, Pillow's name of its format, its content."""

    image: Image.Image
    where: str
    format: str
    digest: bytes


_header_only: ContextVar[tuple[list[OpenedImage], bool] | None] = ContextVar("header_only", default=None)


@contextmanager
def header_only(*, decode: bool = False) -> Iterator[list[OpenedImage]]:
    """In its body images are opened without decoding them, and the list tells which ones were.

    Their pixels are there all the same for who asks. Decoded at once, and judged as ever, are those that are no RGB
    JPEG or PNG, that EXIF data turn, or that lack the end mark of a complete file; with ``decode`` all of them.
    """
    opened: list[OpenedImage] = []
    token = _header_only.set((opened, decode))
    try:
        yield opened
    finally:
        _header_only.reset(token)


def data_root() -> str:
    """The folder of data sets: environment variable ``MLLM_DATA``, else ``data``."""
    return os.environ.get("MLLM_DATA") or "data"


def cache_folder() -> Path:
    """Where indices and copies of remote annotation files are kept: ``MLLM_CACHE``, else ``work_dirs/.index``."""
    return Path(os.environ.get("MLLM_CACHE") or Path("work_dirs") / ".index")


def is_remote(path: PathLike) -> bool:
    """True for ``s3://…``, ``petrel://…`` and ``cluster:s3://…``."""
    return bool(_REMOTE.match(os.fspath(path)))


def resolve_path(path: PathLike) -> str:
    """Expand ``${VAR}`` and a leading ``~``; ``${MLLM_DATA}`` is always set. ConfigError for an unset variable."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "MLLM_DATA":
            return data_root()
        if name not in os.environ:
            raise ConfigError(f"path {os.fspath(path)!r}: environment variable {name!r} is not set")
        return os.environ[name]

    expanded = _VARIABLE.sub(value, os.fspath(path))
    return expanded if is_remote(expanded) else os.path.expanduser(expanded)


def join(root: PathLike, *parts: str) -> str:
    """Join path or URL; slashes only for URLs."""
    root = os.fspath(root)
    return posixpath.join(root, *parts) if is_remote(root) else os.path.join(root, *parts)


def inside(root: PathLike, path: PathLike) -> str:
    """``path`` below ``root``; DataError if it leads out (``..``, an absolute path elsewhere, another store).

    Judged by the names alone: links that the owner of the data has put inside ``root`` are followed.
    """
    root, path = os.fspath(root), os.fspath(path)
    joined = path if is_remote(path) or os.path.isabs(path) else join(root, path)
    normal, base = _normal(joined), _normal(root)
    if "\0" in joined or not (normal == base or normal.startswith(base.rstrip("/") + "/")):
        fault = f"{path!r} leads out of its folder {root!r}; expected a path below it"
        raise DataError(fault, kind="path outside its folder")
    return _without_dots(joined)


def _normal(path: str) -> str:
    match = _REMOTE.match(path)
    if match:
        return match.group(0) + posixpath.normpath("/" + path[match.end() :]).lstrip("/")
    return os.path.abspath(path)


def _without_dots(path: str) -> str:
    """The address of the object that a person means by ``a/../b``; to a store the dots are letters of a key."""
    dotted = is_remote(path) and {".", ".."} & set(path.split("/"))
    return _normal(path) if dotted else path


def exists(path: PathLike) -> bool:
    """True if there is a file or folder; a remote error is a DataError, not False."""
    path = resolve_path(path)
    return bool(_remote("exists", path)) if is_remote(path) else os.path.exists(path)


def file_names(folder: PathLike, suffix: str) -> list[str]:
    """The names, in order, of the files right in ``folder`` that end in ``suffix``; none if there is no such folder."""
    folder = resolve_path(folder)
    if is_remote(folder):
        return sorted(_remote("names", folder, suffix))
    return sorted(one.name for one in Path(folder).glob(f"*{suffix}") if one.is_file())


def read_bytes(path: PathLike, *, unchanging: bool = False) -> bytes:
    """The whole content; DataError that names the path if it is missing or unreadable.

    ``unchanging``: no other content will ever lie there; a remote one may be kept in ``MLLM_OBJECT_CACHE``.
    """
    path = resolve_path(path)
    if is_remote(path):
        return bytes(_remote("get_unchanging" if unchanging else "get", path))
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {_reason(error, path)}", kind="missing file") from error


def local_file(path: PathLike) -> str:
    """A path to open and map: the file itself, or a copy of the remote one in ``MLLM_CACHE``, as it is now."""
    path = resolve_path(path)
    return str(_remote("local_copy", path)) if is_remote(path) else path


def read_text(path: PathLike) -> str:
    """The whole content as UTF-8 without a byte-order mark; DataError if it is not."""
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error


def open_binary(path: PathLike) -> io.BufferedIOBase:
    """A seekable stream of bytes; a remote object is fetched whole."""
    path = resolve_path(path)
    if is_remote(path):
        return io.BytesIO(read_bytes(path))
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {_reason(error, path)}") from error


def open_image(
    path: PathLike,
    root: PathLike | None = None,
    *,
    exif: Literal["error", "apply", "ignore"] = "error",
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> Image.Image:
    """A decoded RGB image; DataError if it is missing, no image, truncated, too large, or outside ``root``.

    A photograph may say in its EXIF data that it is to be turned. Annotations then hold either for the stored pixels
    (``exif="ignore"``) or for the turned ones (``"apply"``); ``"error"`` demands that somebody decides.
    """
    where = resolve_path(path) if root is None else inside(resolve_path(root), resolve_path(path))
    return decode_image(read_bytes(where, unchanging=True), where, exif=exif, max_pixels=max_pixels)


def decode_image(
    content: bytes,
    where: str,
    *,
    exif: Literal["error", "apply", "ignore"] = "error",
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> Image.Image:
    """The RGB image in ``content``, judged as ``open_image`` judges a file; ``where`` names it in errors."""
    if exif not in ("error", "apply", "ignore"):
        raise ConfigError(f"exif={exif!r}: expected 'error', 'apply' or 'ignore'")
    try:
        image = Image.open(io.BytesIO(content))
        turned = _check_header(image, content, where, exif, max_pixels)
        watched = _header_only.get()
        if watched is None:
            return _decoded(image, exif)
        opened, decode = watched
        given = _decoded(image, exif) if decode or turned or not _is_complete_rgb(image, content) else image
        opened.append(OpenedImage(given, where, str(image.format), blake2b(content, digest_size=16).digest()))
        return given
    except Image.DecompressionBombError as error:
        raise DataError(f"{where}: image is too large: {error}", kind="huge image") from error
    except _BROKEN_IMAGE as error:
        kind = "empty file" if not content else "not an image, or truncated"
        detail = "" if "BytesIO" in str(error) else f" ({error})"
        raise DataError(f"{where}: {kind}{detail}", kind="broken image") from error


def _check_header(image: Image.Image, content: bytes, where: str, exif: str, max_pixels: int) -> bool:
    """Whether EXIF data turn the image; DataError if it is too large, or turned and nobody has decided."""
    width, height = image.size
    if width * height > max_pixels:
        fault = f"image is too large: {width}x{height} has more than {max_pixels} pixels"
        raise DataError(f"{where}: {fault}", kind="huge image")
    orientation = _orientation(image, content)
    if orientation in (0, 1):
        return False
    if exif == "error":
        raise DataError(
            f"{where}: EXIF orientation {orientation}: the stored pixels are turned; say whether the annotations hold "
            "for the turned image (exif='apply') or for the stored one (exif='ignore')",
            kind="turned image",
        )
    return True


def _orientation(image: Image.Image, content: bytes) -> int:
    # Pillow decodes a PNG to look for EXIF data behind its pixels (seen in 12.3): most have none at all.
    if image.format == "PNG" and not any(mark in content for mark in _PNG_EXIF_MARKS):
        return 1
    return image.getexif().get(_EXIF_ORIENTATION, 1)


def _is_complete_rgb(image: Image.Image, content: bytes) -> bool:
    ends = {"JPEG": content.endswith(b"\xff\xd9"), "PNG": content[-8:-4] == b"IEND"}
    return image.mode == "RGB" and ends.get(str(image.format), False)


def _decoded(image: Image.Image, exif: str) -> Image.Image:
    image.load()
    if exif == "apply":
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") and image.getextrema()[1] > 255:
        # Pillow clips 16-bit grey values at 255 instead of scaling them.
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("RGB")


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, FileNotFoundError):
        odd = re.match(r"(?:[\w.-]+:)?(?:s3|petrel):|[\w.+-]+://", path)
        return "no such file" + (" (remote ones are s3://bucket/key or cluster:s3://bucket/key)" if odd else "")
    return getattr(error, "strerror", None) or str(error)


def _remote(call: str, path: str, *options: str) -> Any:
    from mllm.utils import object_cache, object_store

    try:
        if call in ("get_unchanging", "local_copy"):
            return getattr(object_cache, call)(path)
        return getattr(object_store.backend(), call)(path, *options)
    except FileNotFoundError as error:
        raise DataError(str(error), kind="missing file") from error
    except OSError as error:
        raise DataError(str(error)) from error
