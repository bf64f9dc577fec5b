"""Prediction in one process: order, end marks, beams, sampling, and what becomes of parts that an earlier run left."""

import json
import logging
import os
import signal
from types import SimpleNamespace

import pytest
import tiny
import torch
from accelerate import Accelerator
from transformers import LogitsProcessor

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.made_of import checksum, made_of, weights_digest
from mllm.engine.predict import Generator, _answers, left, longest_first, predict, share
from mllm.engine.together import SharedError
from mllm.errors import DataError
from mllm.registry import DATASETS

COUNT, BATCH = 7, 2


@pytest.fixture(autouse=True)
def _logging_is_seen(monkeypatch):
    """A program that another test has run in this process may have turned it off."""
    monkeypatch.setattr(logging.getLogger("mllm"), "propagate", True)


@pytest.fixture
def parts(tmp_path):
    return Desk(tmp_path)


class Desk:
    """A tiny model, seven items, and a family that can be stopped before a batch, as a kill would."""

    def __init__(self, folder, **conversation):
        torch.manual_seed(0)
        self.path = folder / "test_predictions.jsonl"
        self.family = tiny.family()
        self.processor = self.family.build_processor({**tiny.CONVERSATION, **conversation})
        self.model = self.family.build_model(self.processor)
        self.dataset = SingleImageConvDataset(
            DATASETS.build({**tiny.REC, "count": COUNT}), self.processor, mode="generate"
        )
        self.options, self.seed, self.data, self.workers = {"max_new_tokens": 6}, 0, {"rows": COUNT}, 0
        self.calls, self.stop_before = 0, None

    def generate(self, model, batch, **options):
        if self.calls == self.stop_before:
            raise KeyboardInterrupt
        self.calls += 1
        return self.family.generate(model, batch, **options)

    def generator(self):
        double = SimpleNamespace(generate=self.generate)
        options = [Accelerator(cpu=True), BATCH, self.workers, self.options, self.seed]
        return Generator(self.model, double, self.processor, *options)

    def predict(self, stop_before=None):
        """The lines of the predictions file; None where the run stops before that batch."""
        self.calls, self.stop_before = 0, stop_before
        generator = self.generator()
        made = {**made_of(generator, self.data), "model": "stands for the double"}
        try:
            predict(generator, self.dataset, self.path, "test", made)
        except KeyboardInterrupt:
            return None
        return self.path.read_bytes()

    def part(self, rank=0):
        return self.path.with_name(f"test_predictions.rank{rank}.part")


class _Lengths(list):
    def length_hint(self, index):
        if self[index] is None:
            raise DataError("a broken row")
        return self[index]


def test_the_longest_come_first_and_images_count_before_characters():
    dataset = _Lengths([(5, 1), (90, 0), (7, 1), None, (5, 1), (1, 2)])
    assert longest_first(dataset, 4) == [[5, 2, 0, 4], [1, 3]]
    assert longest_first(dataset, 2) == [[5, 2], [0, 4], [1, 3]]


def test_batches_are_dealt_in_turn_and_a_short_rank_repeats_one_that_is_not_its_own():
    batches = [[8, 2], [0, 1], [3, 4], [5, 6], [7]]
    assert share(batches, 0, 2) == ([[8, 2], [3, 4], [7]], 3)
    assert share(batches, 1, 2) == ([[0, 1], [5, 6], [7]], 2)
    assert share([], 1, 2) == ([], 0)
    assert left(batches, {0, 1, 3, 7, 8}) == [[8, 2], [3, 4], [5, 6]]


def test_a_repeated_batch_is_generated_to_keep_in_step_and_not_kept(parts):
    kept = list(_answers(parts.generator(), parts.dataset, [[3, 1], [6]], 1, "test"))
    assert [[record.index for record in records] for records, _ in kept] == [[3, 1]]
    assert parts.calls == 2


def test_the_order_of_generation_does_not_show_in_the_file(parts, monkeypatch):
    whole = parts.predict()
    assert [json.loads(line)["index"] for line in whole.splitlines()] == list(range(COUNT))
    hints = [3, 1, 4, 1, 5, 9, 2]
    monkeypatch.setattr(parts.dataset.dataset, "length_hint", lambda index: (hints[index], 1), raising=False)
    assert longest_first(parts.dataset, BATCH)[0] == [5, 4]
    assert parts.predict() == whole


def test_a_stopped_prediction_goes_on_where_it_stopped(parts, caplog):
    whole = parts.predict()
    assert parts.calls == 4  # batches of 2, 2, 2, 1
    assert parts.predict(stop_before=2) is None
    with caplog.at_level(logging.INFO, "mllm"):
        assert parts.predict() == whole
    assert parts.calls == 2
    assert "test: resuming: 4 of 7 are there" in caplog.text
    assert [path.name for path in parts.path.parent.iterdir()] == [parts.path.name]
    assert parts.predict() == whole  # finished: a rerun is asked for
    assert parts.calls == 4


