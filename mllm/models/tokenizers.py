"""Loading a tokenizer from a folder, without a hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mllm.errors import CheckpointError
from mllm.utils.imports import require

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
# What a wrong reading of a SentencePiece model gets wrong: runs of spaces, wide characters, digits, unknown ones.
PROBES = ("Hello world", "safe.  Your 123 é", "日本語 ☃", "Ｆｕｌｌ ﬁ", "a\tb\nc")


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a folder; CheckpointError that names the folder if there is none.

    A folder that holds ``tokenizer.model`` and no ``tokenizer.json`` is converted here, with the tokens and the chat
    template that the files beside it add: AutoTokenizer of transformers 5.23 ranks its merges by id instead of score
    and gives other ids without a word.
    """
    from transformers import AutoTokenizer

    if (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file():
        return _from_sentencepiece_folder(folder)
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"tokenizer: {str(folder)!r} cannot be read: {str(error).splitlines()[0]}") from error


def _from_sentencepiece_folder(folder: Path) -> Any:
    config = _json(folder / "tokenizer_config.json")
    added = {content: {"special": False} for content in _json(folder / "added_tokens.json")}
    ids = {content: int(i) for content, i in _json(folder / "added_tokens.json").items()}
    for i, token in config.get("added_tokens_decoder", {}).items():
        added[token["content"]], ids[token["content"]] = token, int(i)
    names = {i: content for content, i in ids.items()}
    tokenizer = load_sentencepiece(folder / "tokenizer.model", legacy=bool(config.get("legacy", False)), names=names)
    roles = _roles({**_json(folder / "special_tokens_map.json"), **config})
    special = {content for value in roles.values() for content in ([value] if isinstance(value, str) else value)}
    for content in sorted(ids, key=ids.__getitem__):
        _add(tokenizer, content, {**added[content], "special": added[content].get("special") or content in special})
        if tokenizer.convert_tokens_to_ids(content) != ids[content]:
            raise CheckpointError(
                f"tokenizer: {folder} says that {content!r} has the id {ids[content]}, and tokens before it are "
                "missing; get all its files (added_tokens.json, tokenizer_config.json) or its tokenizer.json"
            )
    tokenizer.add_special_tokens(roles, replace_extra_special_tokens=False)
    template = folder / "chat_template.jinja"
    chat = template.read_text(encoding="utf-8") if template.is_file() else config.get("chat_template")
    if chat is not None:
        tokenizer.chat_template = chat
    return tokenizer


def _add(tokenizer: Any, content: str, how: dict[str, Any]) -> None:
    from tokenizers import AddedToken

    options = {name: how[name] for name in ("lstrip", "rstrip", "normalized", "single_word") if name in how}
    token = AddedToken(content, special=bool(how["special"]), **options)
    tokenizer.add_tokens([token], special_tokens=bool(how["special"]))


def _roles(config: dict[str, Any]) -> dict[str, Any]:
    """Which token begins, ends, pads …, as transformers calls it: ``{"pad_token": "<pad>"}``."""

    def text(value: Any) -> str:
        return value["content"] if isinstance(value, dict) else value

    found = {name: text(config[name]) for name in _ROLES if config.get(name)}
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens")
    if isinstance(extra, list) and extra:
        found["extra_special_tokens"] = [text(one) for one in extra]
    return found


def load_sentencepiece(file: Path, *, legacy: bool = False, names: dict[int, str] | None = None) -> Any:
    """The tokenizer of a ``tokenizer.model`` (BPE with byte fallback, as LLaMA's); ids are the sentencepiece library's.

    Merges rank by the score of what they give, among equal scores (runs of spaces) the longer left part first, and
    never give a control token. ``legacy`` puts the dummy prefix after every control token as well, as the first LLaMA
    tokenizers did. ``names`` gives pieces another name, as InternLM2 does with unused ones. CheckpointError for
    a model that cannot be expressed so (unigram, a normaliser).
    """
    from transformers import LlamaTokenizerFast

    model = require("sentencepiece", "sentencepiece").SentencePieceProcessor()
    try:
        model.Load(str(file))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"tokenizer: {file} is no SentencePiece model ({error})") from error
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    roles = {f"{name}_token": pieces[getattr(model, f"{name}_id")()] for name in ("bos", "eos", "unk")}
    merges = _merges(model, pieces)
    for i, name in (names or {}).items():
        if i < len(pieces):
            merges = [merge for merge in merges if pieces[i] not in (*merge, "".join(merge))]
            pieces[i] = name
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = LlamaTokenizerFast(vocab=vocab, merges=merges, **roles)
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


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise CheckpointError(f"tokenizer: {path} cannot be read ({error})") from error
