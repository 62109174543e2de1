"""Scoring of systems: pairing, conditions, failures, and going on after an interruption."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_cffma import media
from speechbrain_cffma.audio import find_audio, read
from speechbrain_cffma.data import conditions
from speechbrain_cffma.data.mixing import add_noise
from speechbrain_cffma.errors import CFFMAError, InputError
from speechbrain_cffma.evaluation import scores
from speechbrain_cffma.evaluation.journal import JOURNAL
from speechbrain_cffma.evaluation.report import write_report
from speechbrain_cffma.evaluation.scores import (
    check_sample_rates,
    failures,
    look_at,
    scoring_settings,
)
from speechbrain_cffma.evaluation.systems import evaluate, pair_systems
from speechbrain_cffma.files import CSV
from speechbrain_cffma.metrics import score, scoring
from speechbrain_cffma.workers import parallel_map

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
SPEECH = REPOSITORY / "recipes" / "DynamicMix" / "speech" / "ru"
FAULTY_METRIC = Path(__file__).parent / "helpers" / "faulty_metric.py"
SI_SDR = scoring_settings(["si_sdr"])


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def corpus(tmp_path):
    """Folders of 4 utterances: clean, noisy at 5 dB, and better at 10 dB."""
    rng = np.random.default_rng(0)
    paths = [path for path in find_audio(SPEECH) if soundfile.info(path).duration > 1]
    for i, path in enumerate(paths[:4]):
        clean = read(path)
        noise = rng.standard_normal(len(clean))
        for system, samples in (
            ("clean", clean),
            ("noisy", add_noise(clean, noise, 5)),
            ("better", add_noise(clean, noise, 10)),
        ):
            write(tmp_path / system / f"s{i % 2}" / f"u{i}_white_5dB.wav", samples)
    return tmp_path


def write(path, samples, sample_rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, sample_rate, "FLOAT")


def run(corpus, *systems, settings=SI_SDR, **options):
    folders = {name: corpus / name for name in systems or ("noisy", "better")}
    return evaluate(
        corpus / "clean", folders, corpus / "report", settings, n_jobs=1, **options
    )


@pytest.fixture
def scored(monkeypatch):
    """The files that are scored, and not taken from the journal."""
    paths = []

    def recorded(function, arguments, *options):
        paths.extend(path for _, (_, path, _), *_ in arguments)
        return parallel_map(function, arguments, *options)

    monkeypatch.setattr(scoring, "parallel_map", recorded)
    return paths


class TestPairing:
    def test_is_by_path_without_extension(self, tmp_path):
        clean = touch(tmp_path / "clean", "a/1.wav", "b/1.wav", "b/2.wav")
        noisy = touch(tmp_path / "noisy", "b/1.flac", "a/1.flac")
        new = touch(tmp_path / "new", "a/1.wav", "b/1.opus")
        pairs = pair_systems(clean, {"noisy": noisy, "new": new})
        assert [(p["ID"], p["system"], p["path"].suffix) for p in pairs] == [
            ("a/1", "noisy", ".flac"),
            ("b/1", "noisy", ".flac"),
            ("a/1", "new", ".wav"),
            ("b/1", "new", ".opus"),
        ]
        assert [p["clean"] for p in pairs[:2]] == [clean / "a/1.wav", clean / "b/1.wav"]

    def test_with_the_clean_twin_may_be_by_a_part_of_the_name(self, tmp_path):
        clean = touch(tmp_path / "clean", "clean_fileid_1.wav", "clean_fileid_12.wav")
        names = ["a_snr5_fileid_12.wav", "b_snr0_fileid_1.wav"]
        systems = {name: touch(tmp_path / name, *names) for name in ("noisy", "new")}
        pairs = pair_systems(clean, systems, pair_by=r"fileid_\d+")
        assert [(p["ID"], p["system"], p["clean"].stem) for p in pairs] == [
            ("a_snr5_fileid_12", "noisy", "clean_fileid_12"),
            ("b_snr0_fileid_1", "noisy", "clean_fileid_1"),
            ("a_snr5_fileid_12", "new", "clean_fileid_12"),
            ("b_snr0_fileid_1", "new", "clean_fileid_1"),
        ]

    def test_all_missing_twins_are_one_error_with_their_count(self, tmp_path):
        clean = touch(tmp_path / "clean", "a.wav", "b.wav")
        noisy = touch(tmp_path / "noisy", "a.wav", "b.wav", "c.wav")
        new = touch(tmp_path / "new", "b.wav")
        with pytest.raises(InputError) as caught:
            pair_systems(clean, {"noisy": noisy, "new": new})
        message = str(caught.value)
        assert message.startswith("3 files have no match")
        assert f"1 of 3 missing in {clean}: c; 2 of 3 missing in {new}: a, c" in message
        assert "\n" not in message

    def test_a_missing_folder_is_an_error(self, tmp_path):
        with pytest.raises(InputError, match="nowhere does not exist"):
            pair_systems(tmp_path / "nowhere", {})


class TestSampleRate:
    def test_another_one_is_an_error_that_names_the_file(self, tmp_path):
        write(tmp_path / "a.wav", np.zeros(160))
        write(tmp_path / "b.wav", np.zeros(480), 48000)
        with pytest.raises(
            InputError, match=r"1 of 2 .*b\.wav at 48000 Hz: .*--resample"
        ):
            check_sample_rates(look_at(sorted(tmp_path.iterdir())), 16000)

    def test_resampled_if_asked_a_file_scores_nearly_as_before(self, corpus):
        before = run(corpus, "noisy")
        for path in find_audio(corpus / "noisy"):
            from scipy.signal import resample_poly

            write(path, resample_poly(read(path), 3, 1), 48000)
        with pytest.raises(InputError, match="4 of 8 files are not at 16000 Hz"):
            run(corpus, "noisy")
        (corpus / "report" / JOURNAL).unlink()
        after = run(
            corpus, "noisy", settings=scoring_settings(["si_sdr"], resample=True)
        )
        for one, other in zip(before, after, strict=True):
            assert other["si_sdr"] == pytest.approx(one["si_sdr"], abs=0.5)


class TestSettings:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((["pesc"],), "no metric pesc: choose from pesq"),
            (([],), "no metric to score"),
            ((["pesq"], "int8"), "int16 or unit, not int8"),
        ],
    )
    def test_unknown_ones_are_errors(self, arguments, message):
        with pytest.raises(InputError, match=message):
            scoring_settings(*arguments)

    def test_a_metric_whose_package_is_missing_is_an_error(self, monkeypatch):
        monkeypatch.setattr(scores, "available_metrics", lambda names: ["stoi"])
        with pytest.raises(CFFMAError, match="metrics pesq need packages"):
            scoring_settings(["pesq", "stoi"])

    def test_hold_what_scores_depend_on(self):
        settings = scoring_settings(["pesq"], scale="unit", sample_rate=8000)
        assert settings["scale"] == "unit"
        assert settings["sample_rate"] == 8000

    def test_hold_the_versions_of_what_scores(self):
        settings = scoring_settings(["pesq", "wss", "csig"])
        assert set(settings["versions"]) == {"speechbrain-cffma", "pesq"}


class TestConditions:
    @pytest.mark.parametrize(
        ("name", "snr", "noise"),
        [
            ("x_snr5", 5, "x"),
            ("001_snr-5", -5, ""),
            ("001_snr_2.5", 2.5, ""),
            ("sp01_babble_sn10", 10, "babble"),
            ("p232_001_Bus_10dB", 10, "bus"),
            ("bus_-5dB/001", -5, "bus"),
            ("0dB/cafe_15dB", 15, "cafe"),
            ("snr_5dB_x", 5, ""),
            ("p232_001", None, ""),
            ("wind5db", None, ""),
            ("a_10", None, ""),
        ],
    )
    def test_a_name_may_tell_them(self, name, snr, noise):
        assert conditions.from_name(name) == {"snr": snr, "noise": noise}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("name,snr\na,1\n", "needs the columns ID and snr or noise"),
            ("ID,duration\na,1\n", "needs the columns ID and snr or noise"),
            ("ID,snr\na,1\n", "1 of 2 files have no row .*: b"),
            ("ID,snr\na,1\nb,loud\n", "the snr of b is 'loud'"),
            ("ID,snr\na,1\nb,nan\n", "the snr of b is 'nan'"),
        ],
    )
    def test_a_csv_that_lacks_something_is_an_error(self, tmp_path, text, message):
        (tmp_path / "conditions.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            conditions.from_file(tmp_path / "conditions.csv", ["a", "b"])

    def test_a_log_of_voicebank_is_read(self, tmp_path):
        log = tmp_path / "log_testset.txt"
        log.write_text("\np232_001 bus 17.5\np257_434 cafe 2.5\n")
        found = conditions.from_file(log, ["p257_434"])
        assert found == {"p257_434": {"snr": 2.5, "noise": "cafe"}}
        with pytest.raises(InputError, match="1 of 1 files have no row .*: p232_002"):
            conditions.from_file(log, ["p232_002"])

    def test_a_csv_goes_before_names(self, corpus):
        ids = [
            pair["ID"]
            for pair in pair_systems(corpus / "clean", {"n": corpus / "noisy"})
        ]
        lines = ["ID,snr,noise", *(f"{name},7,hum" for name in ids)]
        (corpus / "conditions.csv").write_text("\n".join(lines))
        row = run(corpus, "noisy", metadata=corpus / "conditions.csv")[0]
        assert (row["snr"], row["noise"]) == (7.0, "hum")


class TestScores:
    def test_are_those_of_the_metrics(self, corpus):
        settings = scoring_settings(["pesq", "cbak", "stoi"], scale="unit")
        rows = run(corpus, settings=settings)
        assert [row["system"] for row in rows] == ["noisy"] * 4 + ["better"] * 4
        row = rows[5]
        assert row["ID"] == "s0/u2_white_5dB"
        assert (row["snr"], row["noise"]) == (5.0, "white")
        clean, better = (
            read(corpus / system / f"{row['ID']}.wav") for system in ("clean", "better")
        )
        expected = score(clean, better, ["pesq", "cbak", "stoi"], scale="unit")
        assert {name: row[name] for name in expected} == expected

    def test_a_file_that_fails_has_the_reason_and_no_score(self, corpus):
        clean = read(corpus / "clean" / "s0" / "u0_white_5dB.wav")
        nan = np.where(np.arange(len(clean)) == 100, np.nan, clean)
        signals = {
            "silent": (clean, 0 * clean),
            "clean_silent": (0 * clean, clean),
            "nan": (clean, nan),
            "longer": (clean, np.append(clean, np.zeros(481))),
            "a_frame_longer": (clean, np.append(clean + 0.01, np.zeros(480))),
            "stereo": (clean, np.stack([clean, clean], axis=1)),
            "empty": (clean, clean[:0]),
        }
        for name, pair in signals.items():
            for folder, samples in zip(("clean", "new"), pair, strict=True):
                write(corpus / "some" / folder / f"{name}.wav", samples)
        for folder in ("clean", "new"):
            touch(corpus / "some" / folder, "broken.wav")
        rows = run(corpus / "some", "new")
        reasons = {row["ID"]: row["failed"] for row in rows}
        scores = {row["ID"]: row["si_sdr"] for row in rows}
        assert scores.pop("a_frame_longer") is not None
        assert reasons.pop("a_frame_longer") == ""
        assert set(scores.values()) == {None}
        assert "broken.wav can't be read" in reasons.pop("broken")
        assert "stereo.wav has 2 channels" in reasons.pop("stereo")
        assert "lengths differ" in reasons.pop("empty")
        assert reasons == {
            "silent": "the signal is silent",
            "clean_silent": "the clean signal is silent",
            "nan": "the signal holds NaN or Inf",
            "longer": "the lengths differ by 481 samples, more than a frame of 480",
        }
        assert len(failures(rows)) == 7

    def test_a_metric_that_is_not_defined_leaves_the_others(self, corpus):
        settings = scoring_settings(["pesq", "si_sdr"])
        for system in ("clean", "noisy"):  # 0.2 s
            for path in find_audio(corpus / system):
                write(path, read(path)[4000:7200])
        row = run(corpus, "noisy", settings=settings)[0]
        assert row["pesq"] is None
        assert row["si_sdr"] is not None
        assert row["failed"].startswith("PESQ: ")

    def test_a_file_that_is_gone_fails_alone(self, corpus, scored_here):
        link = find_audio(corpus / "noisy")[1]
        link.unlink()
        link.symlink_to(corpus / "gone.wav")
        rows = run(corpus, "noisy")
        assert [bool(row["failed"]) for row in rows] == [False, True, False, False]
        assert str(link) in rows[1]["failed"]

    def test_names_may_hold_any_bytes(self, corpus, scored_here):
        name = os.fsdecode(b"caf\xe9\n_hum_5dB")
        for system in ("clean", "noisy"):
            old = find_audio(corpus / system)[1]
            old.rename(old.with_name(f"{name}.wav"))
        rows = run(corpus, "noisy")
        write_report(corpus / "report", rows, SI_SDR)
        assert [row["failed"] for row in rows] == [""] * 4
        with open(corpus / "report" / "scores.csv", **CSV) as file:
            assert [row["ID"] for row in csv.DictReader(file)][0] == f"s0/{name}"

    def test_failures_of_one_kind_are_shown_as_one_line(self):
        rows = [
            {"ID": name, "system": "new", "failed": "the signal is silent"}
            for name in ("a", "b")
        ]
        assert failures(rows) == ["new: 2 files failed (a, ...): the signal is silent"]


class TestGoingOn:
    def test_finished_rows_are_not_scored_again(self, corpus, scored):
        first = run(corpus)
        assert len(scored) == 8
        scored.clear()
        assert run(corpus, "noisy") == first[:4]
        assert run(corpus) == first
        assert scored == []

    def test_a_changed_file_and_a_further_system_are_scored(self, corpus, scored):
        first = run(corpus, "noisy")
        changed = find_audio(corpus / "noisy")[1]
        write(changed, read(changed) + 0.05)
        scored.clear()
        rows = run(corpus, "noisy", "better")
        assert scored == [changed, *find_audio(corpus / "better")]
        assert rows[0] == first[0]
        assert rows[1]["si_sdr"] != first[1]["si_sdr"]

    def test_rows_of_other_settings_are_not_mixed_in(self, corpus):
        run(corpus, "noisy")
        with pytest.raises(
            InputError, match=r"other settings \(scale\): .*--overwrite"
        ):
            run(corpus, "noisy", settings=scoring_settings(["si_sdr"], scale="unit"))

    def test_overwriting_scores_all_anew(self, corpus, scored):
        first = run(corpus, "noisy")
        scored.clear()
        assert run(corpus, "noisy", overwrite=True) == first
        assert len(scored) == 4

    def test_overwriting_keeps_the_rows_if_files_do_not_pair(self, corpus, scored):
        first = run(corpus, "noisy")
        alone = touch(corpus / "noisy", "alone.wav") / "alone.wav"
        with pytest.raises(InputError, match="no match"):
            run(corpus, "noisy", overwrite=True)
        alone.unlink()
        scored.clear()
        assert run(corpus, "noisy") == first
        assert scored == []

    @pytest.mark.parametrize("line", ["[1]", '["a", {}]', "{}", "[[], []]"])
    def test_a_damaged_journal_is_one_clear_line(self, corpus, line):
        path = corpus / "report" / JOURNAL
        path.parent.mkdir()
        path.write_text(f"{json.dumps(SI_SDR)}\n{line}\n")
        with pytest.raises(
            InputError, match="progress.jsonl is damaged: score all files again"
        ):
            run(corpus, "noisy")

    def test_each_file_is_looked_at_once_before_the_first_score(
        self, corpus, monkeypatch
    ):
        opened, open_source = [], media.open_source
        monkeypatch.setattr(
            media, "open_source", lambda path: opened.append(path) or open_source(path)
        )
        run(corpus)  # which scores in other processes
        assert sorted(opened) == find_audio(corpus)

    def test_a_line_cut_off_is_scored_again(self, corpus, scored):
        first = run(corpus, "noisy")
        journal = corpus / "report" / JOURNAL
        journal.write_text(journal.read_text()[:-20])
        scored.clear()
        assert run(corpus, "noisy") == first
        assert len(scored) == 1


class TestProcesses:
    @staticmethod
    def command(corpus, system):
        return [
            sys.executable,
            str(FAULTY_METRIC),
            *["evaluate", "--metrics=si_sdr,ssnr", "--n-jobs=2"],
            f"--clean={corpus / 'clean'}",
            f"--enhanced={system}={corpus / system}",
            f"--output={corpus / 'report'}",
        ]

    @staticmethod
    def rows(corpus):
        lines = (corpus / "report" / JOURNAL).read_text().splitlines()
        return [json.loads(line) for line in lines[1:]]

    def test_one_that_is_killed_costs_one_file_one_metric(self, corpus):
        fatal = find_audio(corpus / "noisy")[1]
        samples = read(fatal)
        write(fatal, read(corpus / "clean" / fatal.relative_to(corpus / "noisy")))
        command = self.command(corpus, "noisy")
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert (
            "noisy: 1 file failed (s0/u2_white_5dB): si_sdr: its process was killed by "
            "SIGKILL (cut the file into shorter ones, or leave this metric out)"
        ) in run.stderr
        summary = json.loads((corpus / "report" / "summary.json").read_text())
        entry = summary["overall"]["noisy"]
        assert (entry["n"], entry["failed"]) == (4, 1)
        assert entry["scores"]["si_sdr"]["n"] == 3
        assert entry["scores"]["ssnr"]["n"] == 4
        assert entry["scores"]["si_sdr"]["mean"] == pytest.approx(5, abs=0.1)
        # The next run tries again.
        assert len(self.rows(corpus)) == 3
        write(fatal, samples)
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0
        assert "failed (" not in run.stderr

    def test_ctrl_c_keeps_the_finished_rows_and_the_same_command_goes_on(self, corpus):
        for path in [*find_audio(corpus / "clean"), *find_audio(corpus / "noisy")]:
            for i in range(5):
                write(path.with_stem(f"{path.stem}_{i}"), read(path))
        command = self.command(corpus, "noisy")
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        deadline = time.monotonic() + 60
        journal = corpus / "report" / JOURNAL
        while not journal.exists() or len(self.rows(corpus)) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, messages = process.communicate(timeout=60)
        assert process.returncode == 130
        assert messages.splitlines()[-1].startswith(
            "interrupted: run the same command to continue"
        )
        assert "Traceback" not in messages
        kept = self.rows(corpus)
        assert 3 <= len(kept) < 24
        assert not (corpus / "report" / "scores.csv").exists()

        assert subprocess.run(command, capture_output=True).returncode == 0
        rows = self.rows(corpus)
        assert len(rows) == 24
        assert [row for row in rows if row in kept] == rows[: len(kept)]
        assert len((corpus / "report" / "scores.csv").read_text().splitlines()) == 25