def test_every_byte_at_which_a_run_may_be_killed_leaves_a_part_that_can_be_gone_on_from(parts):
    whole = parts.predict()
    parts.predict(stop_before=3)
    content, header = parts.part().read_bytes(), parts.path.with_name("test_predictions.parts.json").read_bytes()
    ends = [number + 1 for number, byte in enumerate(content) if byte == ord("\n")]
    for cut in (0, 1, ends[0] - 1, ends[0], ends[0] + 5, ends[1] - 1, ends[3], len(content) - 1):
        parts.part().write_bytes(content[:cut])
        parts.path.with_name("test_predictions.parts.json").write_bytes(header)
        assert parts.predict() == whole, cut
        there = sum(end <= cut for end in ends)  # 0 … 6 records in whole batches of two
        assert parts.calls == 4 - there // 2, cut


def test_parts_of_any_number_of_ranks_are_read(parts):
    whole = parts.predict()
    parts.predict(stop_before=3)
    lines = parts.part().read_text().splitlines(keepends=True)
    for rank, chosen in enumerate((lines[:2], lines[2:4], [])):
        parts.part(rank).write_text("".join(chosen))
    parts.part(11).write_text("".join(lines[4:]) + '{"index": 6, "pr')
    assert parts.predict() == whole
    assert parts.calls == 1
    assert [path.name for path in parts.path.parent.iterdir()] == [parts.path.name]


def test_a_broken_line_that_is_not_the_last_is_named(parts):
    parts.predict(stop_before=2)
    lines = parts.part().read_bytes().splitlines(keepends=True)
    parts.part().write_bytes(lines[0] + lines[1][:9] + b"\n" + lines[2])
    with pytest.raises(SharedError, match=r"test_predictions\.rank0\.part:2:\d+: broken JSON"):
        parts.predict()


def _one_weight(desk):
    with torch.no_grad():
        weight = desk.model.lm_head.weight
        weight[5, 3] = torch.nextafter(weight[5, 3], torch.tensor(9.0))


def _prompt(desk):
    desk.processor = desk.family.build_processor(
        {**tiny.CONVERSATION, "template": {"type": "vicuna_v1.1", "system": ""}}
    )
    desk.dataset.processor = desk.processor


def _options(desk):
    desk.options = {"max_new_tokens": 5}


def _data(desk):
    desk.data = {"rows": COUNT, "files": [{"sha256": "another"}]}


@pytest.mark.parametrize(
    ("change", "name"),
    [(_one_weight, "weights"), (_prompt, "prompts"), (_options, "generation options"), (_data, "data")],
)
def test_parts_of_something_else_are_discarded_and_never_mixed(parts, tmp_path, caplog, change, name):
    parts.predict(stop_before=2)
    change(parts)
    resumed = parts.predict()
    assert f"test_predictions.jsonl: predictions of other {name} are discarded" in caplog.text
    assert parts.calls == 4
    fresh = Desk(tmp_path / "fresh")
    change(fresh)
    assert resumed == fresh.predict()


def test_parts_without_their_header_are_discarded(parts, caplog):
    parts.predict(stop_before=2)
    parts.path.with_name("test_predictions.parts.json").unlink()
    parts.predict()
    assert "predictions of unknown origin are discarded" in caplog.text
    assert parts.calls == 4


def test_the_digest_of_weights_sees_one_bit_one_exchange_and_one_name():
    torch.manual_seed(0)
    model = torch.nn.Linear(700, 3)
    before = weights_digest(model)
    assert weights_digest(model) == before
    changed = torch.nn.Linear(700, 3)
    changed.load_state_dict(model.state_dict())
    assert weights_digest(changed) == before
    with torch.no_grad():
        changed.weight[1, 5], changed.weight[1, 6] = model.weight[1, 6], model.weight[1, 5]
    assert weights_digest(changed) != before
    assert weights_digest(torch.nn.Sequential(model)) != before
    assert weights_digest(model.to(torch.bfloat16)) != before


def test_the_checksum_is_the_sum_of_bit_patterns_times_odd_numbers():
    # bfloat16: 1.0 is 0x3F80 = 16256, 2.0 is 0x4000 = 16384, -1.0 is 0xBF80, as a signed number -16512.
    assert checksum(torch.tensor([1.0, 2.0], dtype=torch.bfloat16)) == 16256 + 3 * 16384
    assert checksum(torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.bfloat16)) == (5 * -16512) % 2**64
    assert checksum(torch.full((3 << 20,), 1, dtype=torch.uint8)) == (3 << 20) ** 2  # the sum of the first odd numbers


