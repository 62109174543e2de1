"""Compare the PESQ loss with the scores of the package pesq, and time it.

    python benchmarks/pesq_loss.py --speech_folder DIR --noise_folder DIR

Random crops of 2 to 6 s are mixed at -5 to 20 dB; the default model enhances every third.
The script prints the rank correlation and the mean difference of the scores, the time of a
step, and the PESQ before and after 100 steps along the gradient.

It also compares both with torch-pesq, a loss of others, if that is installed. Its last
release needs an old typeguard, so install it without what it asks for:

    pip install --no-deps torch-pesq==0.1.2 torchtyping==0.1.5 typeguard==2.13.3
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from speechbrain_cffma import audio
from speechbrain_cffma.lobes import CFFMAEnhancer
from speechbrain_cffma.losses import PESQLoss
from speechbrain_cffma.metrics import MetricError, pesq

SUFFIXES = (".opus", ".wav", ".flac")


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speech_folder", required=True, type=Path)
    parser.add_argument("--noise_folder", required=True, type=Path)
    parser.add_argument("--n_pairs", type=int, default=200)
    options = parser.parse_args()
    loss = PESQLoss()
    pairs = list(make_pairs(options))
    scores = np.array([pesq(*pair) for pair in pairs])
    with torch.no_grad():
        lost = [loss(as_batch(enhanced), as_batch(clean)) for clean, enhanced in pairs]
    raw = 4.5 - torch.stack(lost).numpy()
    mapped = 0.999 + 4 / (1 + np.exp(3.8224 - 1.3669 * raw))  # P.862.2
    print(f"{len(pairs)} pairs, PESQ {scores.min():.2f} to {scores.max():.2f}")
    print(f"rank correlation: {spearmanr(raw, scores).statistic:.4f}")
    print(f"mean absolute difference: {np.abs(mapped - scores).mean():.3f}")
    others = scores_of_torch_pesq(pairs)
    if others is not None:
        print(
            "rank correlation of torch-pesq with the scores and with the loss: "
            f"{spearmanr(others, scores).statistic:.4f}, "
            f"{spearmanr(others, raw).statistic:.4f}"
        )
    print(f"seconds per step, 10 crops of 2 s: {seconds_a_step(loss):.3f}")
    before, after = zip(*(climb(loss, *pair) for pair in pairs[:10]), strict=True)
    print(f"along the gradient: {np.mean(before):.2f} to {np.mean(after):.2f}")


def scores_of_torch_pesq(pairs):
    """The scores that torch-pesq estimates; None if it is not installed."""
    try:
        from torch_pesq import PesqLoss
    except ModuleNotFoundError:
        return None
    loss = PesqLoss(1.0, sample_rate=audio.SAMPLE_RATE)

    def at_level(samples):  # its scores depend on the level
        batch = as_batch(samples)
        return batch * (0.05 / batch.square().mean().sqrt().clamp(min=1e-6))

    with torch.no_grad():
        return [
            loss.mos(at_level(clean), at_level(noisy)).item() for clean, noisy in pairs
        ]


def make_pairs(options):
    """Yield clean and noisy or enhanced samples; the same files give the same pairs."""
    rng = np.random.default_rng(0)
    speech, noises = (
        sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES)
        for folder in (options.speech_folder, options.noise_folder)
    )
    model = CFFMAEnhancer.from_pretrained()
    n_made = 0
    while n_made < options.n_pairs:
        clean = audio.read(speech[rng.integers(len(speech))])
        n_samples = int(rng.uniform(2, 6) * audio.SAMPLE_RATE)
        clean = clean[rng.integers(max(1, len(clean) - n_samples)) :][:n_samples]
        noise = audio.read(noises[rng.integers(len(noises))])
        noise = np.resize(np.roll(noise, rng.integers(len(noise))), len(clean))
        gain = 10 ** (-rng.uniform(-5, 20) / 20)
        noisy = clean + gain * np.std(clean) / max(np.std(noise), 1e-9) * noise
        if n_made % 3 == 0:
            noisy = model.enhance(torch.from_numpy(noisy).float()).numpy()
        try:
            pesq(clean, noisy)
        except MetricError:
            continue  # too short or without speech
        n_made += 1
        yield clean, noisy


def as_batch(samples):
    """Samples [S] as a tensor [1, S]."""
    return torch.from_numpy(np.asarray(samples, np.float32)).unsqueeze(0)


def seconds_a_step(loss):
    """The shortest time of a forward and a backward pass, as other programs may be running."""
    clean = 0.05 * torch.randn(10, 32000)
    enhanced = (clean + 0.02 * torch.randn_like(clean)).requires_grad_()
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        loss(enhanced, clean).backward()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def climb(loss, clean, noisy):
    """PESQ before and after steps that lower the loss of a waveform."""
    enhanced = as_batch(noisy).clone().requires_grad_()
    optimizer = torch.optim.Adam([enhanced], lr=3e-4)
    for _ in range(100):
        optimizer.zero_grad()
        loss(enhanced, as_batch(clean)).backward()
        optimizer.step()
    return pesq(clean, noisy), pesq(clean, enhanced[0].detach().numpy())


if __name__ == "__main__":
    main()
