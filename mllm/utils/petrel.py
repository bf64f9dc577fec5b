"""petrel_client behind mmengine's fileio, with what it leaves out: missing objects and refusals are errors."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.fileio import PetrelBackend

from mllm.errors import ConfigError
from mllm.utils.object_errors import StoreDown
from mllm.utils.object_settings import Store, clusters, conf_path, find_store, parse_url
from mllm.utils.redact import redact_text

# Whatever of these can be imported; petrel_client lets through what it does not know itself.
_ERRORS = (
    ("petrel_client.common.exception", "Error"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("urllib3.exceptions", "HTTPError"),
)


class PetrelClientBackend(PetrelBackend):
    """mmengine's backend on the file of ``PETREL_CONF``; clients without ``Get``, ``contains`` or ``isdir`` do too.

    petrel_client tries again by itself (``get_retry_max`` of its file) and keeps a client per process.
    """

    def __init__(self) -> None:
        if not clusters():
            raise ConfigError(f"petrel_client reads its clusters from {conf_path()}, and it names none")
        super().__init__(conf_path=conf_path())

    def get(self, filepath: str) -> bytes:
        """The object's bytes; FileNotFoundError where petrel_client gives none, and it does not say why."""
        store, url = _plain(filepath)
        with _told(filepath, store):
            value = self._read(url)
        if value is None:
            fault = f"{filepath}: no such object in {store}, or its keys may not read it"
            raise FileNotFoundError(f"{fault} (petrel_client does not tell which)")
        return bytes(value)

    def put(self, obj: bytes, filepath: str) -> None:
        """Write an object."""
        store, url = _plain(filepath)
        with _told(filepath, store):
            self._client.put(url, obj)

    def exists(self, filepath: str) -> bool:
        """True if there is an object of this key, or a folder."""
        store, url = _plain(filepath)
        with _told(filepath, store):
            try:
                return bool(super().exists(url))
            except NotImplementedError:
                return self._read(url) is not None

    def names(self, filepath: str, suffix: str) -> list[str]:
        """The names of the objects right in a folder that end in ``suffix``."""
        store, url = _plain(filepath)
        with _told(filepath, store):
            return list(self.list_dir_or_file(url, list_dir=False, suffix=suffix))

    def _read(self, url: str) -> bytes | None:
        # mmengine 0.10 keeps the client in ``_client``.
        read = getattr(self._client, "Get", None) or self._client.get
        return read(url)


def _plain(url: str) -> tuple[Store, str]:
    """The store, and the address as petrel_client wants it: ``petrel:`` would be a cluster to it."""
    cluster, bucket, key = parse_url(url)
    return find_store(cluster), f"{cluster}:s3://{bucket}/{key}" if cluster else f"s3://{bucket}/{key}"


@contextmanager
def _told(url: str, store: Store) -> Iterator[None]:
    try:
        yield
    except (OSError, *_errors()) as error:
        detail = redact_text(" ".join(str(error).split()))[:200]
        raise StoreDown(f"{url}: {store} does not give it ({type(error).__name__}: {detail})") from error


def _errors() -> Iterator[type[BaseException]]:
    for module, name in _ERRORS:
        try:
            yield getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
