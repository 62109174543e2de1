"""The command `cffma enhance`: files, trees, pipes, and what is done or fails."""

import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from helpers.runs import map_here
from speechbrain_cffma import audio, cli
from speechbrain_cffma.errors import CFFMAError
from speechbrain_cffma.inference import enhance as enhancing
from speechbrain_cffma.inference.enhance import Job, enhance_all, plan
from speechbrain_cffma.lobes import CFFMAEnhancer
from speechbrain_cffma.workers import Outcome

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "speechbrain_cffma"]


@pytest.fixture
def model(tiny_enhancer, tmp_path):
    """Folder of a tiny network."""
    return tiny_enhancer.save_pretrained(tmp_path / "model")


@pytest.fixture
def folder(tmp_path, speech):
    """Folder with talks/a.wav, talks/day1/b.flac (stereo, 44.1 kHz) and notes.txt."""
    talks = tmp_path / "talks"
    (talks / "day1").mkdir(parents=True)
    samples = speech.numpy()[:16000]
    soundfile.write(talks / "a.wav", samples, 16000)
    stereo = np.stack([samples, -samples], axis=1)
    soundfile.write(talks / "day1" / "b.flac", stereo, 44100, "PCM_24")
    (talks / "notes.txt").write_text("no sound")
    return tmp_path


@pytest.fixture
def enhance(model, folder, monkeypatch, capsys):
    """`enhance("talks", "-o", "out")`, in the folder: exit code and standard error."""
    monkeypatch.chdir(folder)

    def run(*arguments, model=model):
        try:
            cli.main(["enhance", f"--model={model}", *map(str, arguments)])
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, capsys.readouterr().err

    return run


def tree(folder):
    return sorted(
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*")
        if path.is_file()
    )


def times(folder):
    return {name: (Path(folder) / name).stat().st_mtime_ns for name in tree(folder)}


