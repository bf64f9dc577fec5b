"""``--cfg-options``: values as written, keys that exist."""

import math

import pytest

from mllm.config.options import Option, apply_options, init_parameters, parse_option, parse_value
from mllm.errors import ConfigError

# Not a conftest.py: other tests import the one above by its name.
pytest_plugins = ("config_fixtures",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e-5", 1e-5),
        (".5", 0.5),
        ("inf", math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("None", None),
        ("none", "none"),
        ("no", "no"),
        ("", ""),
        ("007", "007"),
        ("1_000", "1_000"),
        ("1.2.3", "1.2.3"),
        ("data/a=b.json", "data/a=b.json"),
        ("[1, 2]", [1, 2]),
        ("[1,null,true]", [1, None, True]),
        ("['a', None]", ["a", None]),
        ('{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ("(1, 2)", (1, 2)),
        ("1,2", [1, 2]),
        ("a,b", "a,b"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
    ],
)
def test_values_are_what_was_written(text, value):
    parsed = parse_value(text, "key")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["[1, 2", "{'a': open('x')}", "[" * 5000, "(a, b)"])
def test_a_broken_list_is_an_error_and_nothing_is_evaluated(text):
    with pytest.raises(ConfigError, match="cannot read"):
        parse_value(text, "key")


@pytest.mark.parametrize("text", ["a.b", "=1", "a..b=1", ".a=1", "+=1"])
def test_an_option_without_key_or_value_is_an_error(text):
    with pytest.raises(ConfigError, match=r"expected key\.key=value"):
        parse_option(text)


def test_only_the_first_equals_sign_divides():
    assert parse_option("+a.b=c=d") == Option(("a", "b"), "c=d", add=True)


def config():
    return {
        "training_args": {"learning_rate": 1e-3},
        "model_args": {"type": "ThrowawayModel", "width": 7, "lora": None},
        "data_args": {"train": {"type": "Mixture2", "datasets": [{"type": "ThrowawayData", "count": 1}]}},
        "generation": {"max_new_tokens": 8},
    }


@pytest.mark.parametrize(
    ("option", "path", "value"),
    [
        ("model_args.width=9", ("model_args", "width"), 9),
        ("model_args.depth=3", ("model_args", "depth"), 3),
        ("model_args.rank=4", ("model_args", "rank"), 4),
        ("model_args.lora=null", ("model_args", "lora"), None),
        ("model_args={'type': 'Other'}", ("model_args",), {"type": "Other"}),
        ("data_args.train.datasets.0.count=5", ("data_args", "train", "datasets", 0, "count"), 5),
        ("data_args.train.datasets.0.path=y", ("data_args", "train", "datasets", 0, "path"), "y"),
        ("+data_args.train.datasets.1=null", ("data_args", "train", "datasets", 1), None),
        ("training_args.seed=3", ("training_args", "seed"), 3),
        ("generation.num_beams=4", ("generation", "num_beams"), 4),
        ("conversation.template=plain", ("conversation", "template"), "plain"),
        ("+model_args.brand_new=1", ("model_args", "brand_new"), 1),
        ("+model_args.lora.r=8", ("model_args", "lora", "r"), 8),
        ("+training_args.fsdp_config.version=2", ("training_args", "fsdp_config", "version"), 2),
    ],
)
def test_known_keys_and_added_ones_are_set(registered, option, path, value):
    cfg = config()
    apply_options(cfg, [parse_option(option)], ["seed", "learning_rate", "fsdp_config"])
    for key in path:
        cfg = cfg[key]
    assert cfg == value


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model_args.widht=9", "did you mean 'width'"),
        ("model_args.dept=9", "did you mean 'depth'"),
        ("modelargs.width=9", "did you mean 'model_args'"),
        ("+brand_new=9", "the config has no 'brand_new'"),
        ("training_args.learning_rat=1", "did you mean 'learning_rate'"),
        ("generation.num_beam=4", "did you mean 'num_beams'"),
        ("data_args.tarin.type=X", "did you mean 'train'"),
        ("data_args.train.datasets.0.cuont=5", "did you mean 'count'"),
        ("data_args.train.datasets.1.count=5", "'1' is no position in a list of 1"),
        ("data_args.train.datasets.x=5", "'x' is no position"),
        ("data_args.train.datasets.-1.count=5", "no position"),
        ("model_args.width.deep=5", "model_args.width is 7 and has no keys"),
        ("model_args.lora.r=8", r"write \+model_args.lora.r"),
        ("model_args=3", "holds a dict"),
    ],
)
def test_unknown_keys_stop_with_the_nearest_name(registered, option, message):
    cfg = config()
    with pytest.raises(ConfigError, match=message):
        apply_options(cfg, [parse_option(option)], ["learning_rate"])
    assert cfg == config()


def test_a_wrong_type_is_named(registered):
    cfg = {"model_args": {"type": "ThrowawayMode"}}
    with pytest.raises(ConfigError, match="did you mean 'ThrowawayModel'"):
        apply_options(cfg, [parse_option("model_args.width=1")])


def test_base_classes_are_looked_at_only_behind_kwargs():
    class Base:
        def __init__(self, a): ...

    class Passes(Base):
        def __init__(self, b, **kwargs): ...

    class Closed(Base):
        def __init__(self, c): ...

    assert init_parameters(Passes) == ({"a", "b"}, True)
    assert init_parameters(Closed) == ({"c"}, True)
