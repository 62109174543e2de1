"""Time the composite measures, without PESQ, against a straightforward per-frame loop.

    python benchmarks/metrics.py

Both are timed in turns in this one process on 5 s of the bundled speech with noise.
"""

import statistics
import time
from pathlib import Path

import composite_loop
import numpy as np
import soundfile

from speechbrain_cffma.metrics import SCALES, measures
from speechbrain_cffma.mixing import add_noise

SPEECH = Path(__file__).parents[1] / "recipes" / "DynamicMix" / "speech" / "en"
SECONDS, SAMPLE_RATE, REPEATS = 5, 16000, 10


def bundled_speech(seconds):
    """The bundled English utterances one after another [S]."""
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
    """Milliseconds of both, and their ratio, as one line."""
    clean = bundled_speech(SECONDS)
    noise = np.random.default_rng(0).standard_normal(len(clean))
    enhanced = add_noise(clean, noise, 5)
    arguments = (clean, enhanced, SAMPLE_RATE)
    ours, loops = [], []
    for _ in range(REPEATS):
        spent, found = seconds_of(measures, *arguments)
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


if __name__ == "__main__":
    print(composite())
