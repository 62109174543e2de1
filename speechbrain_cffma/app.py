"""The page of `cffma app`: drop or record speech, hear it enhanced, see what was done.

It works offline and keeps nothing: what is uploaded and what becomes of it lies in one
temporary folder, from which each file goes with the page that it belongs to.

Authors
 * The speechbrain-cffma developers 2026
"""

import ipaddress
import math
import os
import shutil
import signal
import socket
import tempfile
import time
import warnings
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechbrain_cffma import media
from speechbrain_cffma.audio import MIN_SAMPLES, SAMPLE_RATE, SILENCE
from speechbrain_cffma.errors import CFFMAError, InputError, InstallError, one_line
from speechbrain_cffma.inference import PeakWarning
from speechbrain_cffma.spectra import log_spectrum

try:
    import gradio as gr

    from speechbrain_cffma.report import figures
except ModuleNotFoundError as error:
    raise InstallError(
        f"the page needs the package {error.name}: pip install 'speechbrain-cffma[app]'"
    ) from error

#: The slider's right end in dB, which stands for no bound.
NO_BOUND = 40
#: Taken when no port is named, or the next one that is free.
PORTS = range(7860, 7960)
#: The largest upload holds 48 kHz stereo as 32-bit samples.
BYTES_PER_MINUTE = 60 * 48000 * 2 * 4
MASK_COLORS = "viridis"


class Result(NamedTuple):
    """What the page shows of a recording.

    Arguments
    ---------
    enhanced : Path
        The enhanced file.
    figure : str
        Spectrograms and mask, as HTML.
    summary : str
        What happened, in one line.
    """

    enhanced: Path
    figure: str
    summary: str


class Recordings:
    """The files of the pages that are open, each of which has one recording at a time.

    Arguments
    ---------
    folder : str or Path
        Where enhanced files lie.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "noisy.wav").touch()
    >>> recordings = Recordings(folder)
    >>> recordings.begin("a page", folder / "noisy.wav")
    >>> recordings.end("a page")
    >>> list(folder.iterdir())
    []
    """

    def __init__(self, folder):
        self.folder = folder
        self._noisy = {}
        self._enhanced = {}

    def begin(self, session, noisy):
        """Note the recording of a page; if it had another one, that goes.

        Arguments
        ---------
        session : str
            The page.
        noisy : Path
            What was uploaded.
        """
        if self._noisy.get(session) != noisy:
            self.end(session)
        self._noisy[session] = noisy

    def is_open(self, session):
        """Whether a page is still there, with its recording."""
        return session in self._noisy

    def new_folder(self, session):
        """A folder for what a page's recording becomes now.

        Players know their files by name, so that each needs a new one. The page shows
        the one before until this is done; older ones go.
        """
        folders = self._enhanced.setdefault(session, [])
        while len(folders) > 1:
            _remove(folders.pop(0))
        folders.append(Path(tempfile.mkdtemp(dir=self.folder)))
        return folders[-1]

    def end(self, session):
        """Remove the files of a page, for it was closed or has another recording."""
        for folder in self._enhanced.pop(session, []):
            _remove(folder)
        noisy = self._noisy.pop(session, None)
        # The same file, dropped on two pages, is stored once.
        if noisy and noisy not in self._noisy.values():
            noisy.unlink(missing_ok=True)

    def end_all(self):
        """Remove the files of all pages; what is at work stops."""
        for session in list(self._noisy):
            self.end(session)


def _remove(folder):
    # What is at work in it may remove its own file at the same time.
    shutil.rmtree(folder, ignore_errors=True)


# --- one recording ---


