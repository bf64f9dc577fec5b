"""Objects at ``s3://bucket/key`` and ``cluster:s3://bucket/key``: petrel_client where it exists, boto3 elsewhere.

``backend()`` gives the one that reads, behind mmengine's fileio; ``S3Backend`` (boto3) also lists, and moves big files
in parts. Settings: ``mllm.utils.object_settings``; errors: ``mllm.utils.object_errors``.
"""

from __future__ import annotations

import importlib.util
import os
import random
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmengine import fileio
from mmengine.fileio import BaseStorageBackend, register_backend

from mllm.errors import ConfigError
from mllm.utils import object_settings
from mllm.utils.imports import require
from mllm.utils.object_errors import told
from mllm.utils.object_settings import Limits, Store, find_store, limits, parse_url

PART_BYTES = 16 << 20
_PREFIXES = ["s3", "petrel"]
_LONGEST_PAUSE = 20.0


def backend() -> Any:
    """What reads and writes whole objects: petrel_client's client if it can be imported, else boto3's."""
    return fileio.get_file_backend(backend_args={"backend": _register()}, enable_singleton=True)


@lru_cache(maxsize=1)
def _register() -> str:
    if importlib.util.find_spec("petrel_client") is None:
        register_backend("mllm_s3", S3Backend, force=True, prefixes=_PREFIXES)
        return "mllm_s3"
    from mllm.utils.petrel import PetrelClientBackend

    register_backend("mllm_petrel", PetrelClientBackend, force=True, prefixes=_PREFIXES)
    return "mllm_petrel"


def forget() -> None:
    """Take settings, environment and clients anew at the next request."""
    object_settings.forget()
    _client.cache_clear()
    _register.cache_clear()
    fileio.io.backend_instances.clear()


@lru_cache(maxsize=32)
def _client(process: int, store: Store, limit: Limits) -> Any:
    """A client per process and cluster: boto3's connections do not survive a fork."""
    boto3 = require("boto3", "s3")
    from botocore import UNSIGNED
    from botocore.config import Config

    options: dict[str, Any] = {"signature_version": UNSIGNED} if store.anonymous else {}
    # Checksums in a trailer, botocore's default since 1.36, are unknown to older gateways.
    for name in ("request_checksum_calculation", "response_checksum_validation"):
        if name in Config.OPTION_DEFAULTS:
            options[name] = "when_required"
    # A session of its own: boto3's default one may not make clients in two threads at once.
    return boto3.session.Session().client(
        "s3",
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        endpoint_url=store.endpoint,
        verify=None if store.verify else False,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": limit.attempts, "mode": "standard"},
            connect_timeout=limit.connect,
            read_timeout=limit.read,
            **options,
        ),
    )


def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_concurrency=4,
        num_download_attempts=limits().attempts,
    )


