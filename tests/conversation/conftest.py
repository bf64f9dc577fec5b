"""Tokenizers of every kind that models use: tiny ones built here, and real ones where the shared files are present."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BertTokenizerFast, GPT2TokenizerFast, LlamaTokenizerFast, PreTrainedTokenizerFast

from mllm.models.tokenizers import load_sentencepiece

CONTROLS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<image>"]
# Merges that would reach from the prompt into the answer, from an answer into its end mark, or into the next question,
# if nothing stopped them.
GREEDY = [(":", " "), ("\n", "a"), ("\n", "A"), ("s", ">"), ("/", "s>"), ("<", "/s>"), (">", "U"), ("#", "#")]
GREEDY += [("##", "#"), ("###", "H"), (".", "###"), (" ", "A"), (" ", "a"), ("U", "S"), ("E", "R"), ("US", "ER")]
GREEDY += [(" ", "US"), (": ", "a")]


def _wrapped(backend: Tokenizer, controls: bool = True, **special: str) -> PreTrainedTokenizerFast:
    special = special or {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    if controls:
        tokenizer.add_tokens(CONTROLS, special_tokens=True)
    tokenizer.add_tokens(["<b_st>", "<bin_0>", "<bin_1>", "<b_ed>"])
    return tokenizer


def byte_level(controls: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2's, but merging across words: the hardest case for boundaries."""
    shown = {" ": "Ġ", "\n": "Ċ"}
    merges = [tuple("".join(shown.get(c, c) for c in part) for part in pair) for pair in GREEDY]
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return _wrapped(backend, controls)


def byte_level_without_control_tokens() -> PreTrainedTokenizerFast:
    """The same; end marks and headers of templates are ordinary text to it."""
    tokenizer = byte_level(controls=False)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    return _wrapped(backend, controls=False, pad_token="<pad>")


def _sentencepiece_like() -> tuple[dict[str, int], list[tuple[str, str]]]:
    merges = [tuple(part.replace(" ", "▁") for part in pair) for pair in GREEDY]
    pieces = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], "▁"]
    pieces += [chr(code) for code in range(33, 127)] + ["\n", "é", "日"] + ["".join(pair) for pair in merges]
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, merges


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """BPE with byte fallback; the dummy prefix stands before the first text only."""
    vocab, merges = _sentencepiece_like()
    tokenizer = LlamaTokenizerFast(vocab=vocab, merges=merges)
    tokenizer.add_tokens(CONTROLS, special_tokens=True)
    return tokenizer


def sentencepiece_like_legacy() -> PreTrainedTokenizerFast:
    """The same with the dummy prefix after every control token too."""
    tokenizer = sentencepiece_like()
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def swallowing() -> PreTrainedTokenizerFast:
    """As Phi-3's: control tokens swallow the white space that follows them."""
    vocab, merges = _sentencepiece_like()
    tokenizer = LlamaTokenizerFast(vocab=vocab, merges=merges)
    tokenizer.add_tokens(
        [AddedToken(token, rstrip=token != "<image>", special=True) for token in CONTROLS], special_tokens=True
    )
    return tokenizer


def wordpiece() -> PreTrainedTokenizerFast:
    """WordPiece on single characters and a few endings, lower-casing, as BERT's."""
    characters = [chr(code) for code in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters, *[f"##{c}" for c in characters], "a##", "##og", "dog"]
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _wrapped(backend, **special)


TINY: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte_level": byte_level,
    "byte_level_without_control_tokens": byte_level_without_control_tokens,
    "sentencepiece_like": sentencepiece_like,
    "sentencepiece_like_legacy": sentencepiece_like_legacy,
    "swallowing": swallowing,
    "wordpiece": wordpiece,
}
REAL: dict[str, Callable[[Path], PreTrainedTokenizerFast]] = {
    "gpt2": lambda folder: GPT2TokenizerFast.from_pretrained(folder / "gpt2"),
    "bert": lambda folder: BertTokenizerFast.from_pretrained(folder / "bert"),
    "mistral": lambda folder: load_sentencepiece(folder / "llama_style_mistral_v1" / "tokenizer.model"),
}
LOWERING = ("wordpiece", "bert")


def _build(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    if request.param in TINY:
        tokenizer = TINY[request.param]()
    else:
        tokenizer = REAL[request.param](request.getfixturevalue("shared_data") / "tokenizers" / "hf_layout")
    tokenizer.kind = request.param
    return tokenizer


@pytest.fixture(scope="session", params=[*TINY, *REAL])
def tokenizer(request):
    return _build(request)


@pytest.fixture(scope="session", params=[name for name in [*TINY, *REAL] if name not in LOWERING])
def exact_tokenizer(request):
    """One that gives back any text as it was."""
    return _build(request)


@pytest.fixture(scope="session")
def tiny_tokenizers():
    return {name: build() for name, build in TINY.items()}


@pytest.fixture(scope="session")
def sentencepiece_loader():
    return load_sentencepiece
