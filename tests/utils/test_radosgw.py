"""The same promises on a real Ceph: signatures are checked, an OSD stops, a gateway dies and comes back."""

import os
import threading

import pytest
from utils import ceph, stores

from mllm.errors import DataError
from mllm.utils import object_store, storage

pytest.importorskip("boto3", reason=stores.INSTALL)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ceph.missing()), reason=str(ceph.missing()))]

CONTENT = bytes(range(256)) * 400


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with ceph.Ceph(tmp_path_factory.mktemp("ceph")) as one:
        yield one


@pytest.fixture
def store(gateway, tmp_path, monkeypatch):
    write_settings(gateway, tmp_path, monkeypatch, stores.SECRET)
    stores.make_bucket("data")
    object_store.backend().put(CONTENT, "s3://data/k")
    yield object_store.backend()
    object_store.forget()


def write_settings(gateway, folder, monkeypatch, secret, access=stores.ACCESS):
    stores.write_settings(folder / "petrel.conf", monkeypatch, ceph=gateway.url)
    text = f"[DEFAULT]\ndefault_cluster = ceph\n[ceph]\nhost_base = {gateway.url}\n"
    keys = f"access_key = {access}\nsecret_key = {secret}\n" if secret else ""
    (folder / "petrel.conf").write_text(text + keys)
    object_store.forget()


def test_objects_are_written_listed_and_read(store):
    assert storage.read_bytes("ceph:s3://data/k") == CONTENT
    store.put(b"x", "s3://data/folder/ü ä+%.txt")
    assert storage.read_bytes("s3://data/folder/ü ä+%.txt") == b"x"
    assert storage.exists("s3://data/folder")
    assert not storage.exists("s3://data/fold")
    assert storage.file_names("s3://data/folder", ".txt") == ["ü ä+%.txt"]
    assert dict(store.files("s3://data"))["k"] == len(CONTENT)
    store.remove("s3://data/k")
    assert not storage.exists("s3://data/k")


@pytest.mark.parametrize(
    ("access", "secret", "message"),
    [
        (stores.ACCESS, "wrong", r"refuses the keys: the secret key is wrong; check \[ceph\] in .*petrel.conf"),
        ("nobody", "wrong", "the access key is not known there"),
        (None, None, r"access refused \(403 AccessDenied\) by cluster 'ceph' .*there are no keys in \[ceph\]"),
    ],
)
def test_wrong_keys_are_refused(store, gateway, tmp_path, monkeypatch, access, secret, message):
    write_settings(gateway, tmp_path, monkeypatch, secret, access)
    with pytest.raises(DataError, match=message):
        storage.read_bytes("s3://data/k")
    with pytest.raises(DataError, match=r"s3://data/k: access refused \(403\)"):
        storage.exists("s3://data/k")  # the answer to HEAD has no body that could say why


def test_what_is_not_there_is_named(store):
    with pytest.raises(DataError, match=r"s3://data/none: no such object in cluster 'ceph'"):
        storage.read_bytes("s3://data/none")
    with pytest.raises(DataError, match="no such bucket 'nodata'"):
        storage.read_bytes("s3://nodata/k")


def test_a_store_that_hangs_is_given_up_and_read_when_it_goes_on(store, gateway, monkeypatch):
    monkeypatch.setenv("MLLM_OBJECT_TIMEOUT", "1")
    monkeypatch.setenv("MLLM_OBJECT_ATTEMPTS", "2")
    object_store.forget()
    gateway.pause_osd()
    try:
        with pytest.raises(DataError, match=r"s3://data/k: nothing came from cluster 'ceph' .* for 1 s in each of 2"):
            storage.read_bytes("s3://data/k")
        monkeypatch.setenv("MLLM_OBJECT_ATTEMPTS", "8")
        object_store.forget()
        again = threading.Timer(2, gateway.resume_osd)
        again.start()
        assert storage.read_bytes("s3://data/k") == CONTENT
        again.join()
    finally:
        gateway.resume_osd()


def test_a_gateway_that_dies_and_comes_back_is_not_noticed(store, gateway, monkeypatch):
    monkeypatch.setenv("MLLM_OBJECT_ATTEMPTS", "8")
    object_store.forget()
    halfway, dead, found = threading.Event(), threading.Event(), []

    def read():
        for number in range(100):
            found.append(storage.read_bytes("s3://data/k"))
            if number == 20:
                halfway.set()
                dead.wait(30)

    reader = threading.Thread(target=read)
    reader.start()
    assert halfway.wait(60)
    gateway.kill_gateway()
    dead.set()
    gateway.start_gateway()
    reader.join(120)
    assert found == [CONTENT] * 100


def test_a_big_file_is_moved_in_parts(store, tmp_path):
    content = os.urandom(30 << 20)
    (tmp_path / "big").write_bytes(content)
    store.upload(tmp_path / "big", "s3://data/big")
    size, tag = store.state("s3://data/big")
    assert size == len(content)
    assert tag.strip('"').endswith("-2")  # the number of parts of 16 MiB
    store.download("s3://data/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
