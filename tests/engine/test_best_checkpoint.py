"""The best checkpoint, and prediction, under every engine: two processes do what one does.

FSDP and ZeRO run on the CPU over gloo, see engines.py for what that shows.
"""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from launch import checked, run, run_two
from safetensors.torch import load_file

from mllm.config.arguments import Seq2SeqArguments
from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.sharded import name_wrapped_layers
from mllm.engine.trainer import MultimodalTrainer
from mllm.errors import ConfigError
from mllm.models.tuning import Tuning
from mllm.pipeline.assemble import choose_best_metric
from mllm.registry import DATASETS

JOB = Path(__file__).with_name("engine_job.py")
DEEPSPEED = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed: pip install 'mllm[deepspeed]'"
)
ZERO = [pytest.param(name, marks=[DEEPSPEED, pytest.mark.slow]) for name in ("zero2", "zero3")]
SHARDED = pytest.param("fsdp_sharded", marks=pytest.mark.slow)
PIECES = {
    "fsdp": "pytorch_model_fsdp.bin",
    "fsdp_sharded": "pytorch_model_fsdp_0/__1_*",
    "zero2": "global_step2/*rank_1_*",
    "zero3": "global_step2/*rank_1_*",
}
# The second evaluation of three is the best one.
PLUGIN = """
from mllm.evaluation.base import Evaluator
from mllm.registry import EVALUATORS

@EVALUATORS.register_module()
class PeakEvaluator(Evaluator):
    metrics = ("peak",)
    values = [0.1, 0.8, 0.3, 0.3]

    def prepare(self, records):
        self.value, *self.values = self.values

    def parse(self, record):
        return record.pred

    def statistics(self, value, record):
        return {"peak": self.value}
"""
TRAINING = {
    "max_steps": 3,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "load_best_model_at_end": True,
    "do_predict": True,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
    "sample_count": 3,
}
CAPTION_QUESTION = "<image> Describe the picture and give the box of each object."
CAPTIONS = {"type": "DrawnGroundedCaption", "count": 5, "questions": CAPTION_QUESTION}
TOY_CONVERSATION = {
    "template": {"type": "vicuna_v1.1", "system": ""},
    "formatter": {"type": "BinTokenFormatter", "bins": 101},
    "transforms": [{"type": "SquareCanvas"}, {"type": "Resize", "size": 96}],
}


