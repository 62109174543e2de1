"""Corpora on a Ray cluster, with one local cluster for all tests.

`make test-cluster` runs tests/kills/, where workers, nodes and jobs are killed.
"""

import io
import os
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers import stand_in
from helpers.networks import small_enhancer
from helpers.stand_in import StandIn
from speechbrain_cffma.audio import ENHANCED_FILE
from speechbrain_cffma.cli import main
from speechbrain_cffma.cluster import storage
from speechbrain_cffma.cluster.blocks import FILES, Files, Result, plan
from speechbrain_cffma.cluster.lease import Lease
from speechbrain_cffma.errors import CFFMAError, InputError

pytest.importorskip("ray", reason="needs the extra ray")

import pyarrow
from pyarrow import parquet
from pyarrow import table as arrow_table

from speechbrain_cffma.cluster import connection, job
from speechbrain_cffma.cluster.enhance import Summary, enhance
from speechbrain_cffma.cluster.rows import Enhance

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket():
    """A bucket of moto's server, to which the environment gives access."""
    pytest.importorskip("moto")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        _, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="corpus")
        yield "s3://corpus"
    server.stop()


@pytest.fixture(scope="module")
def ray(bucket):  # whose environment the workers get
    with connection.connected("local", n_cpus=2) as ray:
        # The workers' path has no tests.
        ray.cloudpickle.register_pickle_by_value(stand_in)
        yield ray


def tone(n_samples=1600, first=0.0, **options):
    """A short WAV file as bytes."""
    samples = np.random.default_rng(n_samples).uniform(-0.1, 0.1, n_samples)
    samples[0] = first
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", **options)
    return file.getvalue()


def write_wavs(folder, n, **options):
    for i in range(n):
        path = Path(folder, f"{i % 3}", f"{i:05d}.wav")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tone(1600 + i, **options))


def write_shard(path, names, cut=0):
    """A shard: an audio member and a text for each name."""
    with tarfile.open(path, "w") as shard:
        for i, name in enumerate(names):
            for suffix, content in ((".wav", tone(1600 + i)), (".txt", b"said")):
                member = tarfile.TarInfo(name + suffix)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    if cut:
        path.write_bytes(path.read_bytes()[:-cut])


def upload(folder, uri):
    for path in folder.rglob("*.*"):
        with storage.whole(f"{uri}/{path.relative_to(folder)}") as partial:
            partial.write_bytes(path.read_bytes())


def work_on(blocks, output, enhance=None, **options):
    """Run a job to its end; return its results."""
    answers = job.run(
        blocks, enhance or StandIn(), str(output), 2, num_cpus=1, **options
    )
    finished = [a for a in answers if isinstance(a, job.Finished)]
    return [result for answer in finished for result in answer.results]


def stored(output):
    """All results in an output."""
    parts = sorted(Path(output, job.RESULTS).glob("*.parquet"))
    return [result for part in parts for result in job.read_part(str(part))]


def sound(content):
    return soundfile.read(io.BytesIO(content), dtype="float32")[0]


# --- What there is to do


