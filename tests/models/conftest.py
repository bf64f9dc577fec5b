import pytest
from models import pairs


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Where pairs.write_folders has put its models; tests leave them as they are."""
    root = tmp_path_factory.mktemp("folders")
    pairs.write_folders(root)
    return root
