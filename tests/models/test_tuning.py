"""What ``tune`` does to a model, and what a checkpoint of trained tensors carries."""

import importlib
import json

import pytest
import tiny
import torch
from models.pairs import batch_of, pair
from transformers import AutoModelForCausalLM

from mllm.engine.loss import token_loss
from mllm.errors import CheckpointError, ConfigError
from mllm.models.build import build_family
from mllm.models.tuning import Tuning, format_report, trainable_report

KEPT = {"modules_to_save": ["projector"]}


def test_adapters_of_a_run_are_read_by_plain_peft(folders, tmp_path):
    from peft import PeftModel
    from transformers import LlavaForConditionalGeneration

    family = pair(folders)
    processor = family.build_processor(tiny.CONVERSATION)
    base = family.build_model(processor)
    family.save_weights(base, None, tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    start = build_family({"pretrained": str(tmp_path / "base")})
    model = start.build_model(start.build_processor({}), Tuning.from_config({"lora": {"r": 4, "rslora": True}}))
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.2 * torch.randn_like(value))
    start.save_weights(model, None, tmp_path / "run")
    plain = PeftModel.from_pretrained(
        LlavaForConditionalGeneration.from_pretrained(tmp_path / "base"), tmp_path / "run"
    )
    batch = {k: v for k, v in batch_of(processor).items() if k != "labels"}
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(**batch).logits, model.eval()(**batch).logits)


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_a_quantised_base_trains_its_adapters_and_comes_back(folders, tmp_path, quantize):
    pytest.importorskip("bitsandbytes", reason="needs pip install 'mllm[quant]'")
    family = pair(folders)
    processor = family.build_processor(tiny.CONVERSATION)
    tuning = {"quantize": quantize, "lora": {"r": 4, "modules_to_save": ["projector"]}}
    model = family.build_model(processor, Tuning.from_config(tuning))
    report = trainable_report(model, family)
    whole = trainable_report(pair(folders).build_model(processor), family)
    assert report["language"] == (0, whole["language"][1])  # packed weights count as what they stand for
    assert "adapters" in format_report(report)
    batch = batch_of(processor)
    labels = batch.pop("labels")
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=2e-2)
    losses = []
    for _ in range(6):
        loss = token_loss(model.train()(**batch), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    family.save_weights(model, None, tmp_path)
    folder = {"vision_tower": str(folders / "clip"), "language_model": str(folders / "llama")}
    processor.family = {"type": "LLaVA", **folder}
    processor.save_pretrained(tmp_path)
    again = build_family({"pretrained": str(tmp_path)})
    loaded = again.build_model(again.build_processor({}))
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(**batch).logits, model.eval()(**batch).logits)
    assert json.loads((tmp_path / "mllm_tune.json").read_text())["tune"]["quantize"] == quantize


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        ({"quantize": "nf4"}, "quantised weights cannot be trained; add tune.lora"),
        ({"lora": {"rank": 4}}, "tune.lora has no 'rank'"),
        ({"freez": []}, "did you mean 'freeze'"),
        ({"lora": {"targets": ["q_porj"], **KEPT}}, "no layer 'q_porj'.*q_proj"),
        ({"lora": {"targets": "nothing", **KEPT}}, "matches no module"),
        ({"lora": {"modules_to_save": ["projecter"]}}, "modules_to_save: 'projecter' matches no parameter"),
        ({"save": "some"}, "tune.save='some'"),
    ],
)
def test_a_wrong_tuning_is_named(folders, tune, expected):
    family = pair(folders)
    processor = family.build_processor(tiny.CONVERSATION)
    with pytest.raises(ConfigError, match=expected):
        family.build_model(processor, Tuning.from_config(tune))


def test_new_coordinate_tokens_are_trained_behind_a_frozen_language_model(folders, tmp_path):
    conversation = {**tiny.CONVERSATION, "formatter": {"type": "BinTokenFormatter", "bins": 211}}
    family = pair(folders)
    processor = family.build_processor(conversation)
    with pytest.raises(ConfigError, match="the projector is new and stands still"):
        family.build_model(processor, Tuning.from_config({"lora": {"r": 2}}))
    model = family.build_model(processor, Tuning.from_config({"lora": {"r": 2, "modules_to_save": ["projector"]}}))
    new = len(processor.tokenizer) - 1090
    assert new == 110  # bins 101 to 210: the tokenizer has 101 of them
    rows = [one for name, one in model.named_parameters() if "trainable_tokens" in name]
    assert [tuple(one.shape) for one in rows] == [(new, 32), (new, 32)]
    with torch.no_grad():
        for one in rows:
            one.add_(1.0)
    family.save_weights(model, None, tmp_path)
    processor.save_pretrained(tmp_path)
    again = build_family({"pretrained": str(tmp_path)})
    loaded = again.build_model(again.build_processor({}))
    ids = torch.tensor([[len(processor.tokenizer) - 1]])
    assert torch.equal(loaded.get_input_embeddings()(ids), model.get_input_embeddings()(ids))


