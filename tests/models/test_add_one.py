"""The README's way of adding a model, done as it is told, outside of the repository."""

import re

import tiny
from launch import FINETUNE, REPOSITORY, checked, run


def test_the_model_of_the_readme_trains_and_predicts(tmp_path):
    text = (REPOSITORY / "mllm" / "models" / "README.md").read_text()
    code = re.search(r"## Add one.*?```python\n(.*?)```", text, re.DOTALL).group(1)
    assert len(code.strip().splitlines()) <= 40
    (tmp_path / "my_model.py").write_text(code)
    config = {name: value for name, value in tiny.MODEL_ARGS["config"].items() if not name.startswith("vision_feature")}
    config["vision_feature_layers"] = [-1, -2]
    model_args = {"type": "Captioner", "tokenizer": "asset:toy_llava", "config": config}
    written = tiny.config_text(tmp_path / "out", model_args=model_args, training_args={"do_predict": True})
    written = re.sub(r"^tune = .*$", "custom_imports = dict(imports=['my_model'])", written, flags=re.MULTILINE)
    (tmp_path / "config.py").write_text(written)
    done = checked(run([FINETUNE, tmp_path / "config.py"], cwd=tmp_path))
    assert "test  8" in done.stdout
    assert (tmp_path / "out" / "model.safetensors").is_file()
