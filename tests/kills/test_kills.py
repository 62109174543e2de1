"""Workers, nodes and jobs that die: every row is accounted for (`make test-cluster`)."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers import calls, stand_in
from helpers.paths import ROOT
from helpers.stand_in import StandIn
from helpers.sweeps import begin, sweep_of, write_project
from speechbrain_cffma.evaluation.journal import JOURNAL
from speechbrain_cffma.training.sweep import failures_of

pytest.importorskip("ray", reason="needs the extra ray")

from speechbrain_cffma.cluster import connection, job
from speechbrain_cffma.cluster.blocks import plan
from speechbrain_cffma.cluster.calls import cluster_map
from speechbrain_cffma.cluster.runs import run_on_cluster
from speechbrain_cffma.errors import InstallError


def memory_in_use():
    """Share of the computer's memory that is in use."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    sizes = {name: int(rest.split()[0]) for name, rest in (x.split(":") for x in lines)}
    return 1 - sizes["MemAvailable"] / sizes["MemTotal"]


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def cluster(monkeypatch_module):
    """Two nodes of one CPU each; it is connected. A test that removes a node adds it."""
    connection.import_ray()
    from ray.cluster_utils import Cluster

    # The calls of the tests, and a repository that is not installed.
    monkeypatch_module.setenv(
        "PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    )

    # Ray kills a worker before the computer is short of memory.
    limits = {
        "memory_usage_threshold": min(0.95, memory_in_use() + 0.15),
        "memory_monitor_refresh_ms": 50,
    }
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "_system_config": limits},
    )
    cluster.add_node(num_cpus=1)
    with connection.connected(cluster.address) as ray:
        ray.cloudpickle.register_pickle_by_value(stand_in)
        yield cluster
    cluster.shutdown()


def wav(n_samples, first=0.0):
    samples = np.random.default_rng(n_samples).uniform(-0.1, 0.1, n_samples)
    samples[0] = first
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", subtype="FLOAT")
    return file.getvalue()


def write_files(folder, firsts):
    folder.mkdir()
    for i, first in enumerate(firsts):
        (folder / f"{i:03d}.wav").write_bytes(wav(1600 + i, first))


def write_shard(path, firsts):
    with tarfile.open(path, "w") as shard:
        for i, first in enumerate(firsts):
            content = wav(1600 + i, first)
            member = tarfile.TarInfo(f"{i:03d}.wav")
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))


def becomes_idle():
    """Whether all CPUs of the cluster are free within a minute."""
    ray = connection.import_ray()
    for _ in range(600):
        if ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]:
            return True
        time.sleep(0.1)
    return False


