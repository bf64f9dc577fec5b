"""LLaVA over towers and language models of many kinds, and what a checkpoint carries into inference."""

import json

import pytest
import tiny
import torch
from models.pairs import LANGUAGES, TOWERS, batch_of, pair
from transformers import AutoModelForCausalLM, AutoTokenizer

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.loss import token_loss
from mllm.errors import CheckpointError, ConfigError
from mllm.models.build import build_family
from mllm.models.tuning import Tuning
from mllm.registry import DATASETS, MODELS


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("tower", TOWERS)
def test_any_tower_and_any_language_model_make_a_llava(folders, tower, language):
    family = pair(folders, tower, language)
    processor = family.build_processor(tiny.CONVERSATION)
    model = family.build_model(processor, Tuning(freeze=[]))
    source = AutoModelForCausalLM.from_pretrained(folders / language)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(input_ids=ids).logits, source.eval()(ids).logits)
    batch = batch_of(processor)
    labels = batch.pop("labels")
    token_loss(model(**batch), labels).backward()
    without = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert without == []
    found = family.generate(model, batch_of(processor, mode="generate"), max_new_tokens=3, pad_token_id=0)
    assert found.shape[1] <= 3


@pytest.mark.parametrize(
    ("options", "layers"), [({}, 2), ({"mm_vision_select_layer": -1}, 3), ({"mm_vision_select_layer": 1}, 1)]
)
def test_layers_behind_the_selected_one_are_not_trained(folders, options, layers):
    family = pair(folders, **options)
    model = family.build_model(family.build_processor(tiny.CONVERSATION), Tuning(freeze=[]))
    trained = {name for name, one in model.named_parameters() if one.requires_grad and ".layers." in name}
    numbers = {int(name.split(".layers.")[1].split(".")[0]) for name in trained if "vision" in name}
    assert numbers == set(range(layers))


def test_patch_leaves_the_class_token_out_and_cls_patch_keeps_it(folders):
    for feature, tokens in (("patch", 4), ("cls_patch", 5)):
        processor = pair(folders, mm_vision_select_feature=feature).build_processor(tiny.CONVERSATION)
        assert processor.image["tokens"] == tokens
    assert pair(folders, "siglip").build_processor(tiny.CONVERSATION).image["tokens"] == 4  # it has no class token


def test_start_and_end_stand_around_the_patches(folders):
    family = pair(folders, mm_use_im_start_end=True, mm_use_im_patch_token=True)
    processor = family.build_processor(tiny.CONVERSATION)
    tokens = processor.tokenizer.convert_ids_to_tokens(processor.image_ids((28, 28)))
    assert tokens == ["<im_start>", *["<im_patch>"] * 4, "<im_end>"]
    model = family.build_model(processor)
    assert model.config.image_token_id == processor.tokenizer.convert_tokens_to_ids("<im_patch>")
    assert torch.isfinite(model(**{k: v for k, v in batch_of(processor).items() if k != "labels"}).logits).all()


@pytest.mark.parametrize(
    ("args", "error", "expected"),
    [
        ({"language_model": None}, ConfigError, "go together; one of them is missing"),
        ({"mm_vision_select_feature": "cls"}, ConfigError, "known: patch, cls_patch"),
        ({"dtype": "float31"}, ConfigError, "is no torch type"),
        ({"projector": "nothing.bin"}, CheckpointError, "no such file of weights"),
    ],
)
def test_wrong_arguments_are_named(folders, args, error, expected):
    def build():
        family = pair(folders, **args)
        return family.build_model(family.build_processor(tiny.CONVERSATION))

    with pytest.raises(error, match=expected):
        build()


def test_what_a_checkpoint_carries_gives_the_training_prompt_token_by_token(folders, tmp_path):
    conversation = {
        **tiny.CONVERSATION,
        "template": {"type": "llava_v0", "system": "Be brief."},
        "formatter": {"type": "BinTokenFormatter", "bins": 33},
    }
    family = pair(folders)
    processor = family.build_processor(conversation, {"num_beams": 2})
    tuning = Tuning.from_config({"lora": {"r": 2, "modules_to_save": ["projector"]}})
    model = family.build_model(processor, tuning)
    family.save_weights(model, None, tmp_path)
    processor.save_pretrained(tmp_path)
    again = build_family({"pretrained": str(tmp_path)}).build_processor({})
    assert again.generation == {"num_beams": 2}
    dataset = DATASETS.build({**tiny.REC, "count": 4})
    for index in range(4):
        trained = SingleImageConvDataset(dataset, processor)[index].features
        asked = SingleImageConvDataset(dataset, again, mode="generate")[index].features
        start = next(i for i, label in enumerate(trained["labels"]) if label != -100)
        prompt = asked["input_ids"]
        assert trained["input_ids"][: len(prompt)] == prompt
        # What lies between the prompt and the first trained token is at most the space before the answer.
        assert processor.tokenizer.decode(trained["input_ids"][len(prompt) : start]).strip() == ""


def test_auto_tokenizer_reads_what_a_checkpoint_holds(folders, tmp_path):
    processor = pair(folders).build_processor(tiny.CONVERSATION)
    processor.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "Where is the red circle? <image>"
    assert again(text)["input_ids"] == processor.tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"model_type": "llama"}, "holds a model of type 'llama', LLaVA reads 'llava'"),
        ({"model_type": "llava_llama", "mm_vision_tower": "x"}, "LLaVA's own layout, which transformers does not"),
        ({"model_type": "internlm2", "auto_map": {"AutoConfig": "x.Y"}}, "InternLM2, which transformers does not read"),
    ],
)
def test_a_folder_of_another_kind_is_named_with_its_way_out(tmp_path, content, fault):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=fault) as caught:
        MODELS.build({"type": "LLaVA", "pretrained": str(tmp_path)}).model_config()
    if "layout" in fault or "InternLM2" in fault:
        assert f"mllm convert {tmp_path} NEW_FOLDER --to hf" in str(caught.value)


def test_code_beside_a_language_model_is_never_run(tmp_path):
    (tmp_path / "language").mkdir()
    content = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (tmp_path / "language" / "config.json").write_text(json.dumps(content))
    (tmp_path / "language" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    folder = str(tmp_path / "language")
    with pytest.raises(CheckpointError, match=r"model_args\.language_model"):
        MODELS.build({"type": "LLaVA", "vision_tower": folder, "language_model": folder}).model_config()
    assert not (tmp_path / "ran").exists()
