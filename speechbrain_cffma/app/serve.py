"""Serve the page on a free port.

Authors
 * The speechbrain-cffma developers 2026
"""

import ipaddress
import os
import signal
import socket
import tempfile
from contextlib import contextmanager

from speechbrain_cffma.app.page import BYTES_PER_MINUTE, CSS, SCRIPT, build, theme
from speechbrain_cffma.app.recordings import Recordings
from speechbrain_cffma.errors import InputError

#: Taken when no port is named, or the next one that is free.
PORTS = range(7860, 7960)


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
                theme=theme(),
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
