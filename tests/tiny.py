"""A LLaVA small enough for any test, on the tokenizer that ships with the package."""

from mllm.registry import MODELS

CONVERSATION = {
    "template": "vicuna_v1.1",
    "formatter": {"type": "PlainFormatter"},
    "transforms": [{"type": "SquareCanvas"}, {"type": "Resize", "size": 28}],
    "max_length": 512,
}

MODEL_ARGS = {
    "type": "LLaVA",
    "tokenizer": "asset:toy_llava",
    "config": {
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": 300,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
        },
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    },
}

REC = {"type": "DrawnREC", "count": 8, "questions": "Where is <expr> in <image> ?"}
EVALUATORS = [{"type": "RECEvaluator"}]


def family(**changes):
    return MODELS.build({**MODEL_ARGS, **changes})


def processor(**changes):
    return family().build_processor({**CONVERSATION, **changes}, {"max_new_tokens": 8})


def config_text(output_dir, *, training_args=None, model_args=None, data_args=None, conversation=None, tune=None):
    """A config file's text: the tiny model on drawn expressions."""
    training = {
        "output_dir": str(output_dir),
        "do_train": True,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "max_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        **(training_args or {}),
    }
    rec_set = {"dataset": {**REC, "split": "val"}, "evaluators": EVALUATORS}
    data = {"train": {**REC, "count": 16}, "validation": rec_set, "test": rec_set, **(data_args or {})}
    return (
        f"training_args = {training!r}\nmodel_args = {model_args or MODEL_ARGS!r}\n"
        f"conversation = {conversation or CONVERSATION!r}\ndata_args = {data!r}\n"
        f"generation = dict(max_new_tokens=8)\ntune = {tune or dict(freeze=[])!r}\n"
    )
