"""Tiny twins of Qwen2.5-VL and Qwen3-VL, on the shipped tokenizer with Qwen's control tokens and chat template."""

import tempfile
from pathlib import Path

from models.twin import Twin

from mllm.models.base import checkpoint_folder
from mllm.models.tokenizers import load_tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")


def chat_folder(folder: Path) -> str:
    """The shipped tokenizer as Qwen's: no first token, turns end with ``<|im_end|>``."""
    tokenizer = load_tokenizer(checkpoint_folder("asset:toy_llava", "tokenizer"))
    tokenizer.add_special_tokens({"extra_special_tokens": list(MARKS)})
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = None, "<|im_end|>", "<|endoftext|>"
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return str(folder)


TOKENIZER = chat_folder(Path(tempfile.mkdtemp()) / "chat")
VISION = {"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
TEXT = {
    "bos_token_id": None,
    "eos_token_id": None,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
}
CONVERSATION = {
    "template": "chat_template",
    "formatter": {"type": "Qwen25Formatter", "side": 84},
    "transforms": [{"type": "SquareCanvas"}, {"type": "Resize", "size": 84}],
    "max_length": 512,
}

TWINS = {
    "Qwen25VL": Twin(
        {
            "type": "Qwen25VL",
            "tokenizer": TOKENIZER,
            "config": {
                "vision_config": {**VISION, "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]},
                "text_config": TEXT,
            },
        },
        CONVERSATION,
        mark="<|im_end|>",
    ),
    "Qwen3VL": Twin(
        {
            "type": "Qwen3VL",
            "tokenizer": TOKENIZER,
            "config": {
                "vision_config": {
                    **VISION,
                    "patch_size": 16,
                    "num_position_embeddings": 16,
                    "deepstack_visual_indexes": [0],
                },
                "text_config": {**TEXT, "head_dim": 16},
            },
        },
        {
            **CONVERSATION,
            "formatter": {"type": "Qwen3Formatter"},
            "transforms": [{"type": "SmartResize", "factor": 32, "min_pixels": 65536, "max_pixels": 100_000}],
        },
        mark="<|im_end|>",
    ),
}
