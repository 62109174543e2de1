"""The page of `cffma app`, without a browser: options, limits, and what is kept of recordings."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_cffma import cli
from speechbrain_cffma.app import page as app
from speechbrain_cffma.app import serve as serving
from speechbrain_cffma.app.recordings import Recordings
from speechbrain_cffma.app.result import NO_BOUND, draw, enhance
from speechbrain_cffma.app.serve import _free_port, serve
from speechbrain_cffma.errors import InputError

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def noisy(tmp_path, speech):
    """Path of a noisy recording of 3 s."""
    noise = np.random.default_rng(0).normal(0, 0.05, len(speech))
    soundfile.write(tmp_path / "talk.wav", speech.numpy() + noise, 16000)
    return tmp_path / "talk.wav"


@pytest.fixture
def written(tmp_path):
    """`written(samples)`: path of a file at 16 kHz."""

    def write(samples):
        soundfile.write(tmp_path / "bad.wav", samples, 16000, "FLOAT")
        return tmp_path / "bad.wav"

    return write


@pytest.mark.parametrize(("bound", "at"), [(None, NO_BOUND), (12.0, 12.0)])
def test_the_slider_begins_at_the_bound_of_the_model(
    tiny_enhancer, tmp_path, monkeypatch, bound, at
):
    monkeypatch.setattr(tiny_enhancer, "suppression", bound)
    page = app.build(tiny_enhancer, Recordings(tmp_path))
    (slider,) = (b for b in page.blocks.values() if b.elem_id == "suppression")
    assert slider.value == at


class TestResult:
    def test_is_what_enhance_file_gives(self, tiny_enhancer, noisy, tmp_path):
        shares = []
        result = enhance(
            tiny_enhancer,
            noisy,
            tmp_path / "new",
            progress=shares.append,
            suppression=6,
        )
        assert result.enhanced == tmp_path / "new" / "talk_enhanced.wav"
        tiny_enhancer.enhance_file(noisy, tmp_path / "other.wav", suppression=6)
        np.testing.assert_array_equal(
            soundfile.read(result.enhanced)[0],
            soundfile.read(tmp_path / "other.wav")[0],
        )
        assert shares[-1] == pytest.approx(1)

    def test_the_summary_tells_of_peaks_turned_down(
        self, tiny_enhancer, noisy, tmp_path
    ):
        class Louder:
            parameters = tiny_enhancer.parameters

            def enhance_file(self, *files, **options):
                return 1.5 + tiny_enhancer.enhance_file(*files, **options)

        result = enhance(Louder(), noisy, tmp_path / "new")
        assert "Peaks up to 1.5 dB beyond full scale were turned down" in result.summary

    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            (np.zeros(0), "shorter than 25 ms"),
            (np.full(399, 0.1), "shorter than 25 ms"),
            (np.full(8000, 5e-5), "silent"),
            (np.full(16000, 0.1), "longer than 0.01 minutes"),
            (np.full(1000, np.nan), "sample 0, channel 0 is nan"),
        ],
    )
    def test_what_can_t_be_used_is_an_error(
        self, tiny_enhancer, written, tmp_path, samples, message
    ):
        with pytest.raises(InputError, match=message):
            enhance(tiny_enhancer, written(samples), tmp_path / "new", max_minutes=0.01)
        assert not list(tmp_path.glob("new/*"))


class TestFigure:
    @staticmethod
    def images(html):
        return [part.split('"')[0] for part in html.split('<img src="')[1:]]

    def test_panels_show_both_recordings_and_what_differs(self, noisy, tmp_path):
        samples, rate = soundfile.read(noisy)
        soundfile.write(tmp_path / "half.wav", samples / 2, rate)
        before, after, mask = self.images(draw(noisy, tmp_path / "half.wav", 3.0))
        assert before != after
        same, again, ones = self.images(draw(noisy, noisy, 3.0))
        assert same == again == before
        assert mask != ones

    @pytest.mark.parametrize(("rate", "khz"), [(8000, "4"), (16000, "8"), (48000, "8")])
    def test_frequencies_end_where_the_network_s_do(self, tmp_path, rate, khz):
        soundfile.write(tmp_path / "a.wav", np.ones((rate, 2)) / 2, rate)
        html = draw(tmp_path / "a.wav", tmp_path / "a.wav", 1.0)
        assert html.count(f"<span>{khz} kHz</span>") == 3


class TestRecordings:
    @pytest.fixture
    def recordings(self, tmp_path):
        """`Recordings` of two pages with one recording each, the second enhanced twice."""
        recordings = Recordings(tmp_path)
        for session in ("a", "b"):
            (tmp_path / f"{session}.wav").touch()
            recordings.begin(session, tmp_path / f"{session}.wav")
        for i in range(2):
            (recordings.new_folder("b") / f"{i}.wav").touch()
        return recordings

    @staticmethod
    def names(recordings):
        return sorted(path.name for path in recordings.folder.rglob("*.wav"))

    def test_the_last_two_results_are_there(self, recordings):
        (recordings.new_folder("b") / "2.wav").touch()
        assert self.names(recordings) == ["1.wav", "2.wav", "a.wav", "b.wav"]

    def test_go_with_their_page(self, recordings):
        recordings.end("b")
        assert self.names(recordings) == ["a.wav"]
        assert recordings.is_open("a")
        assert not recordings.is_open("b")

    def test_go_when_another_comes(self, recordings, tmp_path):
        (tmp_path / "c.wav").touch()
        recordings.begin("b", tmp_path / "c.wav")
        assert self.names(recordings) == ["a.wav", "c.wav"]

    def test_stay_when_the_same_is_enhanced_again(self, recordings, tmp_path):
        before = self.names(recordings)
        recordings.begin("b", tmp_path / "b.wav")
        assert self.names(recordings) == before

    def test_one_that_two_pages_have_stays_for_the_other(self, recordings, tmp_path):
        recordings.begin("a", tmp_path / "b.wav")
        recordings.end("b")
        assert self.names(recordings) == ["b.wav"]
        recordings.end_all()
        assert self.names(recordings) == []


class TestOptions:
    @pytest.fixture
    def served(self, tiny_enhancer, tmp_path, monkeypatch):
        """`served(*arguments)`: precision and options that the command hands to `serve`."""
        model = tiny_enhancer.save_pretrained(tmp_path / "model")
        calls = []

        def serve(enhancer, **options):
            calls.append({"precision": enhancer.packed, **options})

        monkeypatch.setattr(serving, "serve", serve)

        def run(*arguments):
            with pytest.raises(SystemExit) as stop:
                cli.main(["app", f"--model={model}", "--device=cpu", *arguments])
            assert not stop.value.code
            return calls.pop()

        return run

    def test_defaults_are_this_computer_and_ten_minutes(self, served, tiny_enhancer):
        assert served() == {
            "host": "127.0.0.1",
            "port": None,
            "max_minutes": 10,
            "open_page": False,
            "precision": tiny_enhancer.pack().packed,
        }

    def test_all(self, served):
        arguments = ["--host=0.0.0.0", "--port=8000", "--max-minutes=0.5", "--open"]
        assert served(*arguments, "--precision=bf16") == {
            "host": "0.0.0.0",
            "port": 8000,
            "max_minutes": 0.5,
            "open_page": True,
            "precision": "bf16",
        }

    @pytest.mark.parametrize("option", ["--port=0", "--max-minutes=0", "--device"])
    def test_errors_of_usage_have_their_own_code(self, option):
        with pytest.raises(SystemExit) as stop:
            cli.main(["app", "--model=model", option])
        assert stop.value.code == 2

    def test_without_gradio_the_package_to_install_is_named(
        self, tiny_enhancer, tmp_path, monkeypatch, capsys
    ):
        model = tiny_enhancer.save_pretrained(tmp_path / "model")
        monkeypatch.setitem(sys.modules, "gradio", None)
        for name in ("page", "serve"):
            monkeypatch.delitem(sys.modules, f"speechbrain_cffma.app.{name}")
        with pytest.raises(SystemExit) as stop:
            cli.main(["app", f"--model={model}"])
        (line,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 1
        assert "pip install 'speechbrain-cffma[app]'" in line

    def test_help_has_examples(self, capsys):
        with pytest.raises(SystemExit):
            cli.main(["app", "-h"])
        assert "cffma app --host 0.0.0.0" in capsys.readouterr().out


class TestAddress:
    @pytest.fixture
    def taken(self):
        """A port that something listens on."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]

    def test_a_port_that_is_taken_is_an_error(self, taken):
        with pytest.raises(InputError, match=f"can't listen on 127.0.0.1:{taken} "):
            serve(None, port=taken)

    def test_without_a_port_the_next_free_one_is_taken(self, taken, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as server:
            free = server.getsockname()[1]
        monkeypatch.setattr(serving, "PORTS", [taken, free])
        assert _free_port("127.0.0.1", serving.PORTS) == free

    def test_another_machine_s_address_is_an_error(self):
        with pytest.raises(InputError, match="can't listen on 192.0.2.1:7860 "):
            serve(None, host="192.0.2.1", port=7860)


class TestProcess:
    @pytest.fixture
    def start(self, tiny_enhancer, tmp_path):
        """`start(*arguments)`: the process of the page and the lines up to its address."""
        model = tiny_enhancer.save_pretrained(tmp_path / "model")
        (tmp_path / "tmp").mkdir()
        processes = []

        def run(*arguments):
            process = subprocess.Popen(
                [sys.executable, "-m", "speechbrain_cffma", "app", "--device=cpu"]
                + [f"--model={model}", *arguments],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
                cwd=REPOSITORY,
            )
            processes.append(process)
            lines = [process.stdout.readline()]
            while not lines[-1].startswith("http"):
                assert lines[-1], "it ended"
                lines.append(process.stdout.readline())
            return process, lines

        yield run
        for process in processes:
            process.kill()
            process.communicate()

    def test_open_to_the_network_it_says_so_and_ctrl_c_leaves_no_file(
        self, start, tmp_path, noisy
    ):
        process, (warning, address) = start("--host=0.0.0.0")
        assert warning.startswith("warning: everybody who can reach 0.0.0.0:")
        url = address.split()[0].replace("0.0.0.0", "127.0.0.1")
        body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
        request = urllib.request.Request(
            f"{url}gradio_api/upload",
            body + noisy.read_bytes() + b"\r\n--x--\r\n",
            {"Content-Type": "multipart/form-data; boundary=x"},
        )
        urllib.request.urlopen(request).close()
        files = [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]
        assert [path.name for path in files] == ["a.wav"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert not files[0].exists()
        assert not files[0].parents[1].exists()