class _Script(LogitsProcessor):
    """Makes each row say given ids, one after the other, whatever the model thinks."""

    def __init__(self, rows, beams=1):
        self.rows, self.beams, self.step = rows, beams, 0

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -1e4)
        for row in range(len(scores)):
            script = self.rows[row // self.beams]
            forced[row, script[min(self.step, len(script) - 1)]] = 0.0
        self.step += 1
        return forced


def _say(desk, texts, **options):
    """The answers when the model is made to say ``texts``, and how many tokens it was asked for."""
    ids = [desk.processor.tokenizer.encode(text, add_special_tokens=False) for text in texts]
    made = []

    def generate(model, batch, **given):
        script = _Script(ids, given.get("num_beams", 1))
        made.append(desk.family.generate(model, batch, logits_processor=[script], **given))
        return made[-1]

    generator = desk.generator()
    generator.family = SimpleNamespace(generate=generate)
    generator.options = {"max_new_tokens": 40, **options}
    features = [desk.dataset[index].features for index in range(len(texts))]
    answers = generator.generate(desk.processor.collate(features, layout="left"))
    return answers, made[0].shape[1], [len(one) for one in ids]


JUNK = " and so on and so on and so on and so on and so on"


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
@pytest.mark.parametrize(
    ("template", "mark"), [("vicuna_v1.1", "</s>"), ("llava_v0", "###"), ("plain", "\n")], ids=["one", "three", "blank"]
)
def test_a_batch_ends_with_the_longest_answers_end_mark(tmp_path, template, mark, options):
    desk = Desk(tmp_path, template=template)
    marks = desk.processor.tokenizer.encode(mark, add_special_tokens=False)
    assert len(marks) == {"</s>": 1, "###": 3, "\n": 1}[mark]
    answers, made, spoken = _say(desk, [f"a cat{mark}{JUNK}", f"a red box, left{mark}{JUNK}"], **options)
    assert answers == ["a cat", "a red box, left"]
    said = len(desk.processor.tokenizer.encode(f"a red box, left{mark}", add_special_tokens=False))
    assert made == said < min(spoken)


def test_a_line_break_before_the_answer_does_not_end_it(tmp_path):
    assert _say(Desk(tmp_path, template="plain"), ["\na cat\n" + JUNK])[0] == ["a cat"]


def test_the_prompts_own_marks_do_not_end_the_answer(tmp_path):
    desk = Desk(tmp_path, template="llava_v0")
    prompt = desk.processor.tokenizer.decode(desk.dataset[0].features["input_ids"])
    assert prompt.endswith("###Assistant:")
    assert _say(desk, ["#tag, ##" + JUNK], max_new_tokens=9)[1] == 9


def test_beams_give_what_transformers_gives_for_each_sample_alone(parts):
    greedy = [json.loads(line)["pred"] for line in parts.predict().splitlines()]
    parts.options = {"max_new_tokens": 6, "num_beams": 3}
    beams = [json.loads(line)["pred"] for line in parts.predict().splitlines()]
    parts.model.eval()
    for index in range(COUNT):
        batch = parts.processor.collate([parts.dataset[index].features], layout="left")
        ids = parts.model.generate(**batch, num_beams=3, max_new_tokens=6, do_sample=False)
        new = ids[:, batch["input_ids"].shape[1] :]
        assert parts.processor.tokenizer.decode(new[0], skip_special_tokens=True).strip() == beams[index]
    assert beams != greedy


def test_sampling_depends_on_the_seed_and_on_nothing_else(parts):
    parts.options = {"max_new_tokens": 6, "do_sample": True, "temperature": 1.5}
    state = torch.get_rng_state()
    whole = parts.predict()
    assert torch.equal(torch.get_rng_state(), state)  # training around an evaluation draws as it would have
    parts.predict(stop_before=1)
    torch.rand(3)
    assert parts.predict() == whole
    assert parts.calls == 3
    parts.seed = 1
    assert parts.predict() != whole


class _DiesInWorker(SingleImageConvDataset):
    def __getitem__(self, index):
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class _CannotBeEncoded(SingleImageConvDataset):
    def __getitem__(self, index):
        raise DataError("test[3]: the canvas is 9x9")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            _DiesInWorker,
            r"^test: a process that reads the data died \(DataLoader worker .*\), .*dataloader_num_workers",
        ),
        (_CannotBeEncoded, r"^test\[3\]: the canvas is 9x9$"),
    ],
)
def test_what_fails_in_a_worker_process_is_one_sentence(parts, kind, expected):
    parts.dataset = kind(parts.dataset.dataset, parts.processor, mode="generate")
    parts.workers = 1
    with pytest.raises(SharedError, match=expected):
        parts.predict()
