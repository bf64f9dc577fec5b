"""A tiny twin of each shipped config trains and predicts: the config, changed by --cfg-options and flags alone."""

import json

import pytest
import tiny
import torch
from contract.test_datasets import ARGUMENTS
from launch import REPOSITORY
from models.test_convert import language_folder, tower_folder, truth
from models.twins_blip import MODEL_ARGS as BLIP
from models.twins_phi_clip import TEXT as PHI
from transformers import AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModelWithProjection, Phi3Config

from mllm.config import resolve
from mllm.pipeline import finetune
from mllm.utils.program import run_main

LEAVES = [
    path
    for path in sorted((REPOSITORY / "config").glob("*.py"))
    if not path.stem.startswith(("toy_", "refcoco_mini")) and not path.stem.endswith("_eval")
]
SQUARE = [{"type": "SquareCanvas"}, {"type": "Resize", "size": 28}]
FLAGS = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 4,
    "dataloader_num_workers": 0,
    "logging_steps": 1,
    "bf16": "false",
    "use_cpu": "true",
    "report_to": "none",
    "save_strategy": "no",
    "load_best_model_at_end": "false",
    "eval_strategy": "no",
    "do_eval": "false",
    "do_multi_predict": "false",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Tiny folders in the layouts that the configs name."""
    root = tmp_path_factory.mktemp("weights")
    model = truth()
    phi = AutoModelForCausalLM.from_config(Phi3Config(**{**PHI, "vocab_size": 1090}))
    phi.save_pretrained(root / "phi")
    tiny.processor().tokenizer.save_pretrained(root / "phi")
    pooled = CLIPVisionConfig(**tiny.MODEL_ARGS["config"]["vision_config"], projection_dim=24)
    CLIPVisionModelWithProjection(pooled).save_pretrained(root / "pooled")
    return {
        "clip": str(tower_folder(root / "clip", model)),
        "llama": str(language_folder(root / "llama", model)),
        "phi": str(root / "phi"),
        "pooled": str(root / "pooled"),
    }


def model_options(values, weights):
    """What makes the model of a config tiny."""
    kind = values["model_args"]["type"]
    square = {"conversation.transforms": SQUARE, "conversation.max_length": 512, "generation.max_new_tokens": 4}
    if kind == "BLIP":
        return {**square, "model_args": BLIP, "conversation.max_length": 64}
    if kind == "PhiCLIP":
        pair = {"model_args.vision_tower": weights["pooled"], "model_args.language_model": weights["phi"]}
        return {**pair, "model_args.dtype": "float32", **square}
    if "language_model" in values["model_args"]:
        pair = {"model_args.vision_tower": weights["clip"], "model_args.language_model": weights["llama"]}
        every = {"model_args.weights": None, "model_args.cross_attn_every_n_layers": 1} if kind != "LLaVA" else {}
        return {**pair, **every, "model_args.dtype": "float32", **square}
    return {"model_args": tiny.MODEL_ARGS, **square}


def source_options(value, place, shared, folder):
    """Each source of a config, read from its small example; mixtures stay as they are."""
    if isinstance(value, dict) and value.get("type") in ARGUMENTS and not {"datasets", "dataset"} & set(value):
        part = folder / place
        part.mkdir()
        example = {"type": value["type"], **ARGUMENTS[value["type"]](shared, part)}
        kept = {name: value[name] for name in ("answer", "turns", "subsets", "per") if name in value}
        return {place: {**example, **kept}}
    found = {}
    if isinstance(value, dict):
        found |= {f"{place}.count": 2} if value.get("type") == "SubsetDataset" else {}
        for name, one in value.items():
            found |= source_options(one, f"{place}.{name}", shared, folder)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            found |= source_options(one, f"{place}.{number}", shared, folder)
    return found


def words_of(options):
    return [f"{name}={json.dumps(value)}" for name, value in options.items()]


@pytest.mark.parametrize("path", LEAVES, ids=[path.stem for path in LEAVES])
def test_a_tiny_twin_trains_and_predicts(path, weights, tmp_path, shared_data):
    if "qlora" in path.stem:
        pytest.importorskip("bitsandbytes", reason="needs pip install 'mllm[quant]'")
    values = resolve([str(path)]).values
    options = model_options(values, weights)
    folder = tmp_path / "data"
    folder.mkdir()
    chosen = values["training_args"].get("metric_for_best_model")
    parts = ["train", "test", *(["validation"] if chosen else [])]
    for part in parts:
        if part in values["data_args"]:
            options |= source_options(values["data_args"][part], f"data_args.{part}", shared_data, folder)
        if part in values["data_args"] and part != "train":
            # METEOR's Java program takes longer than all the rest; CIDEr is what chooses.
            options[f"data_args.{part}.evaluators"] = [
                {**one, **({"meteor": "off"} if "Caption" in one["type"] else {})}
                for one in values["data_args"][part]["evaluators"]
            ]
    for place in [place for place in options if place.endswith(".dataset") and "test" in place]:
        options[place] = {"type": "SubsetDataset", "count": 2, "dataset": options[place]}
    flags = {"output_dir": tmp_path / "out", **FLAGS, "do_predict": str("test" in values["data_args"]).lower()}
    if chosen:
        best = {"load_best_model_at_end": "true", "eval_strategy": "steps", "save_strategy": "steps"}
        flags |= {**best, "eval_steps": 1, "save_steps": 1}
    if values["training_args"].get("init_from"):
        flags["init_from"] = _stage_one(tmp_path, weights)
    words = [str(path), "--cfg-options", *words_of(options)]
    words += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    torch.manual_seed(0)
    assert run_main(finetune.main, words, name="finetune.py") == 0
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert results["train_loss"] > 0
    assert "test" not in values["data_args"] or results["test_samples"] > 0
    whole = (tmp_path / "out" / "model.safetensors").is_file()
    assert whole != (tmp_path / "out" / "mllm_tune.json").is_file()
    if chosen:
        state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
        assert state["best_model_checkpoint"]
        assert {row["step"] for row in state["log_history"] if f"eval_{chosen}" in row} == {1, 2}


def _stage_one(tmp_path, weights):
    """What the first stage leaves, from its own config."""
    path = REPOSITORY / "config" / "pretrain_llava_internlm2_1_8b.py"
    options = {**model_options(resolve([str(path)]).values, weights), "data_args.train": {**tiny.REC, "count": 4}}
    words = [str(path), "--cfg-options", *words_of(options)]
    flags = {**FLAGS, "output_dir": tmp_path / "stage1", "max_steps": 1}
    words += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    assert run_main(finetune.main, words, name="finetune.py") == 0
    return tmp_path / "stage1"
