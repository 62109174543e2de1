"""Download of VoiceBank-DEMAND, from a server on this machine."""

import errno
import http.server
import io
import threading
import zipfile

import numpy as np
import pytest

from helpers.errors import error_of
from recipes.VoiceBank import prepare
from recipes.VoiceBank.prepare import download_voicebank, fetch

LOGS = ["log_testset.txt", "log_trainset_28spk.txt"]
FOLDERS = [
    "clean_testset_wav",
    "clean_trainset_28spk_wav",
    "noisy_testset_wav",
    "noisy_trainset_28spk_wav",
]


def zipped(files):
    """A zip, as bytes, with the given files {name: content}."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return stream.getvalue()


def published_archives():
    """{name: bytes} of archives in the published form."""
    random = np.random.default_rng(0)
    archives = {
        f"{folder}.zip": zipped(
            {f"{folder}/p232_{i:03d}.wav": random.bytes(4000) for i in range(3)}
        )
        for folder in FOLDERS
    }
    archives["logfiles.zip"] = zipped(
        dict.fromkeys([*LOGS, "log_readme.txt"], "p232_001 bus 17.5\n")
    )
    return archives


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        name, range_header = self.path.strip("/"), self.headers["Range"]
        server.requests.append((name, range_header))
        if server.errors or name not in server.files:
            return self.send_error(server.errors.pop(0) if server.errors else 404)
        content = server.files[name]
        start = 0
        if range_header and server.ranges:
            start = int(range_header.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_response(416)
            self.send_header(
                "Content-Range", f"bytes */{len(content) + server.missing}"
            )
            return self.end_headers()
        self.send_response(206 if start else 200)
        if server.says_length:
            length = len(content) - start + server.missing
            self.send_header("Content-Length", str(length))
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else None
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server of the archives. Its requests are noted; its faults can be set."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.url = f"http://127.0.0.1:{server.server_port}/"
        server.files = published_archives()
        server.requests = []  # (file, Range header) of each
        server.ranges = True  # whether it can send a part of a file
        server.says_length = True
        server.missing = 0  # bytes that it announces beyond those it has
        server.cuts = []  # bytes after which it closes the first connections
        server.errors = []  # status codes of the first answers
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def big(server):
    """`big(path)`: fetch a file of 300 kB, whose content is `big.content`."""
    content = server.files["big"] = np.random.default_rng(1).bytes(300_000)

    def get(path, **arguments):
        fetch(server.url + "big", path, **arguments)

    get.content = content
    return get


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The waits between tries, in seconds, which are not waited for."""
    waits = []
    monkeypatch.setattr(prepare.time, "sleep", waits.append)
    return waits


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def ranges(server):
    return [range_header for _, range_header in server.requests]


# --- The archives


def test_download_gives_the_four_folders_and_the_logs_alone(server, tmp_path):
    download_voicebank(tmp_path, server.url)
    assert names(tmp_path) == FOLDERS[:2] + LOGS + FOLDERS[2:]
    for folder in FOLDERS:
        assert names(tmp_path / folder) == [f"p232_{i:03d}.wav" for i in range(3)]


def test_download_makes_the_data_folder(server, tmp_path):
    download_voicebank(tmp_path / "data" / "vbd", server.url)
    assert len(names(tmp_path / "data" / "vbd")) == 6


def test_logs_are_found_in_a_folder_of_their_archive(server, tmp_path):
    server.files["logfiles.zip"] = zipped({f"logfiles/{log}": "" for log in LOGS})
    download_voicebank(tmp_path, server.url)
    assert set(LOGS) < set(names(tmp_path))


def test_complete_data_is_not_fetched_again(server, tmp_path):
    download_voicebank(tmp_path, server.url)
    server.requests.clear()
    download_voicebank(tmp_path, server.url)
    assert server.requests == []


def test_only_what_is_missing_is_fetched(server, tmp_path):
    download_voicebank(tmp_path, server.url)
    server.requests.clear()
    (tmp_path / "noisy_testset_wav").rename(tmp_path / "noisy_testset_wav_16k")
    (tmp_path / "clean_testset_wav").rename(tmp_path / "elsewhere")
    (tmp_path / "clean_testset_wav").mkdir()
    download_voicebank(tmp_path, server.url)
    assert server.requests == [("clean_testset_wav.zip", None)]
    assert len(names(tmp_path / "clean_testset_wav")) == 3


def test_archives_that_are_there_are_not_fetched(server, tmp_path):
    for name, content in server.files.items():
        (tmp_path / name).write_bytes(content)
    download_voicebank(tmp_path, server.url)
    assert server.requests == []
    assert names(tmp_path) == FOLDERS[:2] + LOGS + FOLDERS[2:]


def test_rest_of_an_interrupted_unpacking_is_removed(server, tmp_path):
    left_over = tmp_path / ".clean_testset_wav" / "clean_testset_wav" / "p1_001.wav"
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    download_voicebank(tmp_path, server.url)
    assert "p1_001.wav" not in names(tmp_path / "clean_testset_wav")
    assert ".clean_testset_wav" not in names(tmp_path)


def test_what_macos_adds_to_an_archive_is_left_out(server, tmp_path):
    name = "clean_testset_wav"
    server.files[f"{name}.zip"] = zipped(
        {f"__MACOSX/{name}/._p232_001.wav": "", f"{name}/p232_001.wav": "speech"}
    )
    download_voicebank(tmp_path, server.url)
    assert names(tmp_path / name) == ["p232_001.wav"]
    assert "__MACOSX" not in names(tmp_path)


