"""Copies of checkpoints: complete or not there, in a store or a folder, fetched whole or refused."""

import json
import multiprocessing
import os
import shutil

import pytest
from utils import stores

from mllm.config.checks import resolve_resume
from mllm.errors import CheckpointError, ConfigError
from mllm.utils import checkpoint_mirror, object_settings, transfer
from mllm.utils.checkpoint_folders import INCOMPLETE, is_complete
from mllm.utils.checkpoint_mirror import (
    MARKER,
    copy_checkpoint,
    fetch_checkpoint,
    fetch_last_checkpoint,
    mirror_root,
    mirrored_checkpoints,
    prune_mirror,
)
from mllm.utils.storage import join

pytest.importorskip("moto", reason=stores.INSTALL)
pytest.importorskip("flask_cors", reason=stores.INSTALL)


@pytest.fixture(scope="module")
def moto():
    with stores.moto_server() as address:
        yield address


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    return tmp_path_factory.mktemp("conf") / "petrel.conf"


@pytest.fixture(params=["store", "folder"])
def mirror(request, moto, conf, tmp_path, monkeypatch):
    """Where a run called "run" is mirrored; nothing is there yet."""
    stores.write_settings(conf, monkeypatch, main=moto)
    stores.make_bucket("mirrors")
    where = f"s3://mirrors/{tmp_path.name}" if request.param == "store" else str(tmp_path / "mirrors")
    yield where
    object_settings.forget()


@pytest.fixture
def run(tmp_path):
    """An output_dir with two checkpoints, one of them of a sharded optimiser, and the files beside them."""
    folder = tmp_path / "run"
    for step in (2, 4):
        make_checkpoint(folder, step, best=2)
    (folder / "run.json").write_text("{}")
    (folder / "other.bin").write_text("not mirrored")
    return folder


def make_checkpoint(folder, step, best=None):
    path = folder / f"checkpoint-{step}"
    (path / "optimizer_0").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(bytes([step]) * 5000)
    (path / "optimizer_0" / "__0_0.distcp").write_bytes(b"piece")
    (path / "empty.txt").write_bytes(b"")
    state = {"global_step": step, "best_model_checkpoint": f"/old/place/checkpoint-{best}" if best else None}
    (path / "trainer_state.json").write_text(json.dumps(state))
    return path


def mirrored(run, mirror, *steps):
    root = mirror_root(mirror, run)
    for step in steps:
        copy_checkpoint(run / f"checkpoint-{step}", join(root, f"checkpoint-{step}"), [run / "run.json", run / "none"])
    return root


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_lists_its_files_and_is_fetched_as_it_was(run, mirror, tmp_path):
    root = mirrored(run, mirror, 4)
    assert root == join(mirror, "run")
    marker = json.loads(transfer.get_bytes(join(root, "checkpoint-4", MARKER)))
    assert marker["files"] == transfer.list_files(str(run / "checkpoint-4"))
    fetched = fetch_checkpoint(join(root, "checkpoint-4"), tmp_path / "new" / "run")
    assert fetched == tmp_path / "new" / "run" / "checkpoint-4"
    assert content(fetched) == content(run / "checkpoint-4")
    assert (tmp_path / "new" / "run" / "run.json").read_text() == "{}"
    names = {path.name for path in (tmp_path / "new" / "run").iterdir() if not path.name.startswith(".fetch")}
    assert names == {"checkpoint-4", "run.json"}


def test_the_last_complete_one_is_fetched_with_the_best_that_it_names(run, mirror, tmp_path):
    root = mirrored(run, mirror, 2, 4)
    make_checkpoint(run, 10)
    mirrored(run, mirror, 10)
    transfer.remove_file(join(root, "checkpoint-10", MARKER))
    assert mirrored_checkpoints(root) == ["checkpoint-2", "checkpoint-4"]
    fetched = fetch_last_checkpoint(mirror, tmp_path / "new" / "run")
    assert fetched.name == "checkpoint-4"
    assert is_complete(tmp_path / "new" / "run" / "checkpoint-2")


