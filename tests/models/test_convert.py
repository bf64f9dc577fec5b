"""Conversions against references: plain transformers, peft, and the arithmetic of the foreign projects' own code."""

import json
import shutil

import pytest
import tiny
import torch
from models.twins_phi_clip import MODEL_ARGS as PHI
from transformers import AutoModelForCausalLM, CLIPVisionModel, LlavaConfig, LlavaForConditionalGeneration

from mllm.cli.main import main
from mllm.errors import CheckpointError
from mllm.models.build import build_family
from mllm.models.checkpoints import read_folder
from mllm.models.foreign.internlm2 import split_wqkv
from mllm.models.tuning import Tuning

TOKENS = 1090
CONFIG = {
    **tiny.MODEL_ARGS["config"],
    "text_config": {**tiny.MODEL_ARGS["config"]["text_config"], "vocab_size": TOKENS, "num_key_value_heads": 1},
    "vision_feature_layer": -2,
}
PIXELS = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}


def run(*words):
    return main(["convert", *map(str, words)])


def error_of(capsys, *words):
    assert run(*words) != 0
    return capsys.readouterr().err.strip().splitlines()[-1]


def truth():
    """A LLaVA of plain transformers, all of it drawn at random."""
    torch.manual_seed(3)
    model = LlavaForConditionalGeneration(LlavaConfig(**CONFIG)).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.2 * torch.randn_like(value))
    return model


def logits(model, image_token):
    torch.manual_seed(4)
    ids = torch.tensor([[7, 8, 9, *[image_token] * 4, 11, 12, 13]])
    with torch.no_grad():
        return model.eval()(input_ids=ids, pixel_values=torch.randn(1, 3, 28, 28)).logits


def same(folder, model):
    """Whether the folder, read by plain transformers, computes what ``model`` does."""
    loaded, info = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    model.config.image_token_id = model.model.config.image_token_id = loaded.config.image_token_id
    found, expected = (logits(one, loaded.config.image_token_id) for one in (loaded, model))
    return torch.allclose(found, expected, atol=1e-5)


def tokenizer_files(folder):
    processor = tiny.processor()
    processor.tokenizer.save_pretrained(folder)


def tower_folder(folder, model):
    tower = CLIPVisionModel(model.config.vision_config)
    tower.load_state_dict(model.model.vision_tower.state_dict())
    tower.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    return folder


def language_folder(folder, model):
    language = AutoModelForCausalLM.from_config(model.config.text_config)
    language.model.load_state_dict(model.model.language_model.state_dict())
    language.lm_head.load_state_dict(model.lm_head.state_dict())
    language.save_pretrained(folder)
    tokenizer_files(folder)
    return folder


def liuhaotian_config(model, tower, **changes):
    return {
        **model.config.text_config.to_dict(),
        "model_type": "llava_llama",
        "mm_vision_tower": str(tower),
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        **changes,
    }


def liuhaotian_tensors(model, *, tower):
    """LLaVA's names, written down from its own classes."""
    found = {f"model.{name}": one for name, one in model.model.language_model.state_dict().items()}
    found["lm_head.weight"] = model.lm_head.weight.detach()
    projector = model.model.multi_modal_projector.state_dict()
    found |= {f"model.mm_projector.0.{kind}": projector[f"linear_1.{kind}"] for kind in ("weight", "bias")}
    found |= {f"model.mm_projector.2.{kind}": projector[f"linear_2.{kind}"] for kind in ("weight", "bias")}
    if tower:
        inner = model.model.vision_tower.state_dict()
        found |= {
            f"model.vision_tower.vision_tower.vision_model.{name.removeprefix('vision_model.')}": one
            for name, one in inner.items()
        }
    return {name: one.clone() for name, one in found.items()}


def liuhaotian_folder(folder, model, tower, *, with_tower=True, shards=1):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(liuhaotian_config(model, tower)))
    tensors = liuhaotian_tensors(model, tower=with_tower)
    names = sorted(tensors)
    index = {}
    for number in range(shards):
        file = "pytorch_model.bin" if shards == 1 else f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = {name: tensors[name] for name in names[number::shards]}
        torch.save(part, folder / file)
        index |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    tokenizer_files(folder)
    return folder