class S3Backend(BaseStorageBackend):
    """The store through boto3; every failure is an OSError with the whole sentence, see ``object_errors.told``."""

    def get(self, filepath: str) -> bytes:
        """The object's bytes; FileNotFoundError if there is none.

        botocore tries a request again until the answer begins; here also an answer that breaks off is asked for again.
        """
        store, client, place = _opened(filepath)
        with told(filepath, store):
            from botocore.exceptions import ChecksumError, HTTPClientError, IncompleteReadError

            for attempt in range(1, limits().attempts + 1):
                body = client.get_object(**place)["Body"]
                try:
                    return body.read()
                except (HTTPClientError, IncompleteReadError, ChecksumError):
                    if attempt == limits().attempts:
                        raise
                finally:
                    body.close()
                time.sleep(random.random() * min(2.0 ** (attempt - 1), _LONGEST_PAUSE))
        raise AssertionError("the loop returns or raises")

    def get_text(self, filepath: str, encoding: str = "utf-8") -> str:
        """The object as text."""
        return self.get(filepath).decode(encoding)

    def put(self, obj: bytes, filepath: str) -> None:
        """Write an object, whole or not at all."""
        store, client, place = _opened(filepath)
        with told(filepath, store):
            client.put_object(**place, Body=obj)

    def exists(self, filepath: str) -> bool:
        """True if there is an object of this key, or a folder; FileNotFoundError if there is no such bucket."""
        return bool(parse_url(filepath)[2] and self.isfile(filepath)) or self.isdir(filepath)

    def isfile(self, filepath: str) -> bool:
        """True if there is an object of exactly this key."""
        try:
            self.state(filepath)
        except FileNotFoundError:
            return False
        return True

    def isdir(self, filepath: str) -> bool:
        """True if the keys of some objects begin with this one and a slash; a bucket is a folder too."""
        cluster, bucket, key = parse_url(filepath)
        store = find_store(cluster)
        with told(filepath, store):
            options = {"Bucket": bucket, "Prefix": _prefix(key), "MaxKeys": 1}
            answer = _client(os.getpid(), store, limits()).list_objects_v2(**options)
        return bool(answer.get("KeyCount")) or not key

    def state(self, filepath: str) -> tuple[int, str]:
        """Bytes and ETag, which changes with the content; FileNotFoundError if there is no such object."""
        store, client, place = _opened(filepath)
        with told(filepath, store):
            answer = client.head_object(**place)
        return int(answer["ContentLength"]), str(answer.get("ETag", ""))

    def files(self, filepath: str) -> Iterator[tuple[str, int]]:
        """Name, relative to the folder, and bytes of every object below it; nothing where there is no folder."""
        cluster, bucket, key = parse_url(filepath)
        store = find_store(cluster)
        with told(filepath, store):
            pages = _client(os.getpid(), store, limits()).get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=_prefix(key)):
                for one in page.get("Contents", ()):
                    if not one["Key"].endswith("/"):
                        yield one["Key"][len(_prefix(key)) :], int(one["Size"])

    def names(self, filepath: str, suffix: str) -> list[str]:
        """The names of the objects right in a folder that end in ``suffix``; empty where there is no folder."""
        cluster, bucket, key = parse_url(filepath)
        store, prefix = find_store(cluster), _prefix(key)
        with told(filepath, store):
            pages = _client(os.getpid(), store, limits()).get_paginator("list_objects_v2")
            found = [
                one["Key"][len(prefix) :]
                for page in pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
                for one in page.get("Contents", ())
            ]
        return [name for name in found if name and name.endswith(suffix)]

    def upload(self, path: str | Path, filepath: str) -> None:
        """Write a file, a big one in parts; OSError if what arrived is not as long."""
        store, client, place = _opened(filepath)
        with open(path, "rb") as stream, told(filepath, store):
            size = os.fstat(stream.fileno()).st_size
            client.upload_fileobj(stream, place["Bucket"], place["Key"], Config=_transfer())
        _check_size(filepath, size, self.state(filepath)[0])

    def download(self, filepath: str, path: str | Path) -> None:
        """Fetch an object into a file, a big one in parts; OSError if what arrived is not as long."""
        store, client, place = _opened(filepath)
        size = self.state(filepath)[0]
        with open(path, "wb") as stream, told(filepath, store):
            client.download_fileobj(place["Bucket"], place["Key"], stream, Config=_transfer())
        _check_size(filepath, size, os.path.getsize(path))

    def remove(self, filepath: str) -> None:
        """Delete an object; nothing happens where there is none."""
        store, client, place = _opened(filepath)
        with told(filepath, store):
            client.delete_object(**place)


def _opened(url: str) -> tuple[Store, Any, dict[str, str]]:
    cluster, bucket, key = parse_url(url)
    if not key:
        raise ConfigError(f"{url!r} names a bucket, no object in it; expected s3://bucket/key")
    store = find_store(cluster)
    with told(url, store):
        return store, _client(os.getpid(), store, limits()), {"Bucket": bucket, "Key": key}


def _prefix(key: str) -> str:
    return key if not key or key.endswith("/") else f"{key}/"


def _check_size(url: str, expected: int, found: int) -> None:
    if found != expected:
        raise OSError(f"{url}: {found} bytes arrived instead of {expected}; was it changed meanwhile?")