class TestPlan:
    def test_files_come_in_blocks_and_keep_the_tree(self, tmp_path):
        write_wavs(tmp_path / "in", FILES + 1)
        (first, second), failures = plan([str(tmp_path / "in")], str(tmp_path / "out"))
        assert (len(first.rows), len(second.rows), failures) == (FILES, 1, [])
        source, target = first.rows[0]
        assert Path(source).relative_to(tmp_path / "in") == Path(target).relative_to(
            tmp_path / "out"
        )

    def test_formats_that_cannot_be_written_become_wav(self, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.m4a").touch()
        (block,), _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
        assert block.rows[0][1] == str(tmp_path / "out" / "a.wav")

    def test_an_output_that_is_an_input_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="both input and output"):
            plan([str(tmp_path)], str(tmp_path))

    def test_files_that_would_replace_an_input_get_a_line_each(self, tmp_path):
        (tmp_path / "a.wav").write_bytes(tone())
        _, failures = plan([str(tmp_path / "a.wav")], str(tmp_path))
        assert "would replace an input" in failures[0]

    def test_files_with_the_same_output_get_a_line_each(self, tmp_path):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "x.wav").write_bytes(tone())
        inputs = [str(tmp_path / name) for name in ("a", "b")]
        blocks, failures = plan(inputs, str(tmp_path / "out"))
        assert (len(blocks), len(failures)) == (0, 2)

    def test_a_missing_input_gets_a_line(self, tmp_path):
        blocks, failures = plan([str(tmp_path / "no.wav")], str(tmp_path / "out"))
        assert (blocks, len(failures)) == ([], 1)

    def test_results_of_an_earlier_job_are_no_input(self, tmp_path):
        write_wavs(tmp_path / "in", 1)
        job.write_part(str(tmp_path / "in/out/_results/a.parquet"), [Result("a.wav")])
        blocks, failures = plan([str(tmp_path / "in")], str(tmp_path / "other"))
        assert [type(block) for block in blocks] == [Files]
        assert failures == []

    def test_files_that_are_not_read_are_told(self, tmp_path, caplog):
        write_wavs(tmp_path / "in", 1)
        (tmp_path / "in" / "a.tar.gz").touch()
        plan([str(tmp_path / "in")], str(tmp_path / "out"))
        assert "1 skipped, no audio extension (.gz)" in caplog.text

    def test_a_broken_table_costs_only_itself(self, tmp_path):
        write_wavs(tmp_path / "in", 1)
        (tmp_path / "in" / "a.parquet").write_bytes(b"PAR1")
        blocks, (failure,) = plan([str(tmp_path / "in")], str(tmp_path / "out"))
        assert [type(block) for block in blocks] == [Files]
        assert failure.startswith(f"{tmp_path}/in/a.parquet can't be read")

    def test_two_columns_of_one_name_are_refused(self, tmp_path):
        column = pyarrow.array([tone()])
        rows = pyarrow.Table.from_arrays([column] * 3, ["audio", "t", "t"])
        parquet.write_table(rows, tmp_path / "a.parquet")
        with pytest.raises(InputError, match="has several columns t: rename"):
            plan([str(tmp_path / "a.parquet")], str(tmp_path / "out"))

    def test_a_table_without_audio_is_refused(self, tmp_path):
        parquet.write_table(arrow_table({"n": [1]}), tmp_path / "a.parquet")
        with pytest.raises(InputError, match="no column of audio among n"):
            plan([str(tmp_path / "a.parquet")], str(tmp_path / "out"))


# --- Each kind of block; no cluster is needed


