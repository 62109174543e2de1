"""Measure speed as ratios within one run, for a WavLM base with random weights.

    python benchmarks/speed.py                        # all, on the CPU
    python benchmarks/speed.py inference training     # some
    python benchmarks/speed.py --device cuda inference training

References are (a), the implementation in `straightforward.py`, and (b), the SSL model alone.
Both sides run in turns and the median counts, since other programs may be running.
"""

import argparse
import copy
import multiprocessing
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from speechbrain.nnet.losses import l1_loss
from straightforward import Straightforward
from torch.utils.flop_counter import FlopCounterMode
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

from speechbrain_cffma import audio
from speechbrain_cffma.audio import SAMPLE_RATE
from speechbrain_cffma.data.datasets import TrainingCrops, training_loader
from speechbrain_cffma.data.mixing import DynamicMixer
from speechbrain_cffma.inference.device import has_bf16
from speechbrain_cffma.inference.enhance import enhance_all, plan
from speechbrain_cffma.lobes import (
    CFFMA,
    CFFMAEnhancer,
    LogSpectrogram,
    SSLEmbedding,
    load_ssl,
)
from speechbrain_cffma.training.experiment import load_experiment, read_experiment

sys.path.insert(0, str(Path(__file__).parents[1]))
from recipes.DynamicMix.prepare import (
    AMBIENCE_FOLDER,
    prepare_dynamic_mix,
)

SPEECH = AMBIENCE_FOLDER.parent / "speech"
DEFAULT = Path(__file__).parents[1] / "hparams" / "default.yaml"
#: Batch size and crop length (1.28 s) of a training step.
BATCH, CROP = 16, 20480
ROUNDS = 5


