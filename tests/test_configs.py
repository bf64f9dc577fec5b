"""Every shipped config loads, names only what exists, and comes back equal from a dump."""

import inspect

import pytest
from launch import REPOSITORY

from mllm.config import dump_config, load_file, resolve
from mllm.registry import REGISTRIES, check_arguments

LEAVES = sorted((REPOSITORY / "config").glob("*.py"))
PARTS = sorted((REPOSITORY / "config" / "_base_").rglob("*.py"))


def _names(paths):
    return [path.stem for path in paths]


@pytest.mark.parametrize("path", LEAVES, ids=_names(LEAVES))
def test_a_leaf_resolves_and_its_dump_loads_equal(path, tmp_path):
    resolved = resolve([str(path)])
    dump_config(resolved.config, tmp_path / "dumped.py")
    again = load_file(tmp_path / "dumped.py")
    assert again == resolved.values


@pytest.mark.parametrize("path", LEAVES, ids=_names(LEAVES))
def test_a_leaf_is_short_and_says_what_it_is(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 40 if "mini" in path.stem else len(lines) <= 30
    assert lines[0].startswith("# ")


def _typed(value, place):
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield place, value
        for key, one in value.items():
            yield from _typed(one, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _typed(one, f"{place}[{number}]")


def _registry(place):
    for word, name in (
        ("evaluators", "EVALUATORS"),
        ("formatter", "FORMATTERS"),
        ("template", "TEMPLATES"),
        ("transforms", "TRANSFORMS"),
        ("data_args", "DATASETS"),
        ("model_args", "MODELS"),
    ):
        if word in place:
            return REGISTRIES[name]
    raise AssertionError(place)


@pytest.mark.parametrize("path", LEAVES, ids=_names(LEAVES))
def test_every_type_is_registered_and_takes_its_arguments(path):
    found = 0
    for place, cfg in _typed(resolve([str(path)]).values, "cfg"):
        if ".tasks[" in place:  # completed by the conversation that holds it
            continue
        cls = _registry(place).get(cfg["type"])
        check_arguments(cls, {key: value for key, value in cfg.items() if key != "type"}, cfg["type"])
        assert inspect.isclass(cls)
        found += 1
    assert found > 3


def test_leaves_are_in_the_table_of_the_config_readme():
    table = (REPOSITORY / "config" / "README.md").read_text()
    for path in LEAVES:
        assert f"`{path.name}`" in table, path.name


def test_parts_are_used():
    text = "".join(path.read_text() for path in [*LEAVES, *PARTS])
    for path in PARTS:
        assert f"{path.parent.name}/{path.name}" in text, path
