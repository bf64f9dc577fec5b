"""mllm prepare: RS4 from RS-instructions, downloads, what every preparation refuses."""

import json
import shutil
import tarfile
import zipfile
from collections import Counter

import pytest
from PIL import Image

from mllm.cli.prepare import PREPARATIONS
from mllm.dataset.prepare.rs4 import match_members
from mllm.errors import DataError
from mllm.registry import DATASETS

FOLDERS = ("NWPU/NWPU_images", "RSICD/images", "LR/Train", "DOTA/images")
SETS = ("train", "test", "val")


def record(name, number=0):
    turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": f"Thing {number}."}]
    return {"id": f"{name}-{number}", **({"image": name} if name else {}), "conversations": turns}


def write_image(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(path, "PNG")


@pytest.fixture
def source(tmp_path):
    """RS-instructions in small: 20 NWPU, 10 LR and 10 DOTA records, then strays; no image anywhere yet."""
    names = [f"NWPU/NWPU_images/airport/airport_{n:03}.png" for n in range(20)]
    names += [f"LR/Train/{n}.png" for n in range(10)] + [f"DOTA/images/P{n:04}.png" for n in range(10)]
    strays = ["UAV/Train/1.png", "UCM/images/1.tif", "UCM/images/2.tif", "ocr_vqa/images/1.jpg", None]
    path = tmp_path / "NWPU-RSICD-UAV-UCM-LR-DOTA-intrcutions.json"
    path.write_text(json.dumps([record(name, number) for number, name in enumerate(names + strays)]))
    return path


@pytest.fixture
def tree(source, tmp_path):
    """The folder of ``source`` with an image of its own for every record that stays."""
    for number, one in enumerate(json.loads(source.read_text())[:40]):
        write_image(tmp_path / "data/imagenes" / one["image"], number)
    return tmp_path / "data"


def sets_of(folder):
    return {name: json.loads((folder / f"sets/data_{name}.json").read_text()) for name in SETS}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json")}


def test_real_records_are_divided_by_sub_dataset_with_no_image_twice(shared_data, tmp_path, prepare):
    mini = shared_data / "rs4_mini"
    (tmp_path / "imagenes").symlink_to(mini / "imagenes")
    code, said, _ = prepare("rs4", mini / "dataset.json", "--out", tmp_path)
    assert code == 0
    original = json.loads((mini / "dataset.json").read_text())
    assert json.loads((tmp_path / "dataset.json").read_text()) == original
    found = sets_of(tmp_path)
    assert sorted(one["id"] for rows in found.values() for one in rows) == sorted(one["id"] for one in original)
    counts = {name: Counter(one["image"].split("/")[0] for one in rows) for name, rows in found.items()}
    # 140 NWPU: 98 + 28 + 14. 132 RSICD: 92.4 + 26.4 + 13.2. 50 LR: 35 + 10 + 5. 2 DOTA: 1.4 + 0.4 + 0.2.
    assert counts["train"] == {"NWPU": 98, "RSICD": 93, "LR": 35, "DOTA": 2}
    assert counts["test"] == {"NWPU": 28, "RSICD": 26, "LR": 10}
    assert counts["val"] == {"NWPU": 14, "RSICD": 13, "LR": 5}
    images = [{(mini / "imagenes" / one["image"]).read_bytes() for one in rows} for rows in found.values()]
    assert sum(map(len, images)) == len(set.union(*images))
    assert "RSICD            93       93         26       26         13       13        132      132" in said
    options = {"path": str(tmp_path / "sets/data_test.json"), "image_root": str(tmp_path / "imagenes")}
    assert len(DATASETS.build({"type": "RSInstructions", **options})) == 64


def test_strays_are_dropped_counted_and_named(source, tree, prepare):
    code, said, _ = prepare("rs4", source, "--out", tree)
    assert code == 0
    assert "records of other sets dropped: 5 – UAV 1, UCM 2, no image 1, ocr_vqa 1" in said
    kept = json.loads((tree / "dataset.json").read_text())
    assert kept == json.loads(source.read_text())[:40]
    assert all((tree / "imagenes" / folder).is_dir() for folder in FOLDERS)


def test_the_same_call_gives_the_same_bytes_and_another_seed_other_sets(source, tree, prepare):
    assert prepare("rs4", source, "--out", tree)[0] == 0
    first = contents(tree)
    assert set(first) == {"dataset.json", *(f"sets/data_{name}.json" for name in SETS)}
    code, _, complaint = prepare("rs4", source, "--out", tree, "--seed", 1)
    assert code == 1
    assert "dataset.json' exists; --overwrite replaces it" in complaint
    assert contents(tree) == first
    assert prepare("rs4", source, "--out", tree, "--overwrite")[0] == 0
    assert contents(tree) == first
    assert prepare("rs4", source, "--out", tree, "--overwrite", "--seed", 1)[0] == 0
    assert contents(tree).pop("sets/data_test.json") != first["sets/data_test.json"]


def test_ratios_that_sum_to_one_leave_no_validation_file(source, tree, prepare):
    assert prepare("rs4", source, "--out", tree)[0] == 0
    options = ("--train-ratio", 0.8, "--test-ratio", 0.2, "--overwrite")
    assert prepare("rs4", source, "--out", tree, *options)[0] == 0
    # The earlier validation set would share images with the new sets.
    assert sorted(path.name for path in (tree / "sets").iterdir()) == ["data_test.json", "data_train.json"]
    assert len(json.loads((tree / "sets/data_train.json").read_text())) == 16 + 8 + 8
    code, _, complaint = prepare("rs4", source, "--out", tree, "--train-ratio", 0.9, "--overwrite")
    assert code == 1
    assert "train_ratio=0.9, test_ratio=0.2: expected" in complaint


def test_records_of_one_image_stay_together_by_name_and_by_content(source, tree, prepare):
    records = json.loads(source.read_text())
    records += [record(f"LR/Train/{n % 10}.png", 100 + n) for n in range(20)]
    source.write_text(json.dumps(records))
    images = tree / "imagenes"
    folder = images / "NWPU/NWPU_images/airport"
    for number in range(0, 20, 2):
        shutil.copy(folder / f"airport_{number:03}.png", folder / f"airport_{number + 1:03}.png")
    assert prepare("rs4", source, "--out", tree)[0] == 0
    homes = {}
    for name, rows in sets_of(tree).items():
        for one in rows:
            assert homes.setdefault((images / one["image"]).read_bytes(), name) == name
    # Ten images of NWPU with two records each, ten of LR with three each.
    counts = {name: Counter(one["image"].split("/")[0] for one in rows) for name, rows in sets_of(tree).items()}
    assert counts["train"]["NWPU"] == 14
    assert counts["train"]["LR"] == 21
    assert sum(count["LR"] for count in counts.values()) == 30


def test_missing_images_are_listed_and_stop_unless_allowed(source, tree, prepare):
    gone = ["LR/Train/3.png", "DOTA/images/P0000.png"]
    (tree / "imagenes" / gone[0]).unlink()
    (tree / "imagenes" / gone[1]).write_bytes(b"")
    code, said, complaint = prepare("rs4", source, "--out", tree)
    assert code == 1
    assert said == ""
    assert complaint.count("\n") == 1
    assert "2 of 40 images are missing or empty below" in complaint
    assert "such as DOTA/images/P0000.png, LR/Train/3.png" in complaint
    assert (tree / "missing_images.txt").read_text().split() == sorted(gone)
    assert contents(tree) == {}
    code, said, _ = prepare("rs4", source, "--out", tree, "--allow-missing")
    assert code == 0
    assert "records without their image dropped: DOTA 1, LR 1" in said
    assert len(json.loads((tree / "dataset.json").read_text())) == 38
    for number, name in enumerate(gone):
        write_image(tree / "imagenes" / name, 300 + number)
    assert prepare("rs4", source, "--out", tree, "--overwrite")[0] == 0
    assert not (tree / "missing_images.txt").exists()


def test_archives_are_unpacked_to_where_the_records_look(source, tree, tmp_path, prepare):
    images = tree / "imagenes"
    with zipfile.ZipFile(tmp_path / "NWPU-RESISC45.zip", "w") as archive:
        archive.writestr("NWPU-RESISC45/readme.txt", "not asked for")
        for path in sorted(images.glob("NWPU/NWPU_images/airport/*")):
            archive.write(path, f"NWPU-RESISC45/airport/{path.name}")
    with tarfile.open(tmp_path / "Images_LR.tar.gz", "w:gz") as archive:
        archive.add(images / "LR/Train", "Images_LR")
    with tarfile.open(tmp_path / "part1.tar", "w") as archive:
        archive.add(images / "DOTA/images", "images")
    shutil.rmtree(images)
    named = {"NWPU": "NWPU-RESISC45.zip", "LR": "Images_LR.tar.gz", "DOTA": "part1.tar"}
    words = [word for name, file in named.items() for word in ("--archive", f"{name}={tmp_path / file}")]
    code, said, complaint = prepare("rs4", source, "--out", tree, *words)
    assert (code, complaint) == (0, "")
    assert f"unpacked {tmp_path / 'NWPU-RESISC45.zip'}: 20 images, 0 were there" in said
    assert sum(path.is_file() for path in images.rglob("*")) == 40
    code, said, _ = prepare("rs4", source, "--out", tree, *words, "--overwrite")
    assert "NWPU-RESISC45.zip: 0 images, 20 were there" in said
    code, _, complaint = prepare("rs4", source, "--out", tree, "--overwrite", "--archive", f"UCM={tmp_path / 'x.zip'}")
    assert code == 1
    assert "archive of 'UCM': no such sub-dataset" in complaint
    code, _, complaint = prepare("rs4", source, "--out", tree, "--archive", tmp_path / "x.zip")
    assert code == 2
    assert "expected SET=PATH" in complaint


def test_a_malicious_archive_stops_before_anything_is_written(source, tmp_path, prepare):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("LR/0.png", "x")
        archive.writestr("../../LR/1.png", "x")
    code, _, complaint = prepare("rs4", source, "--out", tmp_path / "data", "--archive", f"LR={tmp_path / 'x.zip'}")
    assert code == 1
    assert "x.zip: member '../../LR/1.png' leads out of its folder; nothing was unpacked" in complaint
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_members_find_their_image_by_the_end_of_their_path():
    wanted = ["DOTA/images/a/1.png", "DOTA/images/b/1.png", "DOTA/images/2.png"]
    members = ["part/b/1.png", "part/a/1.png", "labels/2.txt", "part/images/2.png", "thumbnails/2.png"]
    assert match_members(members, wanted, "x.zip") == {
        "part/b/1.png": wanted[1],
        "part/a/1.png": wanted[0],
        "part/images/2.png": wanted[2],
    }
    with pytest.raises(DataError, match=r"member 'part/1.png' may be 'DOTA/images/a/1.png' or 'DOTA/images/b/1.png'"):
        match_members(["part/1.png"], wanted, "x.zip")
    with pytest.raises(DataError, match=r"'DOTA/images/2.png' may be member 'p/2.png' or 'q/2.png'"):
        match_members(["p/2.png", "q/2.png"], wanted, "x.zip")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([record("UCM/1.png")], "no record of NWPU, RSICD, LR, DOTA; the file has UCM (1)"),
        ([record("LR/../../../etc/passwd")], "source.json[0]: field 'image': 'LR/../../../etc/passwd' leads out"),
        ([{"image": 3}], "source.json[0]: field 'image' must be a name"),
    ],
)
def test_a_wrong_source_is_one_sentence(tmp_path, prepare, rows, message):
    (tmp_path / "source.json").write_text(json.dumps(rows))
    code, _, complaint = prepare("rs4", tmp_path / "source.json", "--out", tmp_path / "data")
    assert code == 1
    assert message in complaint