class TestFiles:
    def test_one_file_to_one_file(self, enhance, model):
        code, shown = enhance("talks/a.wav", "-o", "new/b.flac")
        assert code == 0
        assert "1 enhanced" in shown
        noisy, _ = soundfile.read("talks/a.wav", dtype="float32")
        expected = CFFMAEnhancer.from_pretrained(model).pack().enhance(noisy)
        enhanced, _ = soundfile.read("new/b.flac", dtype="float32")
        np.testing.assert_allclose(enhanced, expected, atol=1.1 / 2**15)

    def test_one_file_into_a_folder(self, enhance):
        assert enhance("talks/a.wav", "-o", "out")[0] == 0
        assert tree("out") == ["a.wav"]

    def test_a_folder_s_tree_is_kept(self, enhance):
        assert enhance("talks", "-o", "out")[0] == 0
        assert tree("out") == ["a.wav", "day1/b.flac"]
        info = soundfile.info("out/day1/b.flac")
        assert (info.samplerate, info.channels, info.subtype) == (44100, 2, "PCM_24")

    def test_files_and_folders_together(self, enhance):
        assert enhance("talks/day1", "talks/a.wav", "-o", "out")[0] == 0
        assert tree("out") == ["a.wav", "b.flac"]

    @pytest.mark.parametrize("inputs", [["talks"], ["talks/a.wav", "talks/day1"]])
    def test_the_output_may_lie_in_the_input(self, enhance, folder, inputs):
        recordings = audio.find_audio(folder / "talks")
        for _ in range(2):
            assert enhance(*inputs, "-o", "talks/enhanced")[0] == 0
        # It is no input of later commands, unless they name it.
        assert audio.find_audio(folder / "talks") == recordings
        assert len(audio.find_audio(folder / "talks" / "enhanced")) == 2

    @pytest.mark.parametrize("output", ["out", "b.wav"])
    def test_an_output_elsewhere_is_not_marked(self, enhance, output):
        assert enhance("talks/a.wav", "-o", output)[0] == 0
        assert [path for path in tree(".") if path.endswith(audio.ENHANCED_FILE)] == []

    @pytest.mark.parametrize("name", ["c" * 251, "音" * 83], ids=["ascii", "CJK"])
    def test_the_longest_names_can_be_written(self, enhance, folder, name):
        (folder / "talks" / "a.wav").rename(folder / "talks" / f"{name}.wav")
        code, shown = enhance(f"talks/{name}.wav", "-o", "out")
        assert code == 0, shown
        assert tree("out") == [f"{name}.wav"]

    def test_names_may_hold_any_bytes(self, enhance, folder):
        name = os.fsdecode(b"caf\xe9\n\x1b[31m.wav")
        (folder / "talks" / "a.wav").rename(folder / "talks" / name)
        (folder / "talks" / f"no_{name}").write_text("no sound")
        code, shown = enhance("talks", "-o", "out")
        assert tree("out") == [name, "day1/b.flac"]
        failed = r"  talks/no_caf\udce9\n\x1b[31m.wav can't be read ("
        assert shown.splitlines()[-1].startswith(failed)

    def test_a_file_that_is_given_twice_is_enhanced_once(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        (folder / "link").symlink_to("talks")
        again = ["talks/a.wav", "talks/../talks/a.wav", "link/a.wav", "talks"]
        jobs, failures = plan(again, "out")
        assert [job.target.as_posix() for job in jobs] == [
            "out/a.wav",
            "out/day1/b.flac",
        ]
        assert failures == []

    def test_the_first_of_many_begins_at_once(self, folder, monkeypatch):
        """No later file is opened, and none is searched for among those that are done."""
        opened, compared = [], []

        class Watched(Job):
            def __eq__(self, other):
                compared.append(other)
                return super().__eq__(other)

        class Enhancer:
            def enhance_file(self, *_, **__):
                raise KeyboardInterrupt

        done = Watched(folder / "talks" / "a.wav", folder / "talks" / "a.wav")
        jobs = [done] * 5 + [Watched(done.source, folder / "out.wav")] * 5
        monkeypatch.setattr(
            enhancing, "_seconds", lambda path: opened.append(path) or 1
        )
        with pytest.raises(KeyboardInterrupt):
            enhance_all(jobs, Enhancer)
        assert (len(opened), len(compared)) == (1, 0)

    def test_what_can_t_be_written_as_it_was_becomes_wav(self, enhance, folder):
        pytest.importorskip("av")
        (folder / "talks" / "c.mp4").write_text("no video")
        _, shown = enhance("talks", "-o", "out", "--overwrite")
        assert "c.mp4 can't be read" in shown
        samples, _ = soundfile.read("talks/a.wav")
        soundfile.write("talks/d.voc", samples, 16000, format="VOC")
        assert enhance("talks/d.voc", "-o", "out")[0] == 0
        assert soundfile.info("out/d.wav").frames == len(samples)

    def test_what_is_no_audio_by_its_extension_is_told(self, enhance, caplog):
        assert enhance("talks", "-o", "out")[0] == 0
        (told,) = [r.getMessage() for r in caplog.records if "skipped" in r.message]
        assert told == "talks: 1 skipped, no audio extension (.txt)"

    def test_suppression_of_0_db_gives_the_input(self, enhance):
        assert enhance("talks/a.wav", "-o", "b.wav", "--suppression", 0)[0] == 0
        (noisy, _), (enhanced, _) = map(soundfile.read, ("talks/a.wav", "b.wav"))
        np.testing.assert_allclose(enhanced, noisy, atol=1.1 / 2**15)

    def test_without_the_high_band_it_is_cut(self, enhance):
        enhance("talks/day1", "-o", "kept")
        assert enhance("talks/day1", "-o", "cut", "--no-high-band")[0] == 0
        kept, cut = (
            soundfile.read(f"{name}/b.flac")[0][:, 0] for name in ("kept", "cut")
        )
        above = slice(round(8500 / 44100 * len(cut)), None)
        power = [np.square(np.abs(np.fft.rfft(x)[above])).sum() for x in (kept, cut)]
        assert power[1] < 0.01 * power[0]

    def test_all_options(self, enhance):
        options = ["--device=cpu", "--precision=bf16", "--batch-size=2"]
        assert enhance("talks", "-o", "out", *options, "--suppression=20")[0] == 0


class TestDone:
    def test_what_is_there_is_skipped_and_counted(self, enhance):
        enhance("talks/a.wav", "-o", "out")
        before = times("out")
        code, shown = enhance("talks", "-o", "out")
        assert code == 0
        assert "1 enhanced" in shown
        assert "1 skipped" in shown
        assert times("out")["a.wav"] == before["a.wav"]

    def test_nothing_is_loaded_when_all_is_there(self, enhance):
        enhance("talks", "-o", "out")
        code, shown = enhance("talks", "-o", "out", model="no/such-model")
        assert code == 0
        assert "2 skipped" in shown

    def test_what_is_older_than_its_source_is_made_again(self, enhance):
        enhance("talks", "-o", "out")
        later = time.time() + 10
        os.utime("talks/a.wav", (later, later))
        _, shown = enhance("talks", "-o", "out")
        assert "1 enhanced" in shown
        assert "1 skipped" in shown

    def test_overwrite_makes_all_again(self, enhance):
        enhance("talks", "-o", "out")
        _, shown = enhance("talks", "-o", "out", "--overwrite")
        assert "2 enhanced" in shown
        assert "skipped" not in shown


class TestFailures:
    def test_a_bad_file_costs_only_itself(self, enhance, folder):
        (folder / "talks" / "0.wav").write_text("no sound")
        faulty = np.full(800, np.nan)
        soundfile.write(folder / "talks" / "1.wav", faulty, 16000, "FLOAT")
        code, shown = enhance("talks", "-o", "out")
        assert code == 1
        assert tree("out") == ["a.wav", "day1/b.flac"]
        lines = shown[shown.index("2 enhanced") :].splitlines()
        assert lines[1] == "2 failed:"
        assert len(lines) == 4
        assert "talks/0.wav can't be read" in lines[2]
        assert "talks/1.wav: sample 0, channel 0 is nan" in lines[3]

    def test_a_missing_file_costs_only_itself(self, enhance, folder):
        """Also where a result of it is there."""
        (folder / "talks" / "link.wav").symlink_to(folder / "gone.wav")
        (folder / "out").mkdir()
        (folder / "out" / "link.wav").touch()
        code, shown = enhance("talks", "nowhere.wav", "-o", "out")
        assert code == 1
        assert shown.splitlines()[-4:] == [
            "2 enhanced",
            "2 failed:",
            "  talks/link.wav can't be read (No such file or directory)",
            "  nowhere.wav can't be read (No such file or directory)",
        ]

    def test_a_file_that_vanishes_costs_only_itself(self, folder, tiny_enhancer):
        jobs, _ = plan([folder / "talks"], folder / "out")

        def load_enhancer():
            (folder / "talks" / "a.wav").unlink()
            return tiny_enhancer

        outcome = enhance_all(jobs, load_enhancer)
        assert outcome.enhanced == jobs[1:]
        (failure,) = outcome.failures
        assert str(folder / "talks" / "a.wav") in failure

    def test_files_of_one_target_are_all_named_and_the_rest_goes_on(self, folder):
        copy = folder / "copy"
        (copy / "day1").mkdir(parents=True)
        for name in ("a.wav", "day1/b.flac", "c.wav"):
            (copy / name).touch()
        jobs, failures = plan([folder / "talks", copy], folder / "out")
        assert [job.source for job in jobs] == [copy / "c.wav"]
        named = {failure.partition(": ")[0] for failure in failures}
        sources = (folder / "talks", copy)
        assert named == {
            f"{s}/{name}" for s in sources for name in ("a.wav", "day1/b.flac")
        }
        assert f"{copy / 'a.wav'} would also be written to" in failures[0]

    @pytest.mark.parametrize("output", ["talks", "talks/a.wav", "link"])
    def test_no_input_is_replaced(self, folder, monkeypatch, output):
        monkeypatch.chdir(folder)
        (folder / "link").symlink_to("talks")
        jobs, (failure,) = plan(["talks/a.wav"], output)
        assert jobs == []
        assert "a.wav would replace an input" in failure

    def test_an_error_of_the_network_names_the_file(self, enhance, monkeypatch):
        def out_of_memory(*_, **__):
            raise RuntimeError("out of\nmemory")

        monkeypatch.setattr(CFFMAEnhancer, "enhance_stream", out_of_memory)
        code, shown = enhance("talks/a.wav", "-o", "out")
        assert code == 1
        assert "talks/a.wav: RuntimeError: out of memory" in shown

    def test_peaks_that_were_turned_down_are_told(self, enhance, monkeypatch):
        forward = CFFMAEnhancer.forward

        def louder(self, noisy, **_):
            enhanced, log_magnitude = forward(self, noisy)
            return 1000 * enhanced, log_magnitude

        monkeypatch.setattr(CFFMAEnhancer, "forward", louder)
        code, shown = enhance("talks/a.wav", "-o", "out")
        assert code == 0
        assert "out/a.wav: " in shown
        assert "dB beyond full scale were turned down" in shown
        options = ["-o", "out", "--overwrite", "--subtype=FLOAT"]
        code, shown = enhance("talks/a.wav", *options)
        assert code == 0
        assert "turned down" not in shown

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["talks", "-o", "talks"], "talks is both input and output"),
            (["talks", "-o", "b.wav"], "b.wav is one file: choose a folder"),
            (["talks", "-o", "b.m4a"], "b.m4a is one file: choose a folder"),
            (["talks/a.wav", "-o", "b.m4a"], "b.m4a can't be written: its extension"),
            (["talks/a.wav", "-o", "talks/notes.txt"], "notes.txt can't be written"),
            (["talks", "talks/a.wav", "-o", "b.wav"], "choose a folder for several"),
            (["model", "-o", "out"], "the folder model has no audio files"),
            (["-", "talks", "-o", "out"], "must be the only input"),
            (["talks", "-o", "-"], "is one file: choose a folder"),
            (["talks", "-o", "out", "--model=nowhere"], "'nowhere' is neither"),
            (["talks", "-o", "out", "--device=gpu9"], "can't run on the device 'gpu9'"),
        ],
    )
    def test_what_can_t_be_meant_is_one_line(self, enhance, folder, arguments, message):
        before = tree(folder)
        code, shown = enhance(*arguments)
        (line,) = shown.splitlines()
        assert code == 1
        assert line.startswith("error: ")
        assert message in line
        assert tree(folder) == before

    @pytest.mark.parametrize(
        "arguments",
        [
            ["talks"],
            ["talks", "-o", "o", "--batch-size=0"],
        ],
    )
    def test_errors_of_usage_have_their_own_code(self, enhance, arguments):
        assert enhance(*arguments)[0] == 2


