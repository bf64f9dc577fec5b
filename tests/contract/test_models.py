"""What every registered model family must keep, shown on its tiny twin."""

import pytest
import tiny
import torch

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.loss import token_loss
from mllm.errors import CheckpointError
from mllm.models.tuning import trainable_report
from mllm.registry import DATASETS, MODELS

TWINS = {"LLaVA": tiny.MODEL_ARGS}


@pytest.fixture(scope="module", params=MODELS.names())
def twin(request):
    assert request.param in TWINS, f"{request.param} needs a tiny twin in TWINS"
    torch.manual_seed(0)
    family = MODELS.build(TWINS[request.param])
    processor = family.build_processor(tiny.CONVERSATION, {"max_new_tokens": 8})
    return family, processor, family.build_model(processor)


def _samples(processor, mode, count=4):
    dataset = SingleImageConvDataset(DATASETS.build({**tiny.REC, "count": count}), processor, mode=mode)
    return [dataset[index] for index in range(count)]


def _loss(model, batch):
    labels = batch["labels"]
    return token_loss(model(**{name: value for name, value in batch.items() if name != "labels"}), labels)


def test_the_loss_falls(twin):
    family, processor, _ = twin
    torch.manual_seed(0)
    model = family.build_model(processor)
    batch = processor.collate([sample.features for sample in _samples(processor, "train")])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = _loss(model, batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 1


def test_answer_tokens_alone_bear_loss(twin):
    _, processor, _ = twin
    for sample in _samples(processor, "train"):
        trained = [label for label in sample.features["labels"] if label != -100]
        assert processor.tokenizer.decode(trained).replace("</s>", "").strip() == sample.record.target
    batch = processor.collate([sample.features for sample in _samples(processor, "train")])
    assert not batch["labels"][batch["attention_mask"] == 0].ne(-100).any()


def test_padding_side_does_not_change_the_answer(twin):
    family, processor, model = twin
    samples = [sample.features for sample in _samples(processor, "generate")]
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": processor.pad_id}
    together = processor.decode(family.generate(model.eval(), processor.collate(samples, layout="left"), **options))
    alone = [
        processor.decode(family.generate(model.eval(), processor.collate([one], layout="left"), **options))[0]
        for one in samples
    ]
    assert together == alone


def test_cached_and_uncached_generation_agree(twin):
    family, processor, model = twin
    batch = processor.collate([sample.features for sample in _samples(processor, "generate")], layout="left")
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": processor.pad_id}
    cached = family.generate(model.eval(), batch, use_cache=True, **options)
    assert torch.equal(cached, family.generate(model.eval(), batch, use_cache=False, **options))


def test_the_image_changes_the_output(twin):
    _, processor, model = twin
    batch = processor.collate([sample.features for sample in _samples(processor, "train", 2)])
    batch.pop("labels")
    with torch.no_grad():
        seen = model(**batch).logits
        blank = model(**{**batch, "pixel_values": torch.zeros_like(batch["pixel_values"])}).logits
    assert not torch.allclose(seen, blank)


def test_a_saved_model_gives_the_same_logits_and_the_same_prompt(twin, tmp_path):
    family, processor, model = twin
    family.save_weights(model, None, tmp_path)
    processor.save_pretrained(tmp_path)
    loaded_family = MODELS.build({"type": type(family).__name__, "pretrained": str(tmp_path), "freeze": []})
    loaded_processor = loaded_family.build_processor({})
    loaded = loaded_family.build_model(loaded_processor)
    batch = processor.collate([sample.features for sample in _samples(processor, "train")])
    again = loaded_processor.collate([sample.features for sample in _samples(loaded_processor, "train")])
    assert torch.equal(batch["input_ids"], again["input_ids"])
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(**batch).logits, model.eval()(**batch).logits, atol=1e-5, rtol=1e-4)
    assert loaded_processor.generation == {"max_new_tokens": 8}


def test_a_batch_without_images_reaches_every_parameter(twin):
    _, processor, model = twin
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello there"}]
    sample = SingleImageConvDataset([{"conversations": turns}], processor)[0]
    model.zero_grad()
    batch = processor.collate([sample.features])
    _loss(model, batch).backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert [name for name in without if not _never_used(name)] == []
    plain = {name: value for name, value in batch.items() if name not in ("labels", "pixel_values")}
    with torch.no_grad():
        seen = model(**plain, pixel_values=batch["pixel_values"]).logits
        torch.testing.assert_close(seen, model(**plain).logits)


def _never_used(name):
    # CLIP's last norm belongs to its pooled output, which no LLaVA reads.
    return "post_layernorm" in name


def test_bf16_and_checkpointing_run(twin):
    family, processor, model = twin
    batch = processor.collate([sample.features for sample in _samples(processor, "train", 2)])
    model.train()
    plain = _loss(model, batch)
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(_loss(model, batch), plain)
    model.gradient_checkpointing_disable()
    half = family.build_model(processor).to(torch.bfloat16)
    batch["pixel_values"] = batch["pixel_values"].to(torch.bfloat16)
    assert torch.isfinite(_loss(half, batch))


def test_freezing_a_part_leaves_the_others_trained():
    family = MODELS.build({**tiny.MODEL_ARGS, "freeze": ["vision"]})
    model = family.build_model(family.build_processor(tiny.CONVERSATION))
    report = trainable_report(model, family)
    assert report["vision"][0] == 0 < report["vision"][1]
    assert report["projector"][0] == report["projector"][1] > 0
    assert report["language"][0] == report["language"][1] > 0


def test_a_checkpoint_of_another_model_is_refused(twin, tmp_path):
    family, _, model = twin
    family.save_weights(model, None, tmp_path)
    family.load_weights(model, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        family.load_weights(model, tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        family.load_weights(model, tmp_path)


def test_the_file_can_be_read_by_plain_transformers(twin, tmp_path):
    from safetensors import safe_open
    from transformers import AutoModelForImageTextToText

    family, processor, model = twin
    family.save_weights(model, None, tmp_path)
    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = processor.collate([sample.features for sample in _samples(processor, "train", 2)])
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(**batch).logits, model.eval()(**batch).logits)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert {name.split(".")[0] for name in file.keys()} <= {new.split(".")[0] for _, new in family.file_names}  # noqa: SIM118
