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

#: Ports to try, in this order, if none is given.
PORTS = range(7860, 7960)


def serve(
    enhancer, host="127.0.0.1", port=None, max_minutes=10, open_page=False, **options
):
    """Serve the page until Ctrl-C, or until the process gets SIGTERM or SIGHUP.

    Arguments
    ---------
    enhancer : CFFMAEnhancer
        The network.
    host : str
        The address to listen on. With addresses other than 127.0.0.1, other computers
        can use the page.
    port : int or None
        The port; None for the first free one of `PORTS`.
    max_minutes : float
        Maximum length of a recording in minutes.
    open_page : bool
        Whether to open the page in the browser.
    **options
        The options of `InferenceMixin.enhance_file`.

    Raises
    ------
    InputError
        If the server can't listen on the address and port.
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
                print(
                    f"warning: everybody who can reach {host}:{port} can use this page"
                )
            print(f"{url} (stop with Ctrl-C)", flush=True)
            page.server.thread.join()
        except KeyboardInterrupt:
            print("stopped", flush=True)
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
    raise InputError(
        f"can't listen on {host}:{port} ({os.strerror(fault.errno)}): choose another "
        "--host or --port"
    )


def _is_loopback(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _temporary_folder():
    """A folder for uploaded and enhanced files, removed even on SIGTERM and SIGHUP."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    # Running work may still remove its own file.
    with tempfile.TemporaryDirectory(
        prefix="cffma-", ignore_cleanup_errors=True
    ) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield folder
