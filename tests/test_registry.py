"""Registries: near names, no guessed imports, required methods, arguments."""

import pytest

from mllm.errors import ConfigError, choices
from mllm.registry import REGISTRIES, Registry, check_arguments


@pytest.fixture
def shapes(monkeypatch):
    registry = Registry("SHAPES", package="none", requires=("area",))
    monkeypatch.setattr(registry, "import_from_location", lambda: None)

    @registry.register_module()
    class Square:
        def __init__(self, side, colour="red"):
            self.side, self.colour = side, colour

        def area(self): ...

    return registry


def test_a_registered_class_is_built_with_defaults(shapes):
    square = shapes.build({"type": "Square", "side": 2}, colour="blue", side=9)
    assert (square.side, square.colour) == (2, "blue")
    assert shapes.names() == ["Square"]


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"type": "Sqare", "side": 1}, "'Sqare' is not registered in SHAPES; did you mean 'Square'"),
        ({"type": "square", "side": 1}, "did you mean 'Square'"),
        ({"type": "json", "side": 1}, "'json' is not registered"),
        ({"type": "json.decoder.Nothing"}, "module 'json.decoder' has no 'Nothing'"),
        ({"type": "nowhere.at.All"}, "'nowhere.at.All' could not be imported"),
        ({"type": "a b.c"}, "neither a registered name nor a dotted path"),
        ({"type": "fractions.Fraction"}, "cannot stand in SHAPES: it has no 'area'"),
        ({"type": 3}, "'type' must be a name, got 3"),
        ({"side": 1}, r"expected dict\(type=..., ...\)"),
        ("Square", r"expected dict\(type=..., ...\)"),
        ({"type": "Square"}, "Square needs the argument 'side'"),
        ({"type": "Square", "sidee": 1}, "Square takes no argument 'sidee'; did you mean 'side'"),
    ],
)
def test_a_wrong_config_is_one_sentence(shapes, cfg, message):
    with pytest.raises(ConfigError, match=message):
        shapes.build(cfg)


def test_a_dotted_name_imports(shapes):
    shapes.requires = ()
    assert shapes.build({"type": "fractions.Fraction", "numerator": 3}) == 3


def test_two_classes_of_one_name_are_an_error_the_same_one_twice_is_not(shapes):
    square = shapes.get("Square")
    shapes.register_module()(square)
    other = type("Square", (), {"area": None, "__module__": "elsewhere"})
    with pytest.raises(ConfigError, match=r"'Square' is registered twice in SHAPES: .* and elsewhere\.Square"):
        shapes.register_module()(other)
    shapes.register_module(force=True)(other)
    assert shapes.get("Square") is other


def test_a_class_without_the_required_methods_cannot_register(shapes):
    with pytest.raises(ConfigError, match="it has no 'area'"):
        shapes.register_module()(type("Line", (), {}))


def test_kwargs_take_any_argument():
    class Open:
        def __init__(self, a, **kwargs): ...

    check_arguments(Open, {"a": 1, "anything": 2}, "Open")


def test_a_plugin_that_fails_is_an_error(monkeypatch):
    import mllm.registry as module

    class Entry:
        name, value = "mine", "nowhere:x"

        def load(self):
            raise ImportError("no module named nowhere")

    monkeypatch.setattr(module, "_loaded_plugins", False)
    monkeypatch.setattr(module.metadata, "entry_points", lambda group: [Entry()])
    with pytest.raises(ConfigError, match=r"plug-in 'mine' \(nowhere:x\) could not be imported: no module"):
        module.load_plugins()


def test_the_six_registries():
    assert set(REGISTRIES) == {"DATASETS", "MODELS", "EVALUATORS", "FORMATTERS", "TEMPLATES", "TRANSFORMS"}


def test_choices_name_the_near_one_and_cut_long_lists():
    assert choices("seed", ["sead", "x"]) == "did you mean 'sead'? known: sead, x"
    assert choices("zzz", []) == "known: none"
    assert choices("zzz", map(str, range(20)), limit=2) == "known: 0, 1, … (20 in all)"
