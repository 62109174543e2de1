"""The command `cffma`: help, errors, and what an evaluation prints and writes."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_cffma import __version__, cli
from speechbrain_cffma.audio import find_audio, read
from speechbrain_cffma.data.mixing import add_noise
from speechbrain_cffma.metrics import METRICS

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
SPEECH = REPOSITORY / "recipes" / "DynamicMix" / "speech" / "ru"


def run(*arguments):
    """The exit code of the command."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Folders of 4 utterances: clean, noisy at 0 or 10 dB, and 5 dB better; one silent."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    paths = [path for path in find_audio(SPEECH) if soundfile.info(path).duration > 1]
    for i, path in enumerate(paths[:4]):
        clean = read(path)
        noise = rng.standard_normal(len(clean))
        snr = (0, 10)[i % 2]
        for system, samples in (
            ("clean", clean),
            ("noisy", add_noise(clean, noise, snr)),
            ("better", add_noise(clean, noise, snr + 5) * (i > 0)),
        ):
            (folder / system).mkdir(exist_ok=True)
            soundfile.write(folder / system / f"u{i}_white_{snr}dB.wav", samples, 16000)
    return folder


@pytest.fixture(scope="module")
def report(corpus):
    """Folder of a report of both systems."""
    code = run(
        "evaluate",
        f"--clean={corpus / 'clean'}",
        f"--noisy={corpus / 'noisy'}",
        f"--enhanced=better={corpus / 'better'}",
        *["--metrics", "pesq, wss,si_sdr", "-o", corpus / "report"],
    )
    assert code == 0
    return corpus / "report"


def test_a_tilde_is_the_home_folder_also_where_shells_leave_it(corpus, monkeypatch):
    monkeypatch.setenv("HOME", str(corpus))
    options = ["--clean=~/clean", "a=~/noisy", "--metrics=si_sdr", "--n-jobs=1"]
    assert run("evaluate", "--output=~/of home", *options) == 0
    assert (corpus / "of home" / "scores.csv").exists()


