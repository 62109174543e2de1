"""Scores and sweeps on a Ray cluster, with one local cluster for all tests."""

import fcntl
import math
import os
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile

import sweep as command
from helpers import calls as helper
from helpers.paths import ROOT
from helpers.sweeps import begin, sweep_of, write, write_project
from speechbrain_cffma import cli
from speechbrain_cffma.errors import CFFMAError, InputError, InstallError
from speechbrain_cffma.metrics.scoring import score_each
from speechbrain_cffma.training.sweep import LOG, failures_of
from speechbrain_cffma.workers import parallel_map

pytest.importorskip("ray", reason="needs the extra ray")

from speechbrain_cffma.cluster import connection, runs
from speechbrain_cffma.cluster.calls import call_each, cluster_map
from speechbrain_cffma.cluster.runs import run_on_cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def ray():
    """A cluster of one node with two CPUs and what it takes for a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # as Ray's launcher does
        # The calls of the tests, and a repository that is not installed.
        paths = [str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        ray = connection.import_ray()
        ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


def has_ended(pid):
    """Whether a process ends within a minute."""
    for _ in range(600):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


class TestCalls:
    def test_a_process_that_dies_or_hangs_costs_the_same_as_on_one_computer(self):
        calls = [("a",), ("die",), ("hang",), ("b",)]
        limits = [60, 60, 2, 60]
        expected = sorted(parallel_map(helper.call, calls, 1, limits))
        assert [bool(outcome.crash) for outcome in expected] == [0, 1, 1, 0]
        assert sorted(cluster_map(helper.call, calls, 1, limits)) == expected

    def test_a_worker_that_is_lost_costs_a_repetition(self, tmp_path):
        (outcome,) = cluster_map(helper.lose, [(tmp_path, 1)], 1)
        (first,) = tmp_path.iterdir()
        assert outcome.crash == ""
        assert outcome.result != int(first.name)
        # A call that still went on would use memory that Ray takes for free.
        assert has_ended(first.name)

    def test_a_call_that_loses_its_worker_twice_has_crashed(self, tmp_path):
        (outcome,) = cluster_map(helper.lose, [(tmp_path, 9)], 1)
        assert outcome.crash.startswith("its worker was lost 2 times")
        assert len(list(tmp_path.iterdir())) == 2

    def test_what_a_call_raises_is_one_line(self):
        with pytest.raises(CFFMAError, match=r"\[RuntimeError: a is full\]$"):
            list(call_each(helper.fail, [("a",)]))

    def test_a_node_that_joins_later_is_checked_at_each_call(self):
        conditions = connection.Conditions((("numpy", "1.0"),))
        with pytest.raises(InstallError, match=r"has .* of numpy, this computer 1\.0"):
            list(call_each(math.sqrt, [(4.0,)], conditions=conditions))

    def test_resources_that_no_node_has_are_an_error(self):
        with pytest.raises(InputError, match=r"no node .* has 1 CPUs and 2 GPUs"):
            list(call_each(math.sqrt, [(4.0,)], num_cpus=1, num_gpus=2))


class TestFiles:
    def test_that_all_nodes_see_pass(self, tmp_path):
        (tmp_path / "a.wav").write_bytes(b"RIFF")
        connection.check_files([tmp_path, tmp_path / "a.wav", tmp_path / "gone.wav"])

    def test_one_that_a_node_lacks_is_an_error_that_names_both(self, tmp_path):
        with open(tmp_path / "a.wav", "wb") as file:
            # Another process has no such file there.
            path = f"/proc/self/fd/{fcntl.fcntl(file, fcntl.F_DUPFD, 900)}"
        try:
            with pytest.raises(
                InputError, match=rf"the node [\d.]+ does not see {path}"
            ):
                connection.check_files([path])
        finally:
            os.close(int(Path(path).name))

    def test_one_of_another_size_is_an_error(self, tmp_path, monkeypatch):
        (tmp_path / "a.wav").write_bytes(b"RIFF")
        there = {"10.0.0.2": [3]}
        monkeypatch.setattr(connection, "on_each_node", lambda *_: there)
        with pytest.raises(
            InputError, match=r"10\.0\.0\.2 has another version of .*a\.wav"
        ):
            connection.check_files([tmp_path / "a.wav"])


class TestScores:
    @pytest.fixture
    def corpus(self, tmp_path):
        """Two systems of four files: one is silent, and one can't be read."""
        for i, name in enumerate(("a_5dB", "b_0dB", "silent")):
            clean, noise = np.random.default_rng(i).uniform(-0.1, 0.1, (2, 16000))
            if name == "silent":
                clean = 0 * clean
            for folder, level in (("clean", 0), ("noisy", 1), ("new", 0.5)):
                (tmp_path / folder).mkdir(exist_ok=True)
                path = tmp_path / folder / f"{name}.wav"
                soundfile.write(path, clean + level * noise, 16000)
        for folder in ("clean", "noisy", "new"):
            (tmp_path / folder / "broken.wav").write_bytes(b"RIFF")
        return tmp_path

    def report(self, corpus, name, *options):
        folders = [f"{system}={corpus / system}" for system in ("noisy", "new")]
        arguments = ["evaluate", f"--clean={corpus / 'clean'}", *folders, *options]
        arguments += ["--metrics=si_sdr,ssnr,llr", f"--output={corpus / name}"]
        cli.cffma.main(arguments, standalone_mode=False)
        names = ("scores.csv", "summary.json", "summary.md")
        return [(corpus / name / file).read_text() for file in names]

    def test_rows_and_report_are_those_of_one_computer(self, corpus, capsys):
        here = self.report(corpus, "here", "--n-jobs=1")
        told = capsys.readouterr()
        assert self.report(corpus, "there", "--engine=ray") == here
        assert capsys.readouterr().out == told.out
        assert "broken.wav can't be read" in here[0]
        assert "the clean signal is silent" in here[0]

    def test_a_metric_that_dies_costs_one_file_one_metric(self):
        metrics = ["si_sdr", "ssnr"]
        sources = [(seed,) for seed in range(3)]
        arguments = (helper.load, sources, metrics, [1.0] * 3, 1)
        expected = sorted(score_each(*arguments))
        scored = sorted(score_each(*arguments, call_each=cluster_map))
        assert scored == expected
        assert [row["si_sdr"] is None for _, row, _ in scored] == [False, True, False]
        assert "si_sdr: its process was killed by SIGKILL" in scored[1].row["failed"]
        assert scored[1].row["ssnr"] is not None


