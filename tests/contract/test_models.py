"""What every registered model family must keep, shown on its tiny twin (tests/models/twins_*.py)."""

from pathlib import Path

import pytest
import torch
from contract.ddp_job import TUNINGS, step
from contract.twins import TWINS, built, samples
from launch import checked, run_two

from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.loss import token_loss
from mllm.errors import CheckpointError
from mllm.models.adapters import is_adapter, merge_adapters
from mllm.models.build import build_family
from mllm.models.tuning import Tuning, trainable_report
from mllm.registry import MODELS

WHOLE = Tuning(freeze=[], save="all")


@pytest.fixture(scope="module", params=MODELS.names())
def name(request):
    assert request.param in TWINS, f"{request.param} needs a tiny twin: add it to TWINS in tests/models/twins_*.py"
    return request.param


@pytest.fixture(scope="module")
def twin(name):
    return built(TWINS[name], WHOLE)


def _samples(processor, mode, count=4):
    return samples(TWINS[processor.family["type"]], processor, mode, count)


def _batch(processor, count=4):
    return processor.collate([sample.features for sample in _samples(processor, "train", count)])


def _prompts(processor, chosen=None):
    chosen = chosen or _samples(processor, "generate")
    return processor.collate([sample.features for sample in chosen], layout="left")


def _loss(model, batch, items=None):
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return token_loss(model(**inputs), labels, items)


def _logits(model, batch):
    with torch.no_grad():
        return model.eval()(**{name: value for name, value in batch.items() if name != "labels"}).logits


