import itertools

import pytest
import torch
from contract.twins import TWINS, built
from models.twins_llava_next import CONVERSATION
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.errors import ConfigError
from mllm.models.build import build_family

SIZES = list(itertools.product((1, 9, 27, 28, 33, 56, 61, 100, 4000), repeat=2))
PUBLISHED = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


@pytest.fixture(scope="module")
def twin():
    return built(TWINS["LLaVANext"])


def drawn(size, colour="red"):
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse([size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2], fill=colour)
    return image


def item(images, answer="a red dot"):
    question = "<image>\n" * len(images) + "What is it?"
    return {
        "images": images,
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
    }


def features(processor, items, mode="train"):
    dataset = SingleImageConvDataset(items, processor, mode=mode)
    return [dataset[index].features for index in range(len(items))]


def logits(model, batch):
    with torch.no_grad():
        return model.eval()(**{name: value for name, value in batch.items() if name != "labels"}).logits


def theirs(image_processor, tokenizer, patch_size):
    from transformers import LlavaNextProcessor

    return LlavaNextProcessor(
        image_processor,
        tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    )


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_an_image_takes_as_many_tokens_as_the_model_makes_features_of_it(twin, size):
    _, processor, model = twin
    batch = processor.collate_images([processor.image_features([Image.new("RGB", size)])])
    with torch.no_grad():
        found = model.model.get_image_features(**batch).pooler_output[0]
    assert processor.image_ids(size) == [processor.image_token_id] * len(found)
    assert len(found) <= processor.image["tokens"]


def test_the_published_grid_takes_the_tokens_that_transformers_counts(twin):
    _, processor, _ = twin
    image = {**processor.image, "size": 336, "patch": 14, "grid": PUBLISHED}
    published = type(processor)(processor.tokenizer, image, CONVERSATION)
    counted = theirs(published._tiler, processor.tokenizer, 14)
    # 640x427 lies on 672x672: 48 columns, 48 * 427 / 640 = 32.0 rows, 576 of the whole: 576 + 32 * 49.
    assert published.token_count((640, 427)) == 576 + 32 * 49
    sizes = list(itertools.product((1, 50, 336, 427, 640, 1008, 1500, 4000), repeat=2))
    expected = counted._get_num_multimodal_tokens([size[::-1] for size in sizes])["num_image_tokens"]
    assert [published.token_count(size) for size in sizes] == expected


def test_logits_equal_those_of_transformers_fed_by_its_own_processor(twin):
    _, processor, model = twin
    image = drawn((70, 45))
    ours = processor.collate(features(processor, [item([image])]))
    text = processor.tokenizer.decode(ours["input_ids"][0]).replace(
        "<image>" * ours["input_ids"].eq(processor.image_token_id).sum().item(), "<image>"
    )
    assert text.count("<image>") == 1
    made = theirs(processor._tiler, processor.tokenizer, 14)(
        images=image, text=text.removeprefix("<s>"), return_tensors="pt"
    )
    assert torch.equal(made["image_sizes"], ours["image_sizes"])
    torch.testing.assert_close(made["pixel_values"], ours["pixel_values"])
    with torch.no_grad():
        expected = model.eval()(
            input_ids=ours["input_ids"], pixel_values=made["pixel_values"], image_sizes=made["image_sizes"]
        ).logits
    assert (made["input_ids"] == processor.image_token_id).sum() == (
        ours["input_ids"] == processor.image_token_id
    ).sum()
    torch.testing.assert_close(logits(model, ours), expected)


def test_images_of_several_sizes_and_samples_without_any_share_a_batch(twin):
    _, processor, model = twin
    items = [item([drawn((70, 45)), drawn((30, 90), "blue")]), item([]), item([drawn((20, 20), "green")])]
    samples = features(processor, items)
    together = logits(model, processor.collate(samples))
    for row, sample in zip(together, samples, strict=True):
        alone = logits(model, processor.collate([sample]))[0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=1e-5, rtol=1e-4)


def test_the_saved_folder_holds_the_image_processor_and_the_names_of_the_hub(twin, tmp_path):
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    family, processor, model = twin
    processor.save_pretrained(tmp_path)
    family.save_weights(model, None, tmp_path)
    read = LlavaNextImageProcessorPil.from_pretrained(tmp_path)
    image = drawn((70, 45))
    torch.testing.assert_close(
        read(image, return_tensors="pt")["pixel_values"][0], processor.image_features([image])["pixel_values"][0]
    )
    names = set(load_file(tmp_path / "model.safetensors"))
    assert {"image_newline", "multi_modal_projector.linear_1.weight", "language_model.lm_head.weight"} <= names
    assert not any(name.startswith("model.") for name in names)


def test_a_new_pair_lays_images_out_in_tiles_of_its_tower(tmp_path):
    from transformers import CLIPVisionModel, LlamaForCausalLM

    _, processor, model = built(TWINS["LLaVANext"])
    tower, language = tmp_path / "tower", tmp_path / "language"
    CLIPVisionModel(model.config.vision_config).save_pretrained(tower)
    LlamaForCausalLM(model.config.text_config).save_pretrained(language)
    processor.tokenizer.save_pretrained(language)
    pair = {"type": "LLaVANext", "vision_tower": str(tower), "language_model": str(language)}
    made = build_family(pair).build_processor(CONVERSATION)
    assert made.image["grid"] == [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    assert build_family({**pair, "image_grid_pinpoints": [[56, 56]]}).build_processor({}).image["grid"] == [[56, 56]]
    with pytest.raises(ConfigError, match="a class token has no tile"):
        build_family({**pair, "mm_vision_select_feature": "cls_patch"}).build_processor({})


def test_people_see_the_tile_of_the_whole_image(twin):
    _, processor, _ = twin
    pixels = features(processor, [item([Image.new("RGB", (60, 30), (200, 10, 30))])])[0]["pixel_values"]
    assert len(pixels) == 1
    shown = processor.picture(pixels[0])
    assert (shown.size, shown.getpixel((3, 3))) == ((28, 28), (200, 10, 30))