def test_new_tokens_that_fall_on_spare_rows_are_new_all_the_same(folders, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(folders / "llama")
    base.resize_token_embeddings(1300, mean_resizing=False)
    base.save_pretrained(tmp_path / "spare")
    tiny.processor().tokenizer.save_pretrained(tmp_path / "spare")
    family = pair(folders, language_model=str(tmp_path / "spare"))
    processor = family.build_processor({**tiny.CONVERSATION, "formatter": {"type": "BinTokenFormatter", "bins": 111}})
    assert processor.added == [f"<bin_{number}>" for number in range(101, 111)]
    model = family.build_model(processor, Tuning.from_config({"lora": {"r": 2, **KEPT}}))
    assert model.new_token_rows == list(range(1090, 1100))
    table = base.get_input_embeddings().weight
    torch.testing.assert_close(model.get_input_embeddings()(torch.tensor(1095)), table[:1090].mean(0))
    family.save_weights(model, None, tmp_path / "run")
    processor.save_pretrained(tmp_path / "run")
    again = build_family({"pretrained": str(tmp_path / "run")})
    assert again.build_model(again.build_processor({})).new_token_rows == model.new_token_rows


def test_a_tuned_model_is_tuned_on(folders, tmp_path):
    tuning = Tuning.from_config({"lora": {"r": 2, **KEPT}})
    family = pair(folders)
    processor = family.build_processor(tiny.CONVERSATION)
    model = family.build_model(processor, tuning)
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(1.0)
    family.save_weights(model, None, tmp_path)
    processor.save_pretrained(tmp_path)
    again = build_family({"pretrained": str(tmp_path)})
    loaded = again.build_model(again.build_processor({}), tuning)
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    assert {name for name, one in loaded.named_parameters() if one.requires_grad} == set(trained)
    assert all(torch.equal(loaded.get_parameter(name), one) for name, one in trained.items())
    with pytest.raises(CheckpointError, match="of another shape"):
        again.build_model(again.build_processor({}), Tuning.from_config({"lora": {"r": 3, **KEPT}}))
    with pytest.raises(ConfigError, match=r"holds LoRA adapters but tune\.lora is not set.*--to merged"):
        again.build_model(again.build_processor({}), Tuning(freeze=[]))


def trained(model):
    return {name for name, one in model.named_parameters() if one.requires_grad}


def test_one_pattern_may_stand_without_a_list(folders):
    family = pair(folders)
    processor = family.build_processor(tiny.CONVERSATION)
    model = family.build_model(processor, Tuning.from_config({"freeze": "language"}))
    assert {family.part_of(name) for name in trained(model)} == {"vision", "projector"}
    model = family.build_model(processor, Tuning.from_config({"lora": {"r": 2, "modules_to_save": "projector"}}))
    assert "projector" in {family.part_of(name) for name in trained(model)}


@pytest.mark.parametrize(
    ("tune", "fault"),
    [
        ({"lora": {"r": "8"}}, "tune.lora.r='8'; expected a number"),
        ({"lora": {"r": 8, "dropout": True}}, "tune.lora.dropout=True; expected a number"),
        ({"lora": {"dtype": "float8"}}, "tune.lora.dtype='float8' is no torch type"),
    ],
)
def test_values_of_another_type_are_named(tune, fault):
    with pytest.raises(ConfigError, match=fault):
        Tuning.from_config(tune)


def test_a_broken_expression_is_named(folders):
    family = pair(folders)
    with pytest.raises(ConfigError, match=r"tune.freeze: '\(' is neither a part nor a regular expression"):
        family.build_model(family.build_processor(tiny.CONVERSATION), Tuning(freeze=["("]))


def lora_run(folders, place, tuning, **more):
    """A folder of trained tensors on the pair ``more`` says; its model."""
    family = pair(folders, **more)
    processor = family.build_processor(tiny.CONVERSATION)
    model = family.build_model(processor, Tuning.from_config(tuning))
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(0.1)
    family.save_weights(model, None, place)
    processor.save_pretrained(place)
    return model


def test_adapters_are_refused_on_another_base_wherever_they_are_loaded(folders, tmp_path):
    tuning = {"lora": {"r": 2, **KEPT}}
    lora_run(folders, tmp_path / "run", tuning)
    other = AutoModelForCausalLM.from_pretrained(folders / "llama")
    with torch.no_grad():
        other.get_input_embeddings().weight.mul_(2)
    other.save_pretrained(tmp_path / "other")
    tiny.processor().tokenizer.save_pretrained(tmp_path / "other")
    family = pair(folders, language_model=str(tmp_path / "other"))
    processor = family.build_processor(tiny.CONVERSATION)
    with pytest.raises(CheckpointError, match="was trained on another base model"):  # a run that starts from them
        family.build_model(processor, Tuning.from_config(tuning), str(tmp_path / "run"))
    model = family.build_model(processor, Tuning.from_config(tuning))
    with pytest.raises(CheckpointError, match="was trained on another base model"):  # a run that resumes from them
        family.load_weights(model, tmp_path / "run")


def test_a_run_starts_from_the_projector_of_a_first_stage(folders, tmp_path):
    first = lora_run(folders, tmp_path / "first", {"freeze": ["vision", "language"], "save": "trained"})
    second = pair(folders)
    processor = second.build_processor(tiny.CONVERSATION)
    tuning = Tuning.from_config({"lora": {"r": 2, **KEPT}})
    model = second.build_model(processor, tuning, str(tmp_path / "first"))
    expected = first.model.multi_modal_projector.linear_1.weight
    assert torch.equal(model.model.multi_modal_projector.linear_1.weight, expected)
    still = Tuning.from_config({"lora": {"r": 2}, "new_tokens": False})
    known = pair(folders, projector=None)
    known.new_parts = tuple  # as if the projector were the base's own
    with pytest.raises(ConfigError, match=r"holds weights that stand still here.*model_args\.pretrained"):
        known.build_model(known.build_processor(tiny.CONVERSATION), still, str(tmp_path / "first"))


def test_token_rows_of_a_first_stage_go_into_the_tables(folders, tmp_path):
    conversation = {**tiny.CONVERSATION, "formatter": {"type": "BinTokenFormatter", "bins": 111}}
    family = pair(folders)
    processor = family.build_processor(conversation)
    stage = Tuning.from_config({"freeze": ["vision", "language"], "save": "trained"})
    first = family.build_model(processor, stage)
    assert first.new_token_rows == list(range(1090, 1100))
    with torch.no_grad():
        for name, one in first.named_parameters():
            if "trainable_tokens" in name:
                one.add_(1.0)
    family.save_weights(first, None, tmp_path)
    processor.save_pretrained(tmp_path)
    second = family.build_model(processor, Tuning(freeze=["vision"]), str(tmp_path))
    ids = torch.tensor([[3, 1095]])
    torch.testing.assert_close(second.get_input_embeddings()(ids), first.get_input_embeddings()(ids))


def test_tied_tables_save_the_rows_of_their_new_tokens(folders, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(folders / "llama")
    base.config.tie_word_embeddings = True
    base.tie_weights()
    base.save_pretrained(tmp_path / "tied")
    tiny.processor().tokenizer.save_pretrained(tmp_path / "tied")
    family = pair(folders, language_model=str(tmp_path / "tied"))
    processor = family.build_processor({**tiny.CONVERSATION, "formatter": {"type": "BinTokenFormatter", "bins": 111}})
    model = family.build_model(processor, Tuning.from_config({"lora": {"r": 2, **KEPT}}))
    with torch.no_grad():
        next(one for name, one in model.named_parameters() if "trainable_tokens" in name).add_(1.0)
    family.save_weights(model, None, tmp_path / "run")
    processor.save_pretrained(tmp_path / "run")
    again = build_family({"pretrained": str(tmp_path / "run")})
    loaded = again.build_model(again.build_processor({}))
    ids = torch.tensor([[3, 1095]])
    torch.testing.assert_close(loaded.get_input_embeddings()(ids), model.get_input_embeddings()(ids))


def test_a_whole_run_needs_none_of_the_folders_that_it_started_from(folders, tmp_path):
    family = pair(folders)
    processor = family.build_processor(tiny.CONVERSATION)
    family.save_weights(family.build_model(processor), None, tmp_path)
    processor.save_pretrained(tmp_path)
    config = {"type": "LLaVA", "vision_tower": "/gone/clip", "language_model": "/gone/llama"}
    again = build_family({**config, "pretrained": str(tmp_path)})  # the config as it was, and one key more
    assert again.build_model(again.build_processor({})).get_input_embeddings().num_embeddings == 1090


@pytest.mark.parametrize("name", ["PhiCLIP", "OpenFlamingo"])
def test_parts_use_the_attention_that_was_asked_for(name):
    twin = importlib.import_module({"PhiCLIP": "models.twins_phi_clip", "OpenFlamingo": "models.twins_flamingo"}[name])
    family = build_family({**twin.TWINS[name].model_args, "attn_implementation": "eager"})
    model = family.build_model(family.build_processor(twin.TWINS[name].conversation))
    parts = [one for one in model.modules() if one is not model and hasattr(one, "config")]
    assert {one.config._attn_implementation for one in parts} == {"eager"}
