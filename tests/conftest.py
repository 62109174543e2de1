"""What the tests share beside what doctests need as well, which ../conftest.py has."""

import shutil

import pytest

from helpers.paths import SPEECH
from helpers.runs import (
    SMALL_MIX,
    SMALL_NETWORK,
    SMALL_RUN,
    command_line,
    map_here,
)


@pytest.fixture(scope="session")
def few_files(tmp_path_factory):
    """A speech folder of 24 training files and 4 of the test speaker."""
    folder = tmp_path_factory.mktemp("speech")
    for speaker, count in (("en", 24), ("ru", 4)):
        (folder / speaker).mkdir()
        for path in sorted((SPEECH / speaker).glob("*.opus"))[:count]:
            shutil.copy(path, folder / speaker)
    return folder


@pytest.fixture(scope="session")
def arguments(few_files, ssl_folder):
    """`arguments(output_folder, **overrides)`: the command line of a small run."""

    def make(output_folder, **overrides):
        options = {
            "output_folder": output_folder,
            "speech_folder": few_files,
            "ssl_source": ssl_folder("wavlm"),
        }
        options |= {**SMALL_RUN, **SMALL_NETWORK, **SMALL_MIX, **overrides}
        return command_line("mini", **options)

    return make


@pytest.fixture
def scored_here(monkeypatch):
    """Let training and evaluation score in this process."""
    monkeypatch.setattr("speechbrain_cffma.metrics.scoring.parallel_map", map_here)


@pytest.fixture
def quick_runs(scored_here, monkeypatch):
    """Let `train.main` score here and by two metrics, and list no installed packages."""
    monkeypatch.setattr("speechbrain_cffma.training.brain.DEFAULT", ("pesq", "si_sdr"))
    monkeypatch.setattr("speechbrain.utils.logger.get_environment_description", str)


@pytest.fixture
def no_report(monkeypatch):
    """Leave out the scores and the report of the test files."""
    monkeypatch.setattr(
        "speechbrain_cffma.training.brain.EnhancementBrain._end_test", lambda self: None
    )
