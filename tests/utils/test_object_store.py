"""Objects of a store: every address, every fault in one sentence, nothing half read, no key in any message."""

import io
import sys
import threading
import traceback
from types import SimpleNamespace
from typing import ClassVar

import pytest
from PIL import Image
from utils import stores

from mllm.errors import ConfigError, DataError, UserError
from mllm.utils import object_settings, object_store, storage

pytest.importorskip("moto", reason=stores.INSTALL)
pytest.importorskip("flask_cors", reason=stores.INSTALL)

CONTENT = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def moto():
    with stores.moto_server() as address:
        yield address


@pytest.fixture(scope="module")
def one_proxy(moto):
    with stores.Proxy(moto) as one:
        yield one


@pytest.fixture
def proxy(one_proxy):
    one_proxy.begin_anew()
    return one_proxy


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    return tmp_path_factory.mktemp("conf") / "petrel.conf"


@pytest.fixture
def store(moto, proxy, conf, monkeypatch):
    """Clusters main and faulty (through the proxy), each with the bucket "data"; dead, where nothing listens."""
    clusters = {"main": moto, "faulty": proxy.url, "dead": "http://127.0.0.1:9"}
    stores.write_settings(conf, monkeypatch, **clusters)
    stores.make_bucket("data")
    backend = object_store.backend()
    for name in [name for name, _ in backend.files("s3://data")]:
        backend.remove(f"s3://data/{name}")
    backend.put(CONTENT, "s3://data/k")
    yield backend
    object_settings.forget()


def refusal(path, read=storage.read_bytes):
    """What the user is told; no key is in it, nor in its traceback."""
    with pytest.raises(UserError) as caught:
        read(path)
    assert stores.SECRET not in "".join(traceback.format_exception(caught.value))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_address_of_an_object_reads_it(store):
    for address in ("s3://data/k", "petrel:s3://data/k", "petrel://data/k", "main:s3://data/k", "faulty:s3://data/k"):
        assert storage.read_bytes(address) == CONTENT


@pytest.mark.parametrize("key", ["a b+c%20.png", "ü/漢.png", "empty"])
def test_keys_may_hold_any_letters(store, key):
    content = b"" if key == "empty" else b"x"
    store.put(content, f"s3://data/{key}")
    assert storage.read_bytes(f"s3://data/{key}") == content
    assert storage.exists(f"s3://data/{key}")


def test_images_and_text_are_read_below_a_remote_root(store):
    picture = io.BytesIO()
    Image.new("RGB", (4, 3)).save(picture, "PNG")
    store.put(picture.getvalue(), "s3://data/images/a.png")
    store.put("\ufeffü".encode(), "s3://data/t.txt")
    assert storage.open_image("x/../a.png", root="s3://data/images").size == (4, 3)
    assert storage.read_text("s3://data/t.txt") == "ü"
    assert storage.open_binary("s3://data/t.txt").seek(0, 2) == 5
    with pytest.raises(DataError, match=r"s3://data/t.txt: not an image"):
        storage.open_image("s3://data/t.txt")


def test_what_exists(store):
    store.put(b"x", "s3://data/folder/sub/a.txt")
    for there in ("s3://data/k", "s3://data/folder", "s3://data/folder/", "s3://data/folder/sub", "s3://data"):
        assert storage.exists(there), there
    for absent in ("s3://data/fold", "s3://data/k/", "s3://data/folder/a.txt"):
        assert not storage.exists(absent), absent
    assert "no such bucket 'nodata' in cluster 'main'" in refusal("s3://nodata/k", storage.exists)
    assert storage.file_names("s3://data/folder/sub", ".txt") == ["a.txt"]
    assert storage.file_names("s3://data/folder", ".txt") == []
    assert dict(store.files("s3://data/folder")) == {"sub/a.txt": 1}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://data/none", r"s3://data/none: no such object in cluster 'main' \(http://127"),
        ("s3://nodata/k", r"s3://nodata/k: no such bucket 'nodata' in cluster 'main'"),
        ("s3://B_?/k", "a bucket's name of small letters"),
        ("s3://data", "names a bucket, no object in it; expected s3://bucket/key"),
        ("s3:///k", "expected s3://bucket/key or cluster:s3://bucket/key"),
        ("mian:s3://data/k", r"petrel.conf: no section 'mian'; did you mean 'main'\? known: dead, faulty, main"),
        (
            "dead:s3://data/k",
            r"cluster 'dead' \(http://127.0.0.1:9\) cannot be reached \(1 attempt\); check the network ",
        ),
    ],
)
def test_a_wrong_address_is_told_in_one_sentence(store, monkeypatch, address, message):
    monkeypatch.setenv("MLLM_OBJECT_ATTEMPTS", "1")
    with pytest.raises(UserError, match=message):
        storage.read_bytes(address)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            (403, "SignatureDoesNotMatch"),
            r"refuses the keys: the secret key is wrong; check \[faulty\] in .*petrel.conf",
        ),
        ((403, "InvalidAccessKeyId"), "the access key is not known there"),
        ((403, "AccessDenied"), r"access refused \(403 AccessDenied\) by cluster 'faulty'.*may be wrong, or not allow"),
        ((403, "RequestTimeTooSkewed"), "the clock of this machine differs too much"),
        ((403, "QuotaExceeded"), "the quota in cluster 'faulty' .* is used up"),
        ((400, "Strange"), r"answered 400 Strange \(as the test wants it\)"),
    ],
)
def test_a_refusal_says_what_to_do_and_is_not_asked_for_again(store, proxy, answer, message):
    proxy.faults.append(answer)
    with pytest.raises(DataError, match=message) as caught:
        storage.read_bytes("faulty:s3://data/k")
    assert str(caught.value).startswith("faulty:s3://data/k: ")
    assert proxy.count("GET") == 1