def test_nothing_is_unpacked_outside_of_the_folder(server, tmp_path):
    server.files["clean_testset_wav.zip"] = zipped(
        {"../../evil": "", "/evil": "", "clean_testset_wav/p232_001.wav": "speech"}
    )
    download_voicebank(tmp_path / "data" / "vbd", server.url)
    assert names(tmp_path) == ["data"]
    assert names(tmp_path / "data") == ["vbd"]
    assert len(names(tmp_path / "data" / "vbd")) == 6


def damaged_archives():
    archive = published_archives()["noisy_trainset_28spk_wav.zip"]
    start = 30 + len("noisy_trainset_28spk_wav/p232_000.wav")  # of the first file
    return {
        "altered": archive[: start + 100] + b"?" + archive[start + 101 :],
        "not to be decoded": archive[:start] + b"\xff" + archive[start + 1 :],
        "truncated": archive[: len(archive) // 2],
        "web page": b"<html>Please log in</html>",
        "other content": zipped({"p232_001.wav": "speech"}),
    }


@pytest.mark.parametrize("damage", damaged_archives())
def test_damaged_archive_is_named_and_leaves_nothing(server, tmp_path, damage):
    server.files["noisy_trainset_28spk_wav.zip"] = damaged_archives()[damage]
    message = error_of(download_voicebank, tmp_path, server.url)
    assert "noisy_trainset_28spk_wav.zip was damaged" in message
    assert names(tmp_path) == []


def test_full_disk_while_unpacking_keeps_the_archive(server, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extract", fail)
    message = error_of(download_voicebank, tmp_path, server.url)
    assert "can't be unpacked" in message
    assert "No space left on device" in message
    assert names(tmp_path) == ["noisy_trainset_28spk_wav.zip"]


# --- Fetching a file


def test_interrupted_download_goes_on_with_the_rest(server, big, tmp_path):
    server.cuts = [100_000]
    big(tmp_path / "big")
    assert ranges(server) == [None, "bytes=100000-"]
    assert (tmp_path / "big").read_bytes() == big.content
    assert names(tmp_path) == ["big"]


def test_user_interrupt_keeps_what_has_arrived(server, big, tmp_path, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    server.cuts = [100_000]
    monkeypatch.setattr(prepare.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        big(tmp_path / "big")
    assert (tmp_path / "big.part").read_bytes() == big.content[:100_000]


def test_download_of_an_earlier_run_goes_on(server, big, tmp_path):
    (tmp_path / "big.part").write_bytes(big.content[:200_000])
    big(tmp_path / "big")
    assert ranges(server) == ["bytes=200000-"]
    assert (tmp_path / "big").read_bytes() == big.content


def test_part_that_is_whole_is_not_fetched_again(server, big, tmp_path):
    (tmp_path / "big.part").write_bytes(big.content)
    big(tmp_path / "big")
    assert len(server.requests) == 1
    assert (tmp_path / "big").read_bytes() == big.content


def test_part_that_is_longer_than_the_file_is_replaced(server, big, tmp_path):
    (tmp_path / "big.part").write_bytes(bytes(400_000))
    big(tmp_path / "big")
    assert ranges(server) == ["bytes=400000-", None]
    assert (tmp_path / "big").read_bytes() == big.content


def test_file_that_is_there_is_not_fetched(server, big, tmp_path):
    (tmp_path / "big").write_bytes(b"here")
    big(tmp_path / "big")
    assert server.requests == []


def test_server_without_ranges_sends_the_file_again(server, big, tmp_path):
    server.ranges = False
    server.cuts = [100_000]
    big(tmp_path / "big")
    assert len(server.requests) == 2
    assert (tmp_path / "big").read_bytes() == big.content


def test_server_may_not_say_the_length(server, big, tmp_path):
    server.says_length = False
    big(tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == big.content


def test_any_number_of_interruptions_with_progress_is_borne(server, big, tmp_path):
    server.cuts = [40_000] * 7
    big(tmp_path / "big", tries=2)
    assert (tmp_path / "big").read_bytes() == big.content


def test_busy_server_is_asked_again_after_longer_waits(server, big, tmp_path, waits):
    server.errors = [503, 429, 500]
    big(tmp_path / "big")
    assert waits == [2, 4, 8]
    assert (tmp_path / "big").read_bytes() == big.content


def test_size_other_than_announced_is_an_error(server, big, tmp_path):
    server.missing, server.ranges = 5, False
    message = error_of(big, tmp_path / "big", tries=2)
    assert server.url + "big can't be downloaded" in message
    assert "300000 of 300005 bytes arrived" in message


def test_size_other_than_announced_of_the_rest_is_an_error(server, big, tmp_path):
    server.missing = 5
    assert "can't be downloaded" in error_of(big, tmp_path / "big", tries=3)


def test_missing_file_is_an_error_at_once(server, tmp_path, waits):
    message = error_of(fetch, server.url + "none.zip", tmp_path / "none.zip")
    assert server.url + "none.zip" in message
    assert "404" in message
    assert len(server.requests) == 1
    assert waits == []


def test_unreachable_server_is_an_error_after_all_tries(server, tmp_path, waits):
    server.server_close()
    message = error_of(fetch, server.url + "big", tmp_path / "big", tries=3)
    assert "refused" in message
    assert len(waits) == 2


def test_folder_that_cannot_be_made_is_an_error_at_once(big, tmp_path, waits):
    (tmp_path / "file").touch()
    message = error_of(big, tmp_path / "file" / "big")
    assert "Not a directory" in message or "File exists" in message
    assert waits == []
