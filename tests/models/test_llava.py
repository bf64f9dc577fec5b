"""LLaVA over towers and language models of many kinds, and what a checkpoint carries into inference."""

import json

import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, CLIPVisionModel, SiglipVisionModel

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.loss import token_loss
from mllm.errors import CheckpointError, ConfigError
from mllm.models.build import build_family
from mllm.models.tuning import Tuning, format_report, trainable_report
from mllm.registry import DATASETS

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
TOWERS = {
    "clip": (CLIPVisionModel, "clip_vision_model"),
    "siglip": (SiglipVisionModel, "siglip_vision_model"),
}
KEPT = {"modules_to_save": ["projector"]}
LANGUAGES = {
    "llama": {},
    "phi3": {"original_max_position_embeddings": 1024, "pad_token_id": 0},
    "qwen2": {},
    "gpt_neox": {},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    torch.manual_seed(0)
    for name, (cls, kind) in TOWERS.items():
        config = AutoConfig.for_model(kind, **SMALL, image_size=28, patch_size=14)
        cls(config).save_pretrained(root / name)
    for name, more in LANGUAGES.items():
        text = {"vocab_size": 1090, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        text |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024}
        if name == "gpt_neox":
            del text["num_key_value_heads"]
        AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **text, **more)).save_pretrained(root / name)
        tiny.processor().tokenizer.save_pretrained(root / name)
    return root


def _pair(folders, tower="clip", language="llama", **more):
    args = {"type": "LLaVA", "vision_tower": str(folders / tower), "language_model": str(folders / language)}
    return build_family({**args, **more})


def _batch(processor, count=2, mode="train"):
    dataset = SingleImageConvDataset(DATASETS.build({**tiny.REC, "count": count}), processor, mode=mode)
    layout = "right" if mode == "train" else "left"
    return processor.collate([dataset[index].features for index in range(count)], layout=layout)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("tower", TOWERS)
def test_any_tower_and_any_language_model_make_a_llava(folders, tower, language):
    family = _pair(folders, tower, language)
    processor = family.build_processor(tiny.CONVERSATION)
    model = family.build_model(processor, Tuning(freeze=[]))
    source = AutoModelForCausalLM.from_pretrained(folders / language)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(input_ids=ids).logits, source.eval()(ids).logits)
    batch = _batch(processor)
    labels = batch.pop("labels")
    token_loss(model(**batch), labels).backward()
    without = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert without == []
    found = family.generate(model, _batch(processor, mode="generate"), max_new_tokens=3, pad_token_id=0)
    assert found.shape[1] <= 3


@pytest.mark.parametrize(
    ("options", "layers"), [({}, 2), ({"mm_vision_select_layer": -1}, 3), ({"mm_vision_select_layer": 1}, 1)]
)
def test_layers_behind_the_selected_one_are_not_trained(folders, options, layers):
    family = _pair(folders, **options)
    model = family.build_model(family.build_processor(tiny.CONVERSATION), Tuning(freeze=[]))
    trained = {name for name, one in model.named_parameters() if one.requires_grad and ".layers." in name}
    numbers = {int(name.split(".layers.")[1].split(".")[0]) for name in trained if "vision" in name}
    assert numbers == set(range(layers))


def test_patch_leaves_the_class_token_out_and_cls_patch_keeps_it(folders):
    for feature, tokens in (("patch", 4), ("cls_patch", 5)):
        processor = _pair(folders, mm_vision_select_feature=feature).build_processor(tiny.CONVERSATION)
        assert processor.image["tokens"] == tokens
    assert _pair(folders, "siglip").build_processor(tiny.CONVERSATION).image["tokens"] == 4  # it has no class token


