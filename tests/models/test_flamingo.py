import pytest
import torch
from models.twins_flamingo import MODEL_ARGS, open_gates
from PIL import Image

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.errors import CheckpointError, ConfigError
from mllm.models.build import build_family
from mllm.models.tuning import trainable_report

SQUARE = [{"type": "SquareCanvas"}, {"type": "Resize", "size": 28}]


def _text(template, turns, images=1, kind="Otter"):
    processor = build_family({**MODEL_ARGS, "type": kind}).build_processor({"template": template, "transforms": SQUARE})
    roles = ("human", "gpt")
    conversations = [{"from": roles[n % 2], "value": text} for n, text in enumerate(turns)]
    item = {"images": [Image.new("RGB", (28, 28))] * images, "conversations": conversations}
    features = SingleImageConvDataset([item], processor)[0].features
    trained = [label for label in features["labels"] if label != -100]
    return processor.tokenizer.decode(features["input_ids"]), processor.tokenizer.decode(trained)


@pytest.mark.parametrize(
    ("template", "turns", "text", "trained"),
    [
        (
            "otter",
            ["<image>What is it?", "a cat"],
            "<s><image>User: What is it? GPT:<answer> a cat<|endofchunk|></s>",
            "a cat<|endofchunk|></s>",
        ),
        (
            "otter",
            ["<image>What is it?", "a cat", "And now?", "a dog"],
            "<s><image>User: What is it? GPT:<answer> a cat<|endofchunk|>User: And now? GPT:<answer> a dog"
            "<|endofchunk|></s>",
            "a cat<|endofchunk|> a dog<|endofchunk|></s>",
        ),
        (
            {"type": "otter", "form": "precursor"},
            ["<image>\nWhat is it?", "a cat"],
            "<s> User: <image> What is it? GPT:<answer> a cat<|endofchunk|></s>",
            "a cat<|endofchunk|></s>",
        ),
        ("openflamingo", ["<image>\nDescribe it.", "a cat"], "<s><image>Output:a cat<|endofchunk|>", None),
        (
            {"type": "openflamingo", "task": "vqa"},
            ["<image>\nWhat is it?", "a cat"],
            "<s><image>Question:What is it? Short answer:a cat<|endofchunk|>",
            None,
        ),
    ],
)
def test_the_texts_are_those_of_otter_and_openflamingo(template, turns, text, trained):
    found, answers = _text(template, turns)
    assert found.replace("> a", ">a").replace("> d", ">d") == text.replace("> a", ">a").replace("> d", ">d")
    expected = trained or "a cat<|endofchunk|>"
    assert answers.replace(" ", "") == expected.replace(" ", "")


def test_openflamingo_in_otters_format_gets_the_answer_token_and_trains_its_row():
    family = build_family(MODEL_ARGS)
    plain = family.build_processor({"template": "openflamingo", "transforms": SQUARE})
    assert "<answer>" not in plain.tokenizer.get_added_vocab()
    processor = family.build_processor({"template": "otter", "transforms": SQUARE})
    row = processor.tokenizer.get_added_vocab()["<answer>"]
    assert row in family.load_model(processor).new_token_rows


def test_examples_in_context_repeat_the_image():
    found, _ = _text("otter", ["<image>What?", "a cat", "<image>What?", "a dog"], images=2)
    assert found.count("<image>User:") == 2


def test_unknown_forms_are_named():
    with pytest.raises(ConfigError, match="form='old'; known: upstream, precursor"):
        _text({"type": "otter", "form": "old"}, ["<image>a", "b"])
    with pytest.raises(ConfigError, match="task='qa'; known: caption, vqa"):
        _text({"type": "openflamingo", "task": "qa"}, ["<image>a", "b"])


@pytest.fixture
def otter():
    torch.manual_seed(0)
    family = build_family({**MODEL_ARGS, "type": "Otter"})
    processor = family.build_processor({"template": "otter", "transforms": SQUARE})
    model = family.build_model(processor)
    open_gates(model)
    return family, processor, model


def test_trained_are_perceiver_gates_and_the_rows_of_the_added_tokens(otter):
    family, processor, model = otter
    report = trainable_report(model, family)
    rows = 3 * 2 * model.config.text_config.hidden_size  # <|endofchunk|>, <image>, <answer> in table and head
    assert report["adapters"] == (rows, rows)
    assert report["perceiver"][0] == report["perceiver"][1] > 0
    assert report["cross_attention"][0] == report["cross_attention"][1] > 0
    assert report["vision"][0] == report["language"][0] == 0
    ids = processor.tokenizer.convert_tokens_to_ids(["<|endofchunk|>", "<image>", "<answer>"])
    before = model.get_input_embeddings()(torch.arange(300)).detach().clone()
    ids_row = torch.tensor([[5, ids[1], 7, ids[2], ids[0]]])
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=1.0)
    model(ids_row, torch.randn(1, 1, 1, 3, 28, 28)).logits.sum().backward()
    optimizer.step()
    after = model.get_input_embeddings()(torch.arange(300)).detach()
    changed = {i for i in range(300) if not torch.equal(before[i], after[i])}
    assert changed == {i for i in ids if i < 300}
    assert not torch.equal(model.get_input_embeddings()(torch.tensor(ids[1])), before.mean(0))


