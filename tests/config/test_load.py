"""Reading a config file: names, bases, values, plug-ins."""

import os
import subprocess
import sys

import pytest

from mllm.config.find import find_config, first_line, inherited_files, list_configs
from mllm.config.load import load_file
from mllm.errors import ConfigError

# Not a conftest.py: other tests import the one above by its name.
pytest_plugins = ("config_fixtures",)


def test_imported_names_functions_classes_and_helpers_are_no_keys(workspace):
    path = workspace(
        "a.py",
        """
        import os, math as m
        from math import pi
        from pathlib import Path
        from fractions import Fraction
        def helper(): return 3
        class Thing: ...
        _width = 4
        training_args = dict(seed=helper() + _width, size=pi)
        """,
    )
    assert load_file(path) == {"training_args": {"seed": 7, "size": pytest.approx(3.14159, abs=1e-4)}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainig_args = dict(a=1)", "did you mean 'training_args'"),
        ("data_root = 'data'", "names of helpers begin with _"),
        (
            "class Thing: ...\nmodel_args = dict(type=Thing)",
            r"model_args.type: a class; write its name as text: 'Thing'",
        ),
        ("model_args = dict(f=[1, len])", r"model_args.f.1: .*builtin"),
        ("model_args = dict(f={1, 2})", "of type set"),
        ("model_args = dict(f={(1, 2): 3})", "key .* of type tuple"),
        ("model_args = [1]", "must be a dict"),
        ("model_args = dict(", r"a.py:1: not valid Python"),
        ("model_args = dict(a=1/0)", "ZeroDivisionError"),
        ("model_args = dict(a=undefined)", "NameError.*undefined"),
        ("model_args = dict(a={}['x'])", "'?x"),
        ("from nowhere_at_all import x", "nowhere_at_all"),
        ("_base_ = 'missing.py'", "_base_ names 'missing.py'"),
        ("_base_ = 'a.py'", "inherits itself"),
        ("_base_ = [n for n in 'ab']", r"a.py:1: _base_ must be written out"),
        ("custom_imports = dict(imports=['nowhere_at_all'])", "'nowhere_at_all' could not be imported"),
        ("custom_imports = dict(imports=['json'], allow_failed_imports=True)", "not supported"),
        ("custom_imports = dict(modules=['json'])", "expected dict"),
    ],
)
def test_what_no_config_may_hold_is_an_error_in_one_sentence(workspace, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_file(workspace("a.py", text))
    assert "\n" not in str(caught.value)


def test_the_same_section_in_two_bases_is_an_error(workspace):
    workspace("b.py", "model_args = dict(a=1)")
    workspace("c.py", "model_args = dict(b=1)")
    with pytest.raises(ConfigError, match="two files of one _base_ list set 'model_args'"):
        load_file(workspace("a.py", "_base_ = ['b.py', 'c.py']"))


def test_a_leaf_overrides_and_delete_replaces(workspace):
    workspace("b.py", "model_args = dict(type='A', a=1)\ntraining_args = dict(seed=1, max_steps=2)")
    path = workspace(
        "a.py", "_base_ = 'b.py'\nmodel_args = dict(_delete_=True, type='B')\ntraining_args = dict(seed=5)"
    )
    assert load_file(path) == {"model_args": {"type": "B"}, "training_args": {"seed": 5, "max_steps": 2}}


def test_custom_imports_find_modules_beside_the_config(workspace, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    workspace("sub/my_own_plugin_module.py", "LOADED = True")
    load_file(workspace("sub/a.py", "custom_imports = dict(imports=['my_own_plugin_module'])"))
    assert sys.modules.pop("my_own_plugin_module").LOADED


def test_a_plugin_with_a_librarys_name_is_refused_and_libraries_are_not_shadowed(workspace, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    workspace("sub/colorsys.py", "LOADED = True")
    with pytest.raises(ConfigError, match="give your module another name"):
        load_file(workspace("sub/a.py", "custom_imports = dict(imports=['colorsys'])"))


@pytest.mark.parametrize("name", ["config/leaf.py", "config/leaf", "leaf", "leaf.py", "./config/leaf.py"])
def test_a_config_is_found_by_path_and_by_name(leaf, name):
    assert find_config(name).resolve() == leaf


def test_a_missing_config_gets_near_names(leaf):
    with pytest.raises(ConfigError, match="did you mean 'leaf'"):
        find_config("config/leav.py")
    with pytest.raises(ConfigError, match="not found"):
        find_config("zzzzzz")


def test_a_folder_is_no_config(leaf):
    with pytest.raises(ConfigError, match="not found"):
        find_config("config")


def test_the_working_tree_comes_before_the_package(leaf, workspace, monkeypatch, tmp_path):
    shipped = tmp_path / "installed"
    workspace("installed/leaf.py", "# the package's\nmodel_args = {}")
    workspace("installed/other.py", "# the package's other\nmodel_args = {}")
    monkeypatch.setattr("mllm.config.find.shipped_folder", lambda name: shipped)
    assert find_config("leaf").resolve() == leaf
    assert find_config("other") == shipped / "other.py"
    assert find_config("config/other.py") == shipped / "other.py"
    assert {name: first_line(path) for name, path in list_configs().items()} == {
        "leaf": "A leaf for tests.",
        "other": "the package's other",
    }


def test_inherited_files_come_once_and_before_the_leaf(workspace):
    workspace("x.py", "")
    workspace("y.py", "_base_ = 'x.py'")
    path = workspace("a.py", "_base_ = ['x.py', './y.py']")
    assert [one.name for one in inherited_files(path)] == ["x.py", "y.py", "a.py"]


def test_an_environment_variable_is_read_and_stdout_stays_clean(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("data_args = dict(train=dict(type='ItemJsonl', path='{{$SOME_ROOT:data}}/a.jsonl'))\n")
    program = (
        "from pathlib import Path; from mllm.config import load_file\n"
        f"print(load_file(Path({str(path)!r}))['data_args']['train']['path'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "SOME_ROOT": "elsewhere"}
    )
    assert done.stdout == "elsewhere/a.jsonl\n", done.stderr
