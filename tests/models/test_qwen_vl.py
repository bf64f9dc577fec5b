import itertools
import json

import pytest
import torch
from contract.twins import TWINS, built
from models.twins_qwen_vl import CONVERSATION
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.errors import ConfigError
from mllm.models.build import build_family

SIZES = list(itertools.product((5, 28, 40, 97, 300), repeat=2))
OWN_SIZE = {**CONVERSATION, "formatter": {"type": "Qwen3Formatter"}, "transforms": []}


@pytest.fixture(scope="module", params=["Qwen25VL", "Qwen3VL"])
def twin(request):
    """The twin, its images of their own size."""
    family, _, model = built(TWINS[request.param])
    return family, family.build_processor(OWN_SIZE), model


@pytest.fixture(scope="module")
def qwen25():
    return build_family(TWINS["Qwen25VL"].model_args)


def drawn(size, colour="red"):
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse([size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2], fill=colour)
    return image


def item(images, answer="a red dot", **target):
    question = "<image>" * len(images) + "What is it?"
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer, **target.pop("gpt", {})}]
    return {"images": images, "conversations": turns, **target}


def samples(processor, items, mode="train"):
    dataset = SingleImageConvDataset(items, processor, mode=mode)
    return [dataset[index] for index in range(len(items))]


def collated(processor, items):
    return processor.collate([sample.features for sample in samples(processor, items)])


def logits(model, batch):
    with torch.no_grad():
        return model.eval()(**{name: value for name, value in batch.items() if name != "labels"}).logits


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_an_image_takes_as_many_tokens_as_the_model_makes_features_of_it(twin, size):
    _, processor, model = twin
    batch = processor.collate_images([processor.image_features([Image.new("RGB", size)])])
    with torch.no_grad():
        found = model.model.get_image_features(**batch).pooler_output[0]
    start, *tokens, end = processor.image_ids(size)
    assert tokens == [processor.image_token_id] * len(found)
    assert processor.tokenizer.convert_ids_to_tokens([start, end]) == ["<|vision_start|>", "<|vision_end|>"]
    assert (model.config.vision_start_token_id, model.config.vision_end_token_id) == (start, end)


def test_logits_equal_those_of_transformers_fed_by_its_own_image_processor(twin, tmp_path):
    _, processor, model = twin
    processor.save_pretrained(tmp_path)
    images = [drawn((330, 270)), drawn((280, 420), "blue")]
    ours = collated(processor, [item(images)])
    made = Qwen2VLImageProcessorPil.from_pretrained(tmp_path)(images, return_tensors="pt")
    torch.testing.assert_close(ours["pixel_values"], made["pixel_values"])
    assert torch.equal(ours["image_grid_thw"], made["image_grid_thw"])
    # As Qwen's processor writes the prompt: a pad token for every merged patch.
    counts = [int(grid.prod()) // 4 for grid in made["image_grid_thw"]]
    pictures = "".join(f"<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>" for count in counts)
    turns = [{"role": "user", "content": f"{pictures}What is it?"}, {"role": "assistant", "content": "a red dot"}]
    text = processor.tokenizer.apply_chat_template(turns, tokenize=False)
    assert processor.tokenizer.decode(ours["input_ids"][0]) == text
    is_image = ours["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    with torch.no_grad():
        expected = model.eval()(input_ids=ours["input_ids"], mm_token_type_ids=is_image.int(), **made).logits
    torch.testing.assert_close(logits(model, ours), expected)


def test_images_of_several_sizes_and_samples_without_any_share_a_batch(twin):
    _, processor, model = twin
    items = [item([drawn((270, 345)), drawn((330, 290), "blue")]), item([]), item([drawn((260, 280), "green")])]
    together = logits(model, collated(processor, items))
    for row, one in zip(together, items, strict=True):
        alone = logits(model, collated(processor, [one]))[0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=1e-5, rtol=1e-4)


def test_the_place_of_a_patch_in_the_image_counts(twin):
    _, processor, model = twin
    rows = [collated(processor, [item([drawn(size)])]) for size in ((252, 504), (504, 252))]
    assert torch.equal(rows[0]["input_ids"], rows[1]["input_ids"])
    turned = {**rows[0], "image_grid_thw": rows[1]["image_grid_thw"]}
    assert not torch.allclose(logits(model, rows[0]), logits(model, turned))


def test_the_text_holds_pixels_of_the_image_that_the_model_sees(qwen25):
    processor = qwen25.build_processor(CONVERSATION)
    # 42x21 on a canvas of 42, 10 rows above; resized by 2 to 84.
    row = item([drawn((42, 21))], "<boxes>", gpt={"boxes_seq": [[0]]}, target={"boxes": [[10.0, 5.0, 20.0, 15.0]]})
    (sample,) = samples(processor, [row])
    assert sample.record.target == '{"bbox_2d": [20, 30, 40, 50]}'
    (pixels,) = sample.features["pixel_values"]
    assert processor.picture(pixels).size == (84, 84)
    read = processor.formatter.parse_boxes(sample.record.target).groups[0][0]
    assert sample.record.frames[0].denormalize(read) == pytest.approx((10.0, 5.0, 20.0, 15.0))


def test_pixels_of_a_canvas_that_the_model_would_resize_are_a_config_error(qwen25):
    size = {"formatter": {"type": "Qwen25Formatter", "side": 90}, "transforms": [{"type": "Resize", "size": 90}]}
    processor = qwen25.build_processor({**CONVERSATION, **size})
    with pytest.raises(ConfigError, match=r"pixels of a 90x90 canvas, but the model sees 84x84: .* multiple of 28"):
        samples(processor, [item([drawn((90, 60))])])


@pytest.mark.parametrize(
    "written", [{"min_pixels": 784, "max_pixels": 7840}, {"size": {"shortest_edge": 784, "longest_edge": 7840}}]
)
def test_the_bounds_of_the_folder_hold(twin, tmp_path, written):
    family, processor, model = twin
    family.save_weights(model, None, tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**written, "image_mean": [0.1] * 3}))
    read = build_family({"type": processor.family["type"], "pretrained": str(tmp_path)}).build_processor(OWN_SIZE)
    assert (read.image["min_pixels"], read.image["max_pixels"], read.image["mean"]) == (784, 7840, [0.1] * 3)
    assert read.token_count((300, 300)) <= read.image["tokens"] == 7840 // read.factor**2


def test_files_bear_the_names_of_the_hub(twin, tmp_path):
    family, processor, model = twin
    family.save_weights(model, None, tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    # Qwen/Qwen2.5-VL-7B-Instruct and Qwen/Qwen3-VL-8B-Instruct
    expected = {
        "Qwen25VL": {
            "visual.patch_embed.proj.weight",
            "model.embed_tokens.weight",
            "model.layers.0.mlp.up_proj.weight",
        },
        "Qwen3VL": {"model.visual.patch_embed.proj.weight", "model.language_model.embed_tokens.weight"},
    }
    assert expected[processor.family["type"]] | {"lm_head.weight"} <= names
    assert not any("language_model" in name for name in names) or processor.family["type"] == "Qwen3VL"
