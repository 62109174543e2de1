"""Time the composite measures against a loop over frames, and an evaluation with 2 processes.

    python benchmarks/metrics.py

Both sides of a comparison are timed in turns, on bundled speech with noise.
"""

import itertools
import statistics
import tempfile
import time
from pathlib import Path

import composite_loop
import numpy as np
import soundfile

from speechbrain_cffma import audio
from speechbrain_cffma.data.mixing import add_noise
from speechbrain_cffma.evaluation.report import write_report
from speechbrain_cffma.evaluation.scores import scoring_settings
from speechbrain_cffma.evaluation.systems import evaluate
from speechbrain_cffma.metrics import SCALES, segmental_measures

SPEECH = Path(__file__).parents[1] / "recipes" / "DynamicMix" / "speech"
SECONDS, SAMPLE_RATE, REPEATS = 5, 16000, 10
#: Number of files, and their length: about that of a read sentence of WSJ0.
N_FILES, FILE_SECONDS = 100, 10


def bundled_speech(seconds):
    """The bundled utterances in a row [S], English ones first."""
    signals = []
    for path in sorted(SPEECH.rglob("*.opus")):
        signals.append(soundfile.read(path, dtype="float64")[0])
        if sum(map(len, signals)) >= seconds * SAMPLE_RATE:
            return np.concatenate(signals)[: seconds * SAMPLE_RATE]
    raise FileNotFoundError(f"less than {seconds} s of speech in {SPEECH}")


def seconds_of(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def composite():
    """Time both implementations; return one line with milliseconds and their ratio."""
    clean = bundled_speech(SECONDS)
    noise = np.random.default_rng(0).standard_normal(len(clean))
    enhanced = add_noise(clean, noise, 5)
    arguments = (clean, enhanced, SAMPLE_RATE)
    ours, loops = [], []
    for _ in range(REPEATS):
        spent, found = seconds_of(segmental_measures, *arguments)
        ours.append(spent)
        spent, expected = seconds_of(
            composite_loop.measures, *arguments, SCALES["int16"]
        )
        loops.append(spent)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)
    ours, loops = statistics.median(ours), statistics.median(loops)
    return (
        f"composite without PESQ, {SECONDS} s at 16 kHz, median of {REPEATS}: "
        f"{1000 * ours:.1f} ms, per-frame loop {1000 * loops:.1f} ms, "
        f"{loops / ours:.1f} times faster"
    )


def evaluation():
    """Time an evaluation with its report, with 1 and 2 processes; return one line."""
    speech = bundled_speech(FILE_SECONDS * N_FILES)
    rng = np.random.default_rng(0)
    spent = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for i, clean in enumerate(np.split(speech, N_FILES)):
            noisy = add_noise(clean, rng.standard_normal(len(clean)), 5)
            audio.write(folder / "clean" / f"{i}_white_5dB.wav", clean)
            audio.write(folder / "noisy" / f"{i}_white_5dB.wav", noisy)
        for repeat, n_jobs in itertools.product(range(2), spent):
            report = folder / f"report_{repeat}_{n_jobs}"
            start = time.perf_counter()
            settings = scoring_settings()
            systems = {"noisy": folder / "noisy"}
            rows = evaluate(folder / "clean", systems, report, settings, n_jobs=n_jobs)
            write_report(report, rows, settings)
            spent[n_jobs].append(time.perf_counter() - start)
    one, two = map(min, spent.values())
    return (
        f"evaluation of {N_FILES} files of {FILE_SECONDS} s, better of 2: {one:.1f} s, "
        f"with 2 processes {two:.1f} s, {one / two:.2f} times faster"
    )


if __name__ == "__main__":
    print(composite())
    print(evaluation())
