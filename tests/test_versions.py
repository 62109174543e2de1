"""Which torch and torchaudio go together."""

from importlib import metadata

import pytest

from speechbrain_cffma.errors import InstallError
from speechbrain_cffma.versions import check_torch_pair


@pytest.fixture
def installed(monkeypatch):
    """`installed(torch="2.11.0")` pretends that just these packages are."""

    def installed(**versions):
        def version(name):
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(metadata, "version", version)

    return installed


@pytest.mark.parametrize(
    ("torch", "torchaudio"),
    [
        ("2.11.0", "2.11.0"),
        ("2.11.1", "2.11.0"),
        ("2.11.0+cpu", "2.11.0+cpu"),
        ("2.11.0+cu130", "2.11.0+cu130"),
        ("2.11.0+cu130", "2.11.0"),
    ],
)
def test_a_pair_of_one_release_and_build_passes(installed, torch, torchaudio):
    installed(torch=torch, torchaudio=torchaudio)
    check_torch_pair()


@pytest.mark.parametrize(
    "versions",
    [
        {"torch": "2.13.0", "torchaudio": "2.11.0"},
        {"torch": "2.11.0", "torchaudio": "2.1.0"},
        {"torch": "2.11.0+cpu", "torchaudio": "2.11.0"},
        {"torch": "2.11.0", "torchaudio": "2.11.0+cpu"},
        {"torchaudio": "2.11.0"},
        {"torch": "2.11.0"},
    ],
    ids=[
        "newer torch",
        "older torchaudio",
        "CPU torch",
        "CPU torchaudio",
        "no torch",
        "no torchaudio",
    ],
)
def test_any_other_is_an_error_of_one_line_that_says_what_to_install(
    installed, versions
):
    installed(**versions)
    with pytest.raises(InstallError) as caught:
        check_torch_pair()
    text = str(caught.value)
    assert "pip install torch==2.11.0 torchaudio==2.11.0" in text
    assert "\n" not in text


@pytest.mark.parametrize("missing", ["torch", "torchaudio"])
def test_a_missing_one_is_named(installed, missing):
    installed(**{name: "2.11.0" for name in ("torch", "torchaudio") if name != missing})
    with pytest.raises(InstallError, match=f"^{missing} is not installed"):
        check_torch_pair()