class TestShard:
    def test_audio_is_enhanced_and_other_members_are_kept(self, tmp_path):
        write_shard(tmp_path / "a.tar", ["x", "y"])
        (block,), _ = plan([str(tmp_path / "a.tar")], str(tmp_path / "out"))
        results = list(block.work(StandIn(), 0, {}))
        assert [r.path for r in results] == [
            f"{tmp_path}/a.tar:{name}.wav" for name in "xy"
        ]
        with tarfile.open(tmp_path / "out" / "a.tar") as shard:
            assert shard.getnames() == ["x.wav", "x.txt", "y.wav", "y.txt"]
            assert shard.extractfile("x.txt").read() == b"said"
            enhanced = sound(shard.extractfile("x.wav").read())
        np.testing.assert_allclose(enhanced, sound(tone(1600)) / 2, atol=1 / 32768)

    @pytest.mark.parametrize("cut", [10240, 12000])  # after a member, and in one
    def test_a_truncated_shard_fails_as_a_whole(self, tmp_path, cut):
        write_shard(tmp_path / "a.tar", ["x", "y"], cut=cut)
        (block,), _ = plan([str(tmp_path / "a.tar")], str(tmp_path / "out"))
        *_, last = block.work(StandIn(), 0, {})
        assert (last.path, last.status) == (str(tmp_path / "a.tar"), "failed")
        assert not (tmp_path / "out" / "a.tar").exists()

    def test_a_member_above_the_limit_is_left_out(self, tmp_path):
        write_shard(tmp_path / "a.tar", ["x"])
        (block,), _ = plan([str(tmp_path / "a.tar")], str(tmp_path / "out"))
        small = StandIn()
        small.max_bytes = 1000
        (result,) = block.work(small, 0, {})
        assert "more than --max-row-mb allows" in result.reason
        with tarfile.open(tmp_path / "out" / "a.tar") as shard:
            assert shard.getnames() == ["x.txt"]

    def test_links_follow_the_members_that_they_link_to(self, tmp_path):
        with tarfile.open(tmp_path / "a.tar", "w") as shard:
            for name, content in (("x.aif", tone()), ("y.wav", b"no audio")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
                link = tarfile.TarInfo(f"link to {name}")
                link.type, link.linkname = tarfile.LNKTYPE, name
                shard.addfile(link)
        (block,), _ = plan([str(tmp_path / "a.tar")], str(tmp_path / "out"))
        enhanced = [r.status for r in block.work(Renaming(), 0, {})]
        assert enhanced == ["enhanced", "failed"]
        with tarfile.open(tmp_path / "out" / "a.tar") as shard:
            assert shard.getnames() == ["x.wav", "link to x.aif"]
            assert shard.getmember("link to x.aif").linkname == "x.wav"

    def test_a_member_that_would_get_the_name_of_another_one_fails(self, tmp_path):
        with tarfile.open(tmp_path / "a.tar", "w") as shard:
            for name in ("x.aif", "x.wav"):
                member = tarfile.TarInfo(name)
                member.size = len(tone())
                shard.addfile(member, io.BytesIO(tone()))
        (block,), _ = plan([str(tmp_path / "a.tar")], str(tmp_path / "out"))
        failed, enhanced = block.work(Renaming(), 0, {})
        assert "would be written as x.wav, which is in the shard too" in failed.reason
        assert enhanced.status == "enhanced"

    def test_a_compressed_shard_says_so(self, tmp_path):
        with tarfile.open(tmp_path / "a.tar", "w:gz") as shard:
            shard.addfile(tarfile.TarInfo("x.txt"))
        (block,), _ = plan([str(tmp_path / "a.tar")], str(tmp_path / "out"))
        (result,) = block.work(StandIn(), 0, {})
        assert "a.tar can't be enhanced (it is compressed: unpack it" in result.reason


class Renaming(StandIn):
    """Writes all files as WAV, as if their format couldn't be written."""

    def content(self, content, name="audio", n_bytes=None):
        (content, _), *outcome = super().content(content, name, n_bytes)
        return (content, ".wav"), *outcome


class TestTable:
    @pytest.mark.parametrize("form", ["bytes", "path", "struct"])
    def test_audio_is_replaced_and_other_columns_are_kept(self, tmp_path, form):
        content = tone()
        (tmp_path / "a.wav").write_bytes(content)
        audio = {
            "bytes": content,
            "path": str(tmp_path / "a.wav"),
            "struct": {"bytes": content, "path": "a.wav"},
        }[form]
        rows = arrow_table({"audio": [audio] * 3, "n": [0, 1, 2]})
        parquet.write_table(rows, tmp_path / "a.parquet", row_group_size=2)
        blocks, _ = plan([str(tmp_path / "a.parquet")], str(tmp_path / "out"))
        results = [r for block in blocks for r in block.work(StandIn(), 0, {})]
        assert [r.path[-2:] for r in results] == [":0", ":1", ":2"]
        enhanced = parquet.read_table(tmp_path / "out" / "a.parquet").to_pylist()
        assert [row["n"] for row in enhanced] == [0, 1, 2]
        first = enhanced[0]["audio"]
        first = first["bytes"] if form == "struct" else first
        np.testing.assert_allclose(sound(first), sound(content) / 2, atol=1 / 32768)

    @pytest.mark.parametrize("kind", ["int16", "int32", "float32", "float64"])
    @pytest.mark.parametrize("n_channels", [1, 2])
    def test_arrays_keep_their_type(self, tmp_path, kind, n_channels):
        full_scale = 1 if kind.startswith("float") else np.iinfo(kind).max + 1
        samples = np.random.default_rng(0).uniform(-0.1, 0.1, (n_channels, 1600))
        samples = (samples * full_scale).astype(kind)
        array, type_ = list(samples), pyarrow.list_(pyarrow.from_numpy_dtype(kind))
        array, type_ = (
            (array[0], type_) if n_channels == 1 else (array, pyarrow.list_(type_))
        )
        fields = [("array", type_), ("sampling_rate", pyarrow.int64())]
        column = pyarrow.array(
            [{"array": array, "sampling_rate": 16000}] * 2, pyarrow.struct(fields)
        )
        parquet.write_table(arrow_table({"audio": column}), tmp_path / "a.parquet")
        (block,), _ = plan([str(tmp_path / "a.parquet")], str(tmp_path / "out"))
        rows = Enhance(device="cpu", precision="fp32")
        assert [r.status for r in block.work(rows, 0, {})] == ["enhanced"] * 2
        enhanced = parquet.read_table(tmp_path / "out" / "a.parquet")
        assert enhanced.schema.field("audio").type == column.type
        first = np.array(enhanced.to_pylist()[0]["audio"]["array"], dtype=kind)
        expected = rows.load().enhance(samples)
        np.testing.assert_array_equal(np.atleast_2d(first), expected)

    def test_channels_of_different_lengths_fail_alone(self, tmp_path):
        samples = np.zeros(1600, "float32")
        rows = [[samples, samples[1:]], [samples, None], [samples, samples]]
        audio = [{"array": row, "sampling_rate": 16000} for row in rows]
        parquet.write_table(arrow_table({"audio": audio}), tmp_path / "a.parquet")
        (block,), _ = plan([str(tmp_path / "a.parquet")], str(tmp_path / "out"))
        results = list(block.work(Enhance(device="cpu", precision="fp32"), 0, {}))
        assert [r.status for r in results] == ["failed", "failed", "enhanced"]
        assert results[0].reason.endswith(
            "a.parquet:0 has channels of different lengths"
        )

    def test_samples_that_can_t_be_enhanced_name_their_row(self, tmp_path):
        array = np.full(1600, np.nan, "float32")
        audio = [{"array": array, "sampling_rate": rate} for rate in (16000, None)]
        parquet.write_table(arrow_table({"audio": audio}), tmp_path / "a.parquet")
        (block,), _ = plan([str(tmp_path / "a.parquet")], str(tmp_path / "out"))
        results = block.work(Enhance(device="cpu", precision="fp32"), 0, {})
        nan, no_rate = (r.reason for r in results)
        assert nan.startswith(f"{tmp_path}/a.parquet:0: ")
        assert no_rate == f"{tmp_path}/a.parquet:1 has an array, but no sampling_rate"

    def test_a_row_that_fails_has_no_audio(self, tmp_path):
        rows = arrow_table({"audio": [b"none", tone()]})
        parquet.write_table(rows, tmp_path / "a.parquet")
        (block,), _ = plan([str(tmp_path / "a.parquet")], str(tmp_path / "out"))
        assert [r.status for r in block.work(StandIn(), 0, {})] == [
            "failed",
            "enhanced",
        ]
        enhanced = parquet.read_table(tmp_path / "out" / "a.parquet").to_pylist()
        assert [row["audio"] is None for row in enhanced] == [True, False]


# --- Lease


class TestLease:
    def test_two_jobs_do_not_write_into_one_output(self, tmp_path):
        with (
            Lease(str(tmp_path)),
            pytest.raises(InputError, match="is writing there"),
            Lease(str(tmp_path)),
        ):
            pass

    def test_the_first_job_stops_when_another_takes_over(self, tmp_path, monkeypatch):
        monkeypatch.setattr("speechbrain_cffma.cluster.lease.BEAT", 0.05)
        with Lease(str(tmp_path)) as first, Lease(str(tmp_path), take_over=True):
            first.thread.join()
            with pytest.raises(InputError, match="has taken over"):
                first.check()

    @pytest.mark.parametrize("held", [{"job": "x"}, [], "x"])
    def test_one_that_is_broken_does_not_count(self, tmp_path, held):
        storage.write_json(str(tmp_path / "_lease.json"), held)
        with Lease(str(tmp_path)) as lease:
            lease.check()

    @pytest.mark.parametrize(
        "held", [{"beat": 0, "host": "other", "pid": 1}, {"pid": 2**22 + 1}]
    )
    def test_a_job_that_is_dead_does_not_count(self, tmp_path, held):
        held = {"job": "x", "host": socket.gethostname(), "beat": time.time(), **held}
        storage.write_json(str(tmp_path / "_lease.json"), held)
        with Lease(str(tmp_path)) as lease:
            lease.check()

    def test_it_is_given_back(self, tmp_path):
        with Lease(str(tmp_path)):
            pass
        assert not (tmp_path / "_lease.json").exists()


# --- Jobs on a cluster


class TestJob:
    def test_each_file_is_enhanced_once_and_recorded(self, ray, tmp_path):
        write_wavs(tmp_path / "in", FILES + 6)
        blocks, _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
        results = work_on(blocks, tmp_path / "out")
        assert {r.status for r in results} == {"enhanced"}
        sources = [source for block in blocks for source, _ in block.rows]
        assert sorted(r.path for r in stored(tmp_path / "out")) == sorted(sources)
        for block in blocks:
            for source, target in block.rows:
                noisy = sound(Path(source).read_bytes())
                enhanced = sound(Path(target).read_bytes())
                np.testing.assert_allclose(enhanced, noisy / 2, atol=1 / 32768)

    def test_a_second_job_skips_what_is_done_and_keeps_its_results(self, ray, tmp_path):
        write_wavs(tmp_path / "in", 3)
        write_shard(tmp_path / "in" / "a.tar", ["x"])
        blocks, _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
        work_on(blocks, tmp_path / "out")
        before = stored(tmp_path / "out")
        again = work_on(blocks, tmp_path / "out")
        assert {r.status for r in again} == {"skipped"}
        assert stored(tmp_path / "out") == before

    def test_names_that_are_no_text_are_recorded(self, ray, tmp_path):
        write_wavs(tmp_path / "in", 1)
        (tmp_path / "in" / os.fsdecode(b"\xff.wav")).write_bytes(tone())
        blocks, _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
        for _ in range(2):
            assert len(work_on(blocks, tmp_path / "out")) == 2
        paths = [result.path for result in stored(tmp_path / "out")]
        assert f"{tmp_path}/in/\\udcff.wav" in paths

    def test_a_shard_with_failures_is_tried_again(self, ray, tmp_path):
        write_shard(tmp_path / "a.tar", ["x"])
        blocks, _ = plan([str(tmp_path / "a.tar")], str(tmp_path / "out"))
        for max_bytes, status in ((1000, "failed"), (10**6, "enhanced")):
            enhance = StandIn()
            enhance.max_bytes = max_bytes
            assert [r.status for r in work_on(blocks, tmp_path / "out", enhance)] == [
                status
            ]

    def test_what_killed_workers_have_left_is_removed_or_ignored(self, ray, tmp_path):
        write_wavs(tmp_path / "in", 1)
        results = tmp_path / "out" / job.RESULTS
        (tmp_path / "out" / "0").mkdir(parents=True)
        results.mkdir()
        partials = [
            folder / ".0123456789abcdef.part"
            for folder in (results, tmp_path / "out/0")
        ]
        for path in (*partials, results / "notes.txt", results / "0.parquet"):
            path.write_bytes(b"PAR1")
        blocks, _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
        job.forget_moved(str(tmp_path / "out"), blocks)
        assert [r.status for r in work_on(blocks, tmp_path / "out")] == ["enhanced"]
        assert not any(path.exists() for path in partials)

    def test_files_that_were_added_are_recorded_once(self, ray, tmp_path):
        write_wavs(tmp_path / "in", 2)
        output = str(tmp_path / "out")
        blocks, _ = plan([str(tmp_path / "in")], output)
        work_on(blocks, output)
        write_wavs(tmp_path / "in", 4)
        blocks, _ = plan([str(tmp_path / "in")], output)
        job.forget_moved(output, blocks)
        work_on(blocks, output)
        paths = [r.path for r in stored(output)]
        assert len(paths) == len(set(paths)) == 4

    def test_a_file_that_kills_its_worker_fails_and_the_others_are_done(
        self, ray, tmp_path
    ):
        write_wavs(tmp_path / "in", 5)
        (tmp_path / "in" / "1" / "x.wav").write_bytes(tone(first=0.25))
        blocks, _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
        results = work_on(blocks, tmp_path / "out")
        (failed,) = (r for r in results if r.status == "failed")
        assert failed.path.endswith("x.wav")
        assert "has killed 2 workers" in failed.reason
        assert len(results) == 6

    def test_a_model_that_cannot_be_loaded_ends_the_job(self, ray, tmp_path):
        class Broken(StandIn):
            def load(self):
                raise InputError("model/config.json is missing")

        write_wavs(tmp_path / "in", 2)
        blocks, _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
        with pytest.raises(CFFMAError, match=r"^model/config.json is missing$"):
            work_on(blocks, tmp_path / "out", Broken())


class TestNodes:
    def test_a_node_with_another_version_is_named(self, ray, monkeypatch):
        def differs(function, *arguments):
            versions = dict(function(*arguments)) | {"torch": "1.0"}
            return {"10.0.0.2": tuple(versions.items())}

        monkeypatch.setattr(connection, "on_each_node", differs)
        with pytest.raises(CFFMAError, match=r"10.0.0.2 has 1.0 of torch"):
            connection.check_versions()

    def test_versions_of_this_computer_agree(self, ray):
        connection.check_versions()

    @pytest.mark.parametrize(
        ("conditions", "told"),
        [
            ({"versions": (("torch", "1.0"),)}, r"has .* of torch, this computer 1\.0"),
            ({"versions": (), "path": "/no/such"}, r"does not see /no/such: use a"),
        ],
    )
    def test_a_worker_on_a_node_that_joins_later_is_checked(
        self, ray, tmp_path, conditions, told
    ):
        write_wavs(tmp_path / "in", 2)
        blocks, _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
        conditions = connection.Conditions(**conditions)
        with pytest.raises(CFFMAError, match=rf"^the node [\d.]+ {told}"):
            work_on(blocks, tmp_path / "out", conditions=conditions)
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_a_node_does_not_see_is_named(self, ray, monkeypatch):
        monkeypatch.setattr(connection, "on_each_node", lambda *_: {"10.0.0.2": False})
        with pytest.raises(InputError, match=r"10.0.0.2 does not see"):
            connection.check_folder("/tmp")

    @pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "ray://x:1"])
    def test_no_cluster_at_the_address_is_one_line(self, address, monkeypatch):
        monkeypatch.setattr("ray.is_initialized", lambda: False)
        with (
            pytest.raises(InputError, match=address) as error,
            connection.connected(address),
        ):
            pass
        assert "\n" not in str(error.value)


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CFFMAError, match=r"speechbrain-cffma\[ray\]"):
        connection.import_ray()


