"""Tiny towers and language models in folders, and LLaVAs made of them."""

import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionModel, SiglipVisionModel

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.models.build import build_family
from mllm.registry import DATASETS

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
TOWERS = {
    "clip": (CLIPVisionModel, "clip_vision_model"),
    "siglip": (SiglipVisionModel, "siglip_vision_model"),
}
LANGUAGES = {
    "llama": {},
    "phi3": {"original_max_position_embeddings": 1024, "pad_token_id": 0},
    "qwen2": {},
    "gpt_neox": {},
}


def write_folders(root):
    """A folder of each of TOWERS and LANGUAGES below ``root``."""
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


def pair(folders, tower="clip", language="llama", **more):
    args = {"type": "LLaVA", "vision_tower": str(folders / tower), "language_model": str(folders / language)}
    return build_family({**args, **more})


def batch_of(processor, count=2, mode="train"):
    dataset = SingleImageConvDataset(DATASETS.build({**tiny.REC, "count": count}), processor, mode=mode)
    layout = "right" if mode == "train" else "left"
    return processor.collate([dataset[index].features for index in range(count)], layout=layout)
