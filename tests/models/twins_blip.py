"""Tiny twin of BLIP, with a WordPiece tokenizer of a fixed vocabulary."""

import json
import string
import tempfile
from pathlib import Path

import tiny
from models.twin import Twin

WORDS = ("a", "red", "blue", "green", "circle", "square", "on", "white", "the", "large", "small", "and")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece_folder(folder: Path) -> str:
    """A BERT tokenizer: whole words first, then letters and their continuations."""
    letters = list(string.ascii_lowercase + string.digits + ".,;:[]()-?!'")
    pieces = [*SPECIAL, *WORDS, *[one for one in letters if one not in WORDS], *[f"##{one}" for one in letters]]
    names = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece({one: i for i, one in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **{f"{name}_token": mark for name, mark in names.items()}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


MODEL_ARGS = {
    "type": "BLIP",
    "tokenizer": wordpiece_folder(Path(tempfile.mkdtemp()) / "wordpiece"),
    "config": {
        "vision_config": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
    },
}
CONVERSATION = {**tiny.CONVERSATION, "template": "blip", "transforms": [{"type": "Resize", "size": 28}]}

TWINS = {
    "BLIP": Twin(
        MODEL_ARGS,
        CONVERSATION,
        captions=True,
        text_only=False,
        lora={"r": 4, "alpha": 8, "targets": ["query", "value"]},
        mark="[SEP]",
    )
}