@pytest.fixture(scope="module")
def training_config(tmp_path_factory):
    """Saved weights without rows for the tokenizer's last tokens, so that loading adds rows under every engine."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    folder = tmp_path_factory.mktemp("best")
    torch.manual_seed(0)
    LlavaForConditionalGeneration(LlavaConfig(**tiny.MODEL_ARGS["config"])).save_pretrained(folder / "weights")
    model_args = {"type": "LLaVA", "pretrained": str(folder / "weights"), "tokenizer": "asset:toy_llava"}
    (folder / "peak_plugin.py").write_text(PLUGIN)
    five = {"dataset": {**tiny.REC, "count": 5, "split": "val"}, "evaluators": [{"type": "PeakEvaluator"}]}
    text = tiny.config_text(
        "", training_args=TRAINING, model_args=model_args, data_args={"validation": five, "test": five}
    )
    (folder / "c.py").write_text(text + "custom_imports = dict(imports=['peak_plugin'])\n")
    return folder / "c.py"


@pytest.fixture(scope="module")
def one(training_config, tmp_path_factory):
    """The run on one process, with the batch of all processes."""
    folder = tmp_path_factory.mktemp("one")
    checked(run([JOB, "ddp", training_config, "--output_dir", folder, "--per_device_train_batch_size", 4]))
    return folder


def state_of(folder):
    return json.loads((folder / "trainer_state.json").read_text())


def losses(folder):
    return [row["loss"] for row in state_of(folder)["log_history"] if "loss" in row]


def predictions(folder):
    rows = [json.loads(line) for line in (folder / "test_predictions.jsonl").read_text().splitlines()]
    return [(row["index"], row["pred"]) for row in rows]


def same_weights(first, second):
    mine, other = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert mine.keys() == other.keys()
    return all(torch.equal(tensor, other[name]) for name, tensor in mine.items())


@pytest.mark.parametrize("engine", ["ddp", "fsdp", SHARDED, *ZERO])
def test_the_best_step_is_kept_and_loaded_and_all_is_as_on_one_process(training_config, one, tmp_path, engine):
    words = ["--output_dir", tmp_path, "--per_device_train_batch_size", 2]
    checked(run_two([JOB, engine, training_config, *words], timeout=300))
    assert json.loads((tmp_path / "run.json").read_text())["world_size"] == 2
    assert losses(tmp_path) == pytest.approx(losses(one), rel=1e-5)
    for folder in (one, tmp_path):
        state = state_of(folder)
        assert (state["best_global_step"], state["best_metric"]) == (2, 0.8)
        assert state["best_model_checkpoint"] == str(folder / "checkpoint-2")
        assert same_weights(folder, folder / "checkpoint-2")
        assert not same_weights(folder, folder / "checkpoint-3")
    if engine in PIECES:  # the engine's own files: it has run
        assert list((tmp_path / "checkpoint-2").glob(PIECES[engine]))
    assert predictions(tmp_path) == predictions(one)
    assert [index for index, _ in predictions(one)] == list(range(5))
    assert any(text for _, text in predictions(one))
    for step in (1, 2, 3):
        cards = [
            (folder / "samples" / f"step_{step}.html").read_text().split("<div class=cards>")[1]
            for folder in (one, tmp_path)
        ]
        assert cards[0] == cards[1]


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    """The shipped model, its captions end at different lengths; config and the predictions of one process."""
    folder = tmp_path_factory.mktemp("captions")
    config = folder / "c.py"
    test = {"dataset": CAPTIONS, "evaluators": [{"type": "ExactMatchEvaluator"}]}
    text = tiny.config_text(
        folder / "one",
        training_args={"do_train": False, "do_predict": True, "per_device_eval_batch_size": 1},
        model_args={"type": "LLaVA", "pretrained": "asset:toy_llava"},
        data_args={"test": test},
        conversation=TOY_CONVERSATION,
    )
    config.write_text(text.replace("max_new_tokens=8", "max_new_tokens=120"))
    checked(run([JOB, "ddp", config]))
    return config, predictions(folder / "one")


@pytest.mark.parametrize("engine", ["fsdp", *ZERO])
def test_prediction_without_training_is_as_on_one_process_though_answers_end_apart(captions, tmp_path, engine):
    config, expected = captions
    checked(run_two([JOB, engine, config, "--output_dir", tmp_path], timeout=200))
    assert json.loads((tmp_path / "run.json").read_text())["world_size"] == 2
    assert predictions(tmp_path) == expected
    assert len({text.count("<b_st>") for _, text in expected}) > 1


@pytest.mark.parametrize(
    ("metric", "is_greater_better"),
    [("CIDEr", True), ("acc@0.5", True), ("eval_f1", True), ("failure_rate", False), ("eval_failure_rate", False)],
)
def test_less_is_better_for_the_failure_rate_alone(tmp_path, metric, is_greater_better):
    args = Seq2SeqArguments(output_dir=str(tmp_path), use_cpu=True, metric_for_best_model=metric)
    assert args.greater_is_better is is_greater_better
    turned = Seq2SeqArguments(
        output_dir=str(tmp_path), use_cpu=True, metric_for_best_model=metric, greater_is_better=not is_greater_better
    )
    assert turned.greater_is_better is not is_greater_better


def test_the_first_declared_metric_is_taken_where_none_is_named(tmp_path):
    validation = SimpleNamespace(metrics=["F1_loc", "CIDEr"])
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps", "do_train": True}
    args = Seq2SeqArguments(output_dir=str(tmp_path), use_cpu=True, **best)
    choose_best_metric(args, validation)
    assert (args.metric_for_best_model, args.greater_is_better) == ("F1_loc", True)
    named = Seq2SeqArguments(output_dir=str(tmp_path), use_cpu=True, metric_for_best_model="eval_CIDEr", **best)
    choose_best_metric(named, validation)
    assert named.metric_for_best_model == "eval_CIDEr"


def test_only_what_evaluation_computes_can_select(tmp_path):
    options = {"output_dir": str(tmp_path), "use_cpu": True, "do_train": True, "eval_strategy": "steps"}
    args = Seq2SeqArguments(metric_for_best_model="CIDer", **options)
    with pytest.raises(ConfigError, match="did you mean 'CIDEr'"):
        choose_best_metric(args, SimpleNamespace(metrics=["CIDEr"]))
    choose_best_metric(
        Seq2SeqArguments(metric_for_best_model="failure_rate", **options), SimpleNamespace(metrics=["a"])
    )
    with pytest.raises(ConfigError, match="it computes no loss"):
        Seq2SeqArguments(metric_for_best_model="eval_loss", **options)


def test_a_metric_that_could_not_be_computed_stops_at_the_first_evaluation(tmp_path):
    family, processor = tiny.family(), tiny.processor()
    options = {"eval_on_start": True, "eval_strategy": "steps", "report_to": "none", "max_steps": 1}
    args = Seq2SeqArguments(output_dir=str(tmp_path), use_cpu=True, metric_for_best_model="METEOR", **options)
    samples = SingleImageConvDataset(DATASETS.build(tiny.REC), processor)
    trainer = MultimodalTrainer(
        model=family.build_model(processor, Tuning()),
        args=args,
        train_dataset=samples,
        eval_dataset=samples,
        family=family,
        processor=processor,
        evaluate_with=lambda prefix: {f"{prefix}_CIDEr": 1.0},  # as where Java is missing
    )
    with pytest.raises(ConfigError, match="metric_for_best_model='METEOR' could not be computed; known: eval_CIDEr"):
        trainer.train()


def test_layers_to_split_off_are_the_familys_unless_the_launch_names_some():
    family = tiny.family()
    model = family.build_model(tiny.processor(), Tuning())

    def named(plugin):
        trainer = SimpleNamespace(
            accelerator=SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin)), family=family, model=model
        )
        name_wrapped_layers(trainer)
        return plugin.transformer_cls_names_to_wrap

    assert named(SimpleNamespace(transformer_cls_names_to_wrap=None)) == ["LlamaDecoderLayer", "CLIPEncoderLayer"]
    assert named(SimpleNamespace(transformer_cls_names_to_wrap=["CLIPMLP"])) == ["CLIPMLP"]
    family.wrap = ("OtherLayer",)
    assert named(SimpleNamespace(transformer_cls_names_to_wrap=None)) is None
