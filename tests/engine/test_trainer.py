import signal

import pytest
import tiny
import torch

from mllm.config.arguments import Seq2SeqArguments
from mllm.dataset.single_image_conversation import SingleImageConvDataset
from mllm.engine.notes import Notes
from mllm.engine.optimizer import MuonWithAdamW
from mllm.engine.trainer import MultimodalTrainer
from mllm.errors import ConfigError, DataError
from mllm.models.tuning import Tuning, format_report, freeze, trainable_report
from mllm.pipeline import finetune
from mllm.registry import DATASETS
from mllm.utils.program import run_main


@pytest.fixture
def parts(tmp_path):
    family = tiny.family()
    processor = family.build_processor(tiny.CONVERSATION)
    return family, processor, family.build_model(processor, Tuning(freeze=[])), tmp_path


def _trainer(parts, **changes):
    family, processor, model, folder = parts
    args = Seq2SeqArguments(output_dir=str(folder), use_cpu=True, report_to="none", learning_rate=1e-3, **changes)
    train = SingleImageConvDataset(DATASETS.build(tiny.REC), processor)
    return MultimodalTrainer(model=model, args=args, train_dataset=train, family=family, processor=processor)


def test_each_part_gets_its_own_learning_rate_and_norms_no_decay(parts):
    family, _, model, _ = parts
    optimizer = _trainer(parts, mm_projector_lr=1e-2, vision_lr=1e-5, weight_decay=0.1).create_optimizer()
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    expected = {"projector": 1e-2, "vision": 1e-5, "language": 1e-3}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # behind the projected layer of the tower
            continue
        rate, decay = rates.pop(id(parameter))
        assert rate == expected[family.part_of(name)], name
        assert decay == (0.0 if "norm" in name or name.endswith("bias") else 0.1), name
    assert not rates  # every parameter in exactly one group


def test_without_rates_of_parts_all_share_one(parts):
    optimizer = _trainer(parts).create_optimizer()
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}


def test_frozen_parameters_reach_no_optimiser(parts):
    family, _, model, _ = parts
    freeze(model, family, ["vision", r"layers\.0\."])
    optimizer = _trainer(parts).create_optimizer()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in held) == ("vision_tower" not in name and "layers.0." not in name)


def test_half_precision_trains_whole_weights_and_keeps_frozen_ones_small(parts):
    family, processor, model, folder = parts
    freeze(model, family, ["vision"])
    _trainer((family, processor, model.to(torch.bfloat16), folder), bf16=True)
    types = {(one.requires_grad, one.dtype) for one in model.parameters()}
    assert types == {(True, torch.float32), (False, torch.bfloat16)}


def test_the_report_counts_by_part(parts):
    family, _, model, _ = parts
    freeze(model, family, ["vision"])
    report = trainable_report(model, family)
    # Projector: 16 -> 32 and 32 -> 32 with biases.
    assert report["projector"] == (16 * 32 + 32 + 32 * 32 + 32,) * 2
    assert sum(total for _, total in report.values()) == sum(p.numel() for p in model.parameters())
    assert "0 of" in format_report(report).splitlines()[0]


def test_a_misspelt_part_is_an_error(parts):
    family, _, model, _ = parts
    with pytest.raises(ConfigError, match="did you mean 'projector'"):
        freeze(model, family, ["projektor"])


def test_notes_count_and_name_the_first_place():
    notes = Notes(budget=2)
    notes.add([("truncated", "a[1]"), ("truncated", "a[2]"), ("replaced", "a[3]")])
    assert notes.summary()["truncated"] == {"count": 2, "first": "a[1]"}
    with pytest.raises(DataError, match=r"3 samples could not be read.*allows 2; the first: a\[3\]"):
        notes.add([("replaced", "a[4]"), ("replaced", "a[5]")])


def test_one_step_changes_what_is_trained_and_nothing_else(parts):
    family, _, model, _ = parts
    freeze(model, family, ["vision"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _trainer(parts, max_steps=1, save_strategy="no").train()
    for name, value in model.state_dict().items():
        if "vision_tower" in name:
            assert torch.equal(value, before[name]), name
    assert not torch.equal(model.lm_head.weight, before["lm_head.weight"])


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest(parts):
    _, _, model, _ = parts
    optimizer = _trainer(parts, muon_lr=3e-3, weight_decay=0.1).create_optimizer()
    muon, adamw = ({id(p) for group in part.param_groups for p in group["params"]} for part in optimizer.parts)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        table = "embed" in name or "lm_head" in name
        assert (id(parameter) in muon) == (parameter.ndim == 2 and not table), name
        assert (id(parameter) in adamw) != (id(parameter) in muon), name
    assert {group["lr"] for group in optimizer.parts[0].param_groups} == {3e-3}
    assert {group["lr"] for group in optimizer.parts[1].param_groups} == {1e-3}


def _muon_steps(optimizer, weights, rates, start, steps):
    for number in range(start, start + steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate / (number + 1)
        for weight in weights:
            weight.grad = torch.cos(weight.detach() * (number + 2))
        optimizer.step()


def test_muon_steps_as_torch_does_and_goes_on_from_its_state():
    def fresh():
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(6, 4)), torch.nn.Parameter(torch.randn(5))]
        groups = [[{"params": [weights[0]], "lr": 0.1, "weight_decay": 0.1}], [{"params": [weights[1]], "lr": 0.2}]]
        return weights, MuonWithAdamW(*groups, {"lr": 0.2, "betas": (0.9, 0.9)})

    weights, optimizer = fresh()
    _muon_steps(optimizer, weights, (0.1, 0.2), 0, 4)
    for reference, kind, rate, options in (
        (0, torch.optim.Muon, 0.1, {"weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}),
        (1, torch.optim.AdamW, 0.2, {"betas": (0.9, 0.9)}),
    ):
        alone = fresh()[0][reference]
        _muon_steps(kind([alone], lr=rate, **options), [alone], (rate,), 0, 4)
        assert torch.equal(alone, weights[reference])

    first, before = fresh()
    _muon_steps(before, first, (0.1, 0.2), 0, 2)
    second, after = fresh()
    for mine, other in zip(second, first, strict=True):
        mine.data.copy_(other.data)
    after.load_state_dict(before.state_dict())
    _muon_steps(after, second, (0.1, 0.2), 2, 2)
    assert all(torch.equal(mine, whole) for mine, whole in zip(second, weights, strict=True))


def test_muon_beside_another_optimiser_is_an_error(parts):
    with pytest.raises(ConfigError, match="muon_lr works beside optim='adamw_torch', not 'sgd'"):
        _trainer(parts, muon_lr=1e-3, optim="sgd").create_optimizer()


def test_signals_mean_what_they_meant_before_though_training_fails(parts, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    trainer = _trainer(parts, max_steps=1)

    def fail(*_, **__):
        assert signal.getsignal(signal.SIGTERM) != before
        raise DataError("broken")

    monkeypatch.setattr(trainer, "training_step", fail)
    with pytest.raises(DataError, match="broken"):
        trainer.train()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_config_that_evaluates_while_it_trains_predicts_without_a_validation_set(tmp_path):
    config = tmp_path / "c.py"
    training = {"do_train": False, "do_predict": True, "eval_strategy": "steps", "eval_steps": 1}
    config.write_text(tiny.config_text(tmp_path / "out", training_args=training, data_args={"validation": None}))
    assert run_main(finetune.main, [str(config)], name="finetune.py") == 0
    assert (tmp_path / "out" / "test_predictions.jsonl").is_file()
