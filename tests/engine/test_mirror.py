"""Checkpoints copied while training goes on: whatever the store does, the run goes on and says what is not there."""

import json
import logging
import shutil
import threading

import pytest
import tiny
import torch
from utils import ceph, stores

from mllm.config.arguments import Seq2SeqArguments
from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine import mirror as engine_mirror
from mllm.engine.mirror import MirrorCheckpoints, mirror_checkpoints
from mllm.engine.trainer import MultimodalTrainer
from mllm.errors import UserError
from mllm.models.tuning import Tuning
from mllm.registry import DATASETS
from mllm.utils import object_settings, transfer
from mllm.utils.checkpoint_mirror import MARKER, fetch_last_checkpoint, mirror_root, mirrored_checkpoints
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


@pytest.fixture
def mirror(moto, conf, tmp_path, monkeypatch):
    stores.write_settings(conf, monkeypatch, main=moto, dead="http://127.0.0.1:9")
    monkeypatch.setenv("MLLM_OBJECT_ATTEMPTS", "1")
    stores.make_bucket("mirrors")
    yield f"s3://mirrors/{tmp_path.name}"
    object_settings.forget()


@pytest.fixture
def told(caplog, monkeypatch):
    """The sentences of the log."""
    monkeypatch.setattr(logging.getLogger("mllm"), "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("mllm.engine.mirror")]


def trainer_of(folder, **changes):
    torch.manual_seed(0)
    family = tiny.family()
    processor = family.build_processor(tiny.CONVERSATION)
    options = {"max_steps": 6, "save_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1, **changes}
    args = Seq2SeqArguments(output_dir=str(folder), use_cpu=True, report_to="none", seed=1, **options)
    return MultimodalTrainer(
        model=family.build_model(processor, Tuning()),
        args=args,
        train_dataset=SingleImageConvDataset(DATASETS.build(tiny.REC), processor),
        family=family,
        processor=processor,
    )


def mirrored_trainer(folder, mirror, **changes):
    trainer = trainer_of(folder, **changes)
    callback = MirrorCheckpoints(mirror_root(mirror, folder), folder)
    trainer.add_callback(callback)
    return trainer, callback


def local(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*"))


@pytest.mark.parametrize(("limit", "steps"), [(None, [2, 4, 6]), (1, [6]), (2, [4, 6])])
def test_the_mirror_holds_what_output_dir_holds(mirror, tmp_path, limit, steps):
    folder = tmp_path / "run"
    trainer, callback = mirrored_trainer(folder, mirror, save_total_limit=limit)
    one_after_the_other(callback, trainer)
    trainer.train()
    callback.finish()
    names = [f"checkpoint-{step}" for step in steps]
    assert local(folder) == names
    assert mirrored_checkpoints(callback.root) == names
    for name in names:
        copied = transfer.list_files(join(callback.root, name))
        copied.pop(MARKER)
        assert copied == transfer.list_files(str(folder / name))
    assert not (folder / ".mirroring").exists()


def one_after_the_other(callback, trainer):
    """Wait for each copy before the next step, so that none is left out."""

    class Waits(engine_mirror.TrainerCallback):
        def on_save(self, args, state, control, **_):
            callback.copies.wait()

    trainer.add_callback(Waits())


def test_a_run_whose_folder_is_gone_goes_on_from_the_mirror_as_if_nothing_had_happened(mirror, tmp_path):
    goes_on_from(mirror, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(bool(ceph.missing()), reason=str(ceph.missing()))
def test_a_run_goes_on_from_a_mirror_in_a_real_store(tmp_path, monkeypatch):
    with ceph.Ceph(tmp_path / "ceph") as gateway:
        stores.write_settings(tmp_path / "petrel.conf", monkeypatch, ceph=gateway.url)
        stores.make_bucket("mirrors")
        goes_on_from("ceph:s3://mirrors/somewhere", tmp_path)
        assert mirrored_checkpoints("s3://mirrors/somewhere/run") == ["checkpoint-2", "checkpoint-4"]
        object_settings.forget()


def goes_on_from(mirror, tmp_path):
    """Four steps of six, the folder deleted, the last two from the mirror: the weights of six steps without a stop."""
    whole = trainer_of(tmp_path / "whole", save_strategy="no")
    whole.train()
    folder = tmp_path / "run"
    trainer, callback = mirrored_trainer(folder, mirror)
    one_after_the_other(callback, trainer)

    class Stops(engine_mirror.TrainerCallback):
        def on_save(self, args, state, control, **_):
            control.should_training_stop = state.global_step == 4

    trainer.add_callback(Stops())
    trainer.train()
    shutil.rmtree(folder)
    fetched = fetch_last_checkpoint(mirror, folder)
    assert fetched == folder / "checkpoint-4"
    again = trainer_of(folder)
    again.train(resume_from_checkpoint=str(fetched))
    for (name, ours), theirs in zip(again.model.named_parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_store_that_is_away_costs_copies_and_nothing_else(mirror, tmp_path, told):
    folder = tmp_path / "run"
    trainer, callback = mirrored_trainer(folder, "dead:s3://mirrors", save_steps=3)
    one_after_the_other(callback, trainer)
    trainer.train()
    callback.finish()
    assert trainer.state.global_step == 6
    *saves, last = told()
    assert [text.split(":")[0] for text in saves] == [
        "checkpoint-3 is not mirrored, training goes on",
        "checkpoint-6 is not mirrored, training goes on",
    ]
    assert last.startswith(
        "2 of 2 checkpoints were not mirrored to dead:s3://mirrors/run (output_dir has what it keeps)"
    )
    assert "cannot be reached (1 attempt)" in last
    assert stores.SECRET not in last


def test_training_does_not_wait_for_a_slow_store_and_the_newest_is_copied(mirror, tmp_path, told, monkeypatch):
    """The first copy is held until training is over: 4 is left out for 6; 2 is whole although rotation has taken it."""
    folder = tmp_path / "run"
    trainer, callback = mirrored_trainer(folder, mirror, save_total_limit=1)
    released, copied = threading.Event(), []
    copy = engine_mirror.copy_checkpoint

    def held(source, target, beside):
        released.wait(60)
        copied.append(source.name)
        return copy(source, target, beside)

    monkeypatch.setattr(engine_mirror, "copy_checkpoint", held)
    trainer.train()
    assert trainer.state.global_step == 6
    assert copied == []
    assert local(folder) == ["checkpoint-6"]
    released.set()
    callback.finish()
    assert copied == ["checkpoint-2", "checkpoint-6"]
    assert (callback.copies.done, callback.copies.skipped, callback.copies.failed) == (2, 1, 0)
    assert told()[-1].startswith("1 of 3 checkpoints were not mirrored")
    assert any("checkpoint-4 is not mirrored: copying is slower than saving" in text for text in told())
    assert mirrored_checkpoints(callback.root) == ["checkpoint-6"]
    assert not (folder / ".mirroring").exists()


def test_a_run_that_is_stopped_gives_the_copy_under_way_a_little_time(mirror, tmp_path, monkeypatch):
    waited = []
    trainer, callback = mirrored_trainer(tmp_path / "run", mirror)
    monkeypatch.setattr(callback.copies, "wait", waited.append)
    state = trainer.state
    state.max_steps, state.global_step = 6, 6
    callback.on_train_end(trainer.args, state, trainer.control)
    assert waited == []
    state.global_step = 4
    callback.on_train_end(trainer.args, state, trainer.control)
    assert waited == [engine_mirror.STOPPED_WAIT_SECONDS]


def test_what_a_killed_run_left_to_copy_is_dropped(mirror, tmp_path):
    left = tmp_path / "run" / ".mirroring" / "checkpoint-2"
    left.mkdir(parents=True)
    trainer, callback = mirrored_trainer(tmp_path / "run", mirror, max_steps=1)
    trainer.train()
    callback.finish()
    assert not left.exists()


def test_a_bug_in_the_copying_thread_does_not_leave_the_run_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    copies = engine_mirror._Copies(lambda folder: 1 / 0)
    copies.add(tmp_path)
    assert copies.wait(60)
    assert copies.failed == 1


def test_a_mirror_that_cannot_be_written_stops_the_run_before_it_begins(mirror, tmp_path, told):
    trainer = trainer_of(tmp_path / "run", do_train=True)
    trainer.args.mirror_to = "s3://nobucket/x"
    with pytest.raises(
        UserError, match=r"mirror_to cannot be written: .*: no such bucket 'nobucket' in cluster 'main'"
    ):
        mirror_checkpoints(trainer)
    trainer.args.mirror_to = "faast:s3://mirrors"
    with pytest.raises(UserError, match="no section 'faast'"):
        mirror_checkpoints(trainer)
    (tmp_path / "file").write_text("")
    trainer.args.mirror_to = str(tmp_path / "file")
    with pytest.raises(UserError, match=r"mirror_to cannot be written: .*Not a directory"):
        mirror_checkpoints(trainer)
    trainer.args.mirror_to = "dead:s3://mirrors"
    mirror_checkpoints(trainer)  # may be back at the first save
    assert told()[-1].startswith("mirror_to: dead:s3://mirrors/run/.mirror_probe: cluster 'dead'")
    trainer.args.mirror_to = mirror
    assert mirror_checkpoints(trainer).root == f"{mirror}/run"
    assert transfer.list_files(mirror) == {}
    for changes in ({"mirror_to": None}, {"mirror_to": mirror, "do_train": False}):
        vars(trainer.args).update(changes)
        assert mirror_checkpoints(trainer) is None


def test_the_best_checkpoint_stays_in_the_mirror(mirror, tmp_path):
    """After a resume on a new disk the best one may not lie in output_dir."""
    folder = tmp_path / "run"
    callback = MirrorCheckpoints(mirror_root(mirror, folder), folder)
    callback.limited, callback.best = True, "checkpoint-2"
    for step in (2, 4, 6):
        one = folder / f"checkpoint-{step}"
        one.mkdir(parents=True)
        (one / "trainer_state.json").write_text(json.dumps({}))
        if step > 2:
            shutil.rmtree(folder / f"checkpoint-{step - 2}")
        callback._copy(one)
    assert mirrored_checkpoints(callback.root) == ["checkpoint-2", "checkpoint-6"]
