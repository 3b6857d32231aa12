"""SmolLM2's tokenizer, read once: its GGUF file takes two seconds."""

import pytest

from sdd.text import gguf


@pytest.fixture(scope="session")
def smollm2_metadata():
    pytest.importorskip("gguf")
    pytest.importorskip("tokenizers")
    try:
        path = gguf.packaged_smollm2()
    except ValueError as error:
        pytest.skip(str(error))
    return gguf.read_metadata(path)


@pytest.fixture(scope="session")
def smollm2(smollm2_metadata):
    return gguf.make_tokenizer(smollm2_metadata, "smollm2")