def enhance(enhancer, noisy, folder, max_minutes=10, progress=None, **options):
    """Enhance a recording and draw what was done.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The network.
    noisy : Path
        The recording.
    folder : Path
        Where the enhanced one goes, as NAME_enhanced.wav.
    max_minutes : float
        What is longer is refused.
    progress : callable or None
        Called as `progress(share)` with what has been done, from 0 to 1.
    **options
        Those of `InferenceMixin.enhance_file`.

    Returns
    -------
    Result
        What to show.

    Raises
    ------
    InputError
        If the recording can't be read, is too long, too short or silent.

    Example
    -------
    >>> from speechbrain_cffma import audio
    >>> folder = getfixture("tmp_path")
    >>> audio.write(folder / "talk.wav", getfixture("speech").numpy())
    >>> result = enhance(getfixture("tiny_enhancer"), folder / "talk.wav", folder)
    >>> result.enhanced.name, result.summary[:19]
    ('talk_enhanced.wav', '3.0 s, 16 kHz, mono')
    """
    seconds, sample_rate, channels = _check(noisy, max_minutes)
    enhanced = folder / f"{noisy.stem}_enhanced.wav"
    n_done = 0

    def advance(more):
        nonlocal n_done
        n_done += more
        if progress:
            progress(n_done / seconds)

    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PeakWarning)  # in the summary
        excess = enhancer.enhance_file(noisy, enhanced, progress=advance, **options)
    elapsed = time.perf_counter() - begin
    layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    device = next(enhancer.parameters()).device.type.upper()
    summary = (
        f"{seconds:.1f} s, {sample_rate / 1000:g} kHz, {layout}: enhanced in "
        f"{elapsed:.1f} s, {seconds / elapsed:.1f} × real time ({device})."
    )
    if excess:
        summary += f" Peaks up to {excess:.1f} dB too high were turned down."
    return Result(enhanced, draw(noisy, enhanced, seconds), summary)


def _check(path, max_minutes):
    """Length in seconds, sample rate and channels of a recording that can be used."""
    n_samples, is_silent = 0, True
    with media.open_source(path) as source:
        rate = source.sample_rate
        for block in source.blocks:
            n_samples += block.shape[1]
            is_silent = is_silent and bool((np.abs(block) < SILENCE).all())
            # The header of some files tells no length.
            if n_samples > max_minutes * 60 * rate:
                raise InputError(
                    f"it is longer than {max_minutes:g} minutes, the most that this page takes"
                )
    if n_samples < MIN_SAMPLES / SAMPLE_RATE * rate:
        raise InputError("it is shorter than 25 ms")
    if is_silent:
        raise InputError("it is silent")
    return n_samples / rate, rate, source.channels


_PANEL = """<figure><figcaption>{title}</figcaption>
<div class="frequency"><span>{khz:g} kHz</span><span>0</span></div>
<img src="{image}" alt="{alt}"></figure>"""


def draw(noisy, enhanced, seconds):
    """Draw the spectrograms of a recording before and after, and the mask.

    Arguments
    ---------
    noisy : Path
        The recording.
    enhanced : Path
        What became of it.
    seconds : float
        The length of both.

    Returns
    -------
    str
        HTML: the three over the same time, the spectrograms on one scale.

    Example
    -------
    >>> from speechbrain_cffma import audio
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> audio.write(path, getfixture("speech").numpy())
    >>> draw(path, path, 3.0).count("<img")
    3
    """
    before, after = (log_spectrum(path, seconds).T for path in (noisy, enhanced))
    with media.open_source(enhanced) as source:
        khz = min(source.sample_rate, SAMPLE_RATE) / 2000
    decibels = [20 * np.log10(np.expm1(spectrum)) for spectrum in (before, after)]
    top = max(spectrum.max() for spectrum in decibels)
    size = (1120, 224)
    images = [
        figures.image((spectrum - top) / figures.RANGE + 1, size=size)
        for spectrum in decibels
    ]
    # Rounding to 16 bits leaves something where the noisy signal is next to nothing.
    images.append(figures.image(after / before, MASK_COLORS, size))
    panels = (
        ("Noisy", "Spectrogram of the noisy recording"),
        ("Enhanced", "Spectrogram of the enhanced recording"),
        ("Mask", "What the network kept, over time and frequency"),
    )
    parts = [
        _PANEL.format(title=title, alt=alt, khz=khz, image=image)
        for (title, alt), image in zip(panels, images, strict=True)
    ]
    ticks = "".join(f"<span>{share * seconds:.1f}</span>" for share in (0, 0.25, 0.5))
    ticks += f"<span>{0.75 * seconds:.1f}</span><span>{seconds:.1f} s</span>"
    legend = (
        f'<span>−{figures.RANGE} dB <i style="background: {figures.gradient()}"></i> loudest</span>'
        f'<span>removed <i style="background: {figures.gradient(MASK_COLORS)}"></i> kept</span>'
    )
    return (
        f'<div class="spectra">{"".join(parts)}<div class="seconds">{ticks}</div>'
        f'<p class="legend">{legend}</p></div>'
    )


# --- the page ---

