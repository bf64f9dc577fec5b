import importlib.util
import json
import shutil
import subprocess
import wave

import numpy as np
import pytest
from PIL import Image

from mllm.dataset.spoken import RATE, SpokenQuestions, read_sound
from mllm.errors import DataError

needs_recogniser = pytest.mark.skipif(
    importlib.util.find_spec("pocketsphinx") is None, reason="needs pip install 'mllm[speech]'"
)
needs_voice = pytest.mark.skipif(shutil.which("flite") is None, reason="needs apt-get install flite")


def write_wave(path, samples, rate=RATE, width=2, channels=1):
    kinds = {1: ("u1", 128, 127), 2: ("<i2", 0, 32767), 4: ("<i4", 0, 2147483647)}
    kind, zero, most = kinds[width]
    content = (np.asarray(samples) * most + zero).round().astype(kind)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.repeat(content, channels).tobytes())
    return path


def data_set(folder, question, **options):
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "It."}]
    (folder / "items.jsonl").write_text(json.dumps({"image": "a.png", "conversations": turns}) + "\n")
    source = {"type": "ItemJsonl", "path": str(folder / "items.jsonl"), "image_root": str(folder)}
    return SpokenQuestions(source, str(folder), **options)


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_come_back_at_any_width(tmp_path, width, channels):
    samples = np.sin(np.arange(1600) / 20) * 0.5
    found = read_sound(write_wave(tmp_path / "a.wav", samples, width=width, channels=channels))
    assert np.abs(found - samples).max() < 0.01


def test_another_rate_is_resampled(tmp_path):
    slow = np.sin(2 * np.pi * 200 * np.arange(8000) / 8000)
    found = read_sound(write_wave(tmp_path / "a.wav", slow, rate=8000))
    expected = np.sin(2 * np.pi * 200 * np.arange(16000) / RATE)
    assert len(found) == 16000
    assert np.abs(found - expected)[:15990].max() < 0.01


def test_tones_above_half_the_rate_do_not_fold_back(tmp_path):
    high = 0.5 * np.sin(2 * np.pi * 12000 * np.arange(48000) / 48000)
    found = read_sound(write_wave(tmp_path / "a.wav", high, rate=48000))
    assert len(found) == 16000
    assert np.abs(found[100:-100]).max() < 0.01


def test_a_name_may_hold_spaces_and_other_sounds_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("mllm.dataset.spoken._recogniser", lambda name: lambda samples: "what is this")
    write_wave(tmp_path / "q 1.wav", np.zeros(RATE))
    item = data_set(tmp_path, "<image>\nq 1.wav").item(0)
    assert item["conversations"][0]["value"] == "<image>\nwhat is this"
    with pytest.raises(DataError, match=r"q\.mp3: sounds are read from \.wav and \.flac files"):
        data_set(tmp_path, "<image>\nq.mp3").item(0)


@needs_recogniser
@needs_voice
def test_a_spoken_question_becomes_its_text(tmp_path):
    sound = tmp_path / "q.wav"
    subprocess.run(["flite", "-voice", "rms", "-t", "how many people are there", "-o", str(sound)], check=True)
    item = data_set(tmp_path, "<image>\nq.wav").item(0)
    assert item["conversations"][0]["value"] == "<image>\nhow many people are there"
    assert item["meta"]["spoken"] == ["q.wav"]


@pytest.mark.parametrize("question", ["<image>\nIs this a.wav or b.wav?", "<image> What?", "What does q.wav say?"])
def test_written_questions_stay_as_they_are(tmp_path, question):
    item = data_set(tmp_path, question).item(0)
    assert item["conversations"][0]["value"] == question
    assert "spoken" not in (item.get("meta") or {})


def test_what_is_not_understood_and_missing_files_are_errors_that_name_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("mllm.dataset.spoken._recogniser", lambda name: lambda samples: "")
    write_wave(tmp_path / "q.wav", np.zeros(RATE))
    with pytest.raises(DataError, match=r"q\.wav: nothing was understood"):
        data_set(tmp_path, "q.wav <image>").item(0)
    with pytest.raises(DataError, match=r"r\.wav: no such sound file"):
        data_set(tmp_path, "r.wav <image>").item(0)


def test_what_is_no_sound_and_what_lies_outside_is_refused(tmp_path):
    (tmp_path / "q.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"q\.wav: not a WAV file"):
        read_sound(tmp_path / "q.wav")
    with pytest.raises(DataError, match="leads out of sound_root"):
        data_set(tmp_path, "../q.wav <image>").item(0)
    write_wave(tmp_path / "q.wav", np.zeros(16))
    with pytest.raises(DataError, match="neither 'pocketsphinx' nor the folder"):
        data_set(tmp_path, "q.wav <image>", recogniser=str(tmp_path)).item(0)


def test_a_speech_model_of_transformers_recognises(tmp_path):
    """A random tiny CTC model: what it writes means nothing, that it writes shows the path."""
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder = tmp_path / "speech"
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    (tmp_path / "vocab.json").write_text(json.dumps({one: i for i, one in enumerate(letters)}))
    Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (10, 8), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = Wav2Vec2Config(vocab_size=len(letters), pad_token_id=0, **small, **convolutions, **positions)
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    write_wave(tmp_path / "q.wav", np.random.default_rng(0).uniform(-1, 1, RATE))
    text = data_set(tmp_path, "<image>\nq.wav", recogniser=str(folder)).item(0)["conversations"][0]["value"]
    spoken = text.removeprefix("<image>\n")
    assert spoken != "q.wav"
    assert any(letter.isalpha() for letter in spoken)
