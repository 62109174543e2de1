"""Calls in worker processes: what is told, and what a process that dies costs."""

import errno
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from helpers import calls as helper
from helpers.paths import ROOT
from speechbrain_cffma import workers
from speechbrain_cffma.errors import CFFMAError
from speechbrain_cffma.workers import Outcome, parallel_map, tell

pytestmark = pytest.mark.slow


@pytest.fixture
def started(tmp_path):
    """Start a script of these lines in a process group of its own."""

    def start(*lines):
        script = tmp_path / "script.py"
        imports = ["import math, os, time", "from speechbrain_cffma.workers import *"]
        script.write_text("\n".join([*imports, *lines]))
        return subprocess.Popen(
            [sys.executable, "-u", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    return start


class TestCalls:
    def test_what_a_call_tells_arrives_before_its_outcome(self):
        seen = []
        calls = parallel_map(
            tell, [("a",), ("b",)], 1, on_note=lambda *note: seen.append(note)
        )
        for outcome in calls:
            seen.append(outcome.index)
        assert seen == [(0, "a"), 0, (1, "b"), 1]

    def test_one_that_takes_too_long_costs_only_its_call(self):
        calls = [(60,), (0,)]
        late, done = sorted(parallel_map(time.sleep, calls, 1, time_limits=[1, 60]))
        assert (late.index, late.crash) == (0, "it took longer than 1 s")
        assert (done.index, done.crash) == (1, "")

    @pytest.mark.parametrize(
        ("code", "cause"),
        [
            (3, "its process ended with exit code 3"),
            (128 + signal.SIGTERM, "its process was killed by SIGTERM"),
        ],
    )
    def test_why_a_process_ended_is_told(self, code, cause):
        assert list(parallel_map(sys.exit, [(code,)], 1)) == [Outcome(0, crash=cause)]

    def test_one_that_misses_the_request_to_end_holds_nobody_up(self):
        calls = parallel_map(helper.miss_requests, [(0,), (30,)], 1)
        next(calls)
        time.sleep(0.5)
        began = time.monotonic()
        calls.close()
        assert time.monotonic() - began < 20

    def test_a_process_that_dies_between_its_calls_costs_nothing(self):
        calls = parallel_map(helper.sleep, [(2,), (5,)], 2)
        os.kill(next(calls).result, signal.SIGKILL)
        (last,) = calls
        assert (last.index, last.crash) == (1, "")

    def test_nor_does_one_that_is_kept_for_the_next_call(self):
        pid = workers.call_apart(helper.sleep, (0,)).result
        os.kill(pid, signal.SIGKILL)
        (killed,) = (p for p in multiprocessing.active_children() if p.pid == pid)
        killed.join()
        assert workers.call_apart(helper.sleep, (0,)).crash == ""


class TestStart:
    def test_none_that_starts_is_an_error(self, started):
        process = started("list(parallel_map(math.sqrt, [(4.0,)], 1))")
        _, shown = process.communicate(timeout=60)
        assert process.returncode == 1
        assert (
            "CFFMAError: a worker process did not start: its process ended with exit code "
            "1. In a script, put the code that runs under `if __name__ == '__main__':`"
        ) in shown

    def test_a_system_that_starts_no_process_is_an_error(self, monkeypatch):
        @contextmanager
        def refused():
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            yield

        monkeypatch.setattr(workers, "_interrupts_held", refused)
        message = f"a worker process did not start: {os.strerror(errno.EAGAIN)}"
        with pytest.raises(CFFMAError, match=message):
            list(parallel_map(math.sqrt, [(4.0,)], 2))
        with pytest.raises(CFFMAError, match=message):
            workers.call_apart(math.sqrt, (4.0,))

    def test_others_do_the_work_of_one_that_does_not_start(self, tmp_path):
        starting = helper.Starting(tmp_path, times=1)
        outcomes = sorted(parallel_map(starting, [("a",), ("b",), ("c",)], 2))
        assert outcomes == [Outcome(i, result) for i, result in enumerate("abc")]

    def test_no_more_of_them_are_tried_than_there_are_calls(
        self, monkeypatch, tmp_path
    ):
        tried, start = [], workers._Worker

        def counted(function):
            tried.append(function)
            return start(function)

        monkeypatch.setattr(workers, "_Worker", counted)
        with pytest.raises(CFFMAError, match="did not start: .* exit code 9"):
            list(parallel_map(helper.Starting(tmp_path, times=0), [("a",)], 12))
        assert len(tried) == 1

    def test_one_that_can_t_be_prepared_does_not_start(self, tmp_path):
        prepared = helper.Prepared(tmp_path, times=1)
        outcomes = sorted(parallel_map(prepared, [("a",), ("b",), ("c",)], 2))
        assert outcomes == [Outcome(i, result) for i, result in enumerate("abc")]
        with pytest.raises(CFFMAError, match="^no memory is left$"):
            list(parallel_map(prepared, [("a",), ("b",)], 2))

    def test_calls_that_no_process_is_left_for_have_crashed(self, tmp_path):
        starting = helper.Starting(tmp_path, times=1)
        outcomes = list(parallel_map(starting, [("a",), ("die",), ("b",), ("c",)], 1))
        assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3]
        assert [outcome.result for outcome in outcomes] == ["a", None, None, None]
        assert outcomes[1].crash == "its process was killed by SIGKILL"
        assert outcomes[2].crash == (
            "a worker process did not start: its process ended with exit code 9"
        )

    def test_ctrl_c_meanwhile_is_left_to_the_caller(self, started):
        process = started(
            "if __name__ == '__main__':",
            "    list(parallel_map(math.sqrt, [(4.0,)], 1))",
            "else:",  # in the worker process, which imports the script
            "    print(os.getpid())",
            "    time.sleep(1)",
        )
        os.kill(int(process.stdout.readline()), signal.SIGINT)
        _, shown = process.communicate(timeout=60)
        assert (process.returncode, shown) == (0, "")