def base_enhancer():
    """The published network with an untrained WavLM base."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        WavLMModel(WavLMConfig()).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
        ssl = load_ssl(folder)
    embedding = SSLEmbedding(ssl, fine_tune="partial")
    return CFFMAEnhancer(embedding, LogSpectrogram(), CFFMA())


def noisy(seconds, batch=1, device="cpu"):
    n_samples = round(seconds * SAMPLE_RATE)
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(batch, n_samples, generator=generator).to(device)


def seconds_of(*calls, rounds=ROUNDS):
    """The median time of each call; the calls run in turns."""
    times = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, spent in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - start)
    return [statistics.median(spent[1:]) for spent in times]  # the first warms up


def packed(enhancer, *precisions):
    """A packed copy of the enhancer for each precision."""
    return [copy.deepcopy(enhancer).pack(precision) for precision in precisions]


def infer(call, device, precision):
    """Call a part of a network in the same mode as `enhance`."""
    bf16 = precision == "bf16"
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, bf16):
        call()


def inference(device):
    """`enhance` for whole recordings, unpacked and packed in float32 and "auto", against (a)."""
    enhancer = base_enhancer().to(device).eval()
    reference = Straightforward(enhancer)
    forms = packed(enhancer, "fp32", "auto")
    for seconds in (10, 30, 120):
        wav = noisy(seconds, device=device)

        def straightforward(wav=wav):
            with torch.inference_mode():
                reference(wav)

        rounds = ROUNDS if seconds < 60 else 2
        *ours, theirs = seconds_of(
            *(partial(form.enhance, wav) for form in (enhancer, *forms)),
            straightforward,
            rounds=rounds,
        )
        names = ("not packed", *(f"packed in {form.packed}" for form in forms))
        for name, spent in zip(names, ours, strict=True):
            yield (
                f"inference, {seconds} s, {name}: {theirs / spent:.2f} × (a), "
                f"real-time factor {spent / seconds:.4f}"
            )


def encoder(device):
    """The enhancer against its SSL model alone (b), 10 s."""
    wav = noisy(10, device=device)
    for enhancer in packed(base_enhancer().to(device).eval(), "fp32", "bf16"):
        ssl = partial(enhancer.embedding.ssl, wav)
        ours, bare = seconds_of(
            partial(enhancer.enhance, wav), partial(infer, ssl, device, enhancer.packed)
        )
        yield (
            f"time of the enhancer relative to its SSL model, 10 s, {enhancer.packed}: "
            f"{ours / bare:.2f}"
        )


def kernels(device):
    """The two parts of the SSL model that gain most, against those of transformers, 16 s."""
    enhancer = base_enhancer().to(device).eval()
    theirs = Straightforward(enhancer).enhancer.embedding.ssl.model
    wav, x = noisy(16, device=device), torch.randn(1, 799, 768, device=device)
    parts = {
        "feature encoder": lambda model: model.feature_extractor(wav),
        "feed-forward networks": lambda model: [
            layer.feed_forward(x) for layer in model.encoder.layers
        ],
    }
    for form in packed(enhancer, "fp32", "bf16"):
        ours = form.embedding.ssl.model
        for name, part in parts.items():
            calls = (
                partial(infer, partial(part, model), device, form.packed)
                for model in (theirs, ours)
            )
            before, after = seconds_of(*calls, rounds=20)
            yield (
                f"{name}, {form.packed}: {1000 * before:.0f} ms before, "
                f"{1000 * after:.0f} ms after"
            )


def memory(device):
    """Peak memory for 120 s and for an hour, each in a new process."""
    peaks = {}
    for what in ("ours 1", "straightforward 120", "ours 120", "ours 3600"):
        command = [sys.executable, __file__, "--peak", *what.split()]
        out = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[what] = float(out.stdout.split()[-1])
        yield f"peak memory, {what} s: {peaks[what]:.0f} MiB"


def peak(form, seconds):
    """Peak memory in MiB of this process after one recording, on Linux."""
    enhancer = base_enhancer().eval()
    wav = noisy(float(seconds))
    if form == "ours":
        blocks = wav[0].split(SAMPLE_RATE)
        for _ in enhancer.pack().enhance_stream(blocks):
            pass
    else:
        reference = Straightforward(enhancer)
        with torch.inference_mode():
            reference(wav)
    # Not from getrusage, which includes the memory of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def training_step(network, wav, bf16):
    """A function that runs a training step: forward, backward and optimiser."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-5, fused=True)

    def step():
        with torch.autocast(wav.device.type, torch.bfloat16, bf16):
            _, log_magnitude = network(wav)
        l1_loss(log_magnitude, torch.zeros_like(log_magnitude)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def training(device):
    """A training step with 16 crops of 1.28 s, against (a) in fp32."""
    ours = base_enhancer().to(device).train()
    theirs = Straightforward(ours).train()
    theirs.enhancer.load_state_dict(ours.state_dict())
    wav = noisy(CROP / SAMPLE_RATE, BATCH, device)
    forms = [(ours, False), (ours, True), (theirs, False)]
    fp32, bf16, reference = seconds_of(
        *(training_step(network, wav, bf16) for network, bf16 in forms),
        rounds=3 if device == "cpu" else 20,
    )
    yield f"training step, fp32: {reference / fp32:.2f} × (a), {fp32:.2f} s"
    yield f"training step, bf16: {reference / bf16:.2f} × (a) in fp32, {bf16:.2f} s"
    with FlopCounterMode(display=False) as counter:
        training_step(ours, wav, bf16=True)()
    achieved = counter.get_total_flops() / bf16
    share = achieved / matmul_flops(device)
    yield f"operations per second relative to a large matrix product, bf16: {share:.0%}"


def matmul_flops(device, dtype=torch.bfloat16):
    """Floating-point operations per second of a product of matrices."""
    size = 2048 if device == "cpu" else 8192
    left, right = torch.randn(2, size, size, device=device, dtype=dtype)
    (seconds,) = seconds_of(lambda: left @ right, rounds=20)
    return 2 * size**3 / seconds


def folder(device):
    """Read, enhance and write a folder of files of 10 s, as `cffma enhance` does."""
    enhancer = base_enhancer().to(device).eval().pack()
    n_files = 4 if device == "cpu" else 200
    with tempfile.TemporaryDirectory() as name:
        inputs, output = Path(name) / "noisy", Path(name) / "enhanced"
        inputs.mkdir()
        for index in range(n_files):
            audio.write(inputs / f"{index}.wav", noisy(10)[0].numpy())
        start = time.perf_counter()
        enhance_all(plan([inputs], output)[0], lambda: enhancer)
        seconds = time.perf_counter() - start
    yield f"{n_files} files of 10 s, auto: real-time factor {seconds / n_files / 10:.4f}"


def pairs_per_second(crops, n_workers):
    """Pairs per second of a loader that is already running."""
    loader = iter(training_loader(crops, BATCH, 60, n_workers))
    for _ in range(10):  # batches that were loaded in advance
        next(loader)
    start = time.perf_counter()
    n_batches = sum(1 for _ in loader)
    return n_batches * BATCH / (time.perf_counter() - start)


def data(device):
    """Pairs mixed on the fly per second, compared with those that training needs."""
    with tempfile.TemporaryDirectory() as folder:
        prepare_dynamic_mix(
            SPEECH, folder, noise_folder=AMBIENCE_FOLDER, simulated_rooms=8, n_test=4
        )
        mixer = DynamicMixer(*(f"{folder}/{x}.csv" for x in ("train", "noise", "rir")))
        crops = TrainingCrops(f"{folder}/train.csv", mixer, CROP)
        one, two = (pairs_per_second(crops, n_workers) for n_workers in (1, 2))
        given = {"speech_folder": str(SPEECH), "noise_folder": str(AMBIENCE_FOLDER)}
        experiment = read_experiment(DEFAULT, {**given, "manifest_folder": folder})
        crops = load_experiment(experiment, only="train_data")
        varied = pairs_per_second(crops, n_workers=1)
    network = base_enhancer().to(device).train()
    step = training_step(network, noisy(CROP / SAMPLE_RATE, BATCH, device), bf16=True)
    (seconds,) = seconds_of(step, rounds=3)
    yield f"pairs mixed by one worker: {one:.0f} per second"
    yield f"by two workers: {two * seconds / BATCH:.0f} × as many as a bf16 step uses"
    crop = crops.crop_samples / SAMPLE_RATE
    yield f"pairs of {crop:g} s mixed as in hparams/default.yaml: {varied:.0f} per second"


def imports(device):
    """`import speechbrain_cffma` in addition to torch, and `cffma --help`."""

    def run(*command):
        return lambda: subprocess.run(command, check=True, capture_output=True)

    python = sys.executable
    torch_alone, ours, nothing, usage = seconds_of(
        run(python, "-c", "import torch"),
        run(python, "-c", "import torch, speechbrain_cffma"),
        run(python, "-c", ""),
        run(python, "-m", "speechbrain_cffma", "--help"),
    )
    yield f"import speechbrain_cffma, beyond torch: {ours - torch_alone:.2f} s"
    yield f"cffma --help: {usage:.2f} s, of which Python itself {nothing:.2f} s"


PARTS = (inference, encoder, kernels, memory, folder, training, data, imports)
WHAT = {part.__name__: part for part in PARTS}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*WHAT, []], default=[])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak(*arguments.peak))
    else:
        bf16 = "has" if has_bf16(torch.device(arguments.device)) else "lacks"
        cores = multiprocessing.cpu_count()
        print(f"torch {torch.__version__}, {cores} cores, {bf16} bfloat16 instructions")
        for name in arguments.what or WHAT:
            for line in WHAT[name](arguments.device):
                print(line, flush=True)