def test_start_and_end_stand_around_the_patches(folders):
    family = _pair(folders, mm_use_im_start_end=True, mm_use_im_patch_token=True)
    processor = family.build_processor(tiny.CONVERSATION)
    tokens = processor.tokenizer.convert_ids_to_tokens(processor.image_ids((28, 28)))
    assert tokens == ["<im_start>", *["<im_patch>"] * 4, "<im_end>"]
    model = family.build_model(processor)
    assert model.config.image_token_id == processor.tokenizer.convert_tokens_to_ids("<im_patch>")
    assert torch.isfinite(model(**{k: v for k, v in _batch(processor).items() if k != "labels"}).logits).all()


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
        family = _pair(folders, **args)
        return family.build_model(family.build_processor(tiny.CONVERSATION))

    with pytest.raises(error, match=expected):
        build()


def test_what_a_checkpoint_carries_gives_the_training_prompt_token_by_token(folders, tmp_path):
    conversation = {
        **tiny.CONVERSATION,
        "template": {"type": "llava_v0", "system": "Be brief."},
        "formatter": {"type": "BinTokenFormatter", "bins": 33},
    }
    family = _pair(folders)
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


def test_adapters_of_a_run_are_read_by_plain_peft(folders, tmp_path):
    from peft import PeftModel
    from transformers import LlavaForConditionalGeneration

    family = _pair(folders)
    processor = family.build_processor(tiny.CONVERSATION)
    base = family.build_model(processor)
    family.save_weights(base, None, tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    start = build_family({"pretrained": str(tmp_path / "base")})
    model = start.build_model(start.build_processor({}), Tuning.from_config({"lora": {"r": 4, "rslora": True}}))
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.2 * torch.randn_like(value))
    start.save_weights(model, None, tmp_path / "run")
    plain = PeftModel.from_pretrained(
        LlavaForConditionalGeneration.from_pretrained(tmp_path / "base"), tmp_path / "run"
    )
    batch = {k: v for k, v in _batch(processor).items() if k != "labels"}
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(**batch).logits, model.eval()(**batch).logits)


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_a_quantised_base_trains_its_adapters_and_comes_back(folders, tmp_path, quantize):
    pytest.importorskip("bitsandbytes", reason="needs pip install 'mllm[quant]'")
    family = _pair(folders)
    processor = family.build_processor(tiny.CONVERSATION)
    tuning = {"quantize": quantize, "lora": {"r": 4, "modules_to_save": ["projector"]}}
    model = family.build_model(processor, Tuning.from_config(tuning))
    report = trainable_report(model, family)
    whole = trainable_report(_pair(folders).build_model(processor), family)
    assert report["language"] == (0, whole["language"][1])  # packed weights count as what they stand for
    assert "adapters" in format_report(report)
    batch = _batch(processor)
    labels = batch.pop("labels")
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=2e-2)
    losses = []
    for _ in range(6):
        loss = token_loss(model.train()(**batch), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    family.save_weights(model, None, tmp_path)
    pair = {"vision_tower": str(folders / "clip"), "language_model": str(folders / "llama")}
    processor.family = {"type": "LLaVA", **pair}
    processor.save_pretrained(tmp_path)
    again = build_family({"pretrained": str(tmp_path)})
    loaded = again.build_model(again.build_processor({}))
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(**batch).logits, model.eval()(**batch).logits)
    assert json.loads((tmp_path / "mllm_tune.json").read_text())["tune"]["quantize"] == quantize


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        ({"quantize": "nf4"}, "quantised weights cannot be trained; add tune.lora"),
        ({"lora": {"rank": 4}}, "tune.lora has no 'rank'"),
        ({"freez": []}, "did you mean 'freeze'"),
        ({"lora": {"targets": ["q_porj"], **KEPT}}, "no layer 'q_porj'.*q_proj"),
        ({"lora": {"targets": "nothing", **KEPT}}, "matches no module"),
        ({"lora": {"modules_to_save": ["projecter"]}}, "modules_to_save: 'projecter' matches no parameter"),
        ({"save": "some"}, "tune.save='some'"),
    ],
)
def test_a_wrong_tuning_is_named(folders, tune, expected):
    family = _pair(folders)
    processor = family.build_processor(tiny.CONVERSATION)
    with pytest.raises(ConfigError, match=expected):
        family.build_model(processor, Tuning.from_config(tune))


