"""What a user can mend ends a command in one line."""

import io
import os
import sys

import pytest
import torch

from speechbrain_cffma.errors import (
    InputError,
    InstallError,
    exits_in_one_line,
    one_line,
)


def ends_with(error, capsys, code=1):
    @exits_in_one_line
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == code
    return capsys.readouterr().err


@pytest.mark.parametrize("kind", [InputError, InstallError])
def test_an_error_of_ours_is_one_line(kind, capsys):
    assert ends_with(kind("noisy.wav is silent"), capsys) == (
        "error: noisy.wav is silent\n"
    )


def test_names_in_it_leave_the_terminal_as_it_is(capsys):
    name = "a\nb\x1b[31m\udce9 ü.wav"
    assert ends_with(InputError(f"{name} is silent"), capsys) == (
        "error: a\\nb\\x1b[31m\\udce9 ü.wav is silent\n"
    )


def test_a_missing_package_is_one_line_that_says_how_to_install_it(capsys):
    error = ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
    assert ends_with(error, capsys) == (
        "error: the package matplotlib is not installed: "
        "pip install 'speechbrain-cffma[train]'\n"
    )


def test_an_error_of_the_system_is_one_line_that_names_the_file(capsys):
    error = OSError(28, "No space left on device", "/data/log.txt")
    expected = "error: /data/log.txt: No space left on device\n"
    assert ends_with(error, capsys) == expected


def test_ctrl_c_is_one_line(capsys):
    expected = "interrupted: run the same command to continue\n"
    assert ends_with(KeyboardInterrupt(), capsys, code=130) == expected


def test_the_terminal_gets_what_it_can_show(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", terminal)
    exits_in_one_line(lambda: print("PESQ ↑ 2.5 in the Grüße", flush=True))()
    assert terminal.buffer.getvalue().decode("cp1252") == "PESQ ? 2.5 in the Grüße\n"


class Faulty(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise InputError("noisy.wav ends before sample 3")


def test_an_error_in_a_worker_that_loads_data_is_one_line(capsys):
    loader = torch.utils.data.DataLoader(Faulty(), num_workers=1)

    @exits_in_one_line
    def main():
        list(loader)

    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "error: noisy.wav ends before sample 3\n"


def test_an_error_of_the_program_keeps_its_traceback():
    @exits_in_one_line
    def main():
        raise KeyError("x")

    with pytest.raises(KeyError):
        main()


def test_the_value_is_passed_on():
    assert exits_in_one_line(lambda x: x + 1)(1) == 2


def test_standard_error_may_be_closed(monkeypatch):
    """As by `2>&-`. Progress bars write to it, and processes for files inherit it."""
    monkeypatch.setattr(sys, "stderr", None)
    exits_in_one_line(lambda: sys.stderr.write("scoring: 1/2"))()
    assert os.get_inheritable(sys.stderr.fileno())


def test_a_message_of_another_library_is_shortened_to_one_line():
    text = one_line(OSError("a\n" * 500))
    assert "\n" not in text
    assert len(text) == 300
