import pytest

from speechbrain_clsp import CLSP
from tests.utils.small import model_folder


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def clsp(small_folder):
    return CLSP.from_pretrained(small_folder)
