"""The page of `cffma app` in a browser, from upload to download; it fetches and keeps nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from selenium.webdriver.common.keys import Keys

from speechbrain_cffma.lobes import CFFMAEnhancer

REPOSITORY = Path(__file__).parents[2]
MAX_SECONDS = 6
#: Another number of threads may round the last of 24 bits otherwise.
LAST_STEPS = 2**-21


class App:
    """`cffma app` as a process.

    Arguments
    ---------
    model : Path
        The model's folder.
    folder : Path
        All its temporary files lie here.
    """

    def __init__(self, model, folder):
        self.model = model
        self.folder = folder
        folder.mkdir()
        command = [sys.executable, "-m", "speechbrain_cffma", "app", "--device=cpu"]
        # Samples of bfloat16 depend on the number of threads.
        command += ["--precision=fp32"]
        command += [f"--model={model}", f"--max-minutes={MAX_SECONDS / 60}"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
            cwd=REPOSITORY,
        )
        self.url = self.process.stdout.readline().split()[0]

    def files(self):
        """All temporary files."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def end(self, number):
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def model(tmp_path_factory, ssl_folder):
    """Folder of a tiny network whose mask is far from 0 and from 1."""
    import torch

    from speechbrain_cffma.lobes import CFFMA, LogSpectrogram, SSLEmbedding, load_ssl

    torch.manual_seed(0)
    enhancer = CFFMAEnhancer(
        SSLEmbedding(load_ssl(ssl_folder("wavlm"))),
        LogSpectrogram(),
        CFFMA(ssl_dim=32, fused_dim=48, dim=32),
    )
    return enhancer.save_pretrained(tmp_path_factory.mktemp("app") / "model")


@pytest.fixture(scope="module")
def app(model, tmp_path_factory):
    """A running `App`."""
    app = App(model, tmp_path_factory.mktemp("app") / "tmp")
    yield app
    if app.process.poll() is None:
        app.end(signal.SIGTERM)


@pytest.fixture
def page(browser, app):
    """The page, at the width of a desktop."""
    yield from opened(browser, app)


@pytest.fixture
def phone(browser, app):
    """The page on a phone."""
    yield from opened(browser, app, width=390)


def opened(browser, app, **how):
    browser.open(app.url, **how)
    browser.wait("return document.querySelector('#noisy input[type=file]')")
    yield browser
    # Gradio warns of a method that it lacks.
    assert [m for m in browser.messages() if m["level"] == "SEVERE"] == []


@pytest.fixture
def noisy(tmp_path, speech):
    """Path of a stereo recording at 44.1 kHz, 24 bits a sample."""
    samples = np.random.default_rng(0).normal(0, 0.02, (3 * 44100, 2))
    samples[: len(speech)] += speech.numpy()[:, None]
    soundfile.write(tmp_path / "A talk.wav", samples, 44100, "PCM_24")
    return tmp_path / "A talk.wav"


STATUS = "return document.querySelector('#status').innerText.trim()"
SOURCE = "document.querySelector('#enhanced audio')?.src"


def upload(page, path):
    """Give a file to the page, and what the page says of it then."""
    page.find("#noisy input[type=file]")[0].send_keys(str(path))
    return page.wait(STATUS)


def suppress(page, *keys, at="range"):
    """Press keys at the slider, or at its number, and wait for another result."""
    before = page.run(f"return {SOURCE}")
    field = page.find(f"#suppression input[type={at}]")[0]
    page.run("arguments[0].focus(); arguments[0].select()", field)
    field.send_keys(*keys)
    page.wait(f"return {SOURCE} && {SOURCE} !== arguments[0]", before)


