"""What the README says is run: its commands, and its data set as a new user adds it."""

import ast
import json
import re
import sys

import pytest
from launch import FINETUNE, REPOSITORY, checked, run
from PIL import Image

from mllm.registry import DATASETS, check_arguments

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.S)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line]
QUICK = ["--do_eval", "false", "--do_predict", "false", "--do_multi_predict", "false", "--eval_on_start", "false"]


def _python(first_word):
    return next(block for kind, block in BLOCKS if kind == "python" and first_word in block)


def test_there_are_commands_and_code():
    assert len(COMMANDS) >= 5
    assert all(command.startswith("mllm ") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(command, tmp_path):
    done = checked(run(["-m", "mllm.cli.main", *command.split()[1:]], cwd=tmp_path))
    assert done.stdout.strip()


def test_links_point_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_the_data_set_of_the_readme_has_at_most_20_lines():
    lines = [line for line in _python("class MyBoxes").splitlines() if line.strip()]
    assert len(lines) <= 20


@pytest.fixture
def desk(tmp_path):
    """A new user's folder: pictures, boxes, the README's two files, the config it builds on."""
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(6):
        Image.new("RGB", (100, 80), (40 * number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
        rows.append({"file": f"{number}.png", "what": "the cup", "box": [number, 5, number + 30, 60]})
    (tmp_path / "boxes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_data.py").write_text(_python("class MyBoxes"))
    (tmp_path / "my_run.py").write_text(_python("custom_imports"))
    checked(run(["-m", "mllm.cli.main", "copy-cfg", "toy_rec_llava", "."], cwd=tmp_path))
    return tmp_path


def test_the_data_set_of_the_readme_trains_from_outside_the_repository(desk):
    checked(run([FINETUNE, "my_run.py", "--max_steps", "2", *QUICK], cwd=desk))
    history = json.loads((desk / "work_dirs" / "my_run" / "trainer_state.json").read_text())
    assert history["global_step"] == 2


def test_a_dotted_type_needs_no_import_line(desk):
    options = ["--cfg-options", "data_args.train.type=my_data.MyBoxes", "custom_imports=None"]
    checked(run([FINETUNE, "my_run.py", "--max_steps", "1", *QUICK, *options], cwd=desk))


def test_an_entry_point_fills_the_registry(desk, monkeypatch):
    package = desk / "site" / "my_plugin-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[mllm.plugins]\nmine = my_data\n")
    code = "from mllm.registry import DATASETS; print('MyBoxes' in DATASETS.names())"
    path = f"import sys; sys.path[:0] = [{str(desk)!r}, {str(desk / 'site')!r}]; "
    assert checked(run(["-c", path + code])).stdout.strip() == "True"
    (package / "entry_points.txt").write_text("[mllm.plugins]\nmine = gone_module\n")
    done = run(["-c", path + code])
    assert done.returncode != 0
    assert "plug-in 'mine' (gone_module) could not be imported" in done.stderr


def test_the_evaluator_of_the_package_readme_works():
    from mllm.evaluation.base import Evaluator, Failure
    from mllm.registry import EVALUATORS
    from mllm.structures import Record

    text = (REPOSITORY / "mllm" / "evaluation" / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, flags=re.S).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    try:
        exec(code, {"EVALUATORS": EVALUATORS, "Evaluator": Evaluator, "Failure": Failure, "__name__": "readme"})
        evaluator = EVALUATORS.build({"type": "StartsWithEvaluator"})
        records = [Record(0, "0", "a dog runs", truth={"references": ["a dog"]}), Record(1, "1", "", truth={})]
        assert evaluator.evaluate(records).metrics == {"starts_with": 0.5, "failure_rate": 0.5}
    finally:
        EVALUATORS._module_dict.pop("StartsWithEvaluator", None)
    assert sys.modules.get("readme") is None


def test_the_examples_of_the_data_set_readme_name_every_source_with_arguments_that_it_takes():
    text = (REPOSITORY / "mllm" / "dataset" / "README.md").read_text(encoding="utf-8")
    block = next(code for code in re.findall(r"```python\n(.*?)```", text, flags=re.S) if 'type="RefCOCO"' in code)
    calls = [ast.get_source_segment(block, node) for node in ast.parse(block).body]
    examples = [eval(call, {"root": "data", "dict": dict}) for call in calls]
    for cfg in examples:
        check_arguments(DATASETS.get(cfg["type"]), {k: v for k, v in cfg.items() if k != "type"}, cfg["type"])
    ours = {name for name in DATASETS.names() if DATASETS.get(name).__module__.startswith("mllm.")}  # no test's plug-in
    mixtures = {"BlankImages", "CleanAnswers", "SpokenQuestions"} | {
        name for name in ours if name.endswith(("Dataset", "WithShuffle"))
    }
    sources = {name for name in ours if not name.startswith("Drawn")} - mixtures
    assert {cfg["type"] for cfg in examples} == sources
    table = text[text.index("## Sources") : text.index("```python")]
    for name in sources:
        assert f"`{name}`" in table, name
    for name in mixtures:
        assert f"`{name}`" in text, name
