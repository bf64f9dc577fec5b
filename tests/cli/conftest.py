import pytest

from mllm.cli.main import main


@pytest.fixture
def prepare(capsys):
    """Run the verb: (exit code, what it printed, what it complained about)."""

    def run(*words):
        code = main(["prepare", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
