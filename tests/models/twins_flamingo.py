"""Tiny twins of OpenFlamingo and Otter, their gates opened so that images are seen."""

import tiny
import torch
from models.twin import Twin

CONFIG = {
    "vision_config": {**tiny.MODEL_ARGS["config"]["vision_config"], "model_type": "clip_vision_model"},
    "text_config": {**tiny.MODEL_ARGS["config"]["text_config"], "tie_word_embeddings": False},
    "cross_attn_every_n_layers": 1,
    "depth": 2,
    "latents": 4,
    "heads": 2,
    "head_width": 8,
}
MODEL_ARGS = {"type": "OpenFlamingo", "tokenizer": "asset:toy_llava", "config": CONFIG}


def open_gates(model):
    with torch.no_grad():
        for name, gate in model.named_parameters():
            if name.endswith("_gate"):
                gate.fill_(0.7)


LORA = {"r": 4, "alpha": 8, "modules_to_save": ["perceiver", "cross_attention"]}
TWINS = {
    "OpenFlamingo": Twin(
        MODEL_ARGS,
        {**tiny.CONVERSATION, "template": {"type": "openflamingo", "task": "vqa"}},
        plain=False,
        lora=LORA,
        mark="<|endofchunk|>",
        prepare=open_gates,
    ),
    "Otter": Twin(
        {**MODEL_ARGS, "type": "Otter"},
        {**tiny.CONVERSATION, "template": "otter"},
        plain=False,
        lora=LORA,
        mark="<|endofchunk|></s>",
        prepare=open_gates,
    ),
}
