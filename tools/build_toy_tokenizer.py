"""Build the tokenizer of the small LLaVA that ships with the package, from question sets and drawn conversations.

Byte-level BPE: any text can be encoded. Digits stand alone; ``[0.``, ``,0.`` and ``;0.`` are single tokens, so that a
box takes 17. Run from the repository root: ``python tools/build_toy_tokenizer.py [FOLDER]``. The result is the same on
every run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mllm.dataset.drawn import DrawnREC, DrawnREG
from mllm.dataset.drawn_scenes import DrawnCaption, DrawnVQA
from mllm.dataset.questions import shipped_sets

VOCABULARY = 1024
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
UNITS = r"USER:| ?ASSISTANT:| ?\[0\.|[,;]0\.|\d| ?\p{L}+| ?[^\s\p{L}\d]|\s"
PICTURES = 400
LONGEST = 512


def texts() -> Iterator[str]:
    """What the tokenizer shall write in few tokens: every question template, and the words of the drawn world."""
    yield from ["USER: A ASSISTANT: [0.1,0.2;0.3] ASSISTANT: [0.1,0.2;0.3]", "[0.1,0.2;0.3"] * 1000
    for name in shipped_sets():
        rows = json.loads((resources.files("mllm.assets") / "questions" / f"{name}.json").read_text(encoding="utf-8"))
        yield from rows * 3
    for dataset in (DrawnREC, DrawnREG, DrawnCaption, DrawnVQA):
        for index in range(PICTURES):
            for turn in dataset(PICTURES, split="tokenizer").item(index)["conversations"]:
                yield turn["value"]


def build() -> PreTrainedTokenizerFast:
    """Train on ``texts``."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(UNITS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=["<image>"],
        model_max_length=LONGEST,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "mllm/assets/toy_llava")
    build().save_pretrained(folder)
    print(f"wrote {', '.join(sorted(path.name for path in folder.glob('token*')))} to {folder}")