def test_an_output_is_never_lost(shared_data, tmp_path, prepare):
    source, out = shared_data / "vizwiz_mini/annotations/val.json", tmp_path / "out.jsonl"
    out.write_text("mine")
    code, _, complaint = prepare("vizwiz", source, "--out", out)
    assert code == 1
    assert f"output {str(out)!r} exists; --overwrite replaces it" in complaint
    broken = tmp_path / "broken.json"
    values = json.loads(source.read_text())
    values["images"][5]["file_name"] = 7
    broken.write_text(json.dumps(values))
    code, _, complaint = prepare("vizwiz", broken, "--out", out, "--overwrite")
    assert code == 1
    assert "broken.json:images[5]: field 'file_name' must be text, got 7" in complaint
    assert out.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.json", "out.jsonl"]
    assert "is the file that is read" in prepare("vizwiz", broken, "--out", broken, "--overwrite")[2]
    assert "expected a name ending in .json" in prepare("vizwiz", broken, "--out", tmp_path / "x.csv")[2]


def test_help_and_mistakes(prepare):
    code, said, _ = prepare("--help")
    assert code == 0
    for name in PREPARATIONS:
        assert name in said
        with pytest.raises(SystemExit) as ended:
            prepare(name, "--help")
        assert ended.value.code == 0
    assert "say what to prepare: rs4" in prepare()[2]
    assert "nothing named 'refcoc' can be prepared; did you mean 'refcoco'" in prepare("refcoc")[2]
    code, _, complaint = prepare("vizwiz", "x.json", "--out", "y.jsonl", "--sha256", "0" * 64)
    assert code == 2
    assert "--sha256 is given 1 times for 0 times --url" in complaint


def test_a_url_is_fetched_first_and_its_archive_unpacked(tmp_path, prepare, monkeypatch):
    asked = []

    def fetch(url, path, sha256):
        asked.append((url, sha256))
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            images = [{"id": 1, "file_name": "1.jpg"}]
            captions = [{"id": 1, "image_id": 1, "caption": "A cup."}]
            archive.writestr("val.json", json.dumps({"images": images, "annotations": captions}))
        return path

    monkeypatch.setattr("mllm.utils.download.download", fetch)
    path, out, digest = tmp_path / "annotations/val.json", tmp_path / "out.jsonl", "0" * 64
    code, said, _ = prepare("vizwiz", path, "--out", out, "--url", "https://host/annotations.zip", "--sha256", digest)
    assert code == 0
    assert asked == [("https://host/annotations.zip", digest)]
    assert f"unpacked {path.parent / 'annotations.zip'}: 1 files, 0 were there" in said
    assert json.loads(out.read_text()) == {"img_path": "1.jpg", "caption": "A cup.", "image_id": 1}