@pytest.mark.parametrize("with_tower", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_llavas_own_layout_becomes_hugging_faces(tmp_path, capsys, with_tower, shards):
    model = truth()
    tower = tower_folder(tmp_path / "clip", model)
    source = liuhaotian_folder(tmp_path / "src", model, tower, with_tower=with_tower, shards=shards)
    assert run(source, tmp_path / "dst", "--to", "hf") == 0
    assert "differ by at most 0" in capsys.readouterr().out
    assert same(tmp_path / "dst", model)
    written = json.loads((tmp_path / "dst" / "preprocessor_config.json").read_text())
    assert written["image_mean"] == PIXELS["image_mean"]


def test_there_and_back_is_the_same_file(tmp_path):
    model = truth()
    tower = tower_folder(tmp_path / "clip", model)
    source = liuhaotian_folder(tmp_path / "src", model, tower)
    assert run(source, tmp_path / "hf", "--to", "hf") == 0
    assert run(tmp_path / "hf", tmp_path / "back", "--to", "liuhaotian", "--tower", tower) == 0
    again, first = read_folder(tmp_path / "back"), read_folder(source)
    assert again.keys() == first.keys()
    for name, value in first.items():
        assert torch.equal(again[name], value), name
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    for name, value in liuhaotian_config(model, tower).items():
        if name.startswith("mm_") or name in ("model_type", "hidden_size", "image_aspect_ratio"):
            assert config[name] == value, name


KEY_LAYOUTS = {
    "the hub's": lambda name: name,
    "transformers 4.52": lambda name: (
        name.replace("language_model.lm_head.", "lm_head.")
        if name.startswith("language_model.lm_head.")
        else "model." + name.replace("language_model.model.", "language_model.")
    ),
}


@pytest.mark.parametrize("layout", [*KEY_LAYOUTS, "as transformers 5 saves"])
def test_the_key_layouts_of_hugging_face_are_read(tmp_path, layout):
    from safetensors.torch import save_file

    model = truth()
    source = liuhaotian_folder(tmp_path / "src", model, tower_folder(tmp_path / "clip", model))
    assert run(source, tmp_path / "hf", "--to", "hf") == 0
    if layout in KEY_LAYOUTS:
        stored = {KEY_LAYOUTS[layout](name): one for name, one in read_folder(tmp_path / "hf").items()}
        save_file(stored, tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})
    else:
        LlavaForConditionalGeneration.from_pretrained(tmp_path / "hf").save_pretrained(tmp_path / "hf")
    family = build_family({"pretrained": str(tmp_path / "hf")})
    loaded = family.build_model(family.build_processor({}))
    image = loaded.config.image_token_id
    model.config.image_token_id = model.model.config.image_token_id = image
    torch.testing.assert_close(logits(loaded, image), logits(model, image))


def test_version_one_keeps_its_linear_projector_and_its_tokens(tmp_path):
    model = truth()
    tower = tower_folder(tmp_path / "clip", model)
    source = liuhaotian_folder(tmp_path / "src", model, tower)
    tensors = {k: v for k, v in torch.load(source / "pytorch_model.bin").items() if "mm_projector" not in k}
    linear = torch.nn.Linear(16, 32)
    tensors |= {f"model.mm_projector.{name}": value.detach() for name, value in linear.state_dict().items()}
    tokenizer = tiny.processor().tokenizer
    new = ["<im_patch>", "<im_start>", "<im_end>"]
    tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)
    tokenizer.save_pretrained(source)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.randn(3, 32)])
    torch.save(tensors, source / "pytorch_model.bin")
    changes = {"mm_use_im_start_end": True, "vocab_size": TOKENS + 3, "mm_projector_type": "linear"}
    (source / "config.json").write_text(json.dumps(liuhaotian_config(model, tower, **changes)))
    assert run(source, tmp_path / "dst", "--to", "hf") == 0
    family = build_family({"pretrained": str(tmp_path / "dst")})
    assert type(family).__name__ == "LLaVAv1"
    processor = family.build_processor({})
    ids = processor.tokenizer.convert_tokens_to_ids(new)
    assert processor.image_ids((28, 28)) == [ids[1], *[ids[0]] * 4, ids[2]]
    loaded = family.build_model(processor)
    assert torch.equal(loaded.model.multi_modal_projector.weight, linear.weight)
    assert torch.equal(loaded.get_input_embeddings().weight, tensors["model.embed_tokens.weight"])


