"""Measure enhancement on a Ray cluster of this computer, and plan one of your own.

    python benchmarks/cluster.py speed                    # hours of audio an hour and worker, overhead, start-up
    python benchmarks/cluster.py memory                   # of the driver, for 1,000 and 10,000 files
    python benchmarks/cluster.py cost --audio-hours 10000 --speed 50 --workers 16 --price 0.8 --deadline 24

`speed` repeats the bundled speech, as WAV. Each command runs in a process of its own with one
thread per worker. Start-up is the time for a corpus of one second; it is subtracted.
"""

import argparse
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

SPEECH = Path(__file__).parents[1] / "recipes" / "DynamicMix" / "speech" / "ru"
COMMAND = [sys.executable, "-m", "speechbrain_cffma", "enhance"]
#: Prints its own peak memory, without that of the workers.
DRIVER = """
import resource, sys
from speechbrain_cffma.cluster.enhance import enhance
enhance([sys.argv[1]], sys.argv[2], n_workers=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write_corpus(folder, minutes):
    """Write the bundled utterances again and again, of so many minutes in all."""
    folder.mkdir()
    speech = [soundfile.read(path) for path in sorted(SPEECH.iterdir())]
    seconds = 0.0
    for i, (samples, rate) in enumerate(itertools.cycle(speech)):
        if seconds >= 60 * minutes:
            return seconds
        soundfile.write(folder / f"{i:05d}.wav", samples, rate)
        seconds += len(samples) / rate
    return seconds


def write_silence(folder):
    """Write a corpus of one second."""
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.full(16000, 1e-3), 16000)


def seconds_for(corpus, options):
    """Seconds that the command takes."""
    with tempfile.TemporaryDirectory() as output:
        began = time.perf_counter()
        subprocess.run(
            [*COMMAND, corpus, "-o", output, "--precision=fp32", *options],
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return time.perf_counter() - began


def speed(minutes, repeats):
    """Yield a line for the plain command, and for 1 and 2 workers."""
    engines = {
        "plain": [],
        "1 worker": ["--engine=ray", "--workers=1"],
        "2 workers": ["--engine=ray", "--workers=2"],
    }
    net, start = {name: [] for name in engines}, {name: [] for name in engines}
    with tempfile.TemporaryDirectory() as folder:
        seconds = write_corpus(Path(folder, "speech"), minutes)
        write_silence(Path(folder, "silence"))
        # In turn, so that other load of the computer meets all of them.
        for _ in range(repeats):
            for name, options in engines.items():
                start[name].append(seconds_for(f"{folder}/silence", options))
                whole = seconds_for(f"{folder}/speech", options)
                net[name].append(whole - start[name][-1])
    plain = statistics.median(net["plain"])
    for name in engines:
        median, n_workers = statistics.median(net[name]), 2 if name[0] == "2" else 1
        yield (
            f"{name}: {seconds / median / n_workers:.1f} hours of audio an hour and "
            f"worker, {100 * (median / plain - 1):+.1f} % time, start-up "
            f"{statistics.median(start[name]):.1f} s"
        )


def memory(counts=(1000, 10000)):
    """Yield a line for each number of files."""
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder, "in")
            write_silence(corpus)
            short = np.full(800, 1e-3)
            for i in range(count):
                soundfile.write(corpus / f"{i:05d}.wav", short, 16000)
            done = subprocess.run(
                [sys.executable, "-c", DRIVER, corpus, f"{folder}/out"],
                check=True,
                capture_output=True,
                text=True,
            )
            yield f"{count} files: {float(done.stdout.split()[-1]):.0f} MB"


def cost(audio_hours, speed, workers, price, deadline):
    """Plan a cluster.

    Arguments
    ---------
    audio_hours : float
        Hours of audio to enhance.
    speed : float
        Hours of audio an hour and worker, as `speed` measures it on such a machine.
    workers : int
        Workers per machine.
    price : float
        Price of a machine an hour, in any currency.
    deadline : float
        Hours in which it shall be done.

    Returns
    -------
    (int, float, float)
        Number of machines, hours that they run, and their price.
    """
    machine_hours = audio_hours / (speed * workers)
    machines = math.ceil(machine_hours / deadline)
    return machines, machine_hours / machines, machine_hours * price


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    of_speed = verbs.add_parser("speed")
    of_speed.add_argument("--minutes", type=float, default=30)
    of_speed.add_argument("--repeats", type=int, default=3)
    verbs.add_parser("memory")
    of_cost = verbs.add_parser("cost")
    for name in ("audio-hours", "speed", "price", "deadline"):
        of_cost.add_argument(f"--{name}", type=float, required=True)
    of_cost.add_argument("--workers", type=int, required=True)
    arguments = vars(parser.parse_args())
    verb = arguments.pop("verb")
    if verb == "cost":
        machines, hours, price = cost(**arguments)
        print(f"{machines} machines for {hours:.1f} hours: {price:.2f}")
        return
    for line in {"speed": speed, "memory": memory}[verb](**arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
