import json

import pytest
import torch
from models.twins_blip import CONVERSATION, MODEL_ARGS, wordpiece_folder
from PIL import Image
from safetensors.torch import load_file, save_file

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.errors import DataError
from mllm.models.blip import HEAD, TABLE
from mllm.models.build import build_family
from mllm.models.tuning import Tuning, trainable_report, tune

# Salesforce/blip-image-captioning-large
LARGE = {
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 16,
    },
    "text_config": {"vocab_size": 30524, "hidden_size": 768, "num_attention_heads": 12},
}


@pytest.fixture
def twin():
    torch.manual_seed(0)
    family = build_family(MODEL_ARGS)
    processor = family.build_processor(CONVERSATION)
    return family, processor, family.build_model(processor)


def _item(question="<image>", answer="a red circle"):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"image": Image.new("RGB", (28, 28), "red"), "conversations": turns}


def test_the_text_is_dec_caption_sep_and_the_caption_with_sep_is_trained(twin):
    _, processor, _ = twin
    features = SingleImageConvDataset([_item("<image>\nDescribe it.")], processor)[0].features
    tokens = processor.tokenizer.convert_ids_to_tokens(features["input_ids"])
    assert tokens == ["[DEC]", "a", "red", "circle", "[SEP]"]
    assert features["labels"] == [-100, *features["input_ids"][1:]]


def test_a_prompt_stands_before_the_caption_and_is_not_trained(twin):
    family, _, _ = twin
    for template, question in (
        ({"type": "blip", "prompt": "a white"}, "<image>\nany"),
        ({"type": "blip", "question": True}, "<image>\na white"),
    ):
        processor = family.build_processor({**CONVERSATION, "template": template})
        features = SingleImageConvDataset([_item(question, "square")], processor)[0].features
        tokens = processor.tokenizer.convert_ids_to_tokens(features["input_ids"])
        assert tokens == ["[DEC]", "a", "white", "square", "[SEP]"]
        assert [label != -100 for label in features["labels"]] == [False, False, False, True, True]


def test_a_sample_needs_exactly_one_image(twin):
    _, processor, _ = twin
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "a circle"}]
    with pytest.raises(DataError, match="BLIP describes one image, the sample has 0"):
        SingleImageConvDataset([{"conversations": turns}], processor)[0]


def test_unprompted_generation_gives_the_ids_of_transformers_own(twin):
    family, processor, model = twin
    model.eval()
    batch = processor.collate(
        [SingleImageConvDataset([_item()], processor, mode="generate")[0].features], layout="left"
    )
    start, end = processor.tokenizer.bos_token_id, processor.tokenizer.sep_token_id
    assert batch["input_ids"].tolist() == [[start]]
    options = {"max_new_tokens": 8, "do_sample": False}
    ours = family.generate(model, batch, eos_token_id=end, bos_token_id=start, pad_token_id=0, **options)
    model.decoder_input_ids = start
    model.config.text_config.bos_token_id, model.config.text_config.sep_token_id = start, end
    theirs = type(model).generate(model, pixel_values=batch["pixel_values"], **options)
    assert theirs.tolist() == [[start, *ours[0].tolist()]]


def test_the_large_model_has_the_published_counts():
    family = build_family({**MODEL_ARGS, "config": LARGE})
    with torch.device("meta"):
        model = family.transformers_class()._from_config(family.model_config())
    # 446,904,892 with LoRA r 8 on the decoder's query and value: 614,400 in 96 tensors (transformers 5.23, peft 0.21).
    lora = {"r": 8, "alpha": 32, "dropout": 0.1, "targets": ["query", "value"]}
    model.to_empty(device="cpu").tie_weights()
    tune(model, family, Tuning.from_config({"lora": lora}))
    assert trainable_report(model, family)["adapters"] == (614_400, 614_400)
    assert sum(one.requires_grad for one in model.parameters()) == 96
    assert sum(one.numel() for one in model.parameters()) == 446_904_892


def test_a_checkpoint_with_a_head_of_its_own_stays_untied(twin, tmp_path):
    family, processor, model = twin
    family.save_weights(model, None, tmp_path)
    processor.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert (HEAD in stored) != (TABLE in stored)
    table = stored.get(TABLE, stored.get(HEAD))
    save_file({**stored, TABLE: table, HEAD: table + 1}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = build_family({"pretrained": str(tmp_path)})
    loaded = again.build_model(again.build_processor({}))
    assert torch.equal(loaded.get_parameter(HEAD), table + 1)
    assert torch.equal(loaded.get_parameter(TABLE), table)
    again.save_weights(loaded, None, tmp_path / "second")
    assert {HEAD, TABLE} <= set(load_file(tmp_path / "second" / "model.safetensors"))
    assert not json.loads((tmp_path / "second" / "config.json").read_text())["tie_word_embeddings"]


def test_a_tokenizer_that_has_its_first_token_keeps_it(tmp_path):
    folder = wordpiece_folder(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": "[CLS]"}))
    processor = build_family({**MODEL_ARGS, "tokenizer": folder}).build_processor(CONVERSATION)
    assert processor.tokenizer.bos_token == "[CLS]"
