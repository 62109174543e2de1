"""Sweeps by `sweep.py`: their runs, what becomes of them, and the tables."""

import csv
import fcntl
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import sweep as command
from helpers.paths import ROOT
from helpers.sweeps import begin, finish, sweep_of, write, write_project
from speechbrain_cffma.errors import InputError
from speechbrain_cffma.hub import complexity
from speechbrain_cffma.lobes import (
    BLSTM,
    CFFMA,
    CFFMAEnhancer,
    CrossAttentionFusion,
    LogSpectrogram,
    RelativeSelfAttention,
    SSLEmbedding,
    TransformerStack,
)
from speechbrain_cffma.training import comparison as report
from speechbrain_cffma.training.experiment import load_experiment
from speechbrain_cffma.training.runner import run_here
from speechbrain_cffma.training.sweep import LOG, failures_of, prepare, read_sweep
from speechbrain_cffma.workers import ONE_THREAD

pytestmark = pytest.mark.slow

SWEEPS = sorted((ROOT / "hparams" / "sweeps").glob("*.yaml"))


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A working directory with the experiment and the train.py of helpers/sweeps.py."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ONE_THREAD:
        monkeypatch.delenv(name, raising=False)


def run_all(runs, **options):
    return failures_of(runs, run_here(runs, **options))


def message(**keys):
    with pytest.raises(InputError) as caught:
        sweep_of(**keys)
    return str(caught.value)


def train(run):
    """Its first checkpoint as well."""
    begin(run)
    (run.folder / "checkpoints" / "CKPT+1").mkdir(parents=True)


