"""The package as users install it: built, installed and used outside the repository.

The environment is clean of the repository, and new; its dependencies are those of the
running environment, so that it takes seconds. That the declared dependencies suffice is
what `make test-wheel` checks: it installs them (5 GB).
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.paths import ROOT

pytestmark = pytest.mark.slow

#: What the build reads beside the package.
SOURCES = ["LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"]
NO_CACHE = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the source distribution as `python -m build` does."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(
        ROOT / "speechbrain_cffma", folder / "speechbrain_cffma", ignore=NO_CACHE
    )
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    run(sys.executable, "-m", "build", "--no-isolation", cwd=folder)
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(
    scope="module",
    params=["shared", pytest.param("clean", marks=pytest.mark.clean_environment)],
)
def binaries(request, wheel, tmp_path_factory):
    """`bin/` of an environment whose speechbrain_cffma comes from the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    binaries = folder / "bin"
    if request.param == "clean":
        venv.create(folder, with_pip=True)
        options = ["-c", ROOT / "constraints.txt", f"{wheel}[train,app]"]
        run(binaries / "pip", "install", "--quiet", *options)
    else:
        venv.create(folder, with_pip=False)
        see_dependencies(folder)
        pip = [sys.executable, "-m", "pip", "--python", binaries / "python"]
        run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    yield binaries
    shutil.rmtree(folder)


def see_dependencies(environment):
    """Let an environment see this one's packages, without its editable installs.

    Python does not read the .pth files of a folder that a .pth file names.
    """
    variables = {"base": environment, "platbase": environment}
    packages = Path(sysconfig.get_path("purelib", vars=variables))
    shared = sysconfig.get_path("purelib")
    (packages / "shared.pth").write_text(shared, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, speech):
    """A folder outside the repository, with a clean and a noisy recording."""
    folder = tmp_path_factory.mktemp("recordings")
    noise = 0.02 * np.random.default_rng(0).standard_normal(len(speech))
    for name, samples in (("clean", speech.numpy()), ("noisy", speech.numpy() + noise)):
        (folder / name).mkdir()
        soundfile.write(folder / name / "a.wav", samples, 16000)
    return folder


def without_repository():
    """The environment variables of a process that sees installed packages only."""
    return {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}


def run(*command, cwd=None):
    """What a command prints; its last lines are the message where it fails."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=without_repository(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return done.stdout


class TestWheel:
    def test_holds_every_file_of_the_package(self, wheel):
        package = ROOT / "speechbrain_cffma"
        files = {
            str(path.relative_to(ROOT))
            for path in package.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        with zipfile.ZipFile(wheel) as archive:
            names = {n for n in archive.namelist() if ".dist-info/" not in n}
        assert names == files

    def test_takes_at_most_25_mb(self, wheel):
        assert wheel.stat().st_size <= 25e6


class TestInstalled:
    def test_comes_from_the_wheel(self, binaries, folder):
        code = "import speechbrain_cffma as package; print(package.__file__)"
        path = run(binaries / "python", "-c", code, cwd=folder)
        assert Path(path).is_relative_to(binaries.parent)

    def test_enhances_and_evaluates(self, binaries, folder):
        run(binaries / "cffma", "enhance", "noisy", "-o", "out", cwd=folder)
        options = ["--clean=clean", "--noisy=noisy", "--enhanced", "mine=out"]
        run(binaries / "cffma", "evaluate", *options, "-o", "report", cwd=folder)
        header, noisy, enhanced = (
            line.split(",")
            for line in (folder / "report" / "scores.csv").read_text().splitlines()
        )
        at = header.index("pesq")
        assert float(enhanced[at]) > float(noisy[at]) + 0.2
        assert (folder / "report" / "report.html").stat().st_size > 0

    def test_starts_the_page(self, binaries, folder):
        process = subprocess.Popen(
            [binaries / "cffma", "app", "--device=cpu"],
            cwd=folder,
            env={**without_repository(), "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            url = process.stdout.readline().split()[0]
            with urllib.request.urlopen(url) as page:
                assert b"gradio" in page.read()
        finally:
            process.kill()
            process.communicate()
