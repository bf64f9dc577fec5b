"""The wheel, installed into a fresh environment and used from an empty folder."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def call(*words, cwd):
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: a build leaves folders behind in its source."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("mllm", "config", "accelerate_config"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tools" / "cluster", source / "tools" / "cluster")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    call(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
        cwd=folder,
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def program(wheel, tmp_path_factory):
    """``mllm`` of a new environment; torch and the rest come from this one through a path file."""
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    call(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", packages, wheel, cwd=folder)
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    script = folder / "bin" / "mllm"
    script.write_text(f"#!{folder}/bin/python\nimport sys\nfrom mllm.cli.main import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return script


def test_the_wheel_carries_configs_and_assets_and_no_rubbish(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for folder, inside in (("config", "mllm/_config"), ("accelerate_config", "mllm/_accelerate_config")):
        expected = {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*.py")}
        for kind in ("*.yaml", "*.json"):
            expected |= {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob(kind)}
        assert {f"{inside}/{name}" for name in expected} <= set(names)
    assert {f"mllm/_cluster/{one.name}" for one in (ROOT / "tools" / "cluster").glob("*.j2")} <= set(names)
    assets = {path for path in (ROOT / "mllm" / "assets").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {path.relative_to(ROOT).as_posix() for path in assets} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]
    assert [name for name in names if name.endswith("LICENSE")]


def test_an_empty_folder_is_enough(program, tmp_path):
    where = call(program.parent / "python", "-c", "import mllm; print(mllm.__file__)", cwd=tmp_path)
    assert str(program.parents[1]) in where, "the checkout was imported, not the wheel"
    listed = [line.split()[0] for line in call(program, "list-cfg", cwd=tmp_path).splitlines()]
    assert len(listed) == len([path for path in (ROOT / "config").glob("*.py") if not path.name.startswith("_")])
    name = listed[0]
    call(program, "copy-cfg", name, "mine", cwd=tmp_path)
    copied, shipped = (
        [line.split("  #")[0].strip() for line in call(program, "show-cfg", where, cwd=tmp_path).splitlines()]
        for where in (f"mine/{name}.py", name)
    )
    assert copied == shipped
    assert copied


def test_a_two_step_training_runs_from_there(program, tmp_path):
    call(program, "copy-cfg", "toy_rec_llava", "mine", cwd=tmp_path)
    off = ["--do_eval", "false", "--do_predict", "false", "--do_multi_predict", "false", "--eval_on_start", "false"]
    call(program, "train", "mine/toy_rec_llava.py", "--max_steps", "2", "--output_dir", "out", *off, cwd=tmp_path)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert (tmp_path / "out" / "config.py").is_file()