class TestSweeps:
    @pytest.fixture(autouse=True)
    def project(self, tmp_path, monkeypatch):
        """A working directory with the train.py of helpers/sweeps.py."""
        write_project(tmp_path)
        monkeypatch.chdir(tmp_path)

    def runs(self, *what):
        """A run for each, begun."""
        variants = [{"name": f"v{i}", "what": w} for i, w in enumerate(what)]
        runs = sweep_of(variants=variants).runs
        for run in runs:
            begin(run)
        return runs

    def failures(self, runs, **options):
        return failures_of(runs, run_on_cluster(runs, **options))

    def test_runs_work_at_once_with_the_resources_that_they_ask_for(self):
        runs = self.runs("meet", "meet")
        assert self.failures(runs, n_cpus=1, n_gpus=0.5) == {}
        assert all(run.is_finished() for run in runs)
        assert {(r.folder / "environment").read_text() for r in runs} == {"None 1"}
        assert {(r.folder / "gpus").read_text() for r in runs} == {"0"}

    def test_threads_are_as_many_as_cpus(self):
        (run,) = self.runs("finish")
        assert self.failures([run], n_cpus=2, n_gpus=0) == {}
        assert (run.folder / "environment").read_text() == "None 2"
        assert (run.folder / "gpus").read_text() == ""

    def test_each_has_a_gpu_if_the_cluster_has_some(self):
        (run,) = self.runs("finish")
        assert self.failures([run]) == {}
        assert (run.folder / "gpus").read_text() == "0"

    def test_failures_are_told_as_on_one_computer(self):
        runs = self.runs("fail", "die", "finish")
        failures = self.failures(runs, n_gpus=0)
        assert (
            failures[0] == "error: the disk is full (exit code 1; out/v0/1/sweep.log)"
        )
        assert "killed by SIGKILL" in failures[1]
        assert set(failures) == {0, 1}

    def test_a_worker_that_is_lost_costs_a_repetition(self):
        (run,) = self.runs("lose")
        assert self.failures([run], n_gpus=0) == {}
        assert has_ended((run.folder / "lost").read_text())

    def test_what_runs_elsewhere_is_not_run_beside_itself(self, monkeypatch):
        monkeypatch.setattr(runs, "PATIENCE", 0)
        (run,) = self.runs("finish")
        with open(run.folder / LOG, "ab") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            failures = self.failures([run], n_gpus=0)
        assert failures == {0: "another process is already running this"}

    def test_an_interruption_stops_what_runs(self):
        waiting, failing = self.runs("wait", "fail")
        started = waiting.folder / "started"
        with closing(run_on_cluster([waiting, failing], n_gpus=0)) as outcomes:
            assert next(outcomes)[0] == 1
            while not (started.exists() and started.read_text()):
                time.sleep(0.1)
        assert has_ended(started.read_text())

    def test_the_command_writes_the_table(self, capsys):
        write(variants=[{"name": "base", "what": "fail"}])
        with pytest.raises(SystemExit):
            command.main(["hparams/sweeps/test.yaml", "--engine=ray", "--gpus=0"])
        told = capsys.readouterr()
        assert "base, seed 1, failed: error: the disk is full" in told.err
        assert "Not finished: base (seed 1)." in told.out

    def test_a_folder_that_a_node_does_not_see_is_one_line(self, capsys):
        write(output_folder="/proc/self/cwd/here")
        with pytest.raises(SystemExit):
            command.main(["hparams/sweeps/test.yaml", "--engine=ray"])
        (line,) = capsys.readouterr().err.splitlines()
        assert "does not see the folder /proc/self/cwd/here" in line
        assert not list(Path("here").iterdir())