class TestRuns:
    def test_all_variants_of_the_first_seed_come_first(self):
        runs = sweep_of(seeds=[1, 2]).runs
        assert [(r.variant, r.seed) for r in runs] == [
            ("base", 1), ("new", 1), ("base", 2), ("new", 2)
        ]  # fmt: skip

    def test_a_grid_gives_all_combinations_and_its_first_is_the_base(self):
        sweep = sweep_of(variants=None, grid={"dim": [8, 4], "rate": [0.1, 1e-5]})
        assert sweep.variants == [
            "dim=8, rate=0.1", "dim=8, rate=1e-05", "dim=4, rate=0.1", "dim=4, rate=1e-05"
        ]  # fmt: skip
        loaded = load_experiment(sweep.runs[3].experiment())
        assert (loaded["dim"], loaded["rate"]) == (4, 1e-5)
        assert Path(loaded["output_folder"]) == sweep.runs[3].folder

    def test_each_has_a_folder_of_its_own_and_all_share_the_data(self):
        runs = sweep_of(seeds=[1, 2]).runs
        loaded = [load_experiment(run.experiment()) for run in runs]
        assert [e["output_folder"] for e in loaded] == [
            "out/base/1", "out/new/1", "out/base/2", "out/new/2"
        ]  # fmt: skip
        assert {e["manifest_folder"] for e in loaded} == {"out/manifests"}

    def test_names_become_folders(self):
        (run,) = sweep_of(variants=[{"name": "no / SCTA: 1|2"}]).runs
        assert run.folder == Path("out/no_SCTA_1_2/1")

    def test_the_variant_comes_before_the_overrides_of_all(self):
        runs = sweep_of(overrides={"dim": 32, "rate": 1}).runs
        loaded = [load_experiment(run.experiment()) for run in runs]
        assert [(e["dim"], e["rate"]) for e in loaded] == [(32, 1), (16, 1)]

    def test_the_command_line_comes_before_the_yaml(self):
        given = {"seeds": "[7]", "output_folder": "there", "rate": "5"}
        runs = sweep_of(given, overrides={"rate": 1}).runs
        assert [run.folder.as_posix() for run in runs] == [
            "there/base/7",
            "there/new/7",
        ]
        assert load_experiment(runs[0].experiment())["rate"] == 5

    @pytest.mark.parametrize(
        "value",
        [None, True, "true", "a: b", "[a", "two words", "", "a=b", [1, "a"], {"a": 1}],
    )
    def test_any_value_reaches_the_experiment_as_it_is(self, value):
        (run,) = sweep_of(variants=None, grid={"name": [value]}).runs
        argv = shlex.split(run.command())[2:]
        assert argv == run.arguments
        assert load_experiment(run.experiment())["name"] == value

    @pytest.mark.parametrize(
        ("keys", "expected"),
        [
            ({"seeds": None}, "has no seeds"),
            ({"experiment": None}, "has no experiment"),
            ({"output_folder": None}, "has no output_folder"),
            ({"variant": []}, "unknown key 'variant'"),
            ({"variants": None}, "either variants or a grid"),
            ({"grid": {"dim": [1]}}, "either variants or a grid"),
            ({"seeds": 1}, "list of whole numbers"),
            ({"seeds": ["a"]}, "list of whole numbers"),
            ({"seeds": [1, 1]}, "a seed occurs twice"),
            ({"variants": [{"dim": 1}]}, "each variant needs a name"),
            ({"variants": ["base"]}, "each variant needs a name"),
            ({"variants": [{"name": "a"}] * 2}, "the same name"),
            ({"variants": [{"name": "a b"}, {"name": "A/B"}]}, "name for a folder"),
            ({"variants": None, "grid": {"dim": 8}}, "needs a list"),
        ],
    )
    def test_a_sweep_of_another_form_is_an_error(self, keys, expected):
        assert expected in message(**keys)

    def test_tags_are_an_error(self):
        path = write()
        path.write_text(path.read_text().replace("16", "!ref <rate>"))
        with pytest.raises(InputError, match="can't hold a YAML tag"):
            read_sweep(path)

    @pytest.mark.parametrize("value", ["a=b", "2024", "true", "(a)", "x #1", 2024])
    def test_text_reaches_the_experiment_as_it_is(self, value):
        (run,) = sweep_of(variants=None, grid={"what": [value]}).runs
        assert load_experiment(run.experiment())["what"] == str(value)

    @pytest.mark.parametrize("text", ["a=b", "2024", "[a", "x #1"])
    def test_so_does_text_of_the_command_line(self, text):
        run = sweep_of({"what": text}).runs[0]
        assert load_experiment(run.experiment())["what"] == text

    def test_a_key_that_the_experiment_lacks_is_an_error(self):
        with pytest.raises(InputError, match="has no key 'dims'"):
            sweep_of(overrides={"dims": 1}).runs[0].experiment()

    def test_an_option_that_a_run_keeps_no_note_of_is_an_error(self):
        with pytest.raises(InputError, match="precision is an option of SpeechBrain"):
            sweep_of(overrides={"precision": "bf16"}).runs[0].experiment()

    @pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
    def test_of_each_sweep_of_the_project_can_be_read(self, path, monkeypatch):
        monkeypatch.chdir(ROOT)
        data = {"speech_folder": "DIR", "noise_folder": "DIR"}
        needed, least = {"default": (data, 2)}.get(path.stem, ({}, 5))
        sweep = read_sweep(path.relative_to(ROOT), needed)
        first = [run for run in sweep.runs if run.seed == sweep.seeds[0]]
        texts = {run.experiment() for run in first}
        assert len(texts) == len(sweep.variants) > least

    def test_no_two_sweeps_of_the_project_have_the_same_folder(self):
        folders = [read_sweep(path).folder for path in SWEEPS]
        assert len(set(folders)) == len(folders) > 2


