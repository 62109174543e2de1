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


def summary(**scores):
    return {"scores": {name: {"mean": mean} for name, mean in scores.items()}}


def rows_of(table):
    """The cells of a table's rows by their title, without the rule below its head."""
    lines = [line.strip("|").split("|") for line in table.splitlines()]
    return {
        cells[0].strip(): [c.strip() for c in cells[1:]]
        for cells in lines
        if not set(cells[0]) <= set("-: ") or cells is lines[0]
    }


@pytest.fixture
def systems():
    def package(title, is_causal):
        return packages.Package(title, "numpy", is_causal, None)

    return {
        "ours": (package("this", False), None),
        "live": (package("live", True), None),
    }


class TestTables:
    def test_the_scores_of_a_set_have_dnsmos_of_its_clean_speech(self, systems):
        noisy = summary(pesq=3.0, stoi=0.99, si_sdr=8.0, dnsmos_ovrl=2.5)
        ours = summary(pesq=1.5, stoi=0.95, si_sdr=9.0, dnsmos_ovrl=3.0)
        live = summary(pesq=1.4, stoi=0.95, si_sdr=9.5, dnsmos_ovrl=3.1)
        table = packages.score_table(
            systems,
            {"noisy": noisy, "ours": ours, "live": live},
            summary(dnsmos_ovrl=3.3),
        )
        assert rows_of(table) == {
            "": ["PESQ", "STOI", "SI-SDR (dB)", "DNSMOS OVRL"],
            "clean": ["", "", "", "3.30"],
            "noisy": ["3.00", "0.990", "8.00", "2.50"],
            "this": ["**1.50**", "**0.950**", "9.00", "3.00"],
            "live": ["1.40", "**0.950**", "**9.50**", "**3.10**"],
        }

    def test_clean_speech_has_the_mean_and_the_worst_file(self, systems):
        scored = [
            {"system": system, "pesq": pesq}
            for system, pesq in [("ours", 4.6), ("ours", 4.0), ("live", 4.2)]
        ]
        assert rows_of(packages.clean_table(systems, scored)) == {
            "": ["mean", "worst file"],
            "this": ["**4.30**", "4.00"],
            "live": ["4.20", "**4.20**"],
        }

    def test_the_packages_have_their_version_delay_and_speed(self, systems):
        measured = {"ours": (0, 0.02), "live": (160, 0.0051)}
        table = rows_of(packages.package_table(systems, measured))
        assert table["this"] == [f"numpy {np.__version__}", "no", "0.0", "0.020"]
        assert table["live"] == [f"numpy {np.__version__}", "yes", "10.0", "0.005"]
