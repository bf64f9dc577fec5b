import random
import re

import numpy as np
import pytest
import tiny
import torch

from mllm.config.arguments import Seq2SeqArguments
from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.predict import Generator
from mllm.engine.samples import SamplePages, places_in, write_page
from mllm.engine.trainer import MultimodalTrainer
from mllm.errors import ConfigError
from mllm.grounding.formatter import PlainFormatter
from mllm.models.tuning import Tuning
from mllm.registry import DATASETS
from mllm.structures import Frame, Record

DROPOUT = {"text_config": {**tiny.MODEL_ARGS["config"]["text_config"], "attention_dropout": 0.3}}


class Drawing(SingleImageConvDataset):
    """Draws from every generator that training may draw from."""

    def __getitem__(self, key):
        random.random()
        np.random.rand()
        torch.rand(1)
        return super().__getitem__(key)


def trainer_of(folder, *, steps=None, count=3, **changes):
    """A trainer of a model with dropout; it evaluates by generating nothing."""
    torch.manual_seed(0)
    family = tiny.family(config={**tiny.MODEL_ARGS["config"], **DROPOUT})
    processor = family.build_processor(tiny.CONVERSATION)
    defaults = {"max_steps": 4, "logging_steps": 1, "save_strategy": "no", "per_device_train_batch_size": 2}
    args = Seq2SeqArguments(output_dir=str(folder), use_cpu=True, report_to="none", seed=1, **{**defaults, **changes})
    validation = Drawing(DATASETS.build({**tiny.REC, "count": 7, "split": "val"}), processor, mode="generate")
    trainer = MultimodalTrainer(
        model=family.build_model(processor, Tuning()),
        args=args,
        train_dataset=SingleImageConvDataset(DATASETS.build(tiny.REC), processor),
        eval_dataset=validation,
        family=family,
        processor=processor,
        evaluate_with=lambda prefix: {f"{prefix}_zero": 0.0},
    )

    def generator():
        options = {"max_new_tokens": 6, "do_sample": True}
        return Generator(trainer.model, family, processor, trainer.accelerator, 2, options=options)

    if count:
        trainer.add_callback(SamplePages(folder / "samples", validation, generator, count, steps))
    return trainer


def losses(trainer):
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def pages(folder):
    return sorted(path.name for path in (folder / "samples").glob("*.html"))


def test_training_takes_the_same_steps_with_samples_and_without(tmp_path):
    states = []
    for name, options in (("a", {"count": 0}), ("b", {"steps": 1})):
        trainer = trainer_of(tmp_path / name, **options)  # which sets all seeds
        states.append((losses(trainer), random.random(), np.random.rand(), torch.rand(1).item()))
        assert trainer.model.training
    assert len(states[0][0]) == 4
    assert states[0] == states[1]
    assert pages(tmp_path / "b") == ["index.html", *(f"step_{n}.html" for n in (1, 2, 3, 4))]


def test_pages_come_every_so_many_steps_or_else_with_each_evaluation(tmp_path):
    evaluation = {"eval_strategy": "steps", "eval_steps": 2}
    trainer_of(tmp_path / "steps", steps=3, **evaluation).train()
    assert pages(tmp_path / "steps") == ["index.html", "step_3.html"]
    trainer_of(tmp_path / "evaluations", eval_on_start=True, **evaluation).train()
    assert pages(tmp_path / "evaluations") == ["index.html", "step_0.html", "step_2.html", "step_4.html"]


@pytest.mark.parametrize("best_is_loaded", [False, True])
def test_an_evaluation_after_training_gets_a_page_unless_other_weights_were_loaded(tmp_path, best_is_loaded):
    trainer = trainer_of(tmp_path, eval_strategy="steps", eval_steps=3)
    trainer.args.load_best_model_at_end = best_is_loaded
    trainer.train()
    (tmp_path / "samples" / "step_4.html").unlink()
    trainer.evaluate()
    assert ("step_4.html" in pages(tmp_path)) != best_is_loaded


def test_the_same_items_stand_on_every_page_with_truth_and_answer(tmp_path):
    trainer = trainer_of(tmp_path, steps=2)
    trainer.train()
    for step in (2, 4):
        page = (tmp_path / "samples" / f"step_{step}.html").read_text()
        # Three of seven, spread: 0 * 7 // 3, 7 // 3, 14 // 3.
        assert re.findall(r"<small>#(\d+)", page) == ["0", "2", "4"]
        assert page.count('class="place box truth"') == 3
        assert page.count("Where is ") == 3
        loss = next(row["loss"] for row in trainer.state.log_history if row.get("step") == step - 1 and "loss" in row)
        assert f"<h1>Step {step}</h1><p>loss {loss:.4f}</p>" in page


def test_a_page_leads_to_those_before_and_after_it(tmp_path):
    for step in (10, 30, 20):  # a run resumed at 10 comes to 20 again
        write_page(tmp_path, step, "<div class=card>a</div>", "")
    (tmp_path / "step_notes.html").write_text("mine")
    write_page(tmp_path, 40, "", "")
    links = {
        step: re.findall(r'<a rel=(\w+) href="(.*?)">', (tmp_path / f"step_{step}.html").read_text())
        for step in (10, 20, 30, 40)
    }
    assert links == {
        10: [("next", "step_20.html")],
        20: [("prev", "step_10.html"), ("next", "step_30.html")],
        30: [("prev", "step_10.html"), ("next", "step_40.html")],
        40: [("prev", "step_30.html")],
    }
    listed = re.findall(r'href="(.*?)"', (tmp_path / "index.html").read_text())
    assert listed == [f"step_{step}.html" for step in (10, 20, 30, 40)]


def test_boxes_and_points_of_the_answer_are_drawn_in_original_pixels():
    # A picture of 200 x 100 in the middle of a canvas of 200 x 200.
    record = Record(0, "0", "[0.1,0.5,0.2,0.6] and [0.5,0.5]", frames=[Frame((200, 100), (200, 200), (0, 50))])
    places = places_in(record, PlainFormatter())
    assert places.boxes == [pytest.approx((20, 50, 40, 70))]
    assert places.points == [pytest.approx((100, 50))]
    assert places_in(Record(0, "0", "[0.1,0.5,0.2,0.6]"), PlainFormatter()).boxes == []


@pytest.mark.parametrize("wrong", [{"sample_steps": 0}, {"sample_count": -1}])
def test_a_wrong_number_of_steps_or_items_is_an_error(tmp_path, wrong):
    with pytest.raises(ConfigError, match="expected steps from 1 and a count from 0"):
        Seq2SeqArguments(output_dir=str(tmp_path), use_cpu=True, **wrong)
