import pytest
import torch
from models.twins_phi_clip import MODEL_ARGS
from PIL import Image

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.errors import ConfigError
from mllm.models.build import build_family
from mllm.models.tuning import Tuning, trainable_report, tune

SYSTEM = "You are a helpful assistant good at answering questions based on the given context."
# microsoft/Phi-3.5-mini-instruct and openai/clip-vit-base-patch32
PHI = {
    "model_type": "phi3",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32064,
    "pad_token_id": 32000,
}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": 512,
}
LORA = {"r": 64, "alpha": 16, "dropout": 0.1, "modules_to_save": ["projector"]}


def _meta(features):
    config = {"vision_config": CLIP, "text_config": PHI, "features": features}
    family = build_family({**MODEL_ARGS, "config": config})
    with torch.device("meta"):
        return family, family.transformers_class()._from_config(family.model_config())


def test_the_counts_are_the_originals():
    family, model = _meta("pooled")
    # 11,017,216 of the projector and 100,663,296 of LoRA r 64 on qkv_proj, o_proj, gate_up_proj, down_proj; with the
    # language model's 3,821,079,552 they make 3,932,760,064 (the original counts CLIP apart).
    with torch.device("meta"):
        tune(model, family, Tuning.from_config({"lora": LORA, "freeze": ["vision"]}))
    report = trainable_report(model, family)
    assert report["projector"] == (11_017_216, 11_017_216)
    assert report["adapters"] == (100_663_296, 100_663_296)
    assert report["language"] == (0, 3_821_079_552)
    assert sum(report[part][1] for part in ("projector", "adapters", "language")) == 3_932_760_064
    packed = [one for name, one in model.named_parameters() if name.endswith("_proj.base_layer.weight")]
    halves = sum(one.numel() for one in packed) // 2
    assert 3_932_760_064 - halves == 2_120_820_736  # what 4-bit packing leaves: two weights a byte, the head whole


@pytest.mark.parametrize(("features", "tokens", "width"), [("pooled", 1, 512), ("patch", 50, 768)])
def test_pooled_is_one_vector_and_patch_the_whole_last_layer(features, tokens, width):
    family, model = _meta(features)
    assert family.image_of(model.config)["tokens"] == tokens
    assert model.projector.proj[0].in_features == width


def test_the_prompt_is_the_originals_and_the_answer_ends_with_end():
    family = build_family(MODEL_ARGS)
    conversation = {"template": {"type": "phi3", "system": SYSTEM}, "transforms": [{"type": "Resize", "size": 28}]}
    processor = family.build_processor(conversation)
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "a cat"}]
    item = {"image": Image.new("RGB", (28, 28)), "conversations": turns}
    features = SingleImageConvDataset([item], processor)[0].features
    text = processor.tokenizer.decode(features["input_ids"])
    prompt = f"<|system|>\n{SYSTEM}<|end|>\n<|user|>\n<image>\nWhat is it?<|end|>\n<|assistant|>\n"
    assert text.replace("<s>", "").strip() == f"{prompt}a cat<|end|>"
    trained = [label for label in features["labels"] if label != -100]
    assert processor.tokenizer.decode(trained).strip() == "a cat<|end|>"


def test_the_vectors_stand_where_the_image_does():
    torch.manual_seed(0)
    family = build_family({**MODEL_ARGS, "config": {**MODEL_ARGS["config"], "features": "patch"}})
    processor = family.build_processor({"transforms": [{"type": "Resize", "size": 28}]})
    model = family.build_model(processor).eval()
    image = processor.image_token_id
    ids = torch.tensor([[5, *[image] * 5, 7], [5, 7, *[image] * 5]])
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        embeddings = model.embed(ids, pixels)
        vectors = model.projector(model.vision_model(pixel_values=pixels).last_hidden_state)
        words = model.get_input_embeddings()(torch.tensor([5, 7]))
    assert torch.equal(embeddings[0, 1:6], vectors[0])
    assert torch.equal(embeddings[1, 2:], vectors[1])
    assert torch.equal(embeddings[0, [0, 6]], words)
    assert torch.equal(embeddings[1, :2], words)


def test_unknown_features_are_named():
    with pytest.raises(ConfigError, match="features='mean'; known: pooled, patch"):
        build_family({**MODEL_ARGS, "features": "mean"})