CSS = """
.gradio-container { width: 100% !important; max-width: 1160px !important; margin: 0 auto !important; }
h1 { font-size: 1.7rem; margin: 0.4rem 0 0; }
.html-container { padding: 0 !important; }
#suppression .max_value { font-size: 0; white-space: nowrap; }
#suppression .max_value::after { content: "no limit"; font-size: var(--text-sm); }
.status { min-height: 1.5em; margin: 0; font-variant-numeric: tabular-nums; }
.status.bad { color: #c62828; font-weight: 600; }
.dark .status.bad { color: #ff8a80; }
.spectra figure { display: grid; grid-template-columns: 3.4rem minmax(0, 1fr); margin: 0 0 0.7rem; }
.spectra figcaption { grid-column: 2; font-size: 0.85rem; font-weight: 600; margin-bottom: 0.15rem; }
.spectra .frequency { display: flex; flex-direction: column; justify-content: space-between; text-align: right; padding-right: 0.4rem; }
.spectra .frequency, .spectra .seconds { font-size: 0.75rem; line-height: 1; font-variant-numeric: tabular-nums; }
.spectra img { display: block; width: 100%; height: 9.5rem; border-radius: 4px; margin: 0; }
.spectra .seconds { display: flex; justify-content: space-between; margin: -0.3rem 0 0 3.4rem; }
.spectra .legend { display: flex; flex-wrap: wrap; gap: 0.4rem 2rem; font-size: 0.8rem; margin: 0.9rem 0 0 3.4rem; }
.spectra .legend i { display: inline-block; width: 7rem; height: 0.7rem; border-radius: 3px; }
"""

# A player goes on where the other one was, to compare. Gradio's players have no names
# for screen readers, and its sliders tell of the pointer only: keys count as well.
SCRIPT = """() => {
  let last = null;
  document.addEventListener("play", ({target}) => {
    if (last && last !== target && last.isConnected) {
      last.pause();
      if (!last.ended) target.currentTime = last.currentTime;
    }
    last = target;
  }, true);
  new MutationObserver(() => {
    for (const player of document.querySelectorAll("audio:not([aria-label])"))
      player.ariaLabel = player.closest("#enhanced") ? "Enhanced" : "Noisy";
  }).observe(document.body, {childList: true, subtree: true});
  document.addEventListener("keyup", ({target, key}) => {
    if (target.type === "range" && /^(Arrow|Home|End|Page)/.test(key))
      target.dispatchEvent(new Event("pointerup", {bubbles: true}));
    if (target.type === "number" && key === "Enter") target.blur();
  });
}"""


def build(enhancer, recordings, max_minutes=10, **options):
    """Make the page.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The network.
    recordings : Recordings
        Where files are kept track of.
    max_minutes : float
        Longest recording.
    **options
        Those of `InferenceMixin.enhance_file`.

    Returns
    -------
    gr.Blocks
        The page, to be launched.

    Example
    -------
    >>> recordings = Recordings(getfixture("tmp_path"))
    >>> build(getfixture("tiny_enhancer"), recordings).title
    'Speech enhancement'
    """

    def show(noisy, slider, request: gr.Request, progress=gr.Progress()):  # noqa: B008
        """The enhanced player, the download, the figure and the line below."""
        session = request.session_hash
        if noisy is None:
            recordings.end(session)
            return _nothing("")
        noisy = Path(noisy)
        recordings.begin(session, noisy)

        def advance(share):
            if not recordings.is_open(session):
                raise InputError("the page was closed")
            progress(share, desc="Enhancing")

        try:
            if not noisy.exists():
                raise InputError("it was removed: drop it again")
            result = enhance(
                enhancer,
                noisy,
                recordings.new_folder(session),
                max_minutes,
                advance,
                suppression=math.inf if slider >= NO_BOUND else slider,
                **options,
            )
        except CFFMAError as error:
            return _nothing(_message(error, noisy))
        except Exception as error:  # One recording's failure is not the page's end.
            return _nothing(f"{noisy.name}: {one_line(error)}")
        return (
            str(result.enhanced),
            gr.DownloadButton(value=str(result.enhanced), interactive=True),
            result.figure,
            _status(result.summary),
        )

    def close(request: gr.Request):
        recordings.end(request.session_hash)

    with gr.Blocks(
        title="Speech enhancement", analytics_enabled=False, fill_width=True
    ) as page:
        gr.HTML(
            "<h1>Speech enhancement</h1><p>Drop or record speech, and hear it without "
            "the noise. Nothing is sent to other services, and nothing is kept once "
            "you close this page.</p>"
        )
        player = {"buttons": [], "waveform_options": {"show_recording_waveform": False}}
        with gr.Row():
            with gr.Column(min_width=300):
                noisy = gr.Audio(
                    label="Noisy",
                    sources=["upload", "microphone"],
                    type="filepath",
                    editable=False,  # that would convert it
                    elem_id="noisy",
                    **player,
                )
                slider = gr.Slider(
                    0,
                    NO_BOUND,
                    NO_BOUND if enhancer.suppression is None else enhancer.suppression,
                    step=1,
                    label="Suppression (dB)",
                    info="How far noise may be turned down. 0 leaves the recording as it "
                    "is; the right end sets no limit.",
                    elem_id="suppression",
                )
            with gr.Column(min_width=300):
                enhanced = gr.Audio(
                    label="Enhanced", interactive=False, elem_id="enhanced", **player
                )
                download = gr.DownloadButton(
                    "Download",
                    variant="primary",
                    interactive=False,
                    elem_id="download",
                )
                status = gr.HTML(_status(""), elem_id="status")
        figure = gr.HTML(elem_id="figure")
        gr.on(
            [noisy.upload, noisy.stop_recording, noisy.clear, slider.release],
            show,
            [noisy, slider],
            [enhanced, download, figure, status],
            show_progress_on=enhanced,
            trigger_mode="always_last",
            concurrency_limit=1,
            api_visibility="private",
        )
        page.unload(close)
    return page