def download(page, folder):
    """The file that the button gives."""
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=folder)
    page.find("#download")[0].click()
    deadline = time.monotonic() + 20
    while not (paths := list(Path(folder).glob("*.wav"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return paths[0]


def enhanced(model, path, folder, **options):
    """Samples of a file as `enhance_file` gives them."""
    target = folder / "expected.wav"
    CFFMAEnhancer.from_pretrained(model).enhance_file(path, target, **options)
    return soundfile.read(target)[0]


class TestUse:
    def test_from_upload_to_download(self, page, app, noisy, tmp_path):
        said = upload(page, noisy)
        assert said.startswith("3.0 s, 44.1 kHz, stereo: enhanced in ")
        path = download(page, str(tmp_path / "downloads"))
        assert path.name == "A talk_enhanced.wav"
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (44100, 2, "PCM_24")
        expected = enhanced(app.model, noisy, tmp_path)
        np.testing.assert_allclose(soundfile.read(path)[0], expected, atol=LAST_STEPS)

    def test_players_hold_both_recordings(self, page, noisy):
        upload(page, noisy)
        players = page.find("audio")
        assert [player.accessible_name for player in players] == ["Noisy", "Enhanced"]
        for player in players:
            length = page.wait("return arguments[0].duration", player)
            assert length == pytest.approx(3, abs=0.01)

    def test_a_player_goes_on_where_the_other_one_was(self, page, noisy):
        upload(page, noisy)
        first, second = page.find("audio")
        page.run("arguments[0].play()", first)
        page.wait("return arguments[0].currentTime > 0.5", first)
        page.run("arguments[0].play()", second)
        begin = "const {played} = arguments[0]; return played.length && played.start(0)"
        assert page.wait(begin, second) > 0.5
        assert page.run("return arguments[0].paused", first)

    def test_the_figure_has_three_panels(self, page, noisy):
        upload(page, noisy)
        titles = [each.text for each in page.find("#figure figcaption")]
        assert titles == ["Noisy", "Enhanced", "Mask"]
        widths = page.wait(
            "const widths = [...document.querySelectorAll('#figure img')]"
            ".map(image => image.naturalWidth); return Math.min(...widths) && widths"
        )
        assert len(widths) == 3
        assert page.find("#figure .seconds")[0].text.split()[-2:] == ["3.0", "s"]

    def test_the_slider_bounds_the_suppression(self, page, app, noisy, tmp_path):
        upload(page, noisy)
        suppress(page, "3", Keys.ENTER, at="number")
        path = download(page, str(tmp_path / "downloads"))
        expected = enhanced(app.model, noisy, tmp_path, suppression=3)
        np.testing.assert_allclose(soundfile.read(path)[0], expected, atol=LAST_STEPS)

    def test_no_suppression_gives_the_recording(self, page, noisy, tmp_path):
        upload(page, noisy)
        suppress(page, Keys.HOME)
        path = download(page, str(tmp_path / "downloads"))
        np.testing.assert_allclose(
            soundfile.read(path)[0], soundfile.read(noisy)[0], atol=1e-5
        )

    def test_the_microphone(self, page, tmp_path, speech):
        page.find("#noisy [aria-label='Record audio']")[0].click()
        page.wait("return document.querySelector('#noisy .record-button')").click()
        page.wait("return document.querySelector('#noisy .stop-button')")
        page.wait("return /0:0[2-9]/.test(document.querySelector('#noisy').innerText)")
        page.find("#noisy .stop-button")[0].click()
        assert "mono: enhanced in" in page.wait(STATUS)
        path = download(page, str(tmp_path / "downloads"))
        assert path.name == "audio_enhanced.wav"
        assert soundfile.info(path).duration > 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            ("long", "the recording is longer than 0.1 minutes"),
            ("short", "the recording is shorter than 25 ms"),
            ("silent", "the recording is silent"),
            ("text", "bad.wav can't be read"),
        ],
    )
    def test_are_one_line_and_the_page_goes_on(
        self, page, noisy, tmp_path, samples, message
    ):
        bad = tmp_path / "bad.wav"
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, 7 * 16000)
        if samples == "text":
            bad.write_text("no sound")
        else:
            kinds = {"long": noise, "short": noise[:300], "silent": 0 * noise[:16000]}
            soundfile.write(bad, kinds[samples], 16000)
        said = upload(page, bad)
        assert said.startswith("bad.wav")
        assert message in said
        assert "\n" not in said
        assert str(tmp_path.parent) not in said
        assert "/" not in said
        assert page.find("#status [role=alert]")
        assert not page.find("#download:enabled")
        assert not page.find("#enhanced audio")
        page.find("#noisy [aria-label=Clear]")[0].click()
        page.wait("return !document.querySelector('#status').innerText.trim()")
        assert "enhanced in" in upload(page, noisy)
        assert page.find("#download:enabled")

    def test_too_large_an_upload_is_not_stored(self, page, app, noisy, tmp_path):
        samples = np.zeros(20 * 48000, dtype="float32")
        soundfile.write(tmp_path / "large.wav", samples, 48000, "DOUBLE")
        page.find("#noisy input[type=file]")[0].send_keys(str(tmp_path / "large.wav"))
        page.wait("return document.body.innerText.includes('maximum allowed size')")
        assert app.files() == []
        page.find("#noisy [aria-label=Clear]")[0].click()
        assert "enhanced in" in upload(page, noisy)