def _lora_folder(folder, model, tower, base):
    """LLaVA's LoRA folder by peft on the language model, and the model with the adapters merged by peft."""
    from peft import LoraConfig, get_peft_model

    language = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    tuned = get_peft_model(language, config)
    tuned.save_pretrained(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(base)}))
    (folder / "config.json").write_text(json.dumps(liuhaotian_config(model, tower)))
    projector = {n: v for n, v in liuhaotian_tensors(model, tower=False).items() if "mm_projector" in n}
    torch.save({f"base_model.model.{n}": v for n, v in projector.items()}, folder / "non_lora_trainables.bin")
    merged = tuned.merge_and_unload()
    model.model.language_model.load_state_dict(merged.model.state_dict())
    return folder


def test_a_lora_folder_of_llava_is_merged_as_peft_does(tmp_path, capsys):
    model = truth()
    tower, base = tower_folder(tmp_path / "clip", model), language_folder(tmp_path / "vicuna", model)
    source = _lora_folder(tmp_path / "lora", model, tower, base)
    assert run(source, tmp_path / "dst", "--to", "hf") == 0
    assert "10 of them trained" in capsys.readouterr().out  # 2 layers × 3 adapters, 4 tensors of the projector
    assert same(tmp_path / "dst", model)


def test_a_lora_folder_on_another_base_is_refused(tmp_path, capsys):
    model = truth()
    tower, base = tower_folder(tmp_path / "clip", model), language_folder(tmp_path / "vicuna", model)
    source = _lora_folder(tmp_path / "lora", model, tower, base)
    config = LlavaConfig(**{**CONFIG, "text_config": {**CONFIG["text_config"], "hidden_size": 64}})
    other = language_folder(tmp_path / "other", LlavaForConditionalGeneration(config))
    assert "changes (32, 64)" in error_of(capsys, source, tmp_path / "dst", "--to", "hf", "--base", other)
    assert not (tmp_path / "dst").exists()


@pytest.fixture
def lora_run(tmp_path):
    """A run of ours: adapters and projector trained a little on a base in Hugging Face's layout."""
    model = truth()
    base = tmp_path / "base"
    source = liuhaotian_folder(tmp_path / "src", model, tower_folder(tmp_path / "clip", model))
    assert run(source, base, "--to", "hf") == 0
    family = build_family({"pretrained": str(base)})
    processor = family.build_processor({})
    tuned = family.build_model(processor, Tuning.from_config({"lora": {"r": 4, "modules_to_save": ["projector"]}}))
    torch.manual_seed(5)
    with torch.no_grad():
        for value in tuned.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn_like(value))
    family.save_weights(tuned, None, tmp_path / "run")
    processor.save_pretrained(tmp_path / "run")
    return tmp_path / "run", tuned


def test_a_run_with_adapters_is_merged_without_loss(lora_run, tmp_path):
    folder, tuned = lora_run
    assert run(folder, tmp_path / "dst", "--to", "merged") == 0
    assert same(tmp_path / "dst", tuned)


def test_a_run_on_a_quantised_base_is_merged_into_whole_weights(tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs pip install 'mllm[quant]'")
    model = truth()
    source = liuhaotian_folder(tmp_path / "src", model, tower_folder(tmp_path / "clip", model))
    assert run(source, tmp_path / "base", "--to", "hf") == 0
    family = build_family({"pretrained": str(tmp_path / "base")})
    processor = family.build_processor({}, {"second_pass": {"max_new_tokens": 2}})
    tuning = {"quantize": "nf4", "lora": {"r": 4, "modules_to_save": ["projector"]}}
    tuned = family.build_model(processor, Tuning.from_config(tuning))
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            if "lora_B" in name:
                value.add_(0.1)
    family.save_weights(tuned, None, tmp_path / "run")
    processor.save_pretrained(tmp_path / "run")
    assert run(tmp_path / "run", tmp_path / "dst", "--to", "merged") == 0
    merged, base = read_folder(tmp_path / "dst"), read_folder(tmp_path / "base")
    assert {name: (one.shape, one.dtype) for name, one in merged.items()} == {
        name: (one.shape, one.dtype) for name, one in base.items()
    }
    changed = {name for name, one in merged.items() if not torch.equal(one, base[name])}
    assert changed == {name for name in base if "language_model" in name and "_proj.weight" in name}
    assert "second_pass" not in (tmp_path / "dst" / "mllm_processor.json").read_text()  # no adapters to switch off
    assert run(tmp_path / "run", tmp_path / "again", "--to", "adapter") == 0


def test_a_run_with_adapters_becomes_llavas_lora_folder(lora_run, tmp_path):
    from peft import PeftModel

    folder, tuned = lora_run
    assert run(folder, tmp_path / "dst", "--to", "liuhaotian", "--tower", tmp_path / "clip") == 0
    others = torch.load(tmp_path / "dst" / "non_lora_trainables.bin", weights_only=True)
    prefix = "base_model.model.model.mm_projector."
    assert sorted(others) == [f"{prefix}{n}.{kind}" for n in (0, 2) for kind in ("bias", "weight")]
    base = language_folder(tmp_path / "vicuna", truth())
    language = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "dst").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        found, expected = language(ids).logits, tuned.eval()(input_ids=ids).logits
    torch.testing.assert_close(found, expected)
    assert run(tmp_path / "dst", tmp_path / "again", "--to", "hf", "--base", base) == 0
    assert same(tmp_path / "again", tuned)


