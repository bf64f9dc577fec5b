"""Copies of remote files: a hit asks the store nothing; what is damaged or has changed is fetched anew."""

import io
import logging
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from utils import stores

from mllm.errors import ConfigError, DataError
from mllm.utils import object_cache, object_settings, object_store, storage

pytest.importorskip("moto", reason=stores.INSTALL)
pytest.importorskip("flask_cors", reason=stores.INSTALL)

URL = "s3://data/a.png"


def picture(color):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def moto():
    with stores.moto_server() as address:
        yield address


@pytest.fixture(scope="module")
def proxy(moto):
    with stores.Proxy(moto) as one:
        yield one


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    return tmp_path_factory.mktemp("conf") / "petrel.conf"


@pytest.fixture
def store(moto, proxy, conf, tmp_path, monkeypatch):
    """The proxy, which counts the requests, before a bucket with a red picture."""
    stores.write_settings(conf, monkeypatch, main=proxy.url, direct=moto)
    monkeypatch.setenv("MLLM_CACHE", str(tmp_path / "index"))
    stores.make_bucket("data")
    object_store.backend().put(picture("red"), URL)
    object_cache._say_once.cache_clear()
    proxy.begin_anew()
    yield proxy
    object_settings.forget()


@pytest.fixture
def folder(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLLM_OBJECT_CACHE", str(tmp_path / "images"))
    return tmp_path / "images"


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_images_are_fetched_once_and_the_same_by_every_address(store, folder):
    for address in (URL, URL, "main:" + URL):
        assert storage.open_image(address).getpixel((0, 0)) == (255, 0, 0)
    assert store.count("GET") == 1
    assert len(files(folder)) == 1
    storage.open_image("direct:" + URL)  # another store, as far as one can know
    assert len(files(folder)) == 2


def test_no_images_are_kept_unless_a_folder_is_named(store, tmp_path):
    for _ in range(2):
        storage.open_image(URL)
    assert store.count("GET") == 2
    assert not (tmp_path / "index").exists()


def test_what_may_change_is_not_kept(store, folder):
    object_store.backend().put(b"1", "s3://data/a.txt")
    assert storage.read_text("s3://data/a.txt") == "1"
    object_store.backend().put(b"2", "s3://data/a.txt")
    assert storage.read_text("s3://data/a.txt") == "2"
    assert files(folder) == []


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-1], lambda text: text[:20] + b"?" + text[21:], lambda text: b""]
)
def test_a_damaged_copy_is_fetched_anew(store, folder, damage):
    storage.open_image(URL)
    (kept,) = files(folder)
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert storage.read_bytes(URL, unchanging=True) == picture("red")
    assert kept.read_bytes() == whole


def test_a_disk_that_fills_up_is_left_alone(store, folder, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("mllm"), "propagate", True)
    monkeypatch.setenv("MLLM_OBJECT_CACHE_FREE_GB", "2")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 2 * 10**9 + 10))
    for _ in range(2):
        assert storage.open_image(URL).size == (4, 3)
    assert files(folder) == []
    told = [record.message for record in caplog.records if "MLLM_OBJECT_CACHE" in record.message]
    assert told == ["MLLM_OBJECT_CACHE: less than 2 GB are left on its disk; no more images are kept"]


def test_a_folder_that_cannot_be_written_costs_requests_alone(store, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLLM_OBJECT_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert storage.open_image(URL).size == (4, 3)
    assert store.count("GET") == 2


@pytest.mark.parametrize("value", ["much", "-1", "inf"])
def test_the_space_to_be_left_is_a_number(store, folder, monkeypatch, value):
    monkeypatch.setenv("MLLM_OBJECT_CACHE_FREE_GB", value)
    with pytest.raises(ConfigError, match=f"MLLM_OBJECT_CACHE_FREE_GB='{value}': expected a number from 0"):
        storage.open_image(URL)


def test_processes_share_the_folder(store, folder):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert set(pool.map_async(object_cache.get_unchanging, [URL] * 32).get(120)) == {picture("red")}
    assert [path.name for path in files(folder) if path.suffix == ".tmp"] == []
    assert len(files(folder)) == 1


def test_an_annotation_file_is_copied_once_and_anew_when_it_changes(store, tmp_path):
    url = "s3://data/rows.jsonl"
    object_store.backend().put(b"1\n", url)
    first = storage.local_file(url)
    assert Path(first).read_bytes() == b"1\n"
    assert Path(first).parent == tmp_path / "index"
    assert Path(first).suffix == ".jsonl"
    before = store.count("GET")
    assert storage.local_file("main:" + url) == first
    assert store.count("GET") == before
    object_store.backend().put(b"2\n", url)
    second = storage.local_file(url)
    assert Path(second).read_bytes() == b"2\n"
    assert Path(first).read_bytes() == b"1\n"  # a run that has it open goes on
    Path(second).write_bytes(b"")
    assert Path(storage.local_file(url)).read_bytes() == b"2\n"


def test_processes_that_want_the_same_annotation_file_fetch_it_once(store):
    url = "s3://data/many.jsonl"
    object_store.backend().put(b"{}\n" * 1000, url)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert len(set(pool.map_async(storage.local_file, [url] * 8).get(120))) == 1
    assert store.count("GET") == 1


def test_a_local_file_stays_where_it_is(store, tmp_path):
    assert storage.local_file(tmp_path / "a.json") == str(tmp_path / "a.json")


def test_an_annotation_file_that_is_missing_or_has_no_room_is_told(store, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"s3://data/none.json: no such object in cluster 'main'"):
        storage.local_file("s3://data/none.json")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        DataError, match=r"s3://data/a.png: its copy cannot be written to .*file \(.*; set MLLM_CACHE to a"
    ):
        storage.local_file(URL)

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setenv("MLLM_CACHE", str(tmp_path / "index"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        storage.local_file(URL)
    assert not [path for path in (tmp_path / "index").iterdir() if path.suffix in (".png", ".tmp")]


def test_without_boto3_the_content_names_the_copy(store, monkeypatch):
    monkeypatch.setattr(object_cache.importlib.util, "find_spec", lambda name: None)
    first = storage.local_file(URL)
    assert Path(first).read_bytes() == picture("red")
    object_store.backend().put(picture("blue"), URL)
    assert Path(storage.local_file(URL)).read_bytes() == picture("blue")
