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