def test_a_tied_model_goes_to_llavas_layout_and_back(tmp_path):
    family = build_family({"type": "LLaVA", "pretrained": "asset:toy_llava"})
    processor = family.build_processor({})
    model = family.build_model(processor)
    family.save_weights(model, None, tmp_path / "hf")
    processor.save_pretrained(tmp_path / "hf")
    assert run(tmp_path / "hf", tmp_path / "own", "--to", "liuhaotian") == 0
    model.config.vision_config.save_pretrained(tmp_path / "tower")
    assert run(tmp_path / "own", tmp_path / "again", "--to", "hf", "--tower", tmp_path / "tower") == 0
    first, again = (read_folder(tmp_path / name) for name in ("hf", "again"))
    for name in set(first) & set(again):
        assert torch.equal(first[name], again[name]), name
    assert {name.replace("lm_head", "") for name in first} == {name.replace("lm_head", "") for name in again}


def test_a_projector_alone_goes_out_and_in(lora_run, tmp_path):
    folder, tuned = lora_run
    assert run(folder, tmp_path / "dst", "--to", "projector") == 0
    stored = torch.load(tmp_path / "dst" / "mm_projector.bin", weights_only=True)
    assert sorted(stored) == [f"model.mm_projector.{n}.{kind}" for n in (0, 2) for kind in ("bias", "weight")]
    base = language_folder(tmp_path / "vicuna", truth())
    pair = {"type": "LLaVA", "vision_tower": str(tmp_path / "clip"), "language_model": str(base)}
    family = build_family({**pair, "projector": str(tmp_path / "dst" / "mm_projector.bin")})
    model = family.build_model(family.build_processor(tiny.CONVERSATION))
    for name, value in tuned.model.multi_modal_projector.state_dict().items():
        assert torch.equal(model.model.multi_modal_projector.state_dict()[name], value)


def internlm2_folder(folder, model):
    """The language model as InternLM2: rows of wqkv ordered as in its attention's own rearrangement."""
    folder.mkdir()
    text = model.config.text_config
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = {name: getattr(text, name) for name in (*kept, "num_key_value_heads", "max_position_embeddings")}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "internlm2", "rms_norm_eps": 1e-6}))
    found = {"output.weight": model.lm_head.weight.detach()}
    names = {
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    state = model.model.language_model.state_dict()
    found |= {"model.tok_embeddings.weight": state["embed_tokens.weight"], "model.norm.weight": state["norm.weight"]}
    for number in range(text.num_hidden_layers):
        layer = f"layers.{number}."
        q, k, v = (state[f"{layer}self_attn.{one}_proj.weight"] for one in "qkv")
        # one key head here: its queries, then the key, then the value
        found[f"model.{layer}attention.wqkv.weight"] = torch.cat([q, k, v])
        for ours, theirs in names.items():
            found[f"model.{layer}{theirs}.weight"] = state[f"{layer}{ours}.weight"]
    torch.save({name: one.clone() for name, one in found.items()}, folder / "pytorch_model.bin")
    tokenizer_files(folder)
    return folder


def test_internlm2_computes_the_same_as_llama(tmp_path):
    model = truth()
    source = internlm2_folder(tmp_path / "internlm2", model)
    assert run(source, tmp_path / "llama", "--to", "hf") == 0
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "llama").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(input_ids=ids).logits)


def test_wqkv_is_split_as_internlm2s_attention_does():
    config = {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 24}
    weight, x = torch.randn(2 * (3 + 2) * 4, 24), torch.randn(24)
    # modeling_internlm2.py: "b q (h gs d) -> b q h gs d"; queries are all but the last two of gs, then key, then value.
    states = (weight @ x).reshape(2, 5, 4)
    q, k, v = split_wqkv(weight, config)
    torch.testing.assert_close(q @ x, states[:, :3].reshape(-1))
    torch.testing.assert_close(k @ x, states[:, -2].reshape(-1))
    torch.testing.assert_close(v @ x, states[:, -1].reshape(-1))