def is_alive(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def answers(source, output, enhance):
    blocks, _ = plan([str(source)], str(output))
    return job.run(blocks, enhance, str(output), 2, num_cpus=1)


def results_of(answers):
    return [r for a in answers if isinstance(a, job.Finished) for r in a.results]


def stored(output):
    parts = sorted(Path(output, job.RESULTS).glob("*.parquet"))
    return [result for part in parts for result in job.read_part(str(part))]


def check_outputs(source, output, failed=()):
    """Each file is there once, as one machine would have written it, and recorded once."""
    names = {path.name for path in source.iterdir()}
    written = {path.name for path in output.glob("*.wav")}
    assert written == names - set(failed)
    for name in written:
        noisy, _ = soundfile.read(source / name, dtype="float32")
        enhanced, _ = soundfile.read(output / name, dtype="float32")
        np.testing.assert_allclose(enhanced, noisy / 2, atol=1 / 32768)
    recorded = stored(output)
    assert sorted(Path(r.path).name for r in recorded) == sorted(names)
    assert {Path(r.path).name for r in recorded if r.status == "failed"} == set(failed)


def test_a_worker_that_is_killed_in_a_shard_costs_a_repetition(cluster, tmp_path):
    (tmp_path / "once").touch()
    write_shard(tmp_path / "a.tar", [0, 0, 0.75, 0])
    enhance = StandIn(once=tmp_path / "once")
    results = results_of(answers(tmp_path / "a.tar", tmp_path / "out", enhance))
    assert not (tmp_path / "once").exists()
    assert [r.status for r in results] == ["enhanced"] * 4
    with tarfile.open(tmp_path / "out" / "a.tar") as shard:
        assert shard.getnames() == [f"{i:03d}.wav" for i in range(4)]


def test_a_member_that_always_crashes_is_left_out_of_its_shard(cluster, tmp_path):
    write_shard(tmp_path / "a.tar", [0, 0.25, 0])
    results = results_of(answers(tmp_path / "a.tar", tmp_path / "out", StandIn()))
    assert [r.status for r in results] == ["enhanced", "failed", "enhanced"]
    assert "SIGSEGV" in results[1].reason or "killed 2 workers" in results[1].reason
    with tarfile.open(tmp_path / "out" / "a.tar") as shard:
        assert shard.getnames() == ["000.wav", "002.wav"]


def test_a_file_that_exhausts_the_memory_fails_alone(cluster, tmp_path):
    write_files(tmp_path / "in", [0, 0.5, 0, 0])
    results_of(answers(tmp_path / "in", tmp_path / "out", StandIn()))
    check_outputs(tmp_path / "in", tmp_path / "out", failed=["001.wav"])


DRIVER = """
import sys
import ray
from helpers import stand_in
from speechbrain_cffma.cluster import connection, job
from speechbrain_cffma.cluster.blocks import plan
from speechbrain_cffma.cluster.calls import cluster_map
from speechbrain_cffma.cluster.runs import run_on_cluster
from speechbrain_cffma.cluster.lease import Lease

address, source, output = sys.argv[1:]
ray.cloudpickle.register_pickle_by_value(stand_in)
with connection.connected(address), Lease(output) as lease:
    blocks, _ = plan([source], output)
    job.forget_moved(output, blocks)
    enhance = stand_in.StandIn(seconds=0.1)
    for answer in job.run(blocks, enhance, output, 2, lease.check, num_cpus=1):
        print(answer, flush=True)
"""


def start_driver(address, source, output):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, address, source, output],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["9", "int"])
def test_a_job_that_is_killed_goes_on(cluster, tmp_path, how):
    source, output = tmp_path / "in", tmp_path / "out"
    write_files(source, [0] * 30)
    first = start_driver(cluster.address, source, output)
    for _ in range(8):
        first.stdout.readline()
    first.send_signal(how)
    first.communicate()
    n_before = len(list(output.glob("*.wav")))
    assert 0 < n_before < 30
    time.sleep(1)  # Ray ends the workers of the dead job.
    second = start_driver(cluster.address, source, output)
    printed, _ = second.communicate()
    assert second.returncode == 0
    assert printed.count("Result(") - printed.count("Finished(") > 0
    check_outputs(source, output)


def test_a_node_with_another_version_is_named(cluster, tmp_path):
    fake = tmp_path / "soundfile-0.0.1.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text("Name: soundfile\nVersion: 0.0.1\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    node = cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": path})
    with pytest.raises(InstallError, match=r"has 0\.0\.1 of soundfile, this computer"):
        connection.check_versions()
    cluster.remove_node(node)


