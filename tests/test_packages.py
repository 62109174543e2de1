"""benchmarks/packages.py: the sets, and the table of all systems."""

import shutil
from functools import partial

import numpy as np
import packages
import pytest

from recipes.DynamicMix.prepare import AMBIENCE_FOLDER
from speechbrain_cffma import audio
from speechbrain_cffma.data.manifest import read_manifest

SPEECH = AMBIENCE_FOLDER.parent / "speech"


def write_speakers(folder, names, n_files):
    """Speakers of a few short files each."""
    paths = sorted((SPEECH / "en").iterdir(), key=lambda path: path.stat().st_size)
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for path in paths[number * n_files :][:n_files]:
            shutil.copy(path, folder / name)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The sets of two small corpora."""
    folder = tmp_path_factory.mktemp("packages")
    corpus, corpus_open = folder / "corpus", folder / "corpus_open"
    write_speakers(corpus / "speech", ["en", "ru"], n_files=9)
    write_speakers(corpus_open / "test" / "speech", ["ann", "bob"], n_files=2)
    write_speakers(corpus_open / "valid" / "speech", ["cid"], n_files=9)
    noise = 0.1 * np.random.default_rng(0).standard_normal(32000)
    for name in (*packages.TEST_NOISES, "cafe"):
        audio.write(corpus / "noise" / f"{name}.wav", noise)
    for side in ("noisy", "clean"):
        audio.write(corpus / "vbd_pairs" / side / "p287_001.wav", noise)
    small = partial(packages.prepare_dynamic_mix, n_test=20, n_valid=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "prepare_dynamic_mix", small)
        return packages.make_sets(corpus, corpus_open, folder / "sets")


class TestSets:
    @pytest.mark.parametrize(
        ("name", "speakers"), [("ru", {"ru": 20}), ("open", {"ann": 10, "bob": 10})]
    )
    def test_test_speakers_are_in_all_test_noises(self, sets, name, speakers):
        noisy, clean, conditions = sets[name]
        rows = read_manifest(conditions)
        found = [row["speaker"] for row in rows]
        assert {speaker: found.count(speaker) for speaker in found} == speakers
        assert {row["noise"] for row in rows} == set(packages.TEST_NOISES)
        assert {row["snr"] for row in rows} == {0, 5, 10, 15}
        assert len(audio.find_audio(noisy)) == len(audio.find_audio(clean)) == 20

    def test_the_clean_speech_is_a_set(self, sets):
        noisy, clean, _ = sets["clean"]
        assert noisy == clean
        assert {p.parent.name for p in audio.find_audio(clean)} == {"ru", "vbd"}


def test_the_table_has_dnsmos_of_clean_speech_too():
    def summary(**scores):
        return {"scores": {name: {"mean": mean} for name, mean in scores.items()}}

    scored = summary(pesq=1.5, stoi=0.9, si_sdr=8.0, dnsmos_ovrl=2.5)
    pesq = [{"system": system, "pesq": 4.6} for system in ("noisy", "mine")]
    scores = {name: ([], {"noisy": scored, "mine": scored}) for name in packages.SETS}
    header, _, clean, noisy, mine = packages.table(
        {"mine": ("this, 1.0", None)},
        {"mine": (160, 0.02)},
        {**scores, "clean": (pesq, None)},
        dict.fromkeys(packages.SETS, summary(dnsmos_ovrl=3.3)),
    ).splitlines()
    assert header.count("DNSMOS OVRL") == 3
    assert clean.split("|")[5:9] == ["  ", "  ", "  ", " 3.30 "]
    assert noisy.split("|")[5:9] == [" 1.50 ", " 0.900 ", " 8.00 ", " 2.50 "]
    assert mine.split("|")[1:5] == [" mine ", " this, 1.0 ", " 10.0 ", " 0.020 "]
    assert mine.split("|")[-3:-1] == [" 4.60 ", " 4.60 "]
