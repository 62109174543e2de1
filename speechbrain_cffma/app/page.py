"""The page of `cffma app`: drop or record speech, hear and see it enhanced.

The page works offline and keeps nothing. Uploaded and enhanced files are in one
temporary folder and are deleted when their page is closed.

Authors
 * The speechbrain-cffma developers 2026
"""

import math
from html import escape
from importlib.resources import files
from pathlib import Path

from speechbrain_cffma.errors import CFFMAError, InputError, InstallError, one_line

try:
    import gradio as gr

    from speechbrain_cffma.app.result import NO_BOUND, enhance
except ModuleNotFoundError as error:
    raise InstallError(
        f"the page needs the package {error.name}: pip install 'speechbrain-cffma[app]'"
    ) from error

#: Size limit of uploads: 48 kHz stereo with 32-bit samples.
BYTES_PER_MINUTE = 60 * 48000 * 2 * 4


def _text(name):
    return files("speechbrain_cffma").joinpath(name).read_text(encoding="utf-8")


CSS = _text("app/page.css")
SCRIPT = f"() => {{\n{_text('evaluation/players.js')}{_text('app/page.js')}}}"


def build(enhancer, recordings, max_minutes=10, **options):
    """Build the page.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The network.
    recordings : Recordings
        Keeps track of the files.
    max_minutes : float
        Maximum length of a recording in minutes.
    **options
        The options of `InferenceMixin.enhance_file`.

    Returns
    -------
    gr.Blocks
        The page; call its `launch` to serve it.

    Example
    -------
    >>> from speechbrain_cffma.app.recordings import Recordings
    >>> recordings = Recordings(getfixture("tmp_path"))
    >>> build(getfixture("tiny_enhancer"), recordings).title
    'Speech enhancement'
    """

    def show(noisy, slider, request: gr.Request, progress=gr.Progress()):  # noqa: B008
        """Values of the enhanced player, the download, the figure and the status line."""
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
                raise InputError("the file was removed: drop it again")
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
        except Exception as error:  # The page goes on after a failure.
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
            "<h1>Speech enhancement</h1><p>Drop or record speech to remove its noise. "
            "Your recordings are not sent to other services, and they are deleted when "
            "you close this page.</p>"
        )
        player = {"buttons": [], "waveform_options": {"show_recording_waveform": False}}
        with gr.Row():
            with gr.Column(min_width=300):
                noisy = gr.Audio(
                    label="Noisy",
                    sources=["upload", "microphone"],
                    type="filepath",
                    editable=False,  # editing would convert the file
                    elem_id="noisy",
                    **player,
                )
                slider = gr.Slider(
                    0,
                    NO_BOUND,
                    NO_BOUND if enhancer.suppression is None else enhancer.suppression,
                    step=1,
                    label="Suppression (dB)",
                    info="Maximum attenuation of the noise. 0 leaves the recording "
                    "unchanged; the right end sets no limit.",
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


def theme():
    """Return the theme of the page: system fonts, to fetch none, and readable colours.

    Returns
    -------
    gradio.themes.Default
        The theme, an argument of `launch`.
    """
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
    """Values of an empty page, with the reason in the status line."""
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
    """An error's message, with the recording's name instead of its path."""
    message = str(error).replace(str(noisy), noisy.name)
    return message if noisy.name in message else f"{noisy.name}: {message}"
