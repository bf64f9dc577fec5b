"""Build the untrained small LLaVA that the two pretraining configs start from.

Sizes and seed stand here. Two tables start as waves instead of noise, so that a few thousand pictures teach places:
the vision tower's position embedding, and the rows of the coordinate tokens (near numbers get near rows).
Run from the repository root: ``python tools/build_toy_llava.py [FOLDER]`` (default work_dirs/toy_llava_untrained).
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch

from mllm.registry import MODELS

SEED = 0
BINS = 101
CANVAS, PATCH, VISION_WIDTH, TEXT_WIDTH = 96, 16, 128, 160
FREQUENCIES = 16  # half waves over the canvas in the fastest of the waves
CONVERSATION = {
    "template": {"type": "vicuna_v1.1", "system": ""},
    "formatter": {"type": "BinTokenFormatter", "bins": BINS},
    "transforms": [{"type": "SquareCanvas"}, {"type": "Resize", "size": CANVAS}],
    "max_length": 512,
}
CONFIG = {
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": VISION_WIDTH,
        "intermediate_size": 4 * VISION_WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": CANVAS,
        "patch_size": PATCH,
        "hidden_act": "gelu",
        "initializer_range": 0.05,
    },
    "text_config": {
        "model_type": "llama",
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 416,
        "num_hidden_layers": 4,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "initializer_range": 0.08,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
    },
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
    "tie_word_embeddings": True,
}


def waves(count: int, width: int) -> torch.Tensor:
    """Sines and cosines of ``count`` equal steps from 0 to 1, (count, width), each row in [-1, 1]."""
    places = torch.arange(count) / (count - 1)
    rates = torch.arange(1, width // 2 + 1) * math.pi * FREQUENCIES / (width // 2)
    return torch.cat([torch.sin(places[:, None] * rates), torch.cos(places[:, None] * rates)], dim=1)


def build(folder: Path, tokenizer: str = "asset:toy_llava") -> None:
    """Write the untrained model with its processor into ``folder``."""
    torch.manual_seed(SEED)
    pixels = {"image_mean": [0.92] * 3, "image_std": [2.0] * 3}
    family = MODELS.build({"type": "LLaVA", "config": CONFIG, "tokenizer": tokenizer, **pixels})
    processor = family.build_processor(CONVERSATION, {"max_new_tokens": 16})
    model = family.build_model(processor)
    side = CANVAS // PATCH
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    grid = waves(side, VISION_WIDTH // 2)
    places = torch.cat([grid[rows.flatten()], grid[columns.flatten()]], dim=1)
    first_bin = processor.tokenizer.convert_tokens_to_ids("<bin_0>")
    with torch.no_grad():
        model.model.vision_tower.embeddings.position_embedding.weight[1:] = 0.3 * places
        model.get_input_embeddings().weight[first_bin : first_bin + BINS] = 0.08 * waves(BINS, TEXT_WIDTH)
    family.save_weights(model, None, folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "work_dirs/toy_llava_untrained")
    build(target)
    print(f"wrote {target}")