def test_new_coordinate_tokens_are_trained_behind_a_frozen_language_model(folders, tmp_path):
    conversation = {**tiny.CONVERSATION, "formatter": {"type": "BinTokenFormatter", "bins": 211}}
    family = _pair(folders)
    processor = family.build_processor(conversation)
    with pytest.raises(ConfigError, match="the projector is new and stands still"):
        family.build_model(processor, Tuning.from_config({"lora": {"r": 2}}))
    model = family.build_model(processor, Tuning.from_config({"lora": {"r": 2, "modules_to_save": ["projector"]}}))
    new = len(processor.tokenizer) - 1090
    assert new == 110  # bins 101 to 210: the tokenizer has 101 of them
    rows = [one for name, one in model.named_parameters() if "trainable_tokens" in name]
    assert [tuple(one.shape) for one in rows] == [(new, 32), (new, 32)]
    with torch.no_grad():
        for one in rows:
            one.add_(1.0)
    family.save_weights(model, None, tmp_path)
    processor.save_pretrained(tmp_path)
    again = build_family({"pretrained": str(tmp_path)})
    loaded = again.build_model(again.build_processor({}))
    ids = torch.tensor([[len(processor.tokenizer) - 1]])
    assert torch.equal(loaded.get_input_embeddings()(ids), model.get_input_embeddings()(ids))


def test_new_tokens_that_fall_on_spare_rows_are_new_all_the_same(folders, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(folders / "llama")
    base.resize_token_embeddings(1300, mean_resizing=False)
    base.save_pretrained(tmp_path / "spare")
    tiny.processor().tokenizer.save_pretrained(tmp_path / "spare")
    family = _pair(folders, language_model=str(tmp_path / "spare"))
    processor = family.build_processor({**tiny.CONVERSATION, "formatter": {"type": "BinTokenFormatter", "bins": 111}})
    assert processor.added == [f"<bin_{number}>" for number in range(101, 111)]
    model = family.build_model(processor, Tuning.from_config({"lora": {"r": 2, **KEPT}}))
    assert model.new_token_rows == list(range(1090, 1100))
    table = base.get_input_embeddings().weight
    torch.testing.assert_close(model.get_input_embeddings()(torch.tensor(1095)), table[:1090].mean(0))
    family.save_weights(model, None, tmp_path / "run")
    processor.save_pretrained(tmp_path / "run")
    again = build_family({"pretrained": str(tmp_path / "run")})
    assert again.build_model(again.build_processor({})).new_token_rows == model.new_token_rows


def test_a_tuned_model_is_tuned_on(folders, tmp_path):
    tuning = Tuning.from_config({"lora": {"r": 2, **KEPT}})
    family = _pair(folders)
    processor = family.build_processor(tiny.CONVERSATION)
    model = family.build_model(processor, tuning)
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(1.0)
    family.save_weights(model, None, tmp_path)
    processor.save_pretrained(tmp_path)
    again = build_family({"pretrained": str(tmp_path)})
    loaded = again.build_model(again.build_processor({}), tuning)
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    assert {name for name, one in loaded.named_parameters() if one.requires_grad} == set(trained)
    assert all(torch.equal(loaded.get_parameter(name), one) for name, one in trained.items())
    with pytest.raises(CheckpointError, match="of another shape"):
        again.build_model(again.build_processor({}), Tuning.from_config({"lora": {"r": 3, **KEPT}}))
    with pytest.raises(ConfigError, match=r"holds LoRA adapters but tune\.lora is not set.*--to merged"):
        again.build_model(again.build_processor({}), Tuning(freeze=[]))


def test_auto_tokenizer_reads_what_a_checkpoint_holds(folders, tmp_path):
    processor = _pair(folders).build_processor(tiny.CONVERSATION)
    processor.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "Where is the red circle? <image>"
    assert again(text)["input_ids"] == processor.tokenizer(text)["input_ids"]
