"""Wrong input as a new user gives it: one sentence with place and remedy, a non-zero exit, no traceback."""

import json
import logging
import re
from types import SimpleNamespace

import pytest
import tiny
from launch import FINETUNE, run
from PIL import Image

from mllm.pipeline import finetune, finetune_mem
from mllm.utils.program import run_main

TURNS = [{"from": "human", "value": "<image> where is it ?"}, {"from": "gpt", "value": "<boxes>", "boxes_seq": [[0]]}]


class Desk:
    """A user's desk: a folder with images, an annotation file, a config, and the words of a command line."""

    def __init__(self, folder):
        self.folder = folder
        Image.new("RGB", (64, 48), "white").save(folder / "a.png")

    def rows(self, *rows, **options):
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        (self.folder / "rows.jsonl").write_text(text)
        path, root = str(self.folder / "rows.jsonl"), str(self.folder)
        return {"type": "ItemJsonl", "path": path, "image_root": root, **options}

    def item(self, **changes):
        return {"image": "a.png", "target": {"boxes": [[1, 2, 30, 40]]}, "conversations": TURNS, **changes}

    def config(self, name="c.py", extra="", **options):
        path = self.folder / name
        path.write_text(tiny.config_text(self.folder / "out", **options) + extra)
        return [path]

    def train_on(self, *rows, **options):
        return self.config(data_args={"train": self.rows(*rows), **options})


def _image(desk, action):
    """Items whose picture ``action`` has spoilt."""
    action(desk.folder / "b.png")
    return desk.train_on(desk.item(image="b.png"))


def _truncate(path):
    Image.effect_noise((64, 48), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-2000])


