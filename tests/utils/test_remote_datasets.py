"""Data sets whose annotations and images lie in a store give what they give from a disk, in worker processes too."""

import json

import pytest
import torch
from PIL import Image
from utils import stores

from mllm.engine.run_folder import fingerprint
from mllm.errors import DataError
from mllm.registry import DATASETS
from mllm.utils import object_settings, object_store

pytest.importorskip("moto", reason=stores.INSTALL)
pytest.importorskip("flask_cors", reason=stores.INSTALL)

BOXES = [[1, 2, 21, 22], [5, 5, 30, 20], [0, 0, 40, 30], [10, 10, 12, 12]]


@pytest.fixture(scope="module")
def moto():
    with stores.moto_server() as address:
        yield address


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    return tmp_path_factory.mktemp("conf") / "petrel.conf"


@pytest.fixture
def folder(moto, conf, tmp_path, monkeypatch):
    """Four pictures with an expression each, as lines and as an array; the same files are in the bucket "data"."""
    stores.write_settings(conf, monkeypatch, main=moto)
    monkeypatch.setenv("MLLM_CACHE", str(tmp_path / "index"))
    here = tmp_path / "here"
    (here / "images").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (40, 30), (60 * number, 9, 9)).save(here / "images" / f"{number}.png")
    rows = [{"img_path": f"{n}.png", "expression": f"the cup {n}", "bbox": box} for n, box in enumerate(BOXES)]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "rows.json").write_text(json.dumps(rows))
    upload(here)
    yield here
    object_settings.forget()


def upload(folder):
    stores.make_bucket("data")
    for path in folder.rglob("*"):
        if path.is_file():
            object_store.backend().put(path.read_bytes(), f"s3://data/{path.relative_to(folder)}")


def expressions(root, name="rows.jsonl"):
    return DATASETS.build({"type": "RECJsonl", "path": f"{root}/{name}", "image_root": f"{root}/images"})


def as_plain(item):
    values = {key: value for key, value in item.items() if key not in ("image", "meta")}
    return values, item["image"].tobytes()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_the_items_of_a_store_are_those_of_the_disk(folder, name):
    local, remote = expressions(folder, name), expressions("s3://data", name)
    assert len(local) == len(remote) == 4
    assert [as_plain(item) for item in local] == [as_plain(item) for item in remote]
    assert remote[1]["meta"]["place"].startswith(f"s3://data/{name}")


def test_the_fingerprint_of_a_remote_file_is_that_of_its_content(folder):
    local, remote = fingerprint(expressions(folder)), fingerprint(expressions("main:s3://data"))
    assert remote["files"] == [{**local["files"][0], "path": "main:s3://data/rows.jsonl"}]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_read_what_one_process_reads(folder, start):
    remote = expressions("s3://data")
    remote[0]  # the parent has a connection before it forks
    options = {"num_workers": 2, "multiprocessing_context": start, "collate_fn": list, "batch_size": 1}
    found = [as_plain(item) for (item,) in torch.utils.data.DataLoader(remote, **options)]
    assert found == [as_plain(item) for item in expressions(folder)]


def test_a_missing_image_names_the_row_and_the_address(folder):
    store = object_store.backend()
    store.remove("s3://data/images/2.png")
    with pytest.raises(
        DataError, match=r"s3://data/rows.jsonl:3: s3://data/images/2.png: no such object in cluster 'main'"
    ):
        expressions("s3://data")[2]
    store.put(b'{"img_path": "../rows.json", "expression": "x", "bbox": [0, 0, 1, 1]}\n', "s3://data/out.jsonl")
    with pytest.raises(DataError, match="leads out of its folder 's3://data/images'"):
        expressions("s3://data", "out.jsonl")[0]


def test_an_annotation_file_that_is_not_there_is_told(folder):
    with pytest.raises(DataError, match=r"s3://data/none.jsonl: no such object in cluster 'main'"):
        expressions("s3://data", "none.jsonl")


def test_a_changed_annotation_file_gives_the_new_rows(folder):
    assert len(expressions("s3://data")) == 4
    one = (folder / "rows.jsonl").read_bytes().split(b"\n")[0]
    object_store.backend().put(one, "s3://data/rows.jsonl")
    assert len(expressions("s3://data")) == 1


def test_the_authors_folders_are_read_from_a_store(shared_data, folder):
    """REFER's pickle beside instances.json."""
    upload(shared_data / "refcoco_mini")
    arguments = {"type": "RefCOCO", "split": "val", "root": "s3://data", "image_root": "s3://data/images/train2014"}
    local = {**arguments, "root": f"{shared_data}/refcoco_mini"}
    local["image_root"] = local["root"] + "/images/train2014"
    for ours, theirs in zip(DATASETS.build(arguments), DATASETS.build(local), strict=True):
        assert as_plain(ours) == as_plain(theirs)


def test_the_label_files_of_dota_are_read_from_a_store(folder):
    (folder / "labels").mkdir()
    (folder / "labels" / "1.txt").write_text("gsd:0.5\n1 1 20 1 20 20 1 20 plane 0\n")
    upload(folder)
    found = []
    for root in (folder, "s3://data"):
        options = {"type": "DOTADetection", "label_root": f"{root}/labels", "image_root": f"{root}/images"}
        found.append([as_plain(item) for item in DATASETS.build(options)])
    assert found[0] == found[1]
    assert len(found[0]) == 1
