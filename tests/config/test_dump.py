"""dump → load equals, for strange values and for every shipped config; secrets do not get out."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm.config import dump_config, list_configs, load_file
from mllm.config.dump import config_text

STRANGE = {
    "model_args": {
        "type": "A",
        "inf": math.inf,
        "minus": [-math.inf, 1e-300, 5e-324, -0.0],
        "none": None,
        "tuples": ((), (1,), (1, (2, [3, ()]))),
        "empty": [{}, [], ""],
        "text": "quotes ' \" ''' \"\"\" \\ newline \n tab \t end \\",
        "unicode": "箱 \u202e \ud800 \x00",
        "templates": "{{ fileDirname }} {{ _base_.a }} {{$HOME:x}} {{{{ {{{",
        "class": "keyword as key",
        "not an identifier": 1,
        "{{ fileBasename }}": 2,
        "numbers": {1: "a", 2.5: "b", False: "c", None: "d"},
        "nested": {f"key_{i}": {"values": list(range(20)), "more": {"x": [{"y": (1.5, None)}] * 3}} for i in range(3)},
    },
    "training_args": {"output_dir": "it's", "hub_token": None},
}


def test_strange_values_load_back_equal(tmp_path):
    dump_config(STRANGE, tmp_path / "config.py")
    loaded = load_file(tmp_path / "config.py")
    assert repr(loaded) == repr(STRANGE)  # repr tells 1 from True, -0.0 from 0.0 and tuples from lists
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]


def test_a_mmengine_config_is_dumped_as_plain_values(tmp_path):
    from mmengine.config import Config

    dump_config(Config({"model_args": {"a": [{"b": (1, 2)}]}}), tmp_path / "config.py")
    assert (tmp_path / "config.py").read_text() == "model_args = dict(a=[dict(b=(1, 2))])\n"


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(alphabet="ab{}$:_ '\"\\\n箱"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(alphabet="ab{ }-", min_size=1), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(plain_values)
def test_any_plain_value_survives_as_python(value):
    namespace = {}
    exec(config_text({"model_args": value}), namespace)
    assert repr(namespace["model_args"]) == repr(value)


def test_secrets_are_not_written(tmp_path):
    dump_config(
        {"training_args": {"hub_token": "hf_abcdefghijklmnop", "run_name": "x"}, "model_args": {"pad_token": "<pad>"}},
        tmp_path / "config.py",
    )
    assert load_file(tmp_path / "config.py") == {
        "training_args": {"hub_token": "***", "run_name": "x"},
        "model_args": {"pad_token": "<pad>"},
    }


@pytest.mark.parametrize("name", list(list_configs()) or ["none"])
def test_every_shipped_config_survives_dump_and_load(name, tmp_path, monkeypatch):
    if name == "none":
        pytest.skip("no config ships")
    monkeypatch.setattr(sys, "path", list(sys.path))
    values = load_file(list_configs()[name])
    dump_config(values, tmp_path / "config.py")
    assert repr(load_file(tmp_path / "config.py")) == repr(values)
