import math

import pytest

from sdd import lookup


def test_resolves_modules_and_attributes():
    assert lookup.resolve("math") is math
    assert lookup.resolve("os.path.join")("a", "b") == "a/b"
    import xml.dom.minidom

    assert lookup.resolve("xml.dom.minidom") is xml.dom.minidom


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("mathh.pi", ["'mathh'", "nearest: math"]),
        ("math.sqrtt", ["'math' has no 'sqrtt'", "nearest: ", "sqrt", "it offers: acos"]),
        ("xml.dom.minidum", ["'xml.dom' has no 'minidum'", "nearest: minidom"]),
        ("math.pi.real.nothing", ["'math.pi.real' has no 'nothing'", "it offers: "]),
        ("not a path", ["'not a path' is not a dotted path"]),
        ("", ["'' is not a dotted path"]),
        ("a..b", ["'a..b' is not a dotted path"]),
    ],
)
def test_refusals_are_one_line_with_the_nearest(path, said):
    with pytest.raises(ValueError) as error:
        lookup.resolve(path)
    assert "\n" not in str(error.value)
    for text in said:
        assert text in str(error.value)


def test_an_import_that_fails_inside_a_module_is_passed_on(tmp_path, monkeypatch):
    (tmp_path / "needs_something.py").write_text("import absent_package_of_this_test\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="absent_package_of_this_test"):
        lookup.resolve("needs_something")


def test_offers_leaves_out_private_names_and_other_modules(tmp_path, monkeypatch):
    (tmp_path / "some_offers").mkdir()
    (tmp_path / "some_offers" / "__init__.py").write_text("import os\n_hidden = 1\nshown = 2\n")
    (tmp_path / "some_offers" / "inner.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert lookup.offers(lookup.resolve("some_offers")) == ["inner", "shown"]