def _theme():
    """Fonts of the system, so that none is fetched; colours that can be read."""
    theme = gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["monospace"],
    )
    small_print = ("body_text_color_subdued", "block_info_text_color")
    return theme.set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        **dict.fromkeys(small_print, "*neutral_600"),
        **dict.fromkeys((f"{name}_dark" for name in small_print), "*neutral_300"),
    )


def _nothing(message):
    """The page without a result, and why."""
    return (
        None,
        gr.DownloadButton(value=None, interactive=False),
        "",
        _status(message, "bad"),
    )


def _status(text, kind=""):
    role = "alert" if kind else "status"
    return f'<p class="status {kind}" role="{role}">{escape(text)}</p>'


def _message(error, noisy):
    """An error's line, with the name of the recording in place of its path."""
    message = str(error).replace(str(noisy), noisy.name)
    return message if noisy.name in message else f"{noisy.name}: {message}"


# --- serving ---


def serve(
    enhancer, host="127.0.0.1", port=None, max_minutes=10, open_page=False, **options
):
    """Show the page until Ctrl-C, or until the process is asked to end.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The network.
    host : str
        The address to listen on. All but this machine's own, 127.0.0.1, are open to
        others.
    port : int or None
        None for the first free one of `PORTS`.
    max_minutes : float
        Longest recording.
    open_page : bool
        Whether to open the page in the browser.
    **options
        Those of `InferenceMixin.enhance_file`.

    Raises
    ------
    InputError
        If the address can't be listened on.
    """
    port = _free_port(host, [port] if port else PORTS)
    with _temporary_folder() as folder:
        recordings = Recordings(folder)
        page = build(enhancer, recordings, max_minutes, **options)
        try:
            _, url, _ = page.launch(
                server_name=host,
                server_port=port,
                inbrowser=open_page,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=round(max_minutes * BYTES_PER_MINUTE),
                theme=_theme(),
                css=CSS,
                js=SCRIPT,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
            )
            if not _is_loopback(host):
                print(f"warning: everybody who reaches {host}:{port} can use this page")
            print(f"{url} (Ctrl-C ends it)", flush=True)
            page.server.thread.join()
        except KeyboardInterrupt:
            print("ended", flush=True)
        finally:
            recordings.end_all()
            page.close(verbose=False)


def _free_port(host, ports):
    for port in ports:
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            fault = error
        else:
            return port
    raise InputError(f"{host}:{port} can't be listened on ({os.strerror(fault.errno)})")


def _is_loopback(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _temporary_folder():
    """The folder of all that is uploaded and made, removed also upon SIGTERM and SIGHUP."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    # What is at work may still remove its own file.
    with tempfile.TemporaryDirectory(
        prefix="cffma-", ignore_cleanup_errors=True
    ) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield folder