FAULTS = ["drop", "stall", "stall-body", "reset", (500, "InternalError"), (503, "SlowDown")]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_an_answer_that_fails_or_breaks_off_is_asked_for_again(store, proxy, monkeypatch, fault):
    monkeypatch.setenv("MLLM_OBJECT_TIMEOUT", "0.3")
    proxy.faults.append(fault)
    assert storage.read_bytes("faulty:s3://data/k") == CONTENT
    assert proxy.count("GET") == 2


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("drop", "the connection to cluster 'faulty' .* broke in each of 2 attempts"),
        ("stall-body", "nothing came from cluster 'faulty' .* for 0.3 s in each of 2 attempts; .* MLLM_OBJECT_TIMEOUT"),
        ("stall", "nothing came from cluster 'faulty' .* for 0.3 s in each of 2 attempts"),
        ((503, "SlowDown"), "answered 503 SlowDown to each of 2 attempts; try again later"),
    ],
    ids=str,
)
def test_a_store_that_goes_on_failing_is_given_up(store, proxy, monkeypatch, fault, message):
    monkeypatch.setenv("MLLM_OBJECT_TIMEOUT", "0.3")
    monkeypatch.setenv("MLLM_OBJECT_ATTEMPTS", "2")
    proxy.faults.extend([fault] * 3)
    with pytest.raises(DataError, match=message):
        storage.read_bytes("faulty:s3://data/k")
    assert proxy.count("GET") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "PETREL_CONF names .*none, which does not exist"),
        ("[a]\nhost_base = h\n", "no default_cluster in .DEFAULT.; set it, or write CLUSTER:s3://…; known: a"),
        ("[DEFAULT]\ndefault_cluster = b\n[a]\n", "no section 'b', which default_cluster names; known: a"),
        (
            f"secret_key = {stores.SECRET}\n",
            "line 1: cannot be read .MissingSectionHeaderError.; expected .DEFAULT. with",
        ),
        (f"[a]\nsecret_key {stores.SECRET}\n", "line 2: cannot be read .ParsingError."),
        (
            f"[DEFAULT]\ndefault_cluster = a\n[a]\nsecret_key = {stores.SECRET}\n",
            r"section \[a\] has secret_key but no access_key; give both, or none to read anonymously",
        ),
        (
            "[DEFAULT]\ndefault_cluster = a\n[a]\nhost_base = h:x\n",
            "host_base 'http://h:x' of section .a. is no address",
        ),
    ],
)
def test_a_configuration_file_that_cannot_be_used_is_named(tmp_path, monkeypatch, text, message):
    path = tmp_path / "none"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("PETREL_CONF", str(path))
    object_settings.forget()
    with pytest.raises(ConfigError, match=message):
        storage.read_bytes("s3://data/k")
    assert stores.SECRET not in refusal("s3://data/k")
    object_settings.forget()


def test_an_unknown_cluster_without_a_file_names_the_file_to_write(tmp_path, monkeypatch):
    monkeypatch.delenv("PETREL_CONF", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    object_settings.forget()
    with pytest.raises(
        ConfigError, match=f"cluster 'fast' is not known: there is no {tmp_path}/petreloss.conf; write it"
    ):
        storage.read_bytes("fast:s3://data/k")
    object_settings.forget()


@pytest.mark.parametrize("name", ["MLLM_OBJECT_TIMEOUT", "MLLM_OBJECT_ATTEMPTS"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "nan"])
def test_limits_must_be_positive_numbers(store, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name}='{value}': expected"):
        storage.read_bytes("s3://data/k")


def test_without_keys_the_message_says_where_they_go(store, tmp_path, monkeypatch):
    monkeypatch.delenv("PETREL_CONF")
    monkeypatch.setenv("HOME", str(tmp_path))
    object_settings.forget()
    assert f"no access key for the default S3 store; set AWS_… in the environment, or write {tmp_path}/" in refusal(
        "s3://data/k"
    )


def test_a_cluster_without_keys_is_read_anonymously(store, moto, conf, monkeypatch):
    conf.write_text(f"[DEFAULT]\ndefault_cluster = open\n[open]\nhost_base = {moto}\n")
    object_settings.forget()
    assert object_settings.find_store(None).anonymous
    message = refusal("s3://data/k")  # moto's buckets are not open
    assert "there are no keys in [open]" in message
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    object_settings.forget()
    assert storage.read_bytes("s3://data/k") == CONTENT


def test_without_boto3_the_extra_is_named(store, monkeypatch):
    object_store.forget()
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r"'boto3' .*: pip install 'mllm\[s3\]'"):
        storage.read_bytes("s3://data/k")