# --- Object stores


class TestStore:
    def test_files_shards_and_tables_of_a_bucket_are_enhanced(self, bucket, tmp_path):
        write_wavs(tmp_path / "in", 2)
        write_shard(tmp_path / "in" / "a.tar", ["x"])
        rows = arrow_table({"audio": [tone()]})
        parquet.write_table(rows, tmp_path / "in" / "t.parquet")
        upload(tmp_path / "in", f"{bucket}/in")
        blocks, _ = plan([f"{bucket}/in"], f"{bucket}/out")
        results = [r for block in blocks for r in block.work(StandIn(), 0, {})]
        assert {r.status for r in results} == {"enhanced"}
        assert [name for _, name in storage.listing(f"{bucket}/out")] == [
            "0/00000.wav",
            "1/00001.wav",
            "a.tar",
            "t.parquet/00000.parquet",
        ]
        files = next(block for block in blocks if isinstance(block, Files))
        again = files.work(StandIn(), 0, {})
        assert [r.status for r in again] == ["skipped", "skipped"]

    def test_results_are_stored_and_read(self, bucket):
        path = f"{bucket}/out/{job.RESULTS}/x.parquet"
        job.write_part(path, [Result("a.wav", 1.0)])
        assert job.read_part(path) == [Result("a.wav", 1.0)]

    def test_a_lease_holds_there(self, bucket):
        with (
            Lease(f"{bucket}/leased"),
            pytest.raises(InputError, match="is writing there"),
            Lease(f"{bucket}/leased"),
        ):
            pass

    def test_a_bucket_that_is_missing_is_one_line(self, bucket):
        with pytest.raises(InputError, match="there is no such bucket"):
            plan(["s3://none/in"], f"{bucket}/out")

    def test_unknown_credentials_are_one_line(self, bucket, monkeypatch):
        monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
        with pytest.raises(InputError, match=r"corpus/in .*: check the credentials"):
            storage.listing(f"{bucket}/in")

    def test_a_bucket_without_permission_is_one_line(self, bucket, monkeypatch):
        import boto3

        iam = boto3.client("iam")
        iam.create_user(UserName="guest")
        key = iam.create_access_key(UserName="guest")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
        refusal = r"corpus/in can't be read .no permission"
        with pytest.raises(InputError, match=refusal):
            plan([f"{bucket}/in"], f"{bucket}/out")
        refusal = r"corpus/out/_lease.json can't be (read|written) .no permission"
        with pytest.raises(InputError, match=refusal), Lease(f"{bucket}/out"):
            pass


