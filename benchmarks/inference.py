"""Measure how windows and bfloat16 affect quality, and the memory for a long file.

    python benchmarks/inference.py windows default
    python benchmarks/inference.py precision default --pairs results/.../test.csv
    python benchmarks/inference.py memory default --minutes 1 60

The speech is that of the bundled Russian speaker with the bundled noise of a truck at 5 dB,
both unseen in training. `precision` takes the pairs of a manifest.
"""

import argparse
import copy
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from speechbrain_cffma.audio import find_audio, read
from speechbrain_cffma.data.manifest import read_manifest
from speechbrain_cffma.data.mixing import add_noise
from speechbrain_cffma.inference.windows import Windows
from speechbrain_cffma.lobes import CFFMAEnhancer
from speechbrain_cffma.metrics import score, score_all

BUNDLED = Path(__file__).parents[1] / "recipes" / "DynamicMix"
SAMPLE_RATE = 16000
WHOLE = Windows(hop=1e6)
CHOICES = {
    "16 s (default)": Windows(),
    "8 s": Windows(hop=7, fade=0.5, left_context=0.25, lookahead=0.25),
    "live, latency 1 s": Windows(hop=0.5, fade=0.1, left_context=3, lookahead=0.4),
}


def noisy_speech(seconds):
    """Clean and noisy speech [S]; speech is repeated if it is too short."""
    clean = np.concatenate([read(path) for path in find_audio(BUNDLED / "speech/ru")])
    clean = np.resize(clean, seconds * SAMPLE_RATE)
    noise = np.resize(read(BUNDLED / "noise" / "truck.opus"), len(clean))
    return clean, add_noise(clean, noise, 5).astype("float32")


def windows(enhancer, seconds=60):
    """Measure each choice of windows; yield a line for each."""
    clean, noisy = noisy_speech(seconds)
    whole = enhancer.enhance(noisy, windows=WHOLE)
    yield f"{seconds} s as a whole: {quality(whole, clean)}"
    for name, choice in CHOICES.items():
        enhanced = enhancer.enhance(noisy, windows=choice)
        at_join = np.zeros(len(noisy), dtype=bool)
        hop, fade = (round(s * SAMPLE_RATE) for s in (choice.hop, choice.fade))
        for join in range(hop, len(noisy), hop):
            at_join[join - 1600 : join + fade + 1600] = True
        joins, rest = (
            10 * np.log10(np.sum(whole[p] ** 2) / np.sum((enhanced - whole)[p] ** 2))
            for p in (at_join, ~at_join)
        )
        yield (
            f"{name}: {quality(enhanced, clean)}; SNR relative to the whole: "
            f"{joins:.1f} dB at the joins, {rest:.1f} dB elsewhere"
        )


def quality(enhanced, clean):
    """PESQ as the mean over parts of 10 s, and SI-SDR."""
    parts = zip(
        *(np.split(wav, len(wav) // (10 * SAMPLE_RATE)) for wav in (clean, enhanced)),
        strict=True,
    )
    pesq = [score(*part, ["pesq"])["pesq"] for part in parts]
    si_sdr = score(clean, enhanced, ["si_sdr"])["si_sdr"]
    return f"PESQ {np.mean(pesq):.3f}, SI-SDR {si_sdr:.2f} dB"


def precision(enhancer, pairs):
    """Compare float32 with bfloat16; yield a line for each metric."""
    rows = read_manifest(pairs)
    noisy, clean = (
        [read(row[key]) for row in rows] for key in ("noisy_wav", "clean_wav")
    )
    metrics = ["pesq", "stoi", "si_sdr"]
    scores = {}
    for name in ("fp32", "bf16"):
        packed = copy.deepcopy(enhancer).pack(name)
        enhanced = [packed.enhance(wav) for wav in noisy]
        enhanced = list(zip(clean, enhanced, strict=True))
        scores[name] = score_all(enhanced, metrics, n_jobs=-1)
    for metric in metrics:
        full, half = (np.array([row[metric] for row in x]) for x in scores.values())
        yield (
            f"{metric} of {len(rows)} files: fp32 {full.mean():.4f}, bf16 {half.mean():.4f}; "
            f"difference {(half - full).mean():.5f}, largest for one file "
            f"{np.abs(half - full).max():.4f}"
        )


def memory(enhancer, minutes):
    """Peak memory of this process after it enhances a file, as one line."""
    _, noisy = noisy_speech(60)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "noisy.wav", Path(folder) / "enhanced.wav"
        with soundfile.SoundFile(source, "w", SAMPLE_RATE, 1) as file:
            for _ in range(minutes):
                file.write(noisy)
        enhancer.enhance_file(source, target)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux: KiB
    return f"{minutes} min: peak memory {peak:.0f} MiB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["windows", "precision", "memory"])
    parser.add_argument("model")
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 60])
    parser.add_argument("--pairs", help="test.csv, for precision")
    arguments = parser.parse_args()
    if arguments.what == "memory" and arguments.minutes[1:]:
        for n in arguments.minutes:  # Each in a new process.
            command = [sys.executable, __file__, "memory", arguments.model]
            subprocess.run([*command, "--minutes", str(n)], check=True)
    else:
        enhancer = CFFMAEnhancer.from_pretrained(arguments.model)
        if arguments.what == "memory":
            lines = [memory(enhancer, *arguments.minutes)]
        elif arguments.what == "precision":
            lines = precision(enhancer, arguments.pairs)
        else:
            lines = windows(enhancer)
        print(*lines, sep="\n")