class TestState:
    @pytest.fixture
    def run(self):
        return sweep_of().runs[1]

    def test_one_that_has_not_begun_is_not_finished(self, run):
        assert not run.is_finished()

    def test_one_that_was_interrupted_is_not_finished(self, run):
        train(run)
        assert not run.is_finished()

    def test_one_with_a_summary_is_finished(self, run):
        finish(run)
        assert run.is_finished()

    @pytest.mark.parametrize("reach", [train, finish])
    def test_one_of_other_settings_is_an_error_that_names_them(self, run, reach):
        reach(run)
        other = sweep_of(overrides={"rate": 0.5}).runs[1]
        with pytest.raises(InputError, match=r"out/new/1 .* other settings \(rate\)"):
            other.is_finished()

    def test_one_of_a_release_with_other_keys_goes_on(self, run):
        finish(run)
        kept = run.folder / "hyperparams.yaml"
        settings = kept.read_text().replace("data_seed:", "# anew\ngone:")
        kept.write_text(settings)
        assert run.is_finished()
        other = sweep_of(overrides={"rate": 0.5}).runs[1]
        with pytest.raises(InputError, match=r"with other settings \(rate\)"):
            other.is_finished()

    def test_other_settings_matter_only_if_there_is_something_to_reuse(self, run):
        begin(run)
        assert not sweep_of(overrides={"rate": 0.5}).runs[1].is_finished()


class TestPreparation:
    def test_one_after_the_other_in_one_folder(self):
        prepare(sweep_of(seeds=[1, 2], overrides={"data_seed": 5}).runs)
        kept = json.loads(Path("out/manifests/prepared.json").read_text())
        assert kept["arguments"] == {"data_seed": 5}

    def test_runs_that_would_be_tested_on_other_data_are_an_error(self):
        with pytest.raises(
            InputError, match="base/1 and out/base/2 have different data"
        ):
            prepare(sweep_of(seeds=[1, 2]).runs)


class TestRunning:
    def runs(self, *what):
        """A run for each, begun."""
        variants = [{"name": f"v{i}", "what": w} for i, w in enumerate(what)]
        runs = sweep_of(variants=variants).runs
        for run in runs:
            begin(run)
        return runs

    def test_all_finish(self):
        runs = self.runs("finish", "finish", "finish")
        assert run_all(runs) == {}
        assert all(run.is_finished() for run in runs)

    def test_several_run_at_once(self):
        assert run_all(self.runs("meet", "meet"), n_jobs=2) == {}

    def test_on_a_cpu_each_has_its_share_of_threads(self, monkeypatch):
        monkeypatch.setattr(os, "cpu_count", lambda: 8)
        runs = self.runs("meet", "meet")
        run_all(runs, n_jobs=2)
        environments = {(run.folder / "environment").read_text() for run in runs}
        assert environments == {"None 4"}

    def test_on_several_devices_each_has_one(self):
        runs = self.runs("meet", "meet")
        run_all(runs, n_jobs=2, devices=["cuda:0", "cuda:1"])
        devices = {(run.folder / "environment").read_text().split()[0] for run in runs}
        assert devices == {"cuda:0", "cuda:1"}

    def test_a_failure_is_told_by_its_last_line_and_does_not_stop_the_others(self):
        runs = self.runs("fail", "finish")
        (failure,) = run_all(runs).items()
        assert failure == (
            0, "error: the disk is full (exit code 1; out/v0/1/sweep.log)"
        )  # fmt: skip
        assert runs[1].is_finished()

    def test_a_process_that_is_killed_is_a_failure(self):
        assert "killed by SIGKILL" in run_all(self.runs("die"))[0]

    def test_what_was_running_before_is_not_run_beside_itself(self):
        runs = self.runs("finish", "finish")
        with open(runs[0].folder / LOG, "ab") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            failures = run_all(runs)
        assert failures == {0: "another process is already running this"}
        assert runs[1].is_finished()

    def test_an_interruption_stops_what_runs(self, monkeypatch):
        (run,) = self.runs("wait")
        started = run.folder / "started"

        def interrupted(seconds):
            if started.exists() and started.read_text():
                raise KeyboardInterrupt

        clock = SimpleNamespace(sleep=interrupted, monotonic=time.monotonic)
        monkeypatch.setattr("speechbrain_cffma.training.runner.time", clock)
        with pytest.raises(KeyboardInterrupt):
            run_all([run])
        with pytest.raises(ProcessLookupError):
            os.kill(int(started.read_text()), 0)


