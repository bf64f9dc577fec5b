"""The rules of the house, read from the source: layers, what loads torch, lengths, prints."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mllm"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
LAYERS = {
    **dict.fromkeys(("errors", "structures"), 0),
    **dict.fromkeys(("registry", "utils"), 1),
    **dict.fromkeys(("grounding", "conversation"), 2),
    **dict.fromkeys(("dataset", "models", "evaluation"), 3),
    **dict.fromkeys(("engine", "config"), 4),
    "pipeline": 5,
    "cli": 6,
    "assets": 0,
}
LIGHT = ("structures", "registry", "grounding", "conversation", "dataset", "evaluation")


def part_of(path):
    """``mllm/dataset/rec.py`` → ``dataset``; ``mllm/errors.py`` → ``errors``."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(tree):
    """Part of mllm and line number of every import, those inside functions included."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            names = [f"mllm.{alias.name}" for alias in node.names] if node.module == "mllm" else [node.module]
        for name in names:
            words = name.split(".")
            if words[0] == "mllm" and len(words) > 1 and words[1] != "__version__":
                yield words[1], node.lineno


def allowed(importer, imported):
    """Own part or a lower layer; within the three lowest layers, neighbours too."""
    if importer == imported:
        return True
    lower, upper = LAYERS[imported], LAYERS[importer]
    return lower < upper or (lower == upper and upper <= 2)


def test_every_part_has_a_layer():
    assert {part_of(path) for path in FILES} - {"__init__"} <= set(LAYERS)


def test_imports_point_downwards():
    wrong = []
    for path in FILES:
        importer = part_of(path)
        if importer == "__init__":
            continue
        for imported, line in imported_parts(ast.parse(path.read_text(encoding="utf-8"))):
            if not allowed(importer, imported):
                wrong.append(f"{path.relative_to(PACKAGE.parent)}:{line}: {importer} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_data_can_be_prepared_and_scored_without_torch():
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if part_of(path) in LIGHT
    ]
    program = (
        "import sys, importlib\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name + ' loads torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_tells_one_story_and_a_function_fits_on_a_screen(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno + 1 <= 50, f"{node.name} in line {node.lineno}"


def test_only_the_command_line_prints():
    for path in FILES:
        if part_of(path) != "cli":
            calls = [
                node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
            ]
            assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_no_script_of_the_pipeline_bears_a_librarys_name():
    """Running a script puts its folder first on the path: pipeline/evaluate.py would hide the library evaluate."""
    libraries = {
        "accelerate",
        "datasets",
        "deepspeed",
        "evaluate",
        "numpy",
        "peft",
        "PIL",
        "torch",
        "transformers",
        "tqdm",
    }
    stems = {path.stem for path in (PACKAGE / "pipeline").glob("*.py")} - {"__init__"}
    assert not stems & (libraries | set(sys.stdlib_module_names))
