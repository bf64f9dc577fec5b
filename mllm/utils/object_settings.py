"""Where an object lies and with which keys it is read: addresses, ``~/petreloss.conf``, time limits.

The file (or the one that ``PETREL_CONF`` names) is petrel_client's: ``[DEFAULT] default_cluster`` and a section per
cluster with ``host_base``, ``access_key``, ``secret_key``; ``verify_ssl = False`` trusts any certificate. A section
without keys is read anonymously unless AWS_ACCESS_KEY_ID or AWS_PROFILE is set. Without the file boto3 finds keys and
address as it always does (environment, ``~/.aws``).

Environment: ``MLLM_OBJECT_TIMEOUT``, seconds without a byte until a read is given up (20), and
``MLLM_OBJECT_ATTEMPTS``, how often a request is tried (6, with pauses that grow up to 20 s).
"""

from __future__ import annotations

import configparser
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

from mllm.errors import ConfigError, choices

_URL = re.compile(r"^(?:(?P<cluster>[\w.-]+):)?(?:s3|petrel)://(?P<bucket>[^/]+)(?:/(?P<key>.*))?$", re.I | re.S)
# Sections of petrel_client's file that are no clusters.
_NO_CLUSTERS = ("cache", "mc", "dfs")
_FALSE = ("0", "no", "false", "off")
_OWN_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE")


@dataclass(frozen=True)
class Store:
    """One cluster: how it is reached, and what messages call it (never with its keys)."""

    name: str | None = None
    endpoint: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    anonymous: bool = False
    verify: bool = True
    conf: str | None = None

    def __str__(self) -> str:
        where = "" if self.endpoint is None else f" ({without_login(self.endpoint)})"
        return f"cluster {self.name!r}{where}" if self.conf else "the default S3 store"

    @property
    def settings(self) -> str:
        """Where the person who reads a message can change something."""
        return f"[{self.name}] in {self.conf}" if self.conf else f"AWS_… in the environment, or write {conf_path()}"


@dataclass(frozen=True)
class Limits:
    """Seconds and numbers of attempts of every request."""

    connect: float
    read: float
    attempts: int


def parse_url(url: str) -> tuple[str | None, str, str]:
    """Cluster (None for the default one), bucket and key ("" for the bucket itself); ConfigError for another address.

    ``petrel:s3://`` is the default cluster, unless the file has a section of that name.
    """
    match = _URL.match(url)
    if not match:
        raise ConfigError(f"{url!r}: expected s3://bucket/key or cluster:s3://bucket/key")
    cluster = match["cluster"]
    if cluster in ("petrel", "s3") and cluster not in clusters():
        cluster = None
    return cluster, match["bucket"], match["key"] or ""


def conf_path() -> str:
    """The configuration file, whether it exists or not."""
    return os.path.expanduser(os.environ.get("PETREL_CONF") or "~/petreloss.conf")


def clusters() -> list[str]:
    """The clusters of the configuration file, none if there is no file."""
    parser = _parser(conf_path())
    return [name for name in parser.sections() if name.lower() not in _NO_CLUSTERS] if parser else []


def find_store(cluster: str | None) -> Store:
    """The cluster's settings; ConfigError if it is not in the file, or its section cannot be used."""
    return _store(cluster, conf_path())


@lru_cache(maxsize=32)
def _store(cluster: str | None, path: str) -> Store:
    parser = _parser(path)
    if parser is None:
        if cluster is None:
            return Store()
        fault = f"cluster {cluster!r} is not known: there is no {path}; write it, or name another file in PETREL_CONF"
        raise ConfigError(fault)
    name = cluster or parser.defaults().get("default_cluster")
    known = clusters()
    if name is None:
        raise ConfigError(
            f"{path}: no default_cluster in [DEFAULT]; set it, or write CLUSTER:s3://…; {choices('', known)}"
        )
    if name not in known:
        fault = "" if cluster else ", which default_cluster names"
        raise ConfigError(f"{path}: no section {name!r}{fault}; {choices(name, known)}")
    return _from_section(name, dict(parser[name]), path)


def _from_section(name: str, values: dict[str, str], path: str) -> Store:
    keys = [values.get(one, "").strip() or None for one in ("access_key", "secret_key")]
    if (keys[0] is None) != (keys[1] is None):
        present, absent = ("access_key", "secret_key") if keys[0] else ("secret_key", "access_key")
        raise ConfigError(
            f"{path}: section [{name}] has {present} but no {absent}; give both, or none to read anonymously"
        )
    endpoint = (values.get("host_base") or values.get("endpoint_url") or "").strip()
    if endpoint:
        endpoint = _checked_endpoint(endpoint if "://" in endpoint else f"http://{endpoint}", name, path)
    return Store(
        name=name,
        endpoint=endpoint or None,
        access_key=keys[0],
        secret_key=keys[1],
        anonymous=keys[0] is None and not any(os.environ.get(one) for one in _OWN_KEYS),
        verify=values.get("verify_ssl", "true").strip().lower() not in _FALSE,
        conf=path,
    )


def _checked_endpoint(endpoint: str, name: str, path: str) -> str:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable:
        fault = f"{path}: host_base {without_login(endpoint)!r} of section [{name}] is no address"
        raise ConfigError(f"{fault}; expected http://HOST:PORT")
    return endpoint


def limits() -> Limits:
    """Time limits and attempts; ConfigError if the environment holds something else than positive numbers."""
    read = _number("MLLM_OBJECT_TIMEOUT", 20.0)
    attempts = _number("MLLM_OBJECT_ATTEMPTS", 6.0)
    if attempts < 1 or attempts != int(attempts):
        raise ConfigError(f"MLLM_OBJECT_ATTEMPTS={os.environ['MLLM_OBJECT_ATTEMPTS']!r}: expected 1, 2, …")
    return Limits(connect=min(3.0, read), read=read, attempts=int(attempts))


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{name}={text!r}: expected a number above 0")
    return value


def without_login(address: str) -> str:
    """An address without ``user:password@``."""
    return re.sub(r"://[^/\s]*@", "://", address)


@lru_cache(maxsize=8)
def _parser(path: str) -> configparser.ConfigParser | None:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8-sig") as stream:
            parser.read_file(stream)
    except FileNotFoundError:
        if os.environ.get("PETREL_CONF"):
            raise ConfigError(f"PETREL_CONF names {path}, which does not exist") from None
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (configparser.Error, UnicodeDecodeError) as error:
        # Not the message of configparser: it shows the line, which may hold a key.
        raise ConfigError(
            f"{path}{_line(error)}: cannot be read ({type(error).__name__}); expected [DEFAULT] with default_cluster, "
            "and a section per cluster with host_base, access_key and secret_key"
        ) from None
    return parser


def _line(error: Exception) -> str:
    number = getattr(error, "lineno", None) or next((one[0] for one in getattr(error, "errors", [])), None)
    return f", line {number}" if number else ""


def forget() -> None:
    """Read the configuration file anew at the next request."""
    _store.cache_clear()
    _parser.cache_clear()