class TestCommand:
    def main(self, *options):
        return command.main(["hparams/sweeps/test.yaml", *options])

    def test_prints_a_line_for_a_shell_for_each_unfinished_run(self, capsys):
        runs = sweep_of(overrides={"name": "it's"}).runs
        finish(runs[0])
        self.main("--print-commands")
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("python train.py hparams/small.yaml ")
        assert shlex.split(line)[2:] == runs[1].arguments

    def test_prepares_only(self):
        sweep_of(overrides={"data_seed": 5})
        self.main("--prepare-only")
        assert Path("out/manifests/prepared.json").exists()
        assert not Path("out/base").exists()

    def test_reports_only(self, capsys):
        sweep_of()
        self.main("--report-only")
        assert capsys.readouterr().out.strip() == (
            "Not finished: base (seed 1); new (seed 1)."
        )
        assert not Path("out/base").exists()

    @pytest.mark.parametrize("option", ["--device=cpu", "--precision=bf16"])
    def test_refuses_options_of_one_run(self, option, capsys):
        sweep_of()
        with pytest.raises(SystemExit):
            self.main(option)
        assert (
            f"sweep.py has no option {option.split('=')[0]}" in capsys.readouterr().err
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--gpus=1"], "--gpus needs --engine ray"),
            (["--cpus=2"], "--cpus needs --engine ray"),
            (["--address=auto"], "--address needs --engine ray"),
            (["--engine=ray", "--devices=cpu"], "--devices is replaced by --gpus with"),
            (["--engine=ray"], "Ray is not installed: pip install"),
        ],
    )
    def test_options_of_another_engine_are_one_line(
        self, options, message, capsys, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "ray", None)
        write()
        with pytest.raises(SystemExit):
            self.main(*options)
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert not Path("out/base").exists()

    def test_a_failed_run_gives_exit_code_1_and_the_table_of_the_rest(self, capsys):
        sweep_of(overrides={"what": "fail"})
        with pytest.raises(SystemExit) as stop:
            self.main()
        assert stop.value.code == 1
        captured = capsys.readouterr()
        assert "new, seed 1, failed: error: the disk is full" in captured.err
        assert "Not finished: base (seed 1); new (seed 1)." in captured.out

    def test_stopped_it_stops_its_runs_and_says_how_to_go_on(self):
        sweep_of(overrides={"what": "wait"})
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "sweep.py"), "hparams/sweeps/test.yaml"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        started = Path("out/base/1/started")
        while not (started.exists() and started.read_text()):
            assert process.poll() is None
            time.sleep(0.1)
        process.terminate()
        _, error = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "run the same command to continue" in error
        with pytest.raises(ProcessLookupError):
            os.kill(int(started.read_text()), 0)


# --- tables ---

METRICS = ["pesq", "stoi"]


@pytest.fixture(scope="session")
def model(tmp_path_factory, ssl_folder):
    """A model folder of a tiny network."""
    from speechbrain_cffma.lobes import load_ssl

    embedding = SSLEmbedding(load_ssl(ssl_folder("wavlm")), fine_tune="partial")
    estimator = CFFMA(ssl_dim=32, fused_dim=32, dim=16)
    folder = tmp_path_factory.mktemp("model") / "model"
    CFFMAEnhancer(embedding, LogSpectrogram(), estimator).save_pretrained(folder)
    return folder


