"""A folder with a small config and its base, and throw-away registered classes."""

import textwrap

import pytest

from mllm.registry import DATASETS, MODELS


@pytest.fixture
def registered(monkeypatch):
    """``ThrowawayModel(width, depth=2, **kwargs)`` over a base with ``rank``, and ``ThrowawayData(path, count=3)``."""

    class Base:
        def __init__(self, rank=8):
            self.rank = rank

        def build_processor(self): ...
        def build_model(self): ...
        def generate(self): ...

    class ThrowawayModel(Base):
        def __init__(self, width=4, depth=2, **kwargs):
            super().__init__(**kwargs)

    class ThrowawayData:
        def __init__(self, path="x.json", count=3):
            self.path = path

        def __len__(self):
            return 0

        def __getitem__(self, index):
            raise IndexError

    for registry, cls in ((MODELS, ThrowawayModel), (DATASETS, ThrowawayData)):
        monkeypatch.setitem(registry._module_dict, cls.__name__, cls)
        # Only what the test needs: the real families import torch and take seconds.
        monkeypatch.setattr(registry, "import_from_location", lambda: None)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty current folder with a function ``write(name, text)``."""
    monkeypatch.chdir(tmp_path)
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def leaf(workspace, registered):
    """``config/leaf.py`` on ``config/_base_/train.py``."""
    workspace("config/_base_/train.py", "training_args = dict(num_train_epochs=3, learning_rate=1e-3, eval_steps=10)\n")
    return workspace(
        "config/leaf.py",
        '''
        """A leaf for tests."""
        _base_ = ["_base_/train.py"]
        training_args = dict(output_dir="out", num_train_epochs=5, do_train=True, use_cpu=True)
        model_args = dict(type="ThrowawayModel", width=7, lora=None)
        data_args = dict(train=dict(type="Mixture", datasets=[dict(type="ThrowawayData", count=1)]))
        generation = dict(max_new_tokens=8)
        ''',
    )
