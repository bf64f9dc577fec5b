import pytest
import tiny
import torch
from accelerate import Accelerator

from mllm.engine.predict import Generator
from mllm.engine.second_pass import check_second_pass
from mllm.errors import ConfigError
from mllm.models.adapters import without_adapters
from mllm.models.tuning import Tuning
from mllm.structures import Turn


@pytest.fixture
def tuned():
    torch.manual_seed(0)
    family = tiny.family()
    processor = family.build_processor(tiny.CONVERSATION)
    model = family.build_model(processor, Tuning.from_config({"lora": {"r": 4}})).eval()
    base = {name: one.clone() for name, one in model.named_parameters()}
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(torch.randn_like(one))
    return family, processor, model, base


def _generator(tuned, **options):
    family, processor, model, _ = tuned
    return Generator(model, family, processor, Accelerator(cpu=True), 2, options={"max_new_tokens": 6, **options})


def _batch(processor, *texts):
    features = [processor.encode([Turn("human", text)], [], generation=True) for text in texts]
    return processor.collate(features, layout="left")


def test_the_base_model_rewrites_what_the_tuned_one_wrote(tuned):
    _, processor, model, _ = tuned
    batch = _batch(processor, "a red circle", "two squares")
    first = _generator(tuned).generate(batch)
    assert all(first)
    second = _generator(tuned, second_pass="Say it better: {answer}").generate(batch)
    with without_adapters(model):
        expected = _generator(tuned).generate(_batch(processor, *[f"Say it better: {one}" for one in first]))
    assert second == expected
    assert second != first
    assert _generator(tuned).generate(batch) == first  # the adapters are on again


def test_adapters_come_back_after_an_error(tuned):
    _, _, model, _ = tuned
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        with pytest.raises(RuntimeError, match="broken"):
            _break(model, ids, before)
        assert torch.equal(model(input_ids=ids).logits, before)


def _break(model, ids, before):
    with without_adapters(model):
        assert not torch.allclose(model(input_ids=ids).logits, before)
        raise RuntimeError("broken")


@pytest.mark.parametrize("prompt", ["Say it better", "{answer} {answer}", 3])
def test_a_prompt_without_the_answer_is_refused(tuned, prompt):
    with pytest.raises(ConfigError, match=r"\{answer\} once"):
        check_second_pass(prompt, tuned[2])


def test_a_model_without_adapters_is_refused():
    family = tiny.family()
    model = family.build_model(family.build_processor(tiny.CONVERSATION))
    with pytest.raises(ConfigError, match="no adapters to switch off"):
        check_second_pass("{answer}", model)