def write_scores(run, model, enhanced, noisy=((1.0, 0.5), (1.5, 0.6), (2.0, 0.7))):
    """A finished run with these scores of each file."""
    finish(run)
    (run.folder / "model").symlink_to(model)
    folder = run.folder / "test"
    settings = {
        "metrics": METRICS,
        "scale": "int16",
        "sample_rate": 16000,
        "versions": {"pesq": "0.0.4"},
    }
    (folder / "summary.json").write_text(json.dumps({"settings": settings}))
    with open(folder / "scores.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "system", *METRICS])
        for system, scores in (("noisy", noisy), ("enhanced", enhanced)):
            for name, values in zip("abc", scores, strict=True):
                writer.writerow([name, system, *values])


@pytest.fixture
def finished(model):
    """`base` and `new` with 2 seeds, and `late` with the second alone, of 3."""
    variants = [
        {"name": "base"},
        {"name": "new", "dim": 16},
        {"name": "late", "dim": 4},
    ]
    sweep = sweep_of(variants=variants, seeds=[1, 2])
    scores = {
        ("base", 1): [(2.0, 0.7), (2.0, 0.7), (2.0, 0.7)],
        ("base", 2): [(2.2, 0.7), (2.2, 0.7), (2.2, 0.7)],
        ("new", 1): [(2.5, 0.8), (2.6, 0.6), (2.7, "")],
        ("new", 2): [(2.9, 0.6), (2.8, 0.8), (2.7, 0.9)],
        ("late", 2): [(2.2, 0.7), (2.0, 0.7), (2.1, 0.7)],
    }
    for run in sweep.runs:
        if (run.variant, run.seed) in scores:
            write_scores(run, model, scores[run.variant, run.seed])
    return sweep


class TestComparison:
    @pytest.fixture
    def variants(self, finished):
        return report.compare(finished)["variants"]

    def test_scores_are_means_over_files_and_seeds_with_the_t_interval(self, variants):
        score = variants["new"]["scores"]["pesq"]
        # The seeds' means are 2.6 and 2.8; t of 1 degree of freedom is 12.706.
        half = 12.7062 * np.std([2.6, 2.8], ddof=1) / 2**0.5
        assert score["mean"] == pytest.approx(2.7)
        assert score["low"] == pytest.approx(2.7 - half, abs=1e-3)
        assert score["high"] == pytest.approx(2.7 + half, abs=1e-3)

    def test_one_seed_alone_has_no_interval(self, variants):
        score = variants["late"]["scores"]["pesq"]
        assert score["mean"] == pytest.approx(2.1)
        assert score["low"] is score["high"] is None

    def test_differences_are_paired_by_seed_and_file(self, variants):
        difference = variants["new"]["difference"]["pesq"]
        # Over the seeds 0.6, 0.6 and 0.6 for the files: nothing to resample.
        assert difference["seeds"] == pytest.approx([0.6, 0.6])
        ends = [difference[key] for key in ("low", "mean", "high")]
        assert ends == pytest.approx([0.6, 0.6, 0.6])

    def test_differences_resample_files(self, variants):
        difference = variants["late"]["difference"]["pesq"]
        ends = [difference[key] for key in ("low", "mean", "high")]
        assert ends == pytest.approx([-0.2, -0.1, 0.0])

    def test_only_seeds_that_the_base_has_are_compared(self, variants):
        assert variants["late"]["difference"]["pesq"]["seeds"] == pytest.approx([-0.1])

    def test_a_file_without_a_score_is_left_out(self, variants):
        # The third file: no STOI with seed 1.
        assert variants["new"]["scores"]["stoi"]["mean"] == pytest.approx(
            (0.7 + 2.3 / 3) / 2
        )
        assert variants["new"]["difference"]["stoi"]["mean"] == pytest.approx(0.0)

    def test_the_base_has_no_difference(self, variants):
        assert "difference" not in variants["base"]

    def test_sizes_are_those_of_the_model(self, variants, model):
        enhancer = CFFMAEnhancer.from_pretrained(model)
        feature_encoder = enhancer.embedding.ssl.model.feature_extractor
        size = variants["new"]["size"]
        n = {
            "all": enhancer,
            "ssl": enhancer.embedding.ssl,
            "frozen": feature_encoder,
        }
        n = {k: sum(p.numel() for p in m.parameters()) for k, m in n.items()}
        n["frozen"] += 32  # the mask token, which is never used
        assert size["all"] == n["all"]
        assert size["head"] == n["all"] - n["ssl"]
        assert size["trainable"] == n["all"] - n["frozen"]
        assert size["multiply_adds"] == complexity.multiply_adds(
            enhancer, torch.zeros(1, 160000)
        )

    def test_what_has_not_finished_is_missing(self, finished):
        assert report.compare(finished)["missing"] == {"late": [1]}

    def test_without_the_base_there_are_scores_alone(self, model):
        sweep = sweep_of()
        write_scores(sweep.runs[1], model, [(1.5, 0.5)] * 3)
        comparison = report.compare(sweep)
        assert list(comparison["variants"]) == ["new"]
        assert "difference" not in comparison["variants"]["new"]
        assert "Not finished: base (seed 1)." in report.write_comparison(sweep)

    def test_runs_that_were_tested_on_other_files_are_an_error(self, model):
        sweep = sweep_of()
        write_scores(sweep.runs[0], model, [(1.5, 0.5)] * 3)
        write_scores(sweep.runs[1], model, [(1.5, 0.5)] * 3, noisy=[(1.1, 0.5)] * 3)
        with pytest.raises(InputError, match="were tested on different files"):
            report.compare(sweep)

    def test_a_broken_report_is_an_error(self, finished):
        (finished.runs[0].folder / "test" / "scores.csv").write_text(
            "ID,system\na,noisy"
        )
        with pytest.raises(InputError, match="out/base/1/test holds no valid report"):
            report.compare(finished)


class TestTables:
    def test_in_markdown(self, finished):
        lines = report.write_comparison(finished).splitlines()
        assert lines[:6] == [
            "| variant | seeds | PESQ ↑ | STOI ↑ |",
            "| --- | ---: | ---: | ---: |",
            "| (noisy) |  | 1.50 | 0.600 |",
            "| base | 2 | 2.10 [0.83, 3.37] | 0.700 [0.700, 0.700] |",
            "| new | 2 | 2.70 [1.43, 3.97] | 0.733 [0.310, 1.157] |",
            "| late | 1 | 2.10 | 0.700 |",
        ]
        assert lines[-1] == "Not finished: late (seed 1)."
        assert (finished.folder / "table.md").read_text().splitlines() == lines

    @pytest.mark.parametrize(
        ("first", "second", "is_bold"),
        [
            ((2.1, 2.2, 2.3), (2.1, 2.1, 2.1), True),
            # The seeds disagree.
            ((2.6, 2.6, 2.6), (1.9, 1.9, 1.9), False),
            # The files do.
            ((1.6, 2.0, 2.6), (1.6, 2.0, 2.6), False),
        ],
    )
    def test_only_what_files_and_seeds_agree_on_is_bold(
        self, first, second, is_bold, model
    ):
        sweep = sweep_of(seeds=[1, 2])
        for run in sweep.runs:
            scores = first if run.seed == 1 else second
            scores = [2.0] * 3 if run.variant == "base" else scores
            write_scores(run, model, [(score, 0.5) for score in scores])
        assert ("| **+0." in report.write_comparison(sweep)) == is_bold

    def test_one_seed_alone_is_never_bold(self, finished):
        lines = report.write_comparison(finished).splitlines()
        (late,) = [line for line in lines if line.startswith("| late | -")]
        assert "**" not in late

    def test_as_csv(self, finished):
        report.write_comparison(finished)
        with open(finished.folder / "table.csv", newline="") as file:
            base, new, _ = csv.DictReader(file)
        assert float(new["pesq_mean"]) == pytest.approx(2.7)
        assert float(new["pesq_difference_mean"]) == pytest.approx(0.6)
        assert base["pesq_difference_mean"] == ""
        assert new["seeds"] == "1 2"
        assert int(new["parameters_head"]) > 0

    def test_the_figure_names_variants_and_metrics(self, finished):
        report.write_comparison(finished)
        figure = (finished.folder / "figure.svg").read_text()
        for text in (">new<", ">late<", ">PESQ ↑<", ">STOI ↑<", ">Difference to base"):
            assert text in figure
        assert ">base<" not in figure
        assert (finished.folder / "figure.png").stat().st_size > 1000


# --- multiply-adds ---

T = 50
#: Of linear layers and of two products [T, T] by [T, 64].
ATTENTION = 4 * T * 64 * 64 + 2 * T * T * 64


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Linear(64, 32), T * 64 * 32),
        (
            BLSTM(64, n_layers=2),
            2 * T * 4 * 64 * (64 + 64) + 2 * T * 4 * 64 * (128 + 64),
        ),
        (
            RelativeSelfAttention(64, 4),
            ATTENTION + 2 * T * 64 * 64 + T * 2 * T * 64,
        ),
        (TransformerStack(64, 1, 4), ATTENTION + 2 * T * 64 * 256),
    ],
    ids=lambda value: type(value).__name__,
)
def test_multiply_adds_are_those_counted_by_hand(module, expected):
    assert complexity.multiply_adds(module.eval(), torch.rand(1, T, 64)) == expected