def test_a_run_whose_folder_is_gone_resumes_from_its_mirror(run, mirror, moto):
    root = mirrored(run, mirror, 2, 4)
    before = content(run / "checkpoint-4")
    shutil.rmtree(run)
    asked = {"output_dir": str(run), "mirror_to": mirror}
    assert resolve_resume({**asked, "resume_from_checkpoint": "auto"}) == str(run / "checkpoint-4")
    assert content(run / "checkpoint-4") == before
    if mirror.startswith("s3://"):
        address = join(root, "checkpoint-2")
        found = resolve_resume({"output_dir": str(run), "resume_from_checkpoint": address})
        assert found == str(run / "checkpoint-2")
    assert resolve_resume({"output_dir": str(run) + "2", "mirror_to": mirror, "resume_from_checkpoint": "auto"}) is None


def test_nothing_mirrored_is_nothing_to_fetch(mirror, tmp_path):
    assert fetch_last_checkpoint(mirror, tmp_path / "run") is None


def test_a_copy_that_did_not_end_is_refused(run, mirror, tmp_path, monkeypatch):
    root = mirrored(run, mirror, 2, 4)
    put = checkpoint_mirror.put_file

    def breaks_off(path, target):
        if path.name == "model.safetensors":
            raise OSError("the store is gone")
        put(path, target)

    monkeypatch.setattr(checkpoint_mirror, "put_file", breaks_off)
    with pytest.raises(OSError, match="the store is gone"):
        mirrored(run, mirror, 4)  # again: what was complete is not so any more
    message = r"checkpoint-4 was not copied to its end \(it has no _COMPLETE\); complete ones in .*: checkpoint-2$"
    with pytest.raises(CheckpointError, match=message):
        fetch_checkpoint(join(root, "checkpoint-4"), tmp_path / "new")
    assert not (tmp_path / "new" / "checkpoint-4").exists()
    if not root.startswith("s3:"):
        assert not is_complete(tmp_path / "mirrors" / "run" / "checkpoint-4")
        assert (tmp_path / "mirrors" / "run" / "checkpoint-4" / INCOMPLETE).is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("checkpoint-9", "checkpoint-9 is not there; complete ones in .*: checkpoint-4$"),
        ("best", "expected the address of a checkpoint, …/checkpoint-N"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(run, mirror, tmp_path, name, message):
    root = mirrored(run, mirror, 4)
    with pytest.raises(CheckpointError, match=message):
        fetch_checkpoint(join(root, name), tmp_path / "new")


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (b"{", "_COMPLETE cannot be read; take another checkpoint"),
        (b'{"files": {"../evil": 5}}', "names '../evil', which is outside of the checkpoint"),
        (b'{"files": {"model.safetensors": 4999}}', "model.safetensors: not the 4999 bytes that _COMPLETE tells of"),
        (b'{"files": {"empty.txt": 0}}', "is no checkpoint to resume from: it has no trainer_state.json"),
    ],
)
def test_a_copy_that_is_not_what_it_says_is_refused(run, mirror, tmp_path, marker, message):
    root = mirrored(run, mirror, 4)
    transfer.put_bytes(marker, join(root, "checkpoint-4", MARKER))
    with pytest.raises(CheckpointError, match=message):
        fetch_checkpoint(join(root, "checkpoint-4"), tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".fetch.lock"]


def test_a_second_copy_of_a_step_leaves_nothing_of_the_first(run, mirror):
    root = mirrored(run, mirror, 4)
    (run / "checkpoint-4" / "empty.txt").unlink()
    mirrored(run, mirror, 4)
    names = set(transfer.list_files(join(root, "checkpoint-4")))
    assert names == {"model.safetensors", "optimizer_0/__0_0.distcp", "trainer_state.json", MARKER}