# --- The command and the callable


class TestCommand:
    def test_it_passes_its_options_on_and_tells_what_failed(self, monkeypatch, capsys):
        calls = []

        def stand_in(*arguments, **options):
            calls.append((arguments, options))
            counts = {"enhanced": 5, "skipped": 1, "failed": 2}
            return Summary(counts, 1, ["a.wav: it has no samples"])

        monkeypatch.setattr("speechbrain_cffma.cluster.enhance.enhance", stand_in)
        with pytest.raises(SystemExit) as end:
            main(
                ["enhance", "s3://in", "-o", "s3://out", "--engine=ray", "--workers=4"]
            )
        assert end.value.code == 1
        (arguments, options), *_ = calls
        assert arguments == (("s3://in",), "s3://out")
        assert (options["n_workers"], options["max_row_mb"]) == (4, 512)
        assert capsys.readouterr().err.splitlines() == [
            "5 enhanced",
            "1 skipped: already enhanced",
            "1 with peaks beyond full scale, turned down",
            "2 failed:",
            "  a.wav: it has no samples",
            "  ...",
            "results: s3://out/_results",
        ]

    def test_options_of_the_cluster_need_the_engine(self, capsys):
        with pytest.raises(SystemExit):
            main(["enhance", "a.wav", "-o", "b.wav", "--address=auto"])
        assert capsys.readouterr().err == "error: --address needs --engine ray\n"

    @pytest.mark.parametrize("name", ["taken", "taken/further"])
    def test_an_output_that_can_t_be_written_is_one_line(self, tmp_path, name):
        write_wavs(tmp_path / "in", 1)
        (tmp_path / "taken").touch()
        with pytest.raises(InputError, match=f"{name} can't be written"):
            enhance([str(tmp_path / "in")], str(tmp_path / name))

    def test_an_output_in_an_input_is_marked(self, ray, tmp_path):
        write_wavs(tmp_path / "in", 1)
        enhance([str(tmp_path / "in")], str(tmp_path / "in" / "out"), precision="fp32")
        assert (tmp_path / "in" / "out" / ENHANCED_FILE).exists()

    def test_one_file_or_a_pipe_as_output_is_refused(self):
        for output in ("b.wav", "-"):
            with pytest.raises(InputError, match="--engine ray"):
                enhance(["a.wav"], output)


