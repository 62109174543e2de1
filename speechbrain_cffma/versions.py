"""Check that torch and torchaudio work together, without importing either.

Authors
 * The speechbrain-cffma developers 2026
"""

from importlib import metadata

from packaging.version import Version

from speechbrain_cffma.errors import InstallError

#: The pair that constraints.txt installs. torchaudio 2.11 is its last release.
TORCH_PAIR = ("torch==2.11.0", "torchaudio==2.11.0")


def check_torch_pair():
    """Check that the installed torch and torchaudio have the same release and build.

    SpeechBrain imports torchaudio. With a different torch, its binary fails to load, and
    the error names neither package.

    Raises
    ------
    InstallError
        If one is missing, or their releases or CPU / CUDA builds differ.

    Example
    -------
    >>> check_torch_pair()
    """
    install = "pip install " + " ".join(TORCH_PAIR)
    found = {}
    for name in ("torch", "torchaudio"):
        try:
            found[name] = Version(metadata.version(name))
        except metadata.PackageNotFoundError:
            raise InstallError(f"{name} is not installed: {install}") from None
    torch, torchaudio = found["torch"], found["torchaudio"]
    same_release = torch.release[:2] == torchaudio.release[:2]
    same_build = (torch.local == "cpu") == (torchaudio.local == "cpu")
    if not (same_release and same_build):
        raise InstallError(
            f"torch {torch} and torchaudio {torchaudio} do not work together: {install}"
        )
