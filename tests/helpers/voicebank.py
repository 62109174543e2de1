"""A few short utterances in the folder layout of VoiceBank-DEMAND."""

import numpy as np
import soundfile
from scipy.signal import resample_poly

from helpers.signals import speech

#: Noise and SNR of each utterance, as in the published log files.
TRAIN = {
    "p225_001": ("babble", 0.0),
    "p225_002": ("cafeteria", 5.0),
    "p226_001": ("kitchen", 10.0),
    "p227_001": ("ssn", 15.0),
    "p287_001": ("babble", 0.0),
}
TEST = {
    "p232_001": ("bus", 17.5),
    "p232_002": ("cafe", 12.5),
    "p257_001": ("living", 7.5),
    "p257_002": ("psquare", 2.5),
}


def write_tree(folder, rate=16000, train=TRAIN, seconds=0.5, suffix=""):
    """Write the published folders and logs, with speech from the bundled files."""
    random = np.random.default_rng(0)
    for utterances, name in ((train, "trainset_28spk"), (TEST, "testset")):
        for side in ("clean", "noisy"):
            (folder / f"{side}_{name}_wav{suffix}").mkdir(parents=True)
        log = ""
        for index, (utterance, (noise, snr)) in enumerate(utterances.items()):
            n_samples = round((seconds + index % 5 / 100) * 16000)
            clean = speech(index % 5)[:n_samples]
            noisy = clean + clean.std() * 10 ** (-snr / 20) * random.normal(
                size=n_samples
            )
            for side, samples in (("clean", clean), ("noisy", noisy)):
                samples = resample_poly(samples, rate // 16000, 1) / 4
                path = folder / f"{side}_{name}_wav{suffix}" / f"{utterance}.wav"
                soundfile.write(path, samples, rate, "PCM_16")
            log += f"{utterance} {noise} {snr:g}\n"
        (folder / f"log_{name}.txt").write_text(log)
    return folder