# --- With a model


@pytest.fixture(scope="module")
def model(tmp_path_factory, ssl_folder):
    """A model folder with a small network."""
    from speechbrain_cffma.lobes import load_ssl

    enhancer = small_enhancer(load_ssl(ssl_folder("wavlm")))
    return str(enhancer.save_pretrained(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def one_machine(model, tmp_path_factory):
    """A folder, and what the plain command makes of it."""
    folder = tmp_path_factory.mktemp("one")
    write_wavs(folder / "in", 3)
    subprocess.run(
        [sys.executable, "-m", "speechbrain_cffma", "enhance", folder / "in"]
        + ["-o", folder / "out", "--model", model, "--precision=fp32"],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    return folder / "in", folder / "out"


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_cluster_gives_what_one_machine_gives(
    ray, bucket, model, one_machine, tmp_path, where
):
    noisy, enhanced = one_machine
    source, output = str(noisy), str(tmp_path / "out")
    if where == "bucket":
        source, output = f"{bucket}/noisy", f"{bucket}/enhanced"
        upload(noisy, source)
    summary = enhance([source], output, model=model, precision="fp32", n_workers=1)
    assert summary.counts == {"enhanced": 3, "skipped": 0, "failed": 0}
    for path in enhanced.rglob("*.wav"):
        with storage.local_copy(f"{output}/{path.relative_to(enhanced)}") as copy:
            assert copy.read_bytes() == path.read_bytes()
    parts = storage.listing(f"{output}/{job.RESULTS}", is_result=True)
    recorded = [result.status for part, _ in parts for result in job.read_part(part)]
    assert recorded == ["enhanced"] * 3


def test_ray_data_enhances_rows(ray, model):
    rows = [{"audio": tone()}, {"audio": b"no audio"}]
    enhanced = (
        ray.data.from_items(rows)
        .map_batches(Enhance(model, precision="fp32", device="cpu"), batch_size=2)
        .take_all()
    )
    assert len(sound(enhanced[0]["enhanced"])) == 1600
    assert enhanced[0]["seconds"] == 0.1
    assert enhanced[1]["enhanced"] is None
    assert "can't be read" in enhanced[1]["failure"]


def test_an_option_or_a_column_that_is_unknown_is_told(model):
    with pytest.raises(TypeError, match="no option supression"):
        Enhance(model, supression=20)
    enhance = Enhance(model, precision="fp32", device="cpu")
    with pytest.raises(
        InputError, match=r"no column 'audio' among sound: pass column="
    ):
        enhance({"sound": [tone()]})