def _steps(model, batch, count, rate=3e-3):
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=rate)
    losses = []
    for _ in range(count):
        loss = _loss(model, batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def _options(processor, **more):
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": processor.pad_id}
    if processor.tokenizer.bos_token_id is not None:
        options["bos_token_id"] = processor.tokenizer.bos_token_id
    return {**options, "eos_token_id": processor.stop_ids(), **more}


def test_the_loss_falls(twin):
    family, processor, _ = twin
    torch.manual_seed(0)
    model = family.build_model(processor, WHOLE).train()
    losses = _steps(model, _batch(processor), 20)
    assert losses[-1] < losses[0] - 1


def test_answer_tokens_alone_bear_loss(twin, name):
    _, processor, _ = twin
    for sample in _samples(processor, "train"):
        trained = [label for label in sample.features["labels"] if label != -100]
        assert processor.tokenizer.decode(trained).replace(TWINS[name].mark, "").strip() == sample.record.target
    batch = _batch(processor)
    assert not batch["labels"][batch["attention_mask"] == 0].ne(-100).any()


def test_the_split_of_a_batch_changes_neither_loss_nor_gradient(twin):
    _, processor, model = twin
    features = [sample.features for sample in _samples(processor, "train", 8)]
    outcomes = []
    model.eval()
    items = sum(label != -100 for one in features for label in one["labels"][1:])
    for size in (8, 2, 1):
        model.zero_grad()
        parts = [processor.collate(features[start : start + size]) for start in range(0, 8, size)]
        loss = 0.0
        for part in parts:
            value = _loss(model, part, items)
            value.backward()
            loss += value.item()
        outcomes.append((loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    for loss, gradients in outcomes[1:]:
        assert loss == pytest.approx(outcomes[0][0], abs=1e-5)
        for ours, theirs in zip(gradients, outcomes[0][1], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


@pytest.fixture(scope="module")
def on_two_processes(tmp_path_factory):
    path = tmp_path_factory.mktemp("ddp") / "found.pt"
    checked(run_two([Path(__file__).with_name("ddp_job.py"), path]))
    saved = torch.load(path, weights_only=True)
    assert saved["world"] == 2
    return saved["found"]


@pytest.mark.parametrize("kind", TUNINGS)
def test_two_processes_give_the_loss_and_gradients_of_one(on_two_processes, name, kind):
    loss, gradients = step(TWINS[name], TUNINGS[kind], 0, 1)
    shared_loss, shared_gradients = on_two_processes[name, kind]
    assert shared_loss == pytest.approx(loss, abs=1e-5)
    assert gradients.keys() == shared_gradients.keys()
    for key, value in gradients.items():
        torch.testing.assert_close(shared_gradients[key], value, atol=1e-5, rtol=1e-3, msg=key)


def test_padding_side_does_not_change_the_answer(twin):
    family, processor, model = twin
    chosen = _samples(processor, "generate")
    options = _options(processor)
    together = processor.decode(family.generate(model.eval(), _prompts(processor, chosen), **options))
    alone = [
        processor.decode(family.generate(model.eval(), _prompts(processor, [one]), **options))[0] for one in chosen
    ]
    assert together == alone


@pytest.mark.parametrize("beams", [1, 2])
def test_cached_and_uncached_generation_agree(twin, beams):
    family, processor, model = twin
    options = _options(processor, num_beams=beams)
    cached = family.generate(model.eval(), _prompts(processor), use_cache=True, **options)
    assert torch.equal(cached, family.generate(model.eval(), _prompts(processor), use_cache=False, **options))


def test_greedy_generation_takes_the_likeliest_next_token_of_the_forward_pass(twin):
    family, processor, model = twin
    prompt = _prompts(processor, _samples(processor, "generate", 1))
    first = family.generate(model.eval(), prompt, **_options(processor, max_new_tokens=1, eos_token_id=None))
    assert first[0, 0] == _logits(model, prompt)[0, -1].argmax()


def test_the_image_changes_the_output(twin):
    _, processor, model = twin
    batch = _batch(processor, 2)
    blank = {name: torch.zeros_like(value) if "pixel" in name else value for name, value in batch.items()}
    assert not torch.allclose(_logits(model, batch), _logits(model, blank))


def test_a_saved_model_gives_the_same_logits_and_the_same_prompt(twin, tmp_path):
    family, processor, model = twin
    family.save_weights(model, None, tmp_path)
    processor.save_pretrained(tmp_path)
    loaded_family = build_family({"pretrained": str(tmp_path)})
    assert type(loaded_family) is type(family)
    loaded_processor = loaded_family.build_processor({})
    loaded = loaded_family.build_model(loaded_processor)
    batch, again = _batch(processor), _batch(loaded_processor)
    assert torch.equal(batch["input_ids"], again["input_ids"])
    torch.testing.assert_close(_logits(loaded, batch), _logits(model, batch), atol=1e-5, rtol=1e-4)
    assert loaded_processor.generation == {"max_new_tokens": 8}


def test_adapters_saved_loaded_and_merged_give_the_same_logits(twin, name, tmp_path):
    family, processor, model = twin
    base, run = tmp_path / "base", tmp_path / "run"
    family.save_weights(model, None, base)
    processor.save_pretrained(base)
    start = build_family({"pretrained": str(base)})
    tuned_processor = start.build_processor({})
    tuned = start.build_model(tuned_processor, Tuning.from_config({"lora": TWINS[name].lora})).train()
    before = {key: value.clone() for key, value in tuned.named_parameters() if not value.requires_grad}
    batch = _batch(tuned_processor)
    losses = _steps(tuned, batch, 8, rate=2e-2)
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[key]) for key, value in tuned.named_parameters() if key in before)
    start.save_weights(tuned, None, run)
    tuned_processor.save_pretrained(run)
    again = build_family({"pretrained": str(run)})
    loaded = again.build_model(again.build_processor({}))
    assert any(is_adapter(key) for key, _ in loaded.named_parameters())
    torch.testing.assert_close(_logits(loaded, batch), _logits(tuned, batch))
    assert not torch.allclose(_logits(model, batch), _logits(tuned, batch))
    merge_adapters(loaded)
    assert not any(is_adapter(key) or "base_layer" in key for key, _ in loaded.named_parameters())
    torch.testing.assert_close(_logits(loaded, batch), _logits(tuned, batch), atol=1e-4, rtol=1e-4)


def test_a_batch_without_images_reaches_every_parameter(twin, name):
    _, processor, model = twin
    if not TWINS[name].text_only:
        pytest.skip(f"{name} refuses a sample without an image")
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello there"}]
    sample = SingleImageConvDataset([{"conversations": turns}], processor)[0]
    model.train().zero_grad()
    batch = processor.collate([sample.features])
    _loss(model, batch).backward()
    without = [key for key, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert without == []
    other = {key: torch.ones_like(value) if "pixel" in key else value for key, value in batch.items()}
    torch.testing.assert_close(_logits(model, batch), _logits(model, other))


def test_bf16_and_checkpointing_run(twin):
    family, processor, _ = twin
    torch.manual_seed(0)
    model = family.build_model(processor, WHOLE)
    batch = _batch(processor, 2)
    gradients = []
    for checkpointing in (False, True):
        model.train().zero_grad()
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        _loss(model, batch).backward()
        gradients.append({key: one.grad.clone() for key, one in model.named_parameters() if one.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], value, msg=key)
    model.gradient_checkpointing_disable()
    half = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in batch.items()}
    assert torch.isfinite(_loss(model.to(torch.bfloat16), half))


def test_frozen_parts_stand_still_by_default(twin, name):
    family, processor, _ = twin
    model = family.build_model(processor)
    report = trainable_report(model, family)
    for part, (trained, total) in report.items():
        assert total > 0
        assert (trained == 0) == (part in family.frozen), part


def test_a_checkpoint_of_another_model_is_refused(twin, tmp_path):
    family, _, model = twin
    family.save_weights(model, None, tmp_path)
    family.load_weights(model, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(CheckpointError, match="not a file of weights"):
        family.load_weights(model, tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        family.load_weights(model, tmp_path)


def test_the_file_can_be_read_by_plain_transformers(twin, name, tmp_path):
    from transformers import AutoModelForImageTextToText

    if not TWINS[name].plain:
        pytest.skip(f"{name} is no class of transformers")
    family, processor, model = twin
    family.save_weights(model, None, tmp_path)
    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = _batch(processor, 2)
    torch.testing.assert_close(_logits(loaded, batch), _logits(model, batch))
