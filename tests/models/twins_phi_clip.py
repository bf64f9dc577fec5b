"""Tiny twins of Phi-CLIP, the pooled one for the contract."""

import tiny
from models.twin import Twin

TEXT = {
    "model_type": "phi3",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "original_max_position_embeddings": 1024,
    "pad_token_id": 0,
}
VISION = {**tiny.MODEL_ARGS["config"]["vision_config"], "projection_dim": 24}
MODEL_ARGS = {
    "type": "PhiCLIP",
    "tokenizer": "asset:toy_llava",
    "config": {"vision_config": VISION, "text_config": TEXT, "features": "pooled"},
}
TWINS = {
    "PhiCLIP": Twin(MODEL_ARGS, plain=False, lora={"r": 4, "alpha": 8, "modules_to_save": ["projector"]}),
}