def test_threads_and_processes_have_clients_that_work(store):
    """A connection made before a fork is the parent's; the child reads through one of its own."""
    import multiprocessing

    storage.read_bytes("s3://data/k")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map_async(storage.read_bytes, ["s3://data/k"] * 4).get(120) == [CONTENT] * 4
    found = []
    threads = [threading.Thread(target=lambda: found.append(storage.read_bytes("s3://data/k"))) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [CONTENT] * 4


def test_a_big_file_goes_in_parts_and_comes_back_whole_over_broken_connections(store, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "PART_BYTES", 5 << 20)
    (tmp_path / "big").write_bytes(CONTENT * 1200)  # 12 MB, three parts
    proxy.faults.extend([(500, "InternalError"), "reset"])
    store.upload(tmp_path / "big", "faulty:s3://data/big")
    assert sum(method == "PUT" for method, _ in proxy.requests) >= 5
    assert any("partNumber=3" in path for _, path in proxy.requests)
    proxy.faults.extend(["drop", "reset"])
    store.download("faulty:s3://data/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == CONTENT * 1200


def test_a_file_that_arrives_short_is_an_error(store, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(CONTENT)
    monkeypatch.setattr(object_store.S3Backend, "state", lambda self, url: (7, ""))
    with pytest.raises(OSError, match=r"s3://data/a: 7 bytes arrived instead of 10240"):
        store.upload(tmp_path / "a", "s3://data/a")


class Client:
    """As petrel_client's: None for what is not there; ``broken`` keys raise what its own errors derive from."""

    made: ClassVar[list] = []
    content: ClassVar[dict] = {}

    def __init__(self, conf_path=None, enable_mc=True):
        self.made.append(conf_path)

    def get(self, url):
        if "broken" in url:
            raise OSError(f"secret_key={stores.SECRET} gone")
        return self.content.get(url)

    def put(self, url, content):
        self.content[url] = content


class NewClient(Client):
    Get = Client.get

    def contains(self, url):
        return url in self.content

    def isdir(self, url):
        return any(one.startswith(url.rstrip("/") + "/") for one in self.content)

    def list(self, url):
        return iter([one[len(url) :] for one in self.content if one.startswith(url)])


@pytest.fixture(params=[Client, NewClient], ids=["get", "Get"])
def petrel(request, store, monkeypatch):
    object_store.forget()
    monkeypatch.setattr(request.param, "content", {"s3://data/k": b"petrel's", "main:s3://data/k": b"main's"})
    monkeypatch.setattr(request.param, "made", [])
    client = SimpleNamespace(Client=request.param)
    package = SimpleNamespace(client=client, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "petrel_client", package)
    monkeypatch.setitem(sys.modules, "petrel_client.client", client)
    yield request.param
    object_store.forget()


def test_petrel_client_is_taken_where_it_is_installed(petrel, conf):
    for address in ("s3://data/k", "petrel:s3://data/k", "petrel://data/k"):
        assert storage.read_bytes(address) == b"petrel's"
    assert storage.read_bytes("main:s3://data/k") == b"main's"
    assert petrel.made == [str(conf)]
    assert storage.exists("s3://data/k")
    assert not storage.exists("s3://data/none")
    object_store.backend().put(b"new", "s3://data/new")
    assert petrel.content["s3://data/new"] == b"new"
    if petrel is NewClient:
        assert storage.file_names("s3://data", "w") == ["new"]


def test_what_petrel_client_leaves_out_is_an_error(petrel):
    message = refusal("s3://data/none")
    assert "no such object in cluster 'main'" in message
    assert "or its keys may not read it (petrel_client does not tell which)" in message
    with pytest.raises(DataError, match=r"s3://data/broken: cluster 'main' .* \(OSError: secret_key=\*\*\* gone\)"):
        storage.read_bytes("s3://data/broken")
    assert "no section 'mian'; did you mean 'main'?" in refusal("mian:s3://data/k")