def xtuner_state(model, *, seed=6):
    """LoRA on InternLM2 (wqkv and the output head too) and on CLIP, projector whole; and the merged model."""
    torch.manual_seed(seed)
    text, lora = model.config.text_config, {}
    rows = 32 + 2 * 16
    deltas = {}
    for name, shape in {"model.layers.0.attention.wqkv": (rows, 32), "output": (TOKENS, 32)}.items():
        low, high = torch.randn(4, shape[1]), torch.randn(shape[0], 4)
        lora[f"llm.base_model.model.{name}.lora_A.default.weight"] = low
        lora[f"llm.base_model.model.{name}.lora_B.default.weight"] = high
        deltas[name] = 16 / 4 * high @ low
    low, high = torch.randn(2, 16), torch.randn(16, 2)
    tower = "visual_encoder.base_model.model.vision_model.encoder.layers.0.self_attn.q_proj"
    lora |= {f"{tower}.lora_A.default.weight": low, f"{tower}.lora_B.default.weight": high}
    projector = {f"projector.model.{n}.{kind}": torch.randn(shape) for n, kind, shape in _projector_shapes()}
    with torch.no_grad():
        layer = model.model.language_model.layers[0].self_attn
        q, k, v = deltas["model.layers.0.attention.wqkv"].split([32, 16, 16])
        for part, delta in ((layer.q_proj, q), (layer.k_proj, k), (layer.v_proj, v)):
            part.weight += delta
        model.lm_head.weight += deltas["output"]
        encoder = model.model.vision_tower
        encoder = getattr(encoder, "vision_model", encoder).encoder
        encoder.layers[0].self_attn.q_proj.weight += 8 / 2 * high @ low
        for n, linear in ((0, "linear_1"), (2, "linear_2")):
            part = getattr(model.model.multi_modal_projector, linear)
            part.weight.copy_(projector[f"projector.model.{n}.weight"])
            part.bias.copy_(projector[f"projector.model.{n}.bias"])
    assert text.num_key_value_heads == 1
    return {**lora, **projector}


def _projector_shapes():
    return [(0, "weight", (32, 16)), (0, "bias", (32,)), (2, "weight", (32, 32)), (2, "bias", (32,))]


XTUNER_CONFIG = """
model = dict(
    llm_lora=dict(type='peft.LoraConfig', r=4, lora_alpha=16, lora_dropout=0.05),
    visual_encoder_lora=dict(type='peft.LoraConfig', r=2, lora_alpha=8),
)
"""


def test_xtuners_pth_with_its_history_is_read(tmp_path, capsys):
    from mmengine.logging.history_buffer import HistoryBuffer

    model = truth()
    base, tower = internlm2_folder(tmp_path / "internlm2", model), tower_folder(tmp_path / "clip", model)
    state = xtuner_state(model)
    hub = {"log_scalars": {"train/loss": HistoryBuffer([1.0, 0.5], [1, 1])}}
    content = {"state_dict": state, "meta": {"cfg": XTUNER_CONFIG, "iter": 2}, "message_hub": hub}
    torch.save(content, tmp_path / "iter_2.pth")
    words = [tmp_path / "iter_2.pth", tmp_path / "dst", "--to", "hf", "--base", base]
    assert "--tower" in error_of(capsys, *words)
    assert run(*words, "--tower", tower) == 0
    assert same(tmp_path / "dst", model)
    template = json.loads((tmp_path / "dst" / "mllm_processor.json").read_text())["conversation"]["template"]
    assert template == "internlm2_chat"


def test_xtuners_converted_folder_is_read(tmp_path):
    from safetensors.torch import save_file

    model = truth()
    base, tower = internlm2_folder(tmp_path / "internlm2", model), tower_folder(tmp_path / "clip", model)
    state = xtuner_state(model)
    folder = tmp_path / "converted"
    parts = {
        "projector": ("model.safetensors", "projector.", None),
        "llm_adapter": ("adapter_model.safetensors", "llm.", {"r": 4, "lora_alpha": 16}),
        "visual_encoder_adapter": ("adapter_model.bin", "visual_encoder.", {"r": 2, "lora_alpha": 8}),
    }
    for name, (file, prefix, settings) in parts.items():
        (folder / name).mkdir(parents=True)
        tensors = {
            n.removeprefix(prefix).replace(".default.", "."): v for n, v in state.items() if n.startswith(prefix)
        }
        (torch.save if file.endswith("bin") else save_file)(tensors, folder / name / file)
        if settings:
            (folder / name / "adapter_config.json").write_text(json.dumps(settings))
    assert run(folder, tmp_path / "dst", "--to", "hf", "--base", base, "--tower", tower) == 0
    assert same(tmp_path / "dst", model)


