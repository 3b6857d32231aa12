import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny():
    """The module `tiny.py` (importlib mode puts no test folder on the path)."""
    spec = importlib.util.spec_from_file_location("weights_tiny", Path(__file__).with_name("tiny.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
