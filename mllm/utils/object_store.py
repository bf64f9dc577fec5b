"""Objects at ``s3://bucket/key`` and ``cluster:s3://bucket/key``: petrel_client where it exists, boto3 elsewhere.

Both read ``~/petreloss.conf`` (or the file that ``PETREL_CONF`` names): an INI file with ``[DEFAULT]
default_cluster`` and a section per cluster with ``access_key``, ``secret_key`` and ``host_base``. Without the file
boto3 finds its credentials as it always does.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
from functools import lru_cache
from typing import Any

from mmengine.fileio import BaseStorageBackend, register_backend

from mllm.errors import ConfigError
from mllm.utils.imports import require

_URL = re.compile(r"^(?:(?P<cluster>[\w.-]+):)?(?:s3|petrel)://(?P<bucket>[^/]+)/(?P<key>.*)$")
_GENERIC = (None, "petrel", "s3")


@lru_cache(maxsize=1)
def register() -> None:
    """Put the boto3 backend behind mmengine's fileio, once, unless petrel_client can be imported."""
    if importlib.util.find_spec("petrel_client") is None:
        register_backend("mllm_s3", S3Backend, force=True, prefixes=["s3", "petrel"])


def parse_url(url: str) -> tuple[str | None, str, str]:
    """Cluster (None for the default one), bucket and key of an object's address."""
    match = _URL.match(url)
    if not match:
        raise ConfigError(f"{url!r}: expected s3://bucket/key or cluster:s3://bucket/key")
    cluster = match["cluster"]
    return (None if cluster in _GENERIC else cluster), match["bucket"], match["key"]


def read_settings(cluster: str | None) -> dict[str, str]:
    """The cluster's section of the configuration file; empty if there is no file and no cluster is named."""
    path = os.path.expanduser(os.environ.get("PETREL_CONF", "~/petreloss.conf"))
    parser = configparser.ConfigParser(interpolation=None)
    if not parser.read(path, encoding="utf-8"):
        if cluster is None:
            return {}
        raise ConfigError(f"cluster {cluster!r} is not known: there is no {path}")
    name = cluster or parser.defaults().get("default_cluster")
    if name is None or not parser.has_section(name):
        raise ConfigError(f"{path}: no section {name!r}; it has {', '.join(parser.sections()) or 'none'}")
    return dict(parser[name])


@lru_cache(maxsize=32)
def _client(process: int, cluster: str | None) -> Any:
    """A client per process and cluster: boto3's connections do not survive a fork."""
    boto3 = require("boto3", "s3")
    from botocore.config import Config

    settings = read_settings(cluster)
    host = settings.get("host_base")
    if host and "://" not in host:
        host = "http://" + host
    return boto3.client(
        "s3",
        aws_access_key_id=settings.get("access_key"),
        aws_secret_access_key=settings.get("secret_key"),
        endpoint_url=host,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"max_attempts": 6, "mode": "standard"},
            connect_timeout=3,
            read_timeout=20,
        ),
    )


class S3Backend(BaseStorageBackend):
    """What mmengine's fileio calls; every failure of the store is an OSError that names the cluster."""

    def get(self, filepath: str) -> bytes:
        """The object's bytes; FileNotFoundError if there is none."""
        return self._call("get_object", filepath, read=True)

    def get_text(self, filepath: str, encoding: str = "utf-8") -> str:
        """The object as text."""
        return self.get(filepath).decode(encoding)

    def put(self, obj: bytes, filepath: str) -> None:
        """Write an object."""
        self._call("put_object", filepath, Body=obj)

    def exists(self, filepath: str) -> bool:
        """True if there is an object of exactly this key."""
        try:
            self._call("head_object", filepath)
        except FileNotFoundError:
            return False
        return True

    def _call(self, method: str, url: str, *, read: bool = False, **arguments: Any) -> Any:
        cluster, bucket, key = parse_url(url)
        client = _client(os.getpid(), cluster)
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = getattr(client, method)(Bucket=bucket, Key=key, **arguments)
            return answer["Body"].read() if read else answer
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in ("404", "NoSuchKey", "NoSuchBucket"):
                raise FileNotFoundError(url) from error
            raise OSError(f"cluster {cluster or 'default'!r}: {error}") from error
        except BotoCoreError as error:
            raise OSError(f"cluster {cluster or 'default'!r}: {error}") from error