def test_a_checkpoint_that_is_gone_before_it_is_copied_makes_no_copy(run, mirror):
    root = mirror_root(mirror, run)
    (run / "checkpoint-2" / INCOMPLETE).write_text("")
    for step in (2, 3):
        with pytest.raises(OSError, match="no complete checkpoint"):
            mirrored(run, mirror, step)
    assert mirrored_checkpoints(root) == []


def test_copies_of_what_is_gone_are_deleted(run, mirror):
    root = mirrored(run, mirror, 2, 4)
    make_checkpoint(run, 6)
    make_checkpoint(run, 8)
    mirrored(run, mirror, 6, 8)
    assert prune_mirror(root, ["checkpoint-2", "checkpoint-6"], 6) == ["checkpoint-4"]
    assert mirrored_checkpoints(root) == ["checkpoint-2", "checkpoint-6", "checkpoint-8"]
    assert not transfer.list_files(join(root, "checkpoint-4"))


def test_a_complete_checkpoint_on_the_disk_is_kept_and_a_broken_one_replaced(run, mirror, tmp_path):
    root = mirrored(run, mirror, 4)
    own = make_checkpoint(tmp_path / "new", 4, best=2)
    (own / "model.safetensors").write_bytes(b"own")
    fetch_checkpoint(join(root, "checkpoint-4"), tmp_path / "new")
    assert (own / "model.safetensors").read_bytes() == b"own"
    (own / INCOMPLETE).write_text("")
    fetch_checkpoint(join(root, "checkpoint-4"), tmp_path / "new")
    assert content(own) == content(run / "checkpoint-4")


def test_another_runs_checkpoint_of_the_same_step_is_not_taken_for_it(run, mirror, tmp_path):
    root = mirrored(run, mirror, 4)
    make_checkpoint(tmp_path / "new", 4, best=3)
    with pytest.raises(
        CheckpointError, match=r"new/checkpoint-4 is of another run than .*; choose another --output_dir"
    ):
        fetch_checkpoint(join(root, "checkpoint-4"), tmp_path / "new")


def test_processes_fetch_the_same_checkpoint_together(run, mirror, tmp_path):
    root = mirrored(run, mirror, 4)
    wanted = [(join(root, "checkpoint-4"), tmp_path / "new")] * 4
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert len(set(pool.starmap_async(fetch_checkpoint, wanted).get(120))) == 1
    assert content(tmp_path / "new" / "checkpoint-4") == content(run / "checkpoint-4")


def test_a_disk_without_room_is_told_before_anything_is_fetched(run, mirror, tmp_path, monkeypatch):
    root = mirrored(run, mirror, 4)
    usage = checkpoint_mirror.shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(checkpoint_mirror.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match=r"checkpoint-4 has 0.00 GB, and .*new has no room for it"):
        fetch_checkpoint(join(root, "checkpoint-4"), tmp_path / "new")


def test_a_store_that_cannot_be_asked_is_no_fresh_start(moto, tmp_path, monkeypatch):
    stores.write_settings(tmp_path / "petrel.conf", monkeypatch, dead="http://127.0.0.1:9", main=moto)
    monkeypatch.setenv("MLLM_OBJECT_ATTEMPTS", "1")
    with pytest.raises(
        CheckpointError, match=r"the mirror of output_dir cannot be read: s3://m/run: .* cannot be reached"
    ):
        fetch_last_checkpoint("s3://m", tmp_path / "run")
    with pytest.raises(CheckpointError, match="cannot be read: main:s3://nothere/run: no such bucket 'nothere'"):
        fetch_last_checkpoint("main:s3://nothere", tmp_path / "run")
    object_settings.forget()


@pytest.mark.parametrize("inside", [".", "run", "run/checkpoint-2", "run/mirror"])
def test_a_mirror_within_the_run_is_refused(tmp_path, monkeypatch, inside):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "run").mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"mirror_to '{inside}' would put copies into .*run'"):
        mirror_root(inside, "run")
    assert mirror_root("elsewhere", "run/") == os.path.join(tmp_path, "elsewhere", "run")
