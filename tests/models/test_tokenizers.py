import json

import pytest
import sentencepiece

from mllm.errors import CheckpointError
from mllm.models.tokenizers import load_sentencepiece, load_tokenizer

TEXTS = ("Hello world", "safe.  Your", "a   b\tc\n\nd", "日本語 ☃ 123", "Ünïcödé {x} 100 %", "")


@pytest.fixture
def folder(shared_data):
    return shared_data / "tokenizers" / "hf_layout" / "llama_style_mistral_v1"


def test_a_folder_with_only_a_sentencepiece_model_gives_the_librarys_ids(folder):
    ours = load_tokenizer(folder)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert len(ours) == 32000
    assert (ours.bos_token_id, ours.eos_token_id, ours.unk_token_id) == (1, 2, 0)
    for text in TEXTS:
        assert ours(text, add_special_tokens=False)["input_ids"] == theirs.encode(text), text
        assert ours.decode(theirs.encode(text)).strip() == text.strip()


@pytest.fixture
def with_added(folder, tmp_path):
    """The way of Vicuna and InternLM2: the files beside tokenizer.model add tokens, and rename one of its pieces."""
    (tmp_path / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    renamed = {"content": "<|im_end|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False}
    config = {
        "added_tokens_decoder": {"31999": renamed, "32001": {**renamed, "content": "<pad>"}},
        "bos_token": {"content": "<s>"},
        "eos_token": "<|im_end|>",
        "pad_token": "<pad>",
        "chat_template": "{{ messages[0].content }}",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<image>": 32000}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<image>"]}))
    return tmp_path


def test_tokens_beside_a_sentencepiece_model_keep_their_ids(with_added):
    tokenizer = load_tokenizer(with_added)
    assert len(tokenizer) == 32002
    ids = tokenizer("Hi<|im_end|> there<image><pad>", add_special_tokens=False)["input_ids"]
    assert ids[1] == 31999
    assert ids[-2:] == [32000, 32001]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 31999, 32001)
    assert {"<image>", "<pad>", "<|im_end|>"} <= set(tokenizer.all_special_tokens)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "x"


def test_an_added_token_whose_id_has_no_neighbours_is_refused(with_added):
    (with_added / "added_tokens.json").unlink()
    with pytest.raises(CheckpointError, match="'<pad>' has the id 32001"):
        load_tokenizer(with_added)


def test_files_of_the_tokenizer_that_are_no_json_are_named(with_added):
    (with_added / "added_tokens.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"added_tokens\.json cannot be read"):
        load_tokenizer(with_added)


def test_a_model_that_cannot_be_expressed_so_is_refused(shared_data):
    with pytest.raises(CheckpointError, match="no plain BPE model"):
        load_sentencepiece(shared_data / "tokenizers" / "sentencepiece-test" / "test_model.model")


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"hello")
    with pytest.raises(CheckpointError, match="no SentencePiece model"):
        load_tokenizer(tmp_path)


def test_the_shipped_tokenizer_keeps_what_it_was_given(tmp_path):
    import tiny

    processor = tiny.processor(formatter={"type": "BinTokenFormatter", "bins": 11})
    processor.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again("<bin_10> x", add_special_tokens=False)["input_ids"][0] == again.convert_tokens_to_ids("<bin_10>")
    assert len(again) == len(processor.tokenizer)
