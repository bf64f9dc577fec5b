"""What went wrong in an object store, in one sentence that names address, cluster and what to do; never a key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mllm.utils.object_settings import Store, limits, parse_url
from mllm.utils.redact import redact_text


class StoreDown(OSError):
    """The store does not answer, or not as it should; the same request may work later."""


_WRONG_KEYS = {
    "SignatureDoesNotMatch": "the secret key is wrong",
    "InvalidAccessKeyId": "the access key is not known there",
    "AuthorizationHeaderMalformed": "the keys, or the region, are wrong",
    "InvalidToken": "the session token is wrong",
    "ExpiredToken": "the session token has expired",
}
_BUSY = ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests", "429")


@contextmanager
def told(url: str, store: Store) -> Iterator[None]:
    """In its body boto3 is called; what it raises becomes an OSError with the whole sentence.

    FileNotFoundError: no such object or bucket; PermissionError: the keys, or what they allow; StoreDown: the store is
    away, overloaded or breaks off, after all attempts.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except ClientError as error:
        raise _refused(error.response, url, store) from error
    except BotoCoreError as error:
        raise _failed(error, url, store) from error
    except RetriesExceededError as error:
        raise _failed(error.last_exception, url, store) from error
    except ResponseParserError as error:
        fault = f"{url}: {store} does not answer as an S3 store does; check host_base ({store.settings})"
        raise StoreDown(fault) from error


def _refused(response: dict[str, Any], url: str, store: Store) -> OSError:
    """The store answered, with a no."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return FileNotFoundError(f"{url}: no such bucket {parse_url(url)[1]!r} in {store}")
    if code in ("404", "NoSuchKey"):
        return FileNotFoundError(f"{url}: no such object in {store}")
    if code == "RequestTimeTooSkewed":
        return PermissionError(f"{url}: the clock of this machine differs too much from that of {store}; set it right")
    if code in _WRONG_KEYS:
        return PermissionError(f"{url}: {store} refuses the keys: {_WRONG_KEYS[code]}; check {store.settings}")
    if code == "QuotaExceeded":
        return OSError(f"{url}: the quota in {store} is used up")
    if status in (401, 403):
        return PermissionError(f"{url}: access refused ({_both(status, code)}) by {store}; {_who(store)}")
    if status >= 500 or code in _BUSY:
        return StoreDown(f"{url}: {store} answered {_both(status, code)} to each of {_attempts()}; try again later")
    detail = redact_text(str(response.get("Error", {}).get("Message") or ""))[:200]
    return OSError(f"{url}: {store} answered {_both(status, code)}" + (f" ({detail})" if detail else ""))


def _failed(error: BaseException, url: str, store: Store) -> OSError:
    """There was no answer, or half of one."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ReadTimeoutError):
        fault = f"{url}: nothing came from {store} for {limits().read:g} s in each of {_attempts()}"
        return StoreDown(f"{fault}; try again later, or set MLLM_OBJECT_TIMEOUT higher")
    if isinstance(error, boto.SSLError):
        return _no_tls(str(error), url, store)
    if isinstance(error, boto.ConnectionError):
        fault = f"{url}: {store} cannot be reached ({_attempts()})"
        return StoreDown(f"{fault}; check the network and host_base ({store.settings})")
    if isinstance(error, (boto.HTTPClientError, boto.IncompleteReadError, boto.ChecksumError)):
        return StoreDown(f"{url}: the connection to {store} broke in each of {_attempts()}; try again later")
    if isinstance(error, boto.ParamValidationError):
        return OSError(f"{url}: expected s3://bucket/key with a bucket's name of small letters, digits, '.' and '-'")
    if "Credential" in type(error).__name__ or isinstance(error, boto.ProfileNotFound):
        return PermissionError(f"{url}: no access key for {store}; set {store.settings}")
    return OSError(f"{url}: {store}: {redact_text(' '.join(str(error).split()))}")


def _no_tls(detail: str, url: str, store: Store) -> OSError:
    if "CERTIFICATE" not in detail.upper():
        return PermissionError(f"{url}: no TLS connection to {store}; does host_base ({store.settings}) mean http://?")
    cure = f"name its authority's file in AWS_CA_BUNDLE, or set verify_ssl = False ({store.settings})"
    return PermissionError(f"{url}: the certificate of {store} is not trusted; {cure}")


def _both(status: int, code: str) -> str:
    return f"{status} {code}" if code and code != str(status) else str(status)


def _who(store: Store) -> str:
    if store.anonymous:
        return f"there are no keys in {store.settings}, and it is not open to all"
    return f"the keys ({store.settings}) may be wrong, or not allow this, or there is no such object"


def _attempts() -> str:
    count = limits().attempts
    return "1 attempt" if count == 1 else f"{count} attempts"