class TestHelp:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["--help"],
            *([v, "--help"] for v in ("evaluate", "enhance", "app", "export")),
        ],
    )
    def test_imports_nothing_heavy(self, arguments):
        script = (
            "import sys; from speechbrain_cffma.cli import main\n"
            f"try: main({arguments})\n"
            "finally: print('modules:', *sys.modules)"
        )
        shown = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
        ).stdout
        text, _, modules = shown.partition("modules:")
        assert "Usage: cffma" in text
        heavy = {
            "torch",
            "numpy",
            "scipy",
            "soundfile",
            "pesq",
            "speechbrain",
            "joblib",
            "gradio",
            "onnx",
        }
        assert heavy.isdisjoint(modules.split())

    def test_of_a_verb_has_examples(self, capsys):
        assert run("evaluate", "-h") == 0
        assert "cffma evaluate --clean clean/ --noisy noisy/" in capsys.readouterr().out

    def test_lists_the_metrics(self):
        (metrics,) = (
            option for option in cli.evaluate.params if option.name == "metrics"
        )
        assert metrics.help == (
            "Metrics, separated by commas. Further ones: pesq_nb, estoi, llr, wss; "
            "dnsmos_ovrl, dnsmos_sig, dnsmos_bak, dnsmos_p808 (extra dnsmos); srmr (extra "
            "srmr)."
        )
        named = re.findall(r"\w+", f"{metrics.default} {metrics.help}")
        assert set(METRICS) <= set(named)

    def test_it_runs_as_a_module(self):
        command = [sys.executable, "-m", "speechbrain_cffma", "--version"]
        shown = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        assert __version__ in shown.stdout


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "no system to score"),
            (["--enhanced=new"], "--enhanced new: write it as NAME=DIR"),
            (["--enhanced==."], "write it as NAME=DIR"),
            (
                ["--noisy=.", "--enhanced=noisy=."],
                "two systems are named noisy: rename one",
            ),
            (["--noisy=.", "--metrics=pesc"], "no metric pesc"),
            (["--enhanced=new=nowhere"], "the folder nowhere does not exist"),
            (["--noisy=.", "--address=auto"], "--address needs --engine ray"),
        ],
    )
    def test_are_one_line(
        self, corpus, tmp_path, capsys, monkeypatch, arguments, message
    ):
        monkeypatch.chdir(tmp_path)
        code = run(
            "evaluate", f"--clean={corpus / 'clean'}", "-o", "report", *arguments
        )
        assert code == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
        assert os.listdir(tmp_path) == []

    def test_without_ray_its_engine_is_one_line(self, corpus, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        options = [f"--clean={corpus / 'clean'}", f"--noisy={corpus / 'noisy'}"]
        options += ["--metrics=si_sdr", f"--output={corpus / 'never'}"]
        assert run("evaluate", *options, "--engine=ray") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line == (
            "error: Ray is not installed: pip install 'speechbrain-cffma[ray]'"
        )
        assert not (corpus / "never").exists()

    def test_of_usage_have_their_own_code(self, capsys):
        assert run("evaluate", "--clean=nowhere", "-o", "report") == 2
        assert "nowhere" in capsys.readouterr().err

    def test_a_report_of_other_settings_is_kept_unless_asked(self, corpus, capsys):
        command = ["evaluate", f"--clean={corpus / 'clean'}", "--metrics=si_sdr"]
        command += [f"--noisy={corpus / 'noisy'}", f"--output={corpus / 'other'}"]
        assert run(*command) == 0
        assert run(*command, "--scale=unit") == 1
        assert "other settings (scale)" in capsys.readouterr().err
        assert run(*command, "--scale=unit", "--overwrite") == 0
        settings = json.loads((corpus / "other" / "summary.json").read_text())[
            "settings"
        ]
        assert settings["scale"] == "unit"


class TestSystems:
    def test_several_may_follow_one_option(self, corpus, tmp_path):
        folders = [f"{name}={corpus / 'noisy'}" for name in ("a", "b", "c")]
        command = ["evaluate", f"--clean={corpus / 'clean'}", "--metrics=si_sdr"]
        code = run(*command, "--enhanced", *folders[:2], "-o", tmp_path, folders[2])
        assert code == 0
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert list(summary["overall"]) == ["a", "b", "c"]


class TestReport:
    def test_is_a_page_and_files(self, report):
        names = {path.name for path in report.iterdir()}
        assert {"report.html", "scores.csv", "summary.json", "summary.md"} <= names

    def test_the_terminal_shows_a_column_a_system(self, corpus, report, capsys):
        command = [
            "evaluate",
            f"--clean={corpus / 'clean'}",
            f"--noisy={corpus / 'noisy'}",
        ]
        command += [f"--enhanced=better={corpus / 'better'}", "-o", report]
        assert run(*command, "--metrics=pesq,wss,si_sdr") == 0
        shown = capsys.readouterr()
        means, differences = (
            [line.split() for line in block.splitlines()]
            for block in shown.out.split("\n\n")
        )
        assert means[:3] == [
            ["system", "noisy", "better"],
            ["files", "4", "4"],
            ["failed", "0", "1"],
        ]
        assert [line[0] for line in means[3:]] == ["PESQ", "WSS", "SI-SDR"]
        assert differences[0] == ["paired", "difference", "to", "noisy", "better"]
        assert differences[-1][:4] == ["SI-SDR", "(dB)", "↑", "+5.00"]
        assert "better: 1 file failed (u0_white_0dB): the signal is silent" in shown.err

    def test_the_terminal_may_lack_the_arrows(self, corpus, tmp_path):
        command = [
            sys.executable,
            "-m",
            "speechbrain_cffma",
            "evaluate",
            "-o",
            tmp_path,
        ]
        command += [f"--clean={corpus / 'clean'}", f"--noisy={corpus / 'noisy'}"]
        shown = subprocess.run(
            [*command, "--metrics=wss"],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            cwd=REPOSITORY,
        )
        assert shown.returncode == 0, shown.stderr
        assert b"WSS ?" in shown.stdout

    def test_scores_have_a_row_a_file_and_system(self, report):
        with open(report / "scores.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == [
            *["ID", "system", "snr", "noise"],
            *["pesq", "wss", "si_sdr", "failed"],
        ]
        assert [row["system"] for row in rows] == ["noisy"] * 4 + ["better"] * 4
        assert float(rows[1]["si_sdr"]) == pytest.approx(10, abs=0.1)
        assert rows[4]["si_sdr"] == ""
        assert rows[4]["failed"] == "the signal is silent"

    def test_the_summary_says_how_it_was_made(self, report):
        summary = json.loads((report / "summary.json").read_text())
        assert summary["settings"]["scale"] == "int16"
        assert summary["settings"]["versions"]["pesq"]
        assert summary["bootstrap"] == {
            "resamples": 10000,
            "seed": 0,
            "level": 0.95,
        }
        assert summary["reference"] == "noisy"
        assert list(summary["snr"]) == ["0", "10"]
        assert summary["snr"]["0"]["better"]["failed"] == 1

    def test_the_tables_for_a_paper(self, report):
        text = (report / "summary.md").read_text(encoding="utf-8")
        means, differences, snr, noise, note = text.rstrip().split("\n\n")
        for block in (means, differences, snr, noise):
            assert len({line.count("|") for line in block.splitlines()}) == 1
        assert means.startswith(
            "| system | files | failed | PESQ ↑ | WSS ↓ | SI-SDR (dB) ↑ |"
        )
        assert differences.splitlines()[2].startswith("| better | ")
        assert "+5.00 [+" in differences
        assert [line.split(" | ")[:2] for line in snr.splitlines()[2:]] == [
            ["| 0 dB", "noisy"],
            ["| 0 dB", "better"],
            ["| 10 dB", "noisy"],
            ["| 10 dB", "better"],
        ]
        assert noise.splitlines()[2].startswith("| white | noisy | 4 | 0 | ")
        assert "scale int16" in note
        assert "pesq 0" in note
        assert "pystoi" not in note
