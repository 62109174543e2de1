"""Measure what a short recording, a folder and the processor's cores cost, as ratios.

    python benchmarks/startup.py                          # all
    python benchmarks/startup.py start                    # some
    python benchmarks/startup.py folder --workers 64      # on a large server

Processes are new ones, run in turns; the medians count, since other programs may be running.
Seconds of the processor are shown too, because they depend less on other programs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch
from speed import matmul_flops, noisy, seconds_of

from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.hub.complexity import multiply_adds_per_audio
from speechbrain_cffma.lobes import CFFMA, CFFMAEnhancer, LogSpectrogram, SSLEmbedding
from speechbrain_cffma.lobes.ssl_network import SSL, SSLConfig

IMPORT_TORCH = ("-c", "import torch")
IMPORT_LOBES = ("-c", "import speechbrain_cffma.lobes")
FIRST_SECOND = (
    "-c",
    "import numpy as np; from speechbrain_cffma.lobes import CFFMAEnhancer;"
    "CFFMAEnhancer.from_pretrained().enhance(np.zeros(16000, dtype='float32'))",
)


class Process(NamedTuple):
    """What a process took: wall and processor seconds, and peak memory in MiB."""

    seconds: float
    cpu: float
    peak: float


#: Runs Python and prints what it took. A small process does this, because Linux counts the
#: memory of the process that starts another as a peak of the new one.
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
done = subprocess.run([sys.executable, *sys.argv[1:]], **silent)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
sys.exit(done.returncode)
"""


def run(*arguments, threads=None):
    """Run Python in a new process."""
    environment = dict(os.environ)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    arguments = [str(argument) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return Process(*map(float, done.stdout.split()))


def write_noise(path, seconds):
    soundfile.write(path, noisy(seconds)[0].numpy(), SAMPLE_RATE)


def enhance(source, target, *options):
    """The arguments that run `cffma enhance`."""
    verb = ("-m", "speechbrain_cffma", "enhance")
    return (*verb, source, "-o", target, "--overwrite", *options)


def start(arguments):
    """Imports, the first second of sound and a file of 6 s, over `import torch`."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "noisy.wav", Path(folder) / "enhanced.wav"
        write_noise(source, 6)
        commands = {
            "import torch": IMPORT_TORCH,
            "import speechbrain_cffma.lobes": IMPORT_LOBES,
            "from_pretrained() and the first second": FIRST_SECOND,
            "cffma enhance, 6 s": enhance(source, target),
        }
        for command in commands.values():
            run(*command)  # reads the files into the system's cache
        taken = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                taken[name].append(run(*command))
    medians = {
        name: [statistics.median(values) for values in zip(*processes, strict=True)]
        for name, processes in taken.items()
    }
    wall_of_torch, cpu_of_torch, _ = medians["import torch"]
    for name, (seconds, cpu, peak) in medians.items():
        yield (
            f"{name}: {seconds / wall_of_torch:.2f} × import torch ({seconds:.2f} s); "
            f"processor {cpu / cpu_of_torch:.2f} × ({cpu:.2f} s); peak {peak:.0f} MiB"
        )


def folder(arguments):
    """A folder of short files with one process on one core, and with several."""
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name) / "noisy"
        inputs.mkdir()
        for index in range(arguments.files):
            write_noise(inputs / f"{index}.wav", 5)
        alone, together = (
            run(*enhance(inputs, Path(name) / "out", *options), threads=1)
            for options in ([], ["--workers", arguments.workers])
        )
    n_files, n = arguments.files, arguments.workers
    yield f"{n_files} files of 5 s, 1 process of 1 thread: {n_files / alone.seconds:.2f} files/s"
    yield (
        f"{n_files} files of 5 s, {n} processes: {n_files / together.seconds:.2f} files/s, "
        f"{alone.seconds / together.seconds / n:.2f} × {n}"
    )


def share(arguments):
    """The published network, packed, 10 s: its part of the rate of one matrix product."""
    torch.manual_seed(0)
    embedding = SSLEmbedding(SSL(SSLConfig("wavlm"), normalize_wav=False))
    form = CFFMAEnhancer(embedding, LogSpectrogram(), CFFMA()).eval()
    operations = 2 * multiply_adds_per_audio(form, 10)
    form.pack()
    wav = noisy(10)
    (seconds,) = seconds_of(lambda: form.enhance(wav), rounds=arguments.rounds)
    rate = operations / seconds
    dtype = torch.bfloat16 if form.packed == "bf16" else torch.float32
    yield (
        f"10 s, packed in {form.packed}: {seconds:.2f} s, {rate / 2e9:.0f} G multiply-adds "
        f"per second, {rate / matmul_flops('cpu', dtype):.0%} of one matrix product"
    )


PARTS = {part.__name__: part for part in (start, folder, share)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {os.cpu_count()} cores")
    for part in options.what or PARTS:
        for line in PARTS[part](options):
            print(line, flush=True)