def _rotate(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(path, "JPEG", exif=exif)


def _weights(desk, drop):
    """A saved model of which ``drop`` is taken away."""
    family = tiny.family()
    processor = family.build_processor(tiny.CONVERSATION)
    folder = desk.folder / "weights"
    family.save_weights(family.build_model(processor), None, folder)
    processor.save_pretrained(folder)
    drop(folder)
    return desk.config(model_args={"type": "LLaVA", "pretrained": str(folder)})


def _drop_tensor(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["multi_modal_projector.linear_1.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _finished(desk, steps):
    checkpoint = desk.folder / "out" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": steps}))
    return [*desk.config(), "--resume_from_checkpoint", checkpoint]


def _used_folder(desk):
    (desk.folder / "out").mkdir()
    (desk.folder / "out" / "model.safetensors").write_text("old")
    return desk.config()


def _without(key):
    return {name: value for name, value in tiny.MODEL_ARGS.items() if name != key}


def _train(**dataset):
    return {"train": dataset}


REC = tiny.REC
CASES = {
    "no config": (lambda d: [], "no config on the command line"),
    "config that is not there": (lambda d: ["nowhere.py"], "nowhere.py"),
    "config that is not Python": (lambda d: d.config(extra="model_args = dict(\n"), r"c.py:\d+: not valid Python"),
    "unknown section": (lambda d: d.config(extra="modle_args = dict(a=1)\n"), "did you mean 'model_args'"),
    "unknown data set": (lambda d: d.config(data_args=_train(type="DrawnRECs", count=3)), "did you mean 'DrawnREC'"),
    "unknown data set argument": (lambda d: d.config(data_args=_train(**REC, cuont=3)), "did you mean 'count'"),
    "missing data set argument": (lambda d: d.config(data_args=_train(type="DrawnREC")), "needs the argument 'count'"),
    "unknown model": (lambda d: d.config(model_args={"type": "Lava"}), "did you mean 'LLaVA'"),
    "unknown evaluator": (
        lambda d: [*d.config(data_args={"validation": {"dataset": REC, "evaluators": [{"type": "REC"}]}}), "--do_eval"],
        "'REC' is not registered in EVALUATORS",
    ),
    "unknown template": (lambda d: d.config(conversation={**tiny.CONVERSATION, "template": "vicuna"}), "vicuna_v1.1"),
    "unknown formatter": (
        lambda d: d.config(conversation={**tiny.CONVERSATION, "formatter": {"type": "PlainFormater"}}),
        "did you mean 'PlainFormatter'",
    ),
    "unknown flag": (lambda d: [*d.config(), "--learning_rat", "1"], "did you mean '--learning_rate'"),
    "shortened flag": (lambda d: [*d.config(), "--bf16_full"], "bf16_full_eval"),
    "flag that is no number": (lambda d: [*d.config(), "--max_steps", "many"], "max_steps"),
    "unknown option": (lambda d: [*d.config(), "--cfg-options", "data_args.train.cuont=3"], "did you mean 'count'"),
    "option without a value": (
        lambda d: [*d.config(), "--cfg-options", "data_args.train.count"],
        "at least one key=value",
    ),
    "nothing to do": (lambda d: d.config(training_args={"do_train": False}), "nothing to do.*--do_train"),
    "no output folder": (lambda d: d.config(training_args={"output_dir": None}), "output_dir is not set"),
    "output folder in use": (_used_folder, "not empty.*--resume_from_checkpoint"),
    "resume from nowhere": (
        lambda d: [*d.config(), "--resume_from_checkpoint", "nowhere"],
        "'nowhere': no such folder",
    ),
    "resume from nothing": (lambda d: [*d.config(), "--resume_from_checkpoint"], "no complete checkpoint"),
    "resume a finished run": (lambda d: _finished(d, 2), "step 2.*nothing would be trained.*max_steps"),
    "one process of two": (lambda d: d.config(), r"launcher started 2 processes.*--multi_gpu"),
    "fp16 on a CPU": (lambda d: [*d.config(), "--fp16"], "fp16 needs a GPU"),
    "no training data": (lambda d: d.config(data_args={"train": None}), "data_args.train is not set"),
    "no validation data": (lambda d: [*d.config(data_args={"validation": None}), "--do_eval"], "data_args.validation"),
    "no evaluators": (
        lambda d: [*d.config(data_args={"test": {"dataset": REC}}), "--do_predict"],
        "data_args.test: 'evaluators' is missing",
    ),
    "unknown best metric": (
        lambda d: d.config(training_args={"metric_for_best_model": "acc@0.6", "eval_strategy": "steps"}),
        "did you mean 'acc@0.5'",
    ),
    "dotted type that is not there": (
        lambda d: d.config(data_args=_train(type="my.Set")),
        "'my.Set' could not be imported",
    ),
    "import that is not there": (
        lambda d: d.config(extra="custom_imports = dict(imports=['my_plugins'])\n"),
        "'my_plugins' could not be imported",
    ),
    "missing annotation file": (
        lambda d: d.config(data_args=_train(type="ItemJsonl", path="gone.jsonl")),
        "'gone.jsonl' does not exist.*MLLM_DATA",
    ),
    "broken JSON": (lambda d: d.train_on(d.item(), '{"image": "a.png",'), r"rows.jsonl:2:\d+: broken JSON"),
    "number for text": (
        lambda d: d.config(
            data_args={
                "train": {**d.rows({"img_path": "a.png", "expression": 7, "bbox": [1, 2, 3, 4]}), "type": "RECJsonl"}
            }
        ),
        "rows.jsonl:1: field .expression. must be text",
    ),
    "missing field": (lambda d: d.train_on({"image": "a.png"}), "rows.jsonl:1.*'conversations' must be a list"),
    "misspelt field": (
        lambda d: d.train_on({"image": "a.png", "conversation": TURNS}),
        "'conversation' must be called 'conversations'",
    ),
    "two human turns": (
        lambda d: d.train_on(d.item(conversations=[TURNS[0], TURNS[0]])),
        "from 'human', expected 'gpt'",
    ),
    "placeholder without a box": (
        lambda d: d.train_on(
            d.item(conversations=[TURNS[0], {"from": "gpt", "value": "<boxes> <boxes>", "boxes_seq": [[0]]}])
        ),
        "2 <boxes> in .* but 1 list",
    ),
    "box index out of range": (
        lambda d: d.train_on(d.item(conversations=[TURNS[0], {**TURNS[1], "boxes_seq": [[3]]}])),
        "index 3 but the target has 1 boxes",
    ),
    "box outside the image": (
        lambda d: d.train_on(d.item(target={"boxes": [[1, 2, 300, 40]]})),
        "outside the 64x48 image",
    ),
    "xywh for xyxy": (lambda d: d.train_on(d.item(target={"boxes": [[40, 20, 10, 12]]})), "is it xywh"),
    "fractions for pixels": (
        lambda d: d.train_on(d.item(target={"boxes": [[0.1, 0.2, 0.5, 0.6]]})),
        "looks normalised",
    ),
    "three numbers for a box": (
        lambda d: d.train_on(d.item(target={"boxes": [[1, 2, 3]]})),
        "expected 4 finite numbers",
    ),
    "image mentioned, none given": (
        lambda d: d.train_on({"conversations": [TURNS[0], {"from": "gpt", "value": "there"}]}),
        "item has no image",
    ),
    "missing image": (lambda d: _image(d, lambda path: None), "b.png"),
    "truncated image": (lambda d: _image(d, _truncate), "b.png.*truncated"),
    "not an image": (lambda d: _image(d, lambda path: path.write_text("hello")), "b.png.*not an image"),
    "rotated image": (lambda d: _image(d, _rotate), "EXIF"),
    "image outside its folder": (lambda d: d.train_on(d.item(image="../a.png")), "leads out of"),
    "empty data set": (lambda d: d.train_on(), "the data set is empty"),
    "too many bad rows": (
        lambda d: d.train_on(*[d.item(image="gone.png")] * 9, d.item(), on_error="replace", error_budget=2),
        "data_args.error_budget allows 2.*gone.png",
    ),
    "missing weights": (
        lambda d: d.config(model_args={"type": "LLaVA", "pretrained": str(d.folder / "gone")}),
        "model_args.pretrained.*gone' does not exist",
    ),
    "weights without config": (lambda d: _weights(d, lambda f: (f / "config.json").unlink()), "has no config.json"),
    "weights that lack a tensor": (lambda d: _weights(d, _drop_tensor), r"lacks 1 tensors, first '.*linear_1.weight'"),
    "no tokenizer": (lambda d: d.config(model_args=_without("tokenizer")), "model_args.tokenizer is not set"),
    "folder without tokenizer": (
        lambda d: d.config(model_args={**tiny.MODEL_ARGS, "tokenizer": str(d.folder)}),
        "tokenizer.* cannot be read",
    ),
    "two starts for a model": (
        lambda d: d.config(model_args={**tiny.MODEL_ARGS, "pretrained": "x"}),
        "exactly one of pretrained",
    ),
    "freezing what is not there": (
        lambda d: d.config(tune={"freeze": ["visoin"]}),
        "'visoin' matches no parameter.*did you mean 'vision'",
    ),
    "nothing left to train": (
        lambda d: d.config(tune={"freeze": [""], "new_tokens": False}),
        "nothing is trained: tune stops",
    ),
    "several answers to a question": (
        lambda d: d.config(extra="generation = dict(num_return_sequences=2)\n"),
        "generation.num_return_sequences: a prediction holds one answer",
    ),
    "canvas of another size": (
        lambda d: d.config(conversation={**tiny.CONVERSATION, "transforms": [{"type": "SquareCanvas"}]}),
        "vision tower takes 28x28.*Resize",
    ),
    "length that cuts the image": (
        lambda d: d.config(conversation={**tiny.CONVERSATION, "max_length": 10}),
        "the model takes 10",
    ),
    "template without its placeholder": (
        lambda d: d.config(data_args=_train(**{**REC, "questions": "Where is it in <image> ?"})),
        "<expr>",
    ),
}


def test_there_are_at_least_thirty_cases():
    assert len(CASES) >= 30


@pytest.mark.parametrize("name", CASES)
def test_wrong_input_gets_one_sentence(name, tmp_path, capsys, monkeypatch):
    make, expected = CASES[name]
    if name == "one process of two":
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setattr("mllm.config.arguments.build_arguments", lambda values: SimpleNamespace(world_size=1))
    monkeypatch.setattr(logging, "raiseExceptions", False)  # transformers' logger keeps another test's stderr
    words = [str(word) for word in make(Desk(tmp_path))]
    before = {path for path in tmp_path.rglob("*") if "out" in path.parts}
    code = run_main(finetune.main, words, name="finetune.py")
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("finetune.py")]
    assert code in (1, 2), error
    assert len(lines) == 1, error
    assert re.search(expected, lines[0]), lines[0]
    assert "Traceback" not in error
    assert before <= {path for path in tmp_path.rglob("*") if "out" in path.parts}


def test_debug_shows_the_traceback(tmp_path, capsys):
    words = [str(word) for word in CASES["unknown data set"][0](Desk(tmp_path))]
    assert run_main(finetune.main, [*words, "--debug"], name="finetune.py") == 1
    assert "Traceback" in capsys.readouterr().err


def test_flash_attention_that_is_absent_is_one_sentence(tmp_path, capsys):
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        assert run_main(finetune_mem.main, [str(Desk(tmp_path).config()[0])], name="finetune_mem.py") == 1
        assert "pip install 'mllm[flash]'" in capsys.readouterr().err
    else:
        pytest.skip("flash-attn is installed")


def test_the_script_itself_exits_non_zero_with_the_sentence(tmp_path):
    done = run([FINETUNE, *CASES["unknown model"][0](Desk(tmp_path))])
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("finetune.py: error: 'Lava' is not registered in MODELS")
    assert "Traceback" not in done.stderr