class _Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pth_with_foreign_code_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"state_dict": {}, "x": _Evil()}, tmp_path / "iter_1.pth")
    (tmp_path / "config.json").write_text("{}")
    words = (tmp_path / "iter_1.pth", tmp_path / "dst", "--to", "hf", "--base", tmp_path, "--tower", tmp_path)
    assert run(*words) != 0
    shown = capsys.readouterr()
    assert "foreign code" in shown.err
    assert "run" not in shown.out


def test_another_base_of_the_same_shape_is_caught_by_its_digest(lora_run, tmp_path):
    folder, _ = lora_run
    other = build_family({"pretrained": str(tmp_path / "base")})
    processor = other.build_processor({})
    model = other.load_model(processor)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    from mllm.models.tuning import tune

    tune(model, other, None)
    other.save_weights(model, None, tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    family = build_family({"pretrained": str(folder), "base": str(tmp_path / "other")})
    with pytest.raises(CheckpointError, match="was trained on another base model"):
        family.build_model(family.build_processor({}))
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"which is not there: name the place of its base by model_args\.base"):
        build_family({"pretrained": str(folder)})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--to", "gguf"), "--to gguf: unknown; known: adapter, hf"),
        (("--to", "adapter"), "holds no adapters"),
        (("--to", "hf"), "is there already"),
        (("--to", "merged"), "holds no adapters; --to hf writes its weights"),
        (("--to", "hf", "--base", "/gone"), "--base /gone: no config.json there"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(tmp_path, capsys, words, expected):
    model = truth()
    source = liuhaotian_folder(tmp_path / "src", model, tower_folder(tmp_path / "clip", model))
    target = tmp_path / ("clip" if words == ("--to", "hf") else "dst")
    assert expected.split(";")[0] in error_of(capsys, source, target, *words)
    assert not (tmp_path / "dst").exists()


def test_an_unknown_folder_and_a_missing_tower_are_named(tmp_path, capsys):
    assert "no such folder" in error_of(capsys, tmp_path / "nothing", tmp_path / "dst", "--to", "hf")
    (tmp_path / "empty").mkdir()
    assert "none that can be read" in error_of(capsys, tmp_path / "empty", tmp_path / "dst", "--to", "hf")
    source = liuhaotian_folder(tmp_path / "src", truth(), "openai/clip-vit-large-patch14-336")
    assert "give it by --tower" in error_of(capsys, source, tmp_path / "dst", "--to", "hf")


def test_a_projector_of_another_family_and_a_broken_file_are_named(tmp_path, capsys):
    family = build_family(PHI)
    processor = family.build_processor(tiny.CONVERSATION)
    family.save_weights(family.build_model(processor), None, tmp_path / "phi")
    processor.save_pretrained(tmp_path / "phi")
    fault = error_of(capsys, tmp_path / "phi", tmp_path / "dst", "--to", "projector")
    assert "--to projector is LLaVA's" in fault
    (tmp_path / "phi" / "model.safetensors").write_bytes(b"1234567890")
    assert "model.safetensors" in error_of(capsys, tmp_path / "phi", tmp_path / "dst", "--to", "hf")
    (tmp_path / "phi" / "config.json").write_text("{")
    assert "cannot be read" in error_of(capsys, tmp_path / "phi", tmp_path / "dst", "--to", "hf")
    assert not (tmp_path / "dst").exists()


def test_a_tensor_too_many_or_too_few_is_refused(tmp_path, capsys):
    model = truth()
    source = liuhaotian_folder(tmp_path / "src", model, tower_folder(tmp_path / "clip", model))
    tensors = torch.load(source / "pytorch_model.bin")
    torch.save({**tensors, "model.extra.weight": torch.zeros(2)}, source / "pytorch_model.bin")
    assert "1 tensors are unknown" in error_of(capsys, source, tmp_path / "dst", "--to", "hf")
    tensors.pop("model.norm.weight")
    torch.save(tensors, source / "pytorch_model.bin")
    assert "1 tensors are missing" in error_of(capsys, source, tmp_path / "dst", "--to", "hf")