class TestLostNode:
    """What a lost node held is repeated on the others."""

    @pytest.fixture
    def node(self, cluster):
        return cluster.add_node(num_cpus=1)

    @contextmanager
    def lost(self, cluster, node, processes, go):
        """Remove the node when three have begun; the others end when one is dead."""

        def remove():
            for has_happened, then in (
                (
                    lambda: len(processes()) == 3,
                    lambda: cluster.remove_node(node, allow_graceful=False),
                ),
                (lambda: not all(map(is_alive, processes())), go.touch),
            ):
                while not has_happened():
                    time.sleep(0.1)
                then()

        thread = threading.Thread(target=remove, daemon=True)
        thread.start()
        yield
        thread.join(60)
        assert len(processes()) == 4

    def test_rows(self, cluster, node, tmp_path):
        shards = tmp_path / "in"
        shards.mkdir()
        for name in "abc":  # a block for each node
            write_shard(shards / f"{name}.tar", [0] * 10)
        found, is_lost = [], False
        blocks, _ = plan([str(shards)], str(tmp_path / "out"))
        enhance = StandIn(seconds=0.2)
        for answer in job.run(blocks, enhance, str(tmp_path / "out"), 3, num_cpus=1):
            found.append(answer)
            if len(found) == 9 and not is_lost:
                cluster.remove_node(node, allow_graceful=False)
                is_lost = True
        assert is_lost
        assert [r.status for r in results_of(found)] == ["enhanced"] * 30
        for name in "abc":
            with tarfile.open(tmp_path / "out" / f"{name}.tar") as shard:
                assert len(shard.getnames()) == 10

    def test_scores(self, cluster, node, tmp_path):
        def processes():
            return [path.name.split(".")[0] for path in tmp_path.glob("*.pid")]

        with self.lost(cluster, node, processes, tmp_path / "go"):
            outcomes = list(cluster_map(calls.hold, [(tmp_path,)] * 3, 3))
        assert [outcome.crash for outcome in outcomes] == [""] * 3

    def test_runs_of_a_sweep(self, cluster, node, tmp_path, monkeypatch):
        write_project(tmp_path)
        monkeypatch.chdir(tmp_path)
        variants = [{"name": f"v{i}", "what": "hold"} for i in range(3)]
        runs = sweep_of(variants=variants).runs
        for run in runs:
            begin(run)
        seen = set()

        def processes():
            marks = [run.folder / "started" for run in runs]
            seen.update(mark.read_text() for mark in marks if mark.exists())
            return seen - {""}

        with self.lost(cluster, node, processes, tmp_path / "go"):
            assert failures_of(runs, run_on_cluster(runs, n_gpus=0)) == {}
        assert all(run.is_finished() for run in runs)


def test_an_evaluation_goes_on_after_ctrl_c(cluster, tmp_path):
    for i in range(30):
        clean, noise = np.random.default_rng(i).uniform(-0.1, 0.1, (2, 16000))
        for folder, samples in (("clean", clean), ("noisy", clean + noise)):
            (tmp_path / folder).mkdir(exist_ok=True)
            soundfile.write(tmp_path / folder / f"{i:02d}.wav", samples, 16000)

    def command(name, *options):
        return [sys.executable, "-m", "speechbrain_cffma", "evaluate"] + [
            f"--clean={tmp_path / 'clean'}",
            f"noisy={tmp_path / 'noisy'}",
            f"--output={tmp_path / name}",
            "--metrics=pesq,stoi,si_sdr",
            *options,
        ]

    engine = ["--engine=ray", f"--address={cluster.address}"]
    first = subprocess.Popen(
        command("there", *engine), stderr=subprocess.PIPE, text=True
    )
    journal = tmp_path / "there" / JOURNAL
    while first.poll() is None and not (
        journal.exists() and len(journal.read_text().splitlines()) > 4
    ):
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    _, told = first.communicate()
    assert first.returncode == 130, told
    assert "Traceback" not in told
    n_done = len(journal.read_text().splitlines())
    assert n_done < 30
    assert becomes_idle(), "calls of the interrupted command are still running"
    assert len(journal.read_text().splitlines()) == n_done
    subprocess.run(command("there", *engine), check=True, capture_output=True)
    subprocess.run(command("here"), check=True, capture_output=True)
    rows = [(tmp_path / name / "scores.csv").read_text() for name in ("there", "here")]
    assert rows[0] == rows[1]