class TestPrivacy:
    def test_all_comes_from_the_page_s_own_address(self, page, app, noisy):
        upload(page, noisy)
        script = "return performance.getEntriesByType('resource').map(e => e.name)"
        names = [*page.run(script), *page.requests()]
        assert len(names) > 20
        assert [n for n in names if not n.startswith((app.url, "data:"))] == []

    def test_the_browser_keeps_nothing(self, page, noisy):
        upload(page, noisy)
        kept = page.driver.execute_async_script(
            "const done = arguments[0];"
            "indexedDB.databases().then(all => done([...all.map(d => d.name),"
            " ...Object.keys(localStorage), ...Object.keys(sessionStorage)]))"
        )
        assert [name for name in kept if "run" in name or "talk" in name] == []

    def test_only_this_computer_is_listened_on(self, app):
        assert app.url.startswith("http://127.0.0.1:")

    def test_a_recording_goes_when_another_one_comes(self, page, app, noisy, tmp_path):
        upload(page, noisy)
        for key in (Keys.HOME, Keys.END, Keys.HOME):
            suppress(page, key)
        names = sorted(path.name for path in app.files())
        # The last result, and the one that is shown while it is made.
        assert names == ["A talk.wav", "A talk_enhanced.wav", "A talk_enhanced.wav"]
        other = tmp_path / "other.flac"
        soundfile.write(other, soundfile.read(noisy)[0], 44100)
        page.find("#noisy [aria-label=Clear]")[0].click()
        page.wait("return !document.querySelector('#status').innerText.trim()")
        upload(page, other)
        assert sorted(path.name for path in app.files()) == [
            "other.flac",
            "other_enhanced.wav",
        ]

    def test_recordings_go_when_the_page_is_closed(self, page, app, noisy):
        upload(page, noisy)
        assert app.files()
        page.driver.get("about:blank")
        deadline = time.monotonic() + 20
        while app.files():
            assert time.monotonic() < deadline
            time.sleep(0.05)


class TestPhone:
    def test_the_page_is_no_wider_than_the_screen(self, phone, noisy):
        assert phone.run("return document.documentElement.scrollWidth") <= 390
        upload(phone, noisy)
        assert phone.run("return document.documentElement.scrollWidth") <= 390

    def test_players_and_panels_fit(self, phone, noisy):
        upload(phone, noisy)
        boxes = phone.run(
            "return [...document.querySelectorAll('audio, #figure img, #download')]"
            ".map(e => e.getBoundingClientRect()).map(box => [box.left, box.right])"
        )
        assert len(boxes) == 6
        assert all(0 <= left < 150 and 300 < right <= 390 for left, right in boxes)


class TestEnd:
    def test_nothing_is_left(self, page, app, noisy):
        upload(page, noisy)
        assert app.files()
        assert app.end(signal.SIGTERM) == 0
        assert app.files() == []
        page.driver.get("about:blank")
        page.messages()  # of the connection that is lost