class TestInterrupt:
    def test_ctrl_c_leaves_what_is_done_and_no_partial_file(
        self, enhance, folder, monkeypatch
    ):
        forward, calls = CFFMAEnhancer.forward, []

        def interrupted(self, noisy, **_):
            if noisy.any():  # not silence, on which a loaded model is tried
                calls.append(noisy)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return forward(self, noisy)

        monkeypatch.setattr(CFFMAEnhancer, "forward", interrupted)
        code, shown = enhance("talks", "-o", "out")
        assert code == 130
        assert "run the same command to continue" in shown
        assert tree("out") == ["a.wav"]
        monkeypatch.setattr(CFFMAEnhancer, "forward", forward)
        code, shown = enhance("talks", "-o", "out")
        assert code == 0
        assert "1 enhanced" in shown
        assert "1 skipped" in shown

    @pytest.mark.parametrize(
        ("workers", "how"),
        [
            ([], signal.SIGINT),
            (["--workers=2"], signal.SIGINT),
            ([], signal.SIGTERM),
            (["--workers=2"], signal.SIGTERM),
        ],
    )
    def test_a_process_that_is_asked_to_end_leaves_no_file(
        self, model, tmp_path, workers, how
    ):
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, 16000 * 600)
        (tmp_path / "in").mkdir()
        for name in ("long.wav", "longer.wav"):
            soundfile.write(tmp_path / "in" / name, noise, 16000)
        out = tmp_path / "out"
        command = [*COMMAND, "enhance", tmp_path / "in", "-o", out]
        process = subprocess.Popen(
            [*command, "--model", model, *workers],
            stderr=subprocess.PIPE,
            cwd=REPOSITORY,
        )
        while not (out.exists() and list(out.iterdir())):
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.05)
        process.send_signal(how)
        _, shown = process.communicate(timeout=60)
        assert process.returncode == 130
        assert b"interrupted" in shown
        assert tree(out) == []