def test_each_token_sees_the_last_image_before_it_and_no_other(otter):
    _, processor, model = otter
    image = processor.image_token_id
    ids = torch.tensor([[9, 10, image, 11, 12, image, 13, 14]])
    pixels = torch.randn(1, 2, 1, 3, 28, 28)
    with torch.no_grad():
        seen = model.eval()(ids, pixels).logits[0]
        first = model(ids, torch.cat([pixels[:, :1] + 1, pixels[:, 1:]], dim=1)).logits[0]
        second = model(ids, torch.cat([pixels[:, :1], pixels[:, 1:] + 1], dim=1)).logits[0]
    assert torch.equal(seen[:2], first[:2])  # no image before them
    assert not torch.allclose(seen[2:5], first[2:5])
    assert torch.equal(seen[:5], second[:5])
    assert not torch.allclose(seen[5:], second[5:])


def _openflamingo(name, list_of_its_own):
    name = name.replace("gated_cross_attn_layers.", "lang_encoder.gated_cross_attn_layers.", 1)
    for number in range(2 * (not list_of_its_own)):
        inside = f"lang_encoder.model.layers.{number}.gated_cross_attn_layer."
        name = name.replace(f"lang_encoder.gated_cross_attn_layers.{number}.", inside)
    return name.replace("language_model.", "lang_encoder.", 1)


def _otter(name):
    name = _openflamingo(name, False)
    for number in range(2):
        name = name.replace(f"perceiver.layers.{number}.0.", f"perceiver.layers.{number}.")
        name = name.replace(f"perceiver.layers.{number}.1.", f"perceiver.layers.{number}.feed_forward.")
        layer = f"lang_encoder.model.layers.{number}."
        if name.startswith(layer) and "gated_cross" not in name:
            name = name.replace(layer, f"{layer}decoder_layer.")
    name = name.replace("gated_cross_attn_layer.ff.", "gated_cross_attn_layer.feed_forward.")
    return name.replace("vision_encoder.", "vision_encoder.vision_model.")


LAYOUTS = {
    "openflamingo, in the layers": lambda state: {
        "model_state_dict": {
            f"module.{_openflamingo(name, False)}": one
            for name, one in state.items()
            if name.startswith(("perceiver.", "gated")) or "embed_tokens" in name
        }
    },
    "openflamingo, a list of its own": lambda state: {
        _openflamingo(name, True): one for name, one in state.items() if name.startswith(("perceiver.", "gated"))
    },
    "otter": lambda state: {_otter(name): one for name, one in state.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_openflamingo_and_otter_land_whole(layout, tmp_path):
    torch.manual_seed(1)
    source = build_family({**MODEL_ARGS, "type": "Otter"})
    processor = source.build_processor({"transforms": SQUARE})
    model = source.load_model(processor)
    open_gates(model)
    state = model.state_dict()
    torch.save(LAYOUTS[layout](state), tmp_path / "weights.pt")
    torch.manual_seed(2)
    family = build_family({**MODEL_ARGS, "type": "Otter", "weights": str(tmp_path / "weights.pt")})
    loaded = family.load_model(family.build_processor({"transforms": SQUARE})).state_dict()
    for name, value in state.items():
        stored = layout == "otter" or name.startswith(("perceiver.", "gated"))
        stored |= "embed_tokens" in name and "layers" in layout
        if stored:
            assert torch.equal(loaded[name], value), name


def test_a_file_of_another_depth_is_refused(tmp_path):
    source = build_family(MODEL_ARGS)
    model = source.load_model(source.build_processor({"transforms": SQUARE}))
    state = {name: one for name, one in model.state_dict().items() if name.startswith(("perceiver.", "gated"))}
    del state["gated_cross_attn_layers.1.attn_gate"]
    torch.save(state, tmp_path / "weights.pt")
    family = build_family({**MODEL_ARGS, "weights": str(tmp_path / "weights.pt")})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing.*cross_attn_every_n_layers"):
        family.load_model(family.build_processor({"transforms": SQUARE}))