def test_multiply_adds_of_a_convolution():
    conv = nn.Conv1d(64, 32, kernel_size=5, padding=2)
    assert complexity.multiply_adds(conv, torch.rand(1, 64, T)) == T * 64 * 32 * 5


def test_multiply_adds_of_cross_attention():
    fusion = CrossAttentionFusion(20, 30, 64, 4).eval()
    inputs = torch.rand(1, T, 20), torch.rand(1, T, 30)
    assert complexity.multiply_adds(fusion, *inputs) == ATTENTION + T * 50 * 64


def test_multiply_adds_of_the_published_head():
    with torch.device("meta"):  # counts without computing
        inputs = torch.empty(1, 1001, 201), torch.empty(1, 1001, 768)
        n = complexity.multiply_adds(CFFMA().eval(), *inputs)
    assert n / 1e9 == pytest.approx(23.2, abs=0.05)
    # As published, each frame is scored for all 2T - 1 distances; here, where N frames
    # are scored together, for N + T.
    scored = sum(length * (length + 1001) for length in (256, 256, 256, 233))
    saved = 2 * 512 * (1001 * 2001 - scored)
    assert (n + saved) / 1e9 == pytest.approx(23.9, abs=0.05)


# --- a real one ---


def test_a_sweep_trains_tests_and_compares(tmp_path, ssl_folder, monkeypatch, capsys):
    path = write(
        experiment=str(ROOT / "hparams" / "mini.yaml"),
        output_folder=str(tmp_path / "real"),
        variants=[{"name": "published"}, {"name": "BSSE", "variant": "blstm"}],
        overrides={
            "data_seed": 0,
            "ssl_source": ssl_folder("wavlm"),
            "speech_folder": str(tmp_path / "speech"),
            "fused_dim": 32,
            "dim": 16,
            "n_valid": 1,
            "n_test": 2,
            "number_of_epochs": 1,
            "steps_per_epoch": 2,
            "batch_size": 2,
            "num_workers": 0,
            "metric_workers": 1,
            "n_examples": 0,
        },
    )
    for speaker, count in (("en", 24), ("ru", 4)):
        source = ROOT / "recipes" / "DynamicMix" / "speech" / speaker
        (tmp_path / "speech" / speaker).mkdir(parents=True)
        for file in sorted(source.glob("*.opus"))[:count]:
            (tmp_path / "speech" / speaker / file.name).symlink_to(file)
    monkeypatch.chdir(ROOT)
    options = [str(tmp_path / path), "--jobs", "2", "--devices", "cpu"]
    command.main(options)
    out = capsys.readouterr().out
    assert "| published | 1 |" in out
    assert "| BSSE | 1 |" in out
    assert "Not finished" not in out
    logs = [tmp_path / "real" / name / "1" / LOG for name in ("published", "BSSE")]
    times = [log.stat().st_mtime_ns for log in logs]
    command.main(options)  # has nothing to do
    assert capsys.readouterr().out == out
    assert [log.stat().st_mtime_ns for log in logs] == times