class TestWorkers:
    """Several processes do what one process does."""

    @pytest.fixture
    def here(self, monkeypatch):
        """Calls are made in this process; gives the files in their order."""
        dealt = []

        def dealt_here(function, arguments, n_jobs, on_note):
            dealt.extend(job.source.name for (job,) in arguments)
            dealt.append(f"{n_jobs} processes")
            return map_here(function, arguments, n_jobs, on_note=on_note)

        monkeypatch.setattr(enhancing, "parallel_map", dealt_here)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        return dealt

    def test_files_and_messages_are_the_same(self, enhance, monkeypatch):
        """With the processes that a user starts. Samples depend on the number of threads."""
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        Path("talks/broken.wav").write_text("no sound")
        soundfile.write("talks/loud.wav", np.tile([1.0, -1.0], 8000), 16000)
        shown = {}
        for name, workers in (("alone", []), ("workers", ["--workers=2"])):
            out = f"out_{name}"
            done = subprocess.run(
                [*COMMAND, "enhance", "talks", "-o", out, "--model=model"]
                + [*workers, "--precision=fp32"],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
            assert done.returncode == 1
            shown[name] = done.stderr.replace(out, "out").splitlines()
        assert shown["workers"][-3:] == shown["alone"][-3:]
        assert "3 enhanced" in shown["workers"]
        assert "2/2 s of audio" in shown["workers"][-4]
        assert tree("out_alone") == ["a.wav", "day1/b.flac", "loud.wav"]
        assert tree("out_workers") == tree("out_alone")
        for file in tree("out_alone"):
            ours, alone = (Path(f"out_{name}", file).read_bytes() for name in shown)
            assert ours == alone, file

    def test_the_longest_file_is_dealt_first(self, enhance, here, speech):
        audio.write(Path("talks/long.opus"), speech.numpy()[:32000])
        assert enhance("talks", "-o", "out", "--workers=9")[0] == 0
        assert here == ["long.opus", "a.wav", "b.flac", "9 processes"]

    def test_without_a_length_in_its_header_a_file_is_dealt_by_its_size(
        self, enhance, here, speech
    ):
        soundfile.write("talks/long.flac", speech.numpy()[:48000], 16000)
        header = bytearray(Path("talks/long.flac").read_bytes())
        header[21] &= 0xF0
        header[22:26] = bytes(4)
        Path("talks/long.flac").write_bytes(header)
        assert enhance("talks", "-o", "out", "--workers=2")[0] == 0
        assert here == ["long.flac", "a.wav", "b.flac", "2 processes"]

    def test_what_the_shell_has_opened_is_read_here(self, enhance, here, folder):
        content = (folder / "talks/a.wav").read_bytes()
        ends = [os.pipe() for _ in range(2)]
        for _, writer in ends:
            with open(writer, "wb") as pipe:
                pipe.write(content)
        inputs = [f"/dev/fd/{reader}" for reader, _ in ends]
        assert enhance(*inputs, "-o", "out", "--workers=2")[0] == 0
        assert here == []
        assert len(tree("out")) == 2

    def test_one_process_is_one_core(self, enhance, here):
        assert enhance("talks", "-o", "out", "--workers=1")[0] == 0
        assert here[-1] == "1 processes"

    def test_for_one_file_there_is_no_other_process(self, enhance, here):
        assert enhance("talks/a.wav", "-o", "out", "--workers=9")[0] == 0
        assert here == []

    def test_a_process_that_dies_costs_its_file(self, folder, monkeypatch):
        def killed_once(function, arguments, n_jobs, on_note):
            on_note(1, 0.0)
            on_note(1, 1.0)
            yield Outcome(1, (3.0, ""))
            yield Outcome(0, crash="its process was killed by SIGKILL")

        monkeypatch.setattr(enhancing, "parallel_map", killed_once)
        jobs, _ = plan([folder / "talks"], folder / "out")
        jobs.sort(key=lambda job: -job.source.stat().st_size)
        outcome = enhance_all(jobs, None, workers=2)
        assert outcome.enhanced == jobs[1:]
        assert outcome.limited == {str(jobs[1].target): 3.0}
        assert outcome.failures == [
            f"{jobs[0].source}: its process was killed by SIGKILL"
        ]

    def test_any_error_of_loading_ends_it_in_one_line(self, folder, here):
        def load():
            raise OSError(28, "No space left on device")

        jobs, _ = plan([folder / "talks"], folder / "out")
        with pytest.raises(
            CFFMAError, match="the model can't be loaded: OSError: .*No space"
        ):
            enhance_all(jobs, load, workers=2)

    def test_a_model_that_can_t_be_loaded_ends_it_in_one_line(self, enhance, here):
        code, shown = enhance("talks", "-o", "out", "--workers=2", model="nowhere")
        assert code == 1
        (line,) = [line for line in shown.splitlines() if "error: " in line]
        assert "'nowhere' is neither a local folder nor a model" in line
        assert tree("out") == []

    def test_the_hub_is_asked_once(self, enhance, monkeypatch):
        asked = []

        def download(source, **_):
            asked.append(source)
            return Path("model")

        def in_two_processes(function, arguments, n_jobs, on_note):
            for index, call in enumerate(arguments):
                copy = pickle.loads(pickle.dumps(function))
                copy.prepare()
                yield Outcome(index, copy(*call))

        monkeypatch.setattr("speechbrain_cffma.hub.folder.download", download)
        monkeypatch.setattr(enhancing, "parallel_map", in_two_processes)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        assert enhance("talks", "-o", "out", "--workers=2", model="me/model")[0] == 0
        assert asked == ["me/model"]

    def test_ctrl_c_before_a_file_is_one_line(self, enhance, monkeypatch):
        def interrupted(_source):
            raise KeyboardInterrupt

        monkeypatch.setattr("speechbrain_cffma.hub.folder.folder_of", interrupted)
        code, shown = enhance("talks", "-o", "out", "--workers=2")
        assert code == 130
        assert shown.strip() == "interrupted: run the same command to continue"

    @pytest.mark.parametrize("number", ["0", "-1", "many", "1.5"])
    def test_a_number_that_is_none_is_refused(self, enhance, number):
        code, shown = enhance("talks", "-o", "out", f"--workers={number}")
        assert code == 2
        assert "Invalid value for '--workers': " in shown
        assert number in shown


class TestPipe:
    def test_wav_in_wav_out_and_nothing_else(self, model, folder):
        noisy = (folder / "talks" / "a.wav").read_bytes()
        # What a program writes that does not know the length beforehand.
        unknown = noisy[:40] + b"\xff\xff\xff\xff" + noisy[44:]
        # Samples of bfloat16 depend on the number of threads.
        options = ["--model", model, "--precision=fp32"]
        shown = subprocess.run(
            [*COMMAND, "enhance", "-", "-o", "-", *options],
            input=unknown,
            capture_output=True,
            cwd=REPOSITORY,
        )
        assert shown.returncode == 0, shown.stderr
        enhanced, sample_rate = soundfile.read(
            io.BytesIO(shown.stdout), dtype="float32"
        )
        samples, _ = soundfile.read(io.BytesIO(noisy), dtype="float32")
        expected = CFFMAEnhancer.from_pretrained(model).enhance(samples)
        np.testing.assert_allclose(enhanced, expected, atol=1.1 / 2**15)
        assert sample_rate == 16000
        assert shown.stdout[:4] == b"RIFF"
        assert len(shown.stdout) == len(noisy)

    def test_peaks_in_standard_output_are_told_by_its_name(self):
        enhancer = SimpleNamespace(enhance_file=lambda *_, **__: 3.0)
        outcome = enhance_all([Job(Path("a.wav"), Path("-"))], lambda: enhancer)
        assert outcome.limited == {"standard output": 3.0}

    @pytest.fixture
    def given(self, monkeypatch, tmp_path):
        """`given(content)` on standard input; gives the file of standard output."""

        def given(content):
            (tmp_path / "stdin").write_bytes(content)
            stdin = open(tmp_path / "stdin", encoding="utf-8")
            output = tmp_path / "stdout"
            monkeypatch.setattr(sys, "stdin", stdin)
            monkeypatch.setattr(sys, "stdout", open(output, "w", encoding="utf-8"))
            return output

        return given

    def test_a_failure_gives_no_output(self, enhance, given):
        output = given(b"no sound")
        code, shown = enhance("-", "-o", "-")
        assert code == 1
        assert "standard input can't be read" in shown
        assert output.read_bytes() == b""

    def test_one_end_may_be_a_file(self, enhance, folder, given):
        content = (folder / "talks/a.wav").read_bytes()
        output = given(content)
        assert enhance("-", "-o", "b.flac")[0] == 0
        assert output.read_bytes() == b""
        output = given(b"")
        assert enhance("b.flac", "-o", "-")[0] == 0
        assert soundfile.info("b.flac").frames == 16000
        assert soundfile.info(output).frames == 16000

    def test_a_named_pipe_in_a_folder_is_left_out(self, enhance, caplog):
        os.mkfifo("talks/pipe.wav")
        assert enhance("talks", "-o", "out")[0] == 0
        assert "talks/pipe.wav is left out: not a regular file" in caplog.text
        assert tree("out") == ["a.wav", "day1/b.flac"]

    def test_a_named_pipe_is_a_file_that_is_never_done(self, enhance, folder):
        content = (folder / "talks/a.wav").read_bytes()
        os.mkfifo("pipe.wav")
        for _ in range(2):
            thread = threading.Thread(
                target=lambda: (folder / "pipe.wav").write_bytes(content)
            )
            thread.start()
            code, shown = enhance("pipe.wav", "-o", "out")
            thread.join()
            assert code == 0
            assert "1 enhanced" in shown
            assert "skipped" not in shown
        assert soundfile.info("out/pipe.wav").frames == 16000

    @pytest.mark.parametrize("workers", [[], ["--workers=1"]])
    def test_nobody_may_listen_to_standard_error(self, model, folder, workers):
        command = [*COMMAND, "enhance", "talks", "-o", "out", f"--model={model}"]
        command += workers
        silent = 'exec "$@" 2>&-'
        done = subprocess.run(
            ["sh", "-c", silent, "sh", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        assert done.returncode == 0
        assert tree(folder / "out") == ["a.wav", "day1/b.flac"]


class TestHelp:
    def test_has_examples(self, capsys):
        with pytest.raises(SystemExit):
            cli.main(["enhance", "-h"])
        assert "cffma enhance noisy.wav -o enhanced.wav" in capsys.readouterr().out

    def test_the_bar_shows_audio_time_and_speed(self, enhance):
        _, shown = enhance("talks/a.wav", "-o", "out")
        assert "1/1 s of audio" in shown
        assert "x real time" in shown

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_shells_complete(self, shell):
        words = {"COMP_WORDS": "cffma enhance --prec", "COMP_CWORD": "2"}
        if shell == "fish":
            words = {"COMP_WORDS": "cffma enhance --prec", "COMP_CWORD": "--prec"}

        def completion(step):
            env = {**os.environ, **words, "_CFFMA_COMPLETE": f"{shell}_{step}"}
            shown = subprocess.run(
                COMMAND, capture_output=True, text=True, env=env, cwd=REPOSITORY
            )
            return shown.stdout

        assert f"_CFFMA_COMPLETE={shell}_complete" in completion("source")
        assert "--precision" in completion("complete")
