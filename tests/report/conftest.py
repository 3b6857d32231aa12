import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def maker():
    """The module that writes synthetic studies (importlib mode puts no test folder on the path)."""
    spec = importlib.util.spec_from_file_location("study_maker", Path(__file__).with_name("study_maker.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
