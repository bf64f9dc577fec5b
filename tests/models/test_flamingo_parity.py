"""Our module against the open_flamingo package, in float64.

``pip install --no-deps open_flamingo einops einops-exts`` makes these tests run; open_clip is stood in for.
"""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
from models.twins_flamingo import MODEL_ARGS
from torch import nn

from mllm.models.build import build_family

NEEDED = ("open_flamingo", "einops", "einops_exts")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"needs pip install --no-deps {' '.join(MISSING).replace('_exts', '-exts')}"
)


class _Visual(nn.Module):
    """What open_clip <= 2.22 returns: pooled vector (unused) and the tokens of the last layer without its norm."""

    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, pixels):
        return None, self.tower(pixel_values=pixels).last_hidden_state[:, 1:]


@pytest.fixture(scope="module", params=[1, 2], ids=["every layer", "every second layer"])
def pair(request):
    sys.modules.setdefault("open_clip", SimpleNamespace())
    from open_flamingo.src.flamingo import Flamingo
    from open_flamingo.src.flamingo_lm import FlamingoLMMixin
    from open_flamingo.src.utils import extend_instance

    torch.manual_seed(0)
    # The package's perceiver and cross-attention are 8 heads of 64, 6 layers, 64 latents.
    config = {**MODEL_ARGS["config"], "cross_attn_every_n_layers": request.param}
    config |= {"depth": 6, "latents": 64, "heads": 8, "head_width": 64}
    family = build_family({**MODEL_ARGS, "config": config, "dtype": "float64"})
    processor = family.build_processor({"template": "openflamingo", "transforms": []})
    ours = family.load_model(processor).double().eval()
    theirs_lm = type(ours.language_model)(ours.config.text_config).double()
    theirs_lm.load_state_dict(ours.language_model.state_dict())
    extend_instance(theirs_lm, FlamingoLMMixin)
    theirs_lm.set_decoder_layers_attr_name("model.layers")
    tower = SimpleNamespace(visual=_Visual(ours.vision_encoder))
    end = processor.tokenizer.convert_tokens_to_ids("<|endofchunk|>")
    width = ours.config.vision_config.hidden_size
    theirs = Flamingo(tower, theirs_lm, end, processor.image_token_id, width, request.param).double().eval()
    with torch.no_grad():
        for name, value in ours.named_parameters():
            if "gate" in name.rpartition(".")[2]:
                value.fill_(0.3)
            elif "perceiver" in name or "gated" in name:
                value.add_(0.1 * torch.randn_like(value))
    theirs.perceiver.load_state_dict(ours.perceiver.state_dict())
    for number, gated in ours.gated_cross_attn_layers.items():
        theirs.lang_encoder.gated_cross_attn_layers[int(number)].load_state_dict(gated.state_dict())
    return processor, ours, theirs


def _batch(processor, padded):
    """Two samples: two images in context, and one image behind some text (or padding on the left)."""
    image = processor.image_token_id
    ids = torch.tensor([[9, image, 11, 12, 13, image, 14, 15], [20, 21, 22, image, 23, 24, 25, 26]])
    mask = torch.ones_like(ids)
    if padded:
        ids[1, :2], mask[1, :2] = processor.pad_id, 0
    torch.manual_seed(1)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.randn(2, 2, 1, 3, 28, 28).double()}


@pytest.mark.parametrize("padded", [False, True])
def test_logits_are_equal(pair, padded):
    processor, ours, theirs = pair
    batch = _batch(processor, padded)
    with torch.no_grad():
        found = ours(**batch).logits
        expected = theirs(batch["pixel_values"], batch["input_ids"], batch["attention_mask"]).logits
    real = batch["attention_mask"].bool()
    assert (found - expected)[real].abs().max() <= 1e-9
    assert found.abs().max() > 0.01


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("cache", [True, False])
def test_generated_ids_are_equal(pair, beams, cache):
    processor, ours, theirs = pair
    batch = _batch(processor, True)
    options = {"max_new_tokens": 12, "do_sample": False, "num_beams": beams, "pad_token_id": 0, "eos_token_id": 2}
    options["suppress_tokens"] = [processor.image_token_id]
    found = ours.generate(**batch, use_cache=cache, **options)
    with torch.no_grad():
        expected = theirs.generate(
            batch["pixel_values"], batch["input_ids"], batch["attention_mask"], use_cache=True, **options
        )
    assert found.shape[1] > batch["input_ids"].shape[1] + 3
    assert found.tolist() == expected.tolist()


def test_gradients_are_equal(pair):
    processor, ours, theirs = pair
    batch = _batch(processor, False)
    for model, logits in (
        (ours, ours(**batch).logits),
        (theirs, theirs(batch["pixel_values"], batch["input_ids"], batch["attention_mask"]).logits),
    ):
        model.zero_grad()
        (logits.tanh() ** 2).sum().backward()
    for name, value in ours.perceiver.named_parameters():
        assert (theirs.perceiver.get_parameter(name).grad - value.grad).abs().max() <= 1e-9, name
    for number, gated in ours.gated_cross_attn_layers.items():
        reference = theirs.lang_encoder.gated_cross_attn_layers[int(number)]
        for name, value in gated.named_parameters():
            assert (reference.get_parameter(name).grad - value.grad).abs().max() <= 1e-9, name
