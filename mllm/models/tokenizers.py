"""Loading a tokenizer from a folder, without a hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mllm.errors import CheckpointError
from mllm.utils.imports import require

# What a wrong reading of a SentencePiece model gets wrong: runs of spaces, wide characters, digits, unknown ones.
PROBES = ("Hello world", "safe.  Your 123 é", "日本語 ☃", "Ｆｕｌｌ ﬁ", "a\tb\nc")


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a folder; CheckpointError that names the folder if there is none.

    A folder that holds ``tokenizer.model`` alone is converted here: AutoTokenizer of transformers 5.23 ranks its merges
    by id instead of score and gives other ids without a word.
    """
    from transformers import AutoTokenizer

    if (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file():
        return load_sentencepiece(folder / "tokenizer.model", legacy=bool(_config(folder).get("legacy", False)))
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"tokenizer: {str(folder)!r} cannot be read: {str(error).splitlines()[0]}") from error


def load_sentencepiece(file: Path, *, legacy: bool = False) -> Any:
    """The tokenizer of a ``tokenizer.model`` (BPE with byte fallback, as LLaMA's); ids are the sentencepiece library's.

    Merges rank by the score of what they give, among equal scores (runs of spaces) the longer left part first, and
    never give a control token. ``legacy`` puts the dummy prefix after every control token as well, as the first LLaMA
    tokenizers did. CheckpointError for a model that cannot be expressed so (unigram, a normaliser).
    """
    from transformers import LlamaTokenizerFast

    model = require("sentencepiece", "sentencepiece").SentencePieceProcessor()
    try:
        model.Load(str(file))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"tokenizer: {file} is no SentencePiece model ({error})") from error
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    names = {f"{name}_token": pieces[getattr(model, f"{name}_id")()] for name in ("bos", "eos", "unk")}
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = LlamaTokenizerFast(vocab=vocab, merges=_merges(model, pieces), **names)
    if legacy:
        _prefix_everywhere(tokenizer)
    for probe in PROBES:
        if tokenizer(probe, add_special_tokens=False)["input_ids"] != model.encode(probe):
            raise CheckpointError(
                f"tokenizer: {file} is no plain BPE model; convert it to tokenizer.json with its owner's tool"
            )
    return tokenizer


def _merges(model: Any, pieces: list[str]) -> list[tuple[str, str]]:
    reserved = (model.is_control, model.is_byte, model.is_unknown, model.is_unused)
    scores = {piece: model.get_score(i) for i, piece in enumerate(pieces) if not any(test(i) for test in reserved)}
    merges = [
        (-score, -cut, cut - len(piece), piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return [(left, right) for *_, left, right in sorted(merges)]


def _prefix_everywhere(tokenizer: Any) -> None:
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.pre_tokenizer = None
    prefix, spaces = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([prefix, spaces])


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return json.loads(path.read_text()) if path.is_file() else {}
