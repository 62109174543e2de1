"""What enhancing a recording imports: nothing that takes long and isn't used."""

import json
import subprocess
import sys

import pytest

from speechbrain_cffma import audio

#: The packages that `cffma enhance` may import, besides Python's own modules.
NEEDED = {
    "_cffi_backend",
    "_distutils_hack",
    "_soundfile",
    "_soundfile_data",
    "cffi",
    "click",
    "numpy",
    "packaging",
    "safetensors",
    "soundfile",
    "speechbrain_cffma",
    "torch",
    "torchgen",
    "tqdm",
    "typing_extensions",
}
#: Parts of torch that take long.
SLOW = ("torch._dynamo", "torch._inductor", "torch.onnx", "torch.utils.tensorboard")
#: Lists the modules that a statement imports.
LISTING = """
import json, sys
sys.argv = ["cffma", *sys.argv[2:]]
try:
    {}
except SystemExit as stop:
    assert not stop.code
print(json.dumps(sorted(sys.modules)))
"""
LOBES = "import speechbrain_cffma.lobes"
ENHANCE = "from speechbrain_cffma.cli import main; main()"


def modules_after(statement, *arguments):
    """The modules that a new process has imported after a statement."""
    command = [sys.executable, "-c", LISTING.format(statement), "-", *arguments]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(shown.splitlines()[-1])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The modules after the lobes are imported, and after a file is enhanced."""
    folder = tmp_path_factory.mktemp("startup")
    audio.write(folder / "noisy.wav", [0.0] * 16000)
    files = [str(folder / "noisy.wav"), "-o", str(folder / "enhanced.wav")]
    return {
        "lobes": modules_after(LOBES),
        "enhance": modules_after(ENHANCE, "enhance", *files),
    }


@pytest.mark.parametrize("what", ["lobes", "enhance"])
def test_no_other_package_is_imported(loaded, what):
    """No speechbrain, transformers, scipy, sympy, matplotlib, tensorboard and so on."""
    known = {*NEEDED, *sys.stdlib_module_names}
    packages = {name.partition(".")[0] for name in loaded[what]}
    # __main__, and what installers add to find a package that is being developed.
    assert {n for n in packages - known if not n.startswith("__")} == set()


@pytest.mark.parametrize("what", ["lobes", "enhance"])
def test_no_compiler_is_imported(loaded, what):
    assert [name for name in loaded[what] if name.startswith(SLOW)] == []
