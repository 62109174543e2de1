"""A few short mixtures in the folder layout of WHAMR!."""

import functools

import numpy as np
import soundfile
from scipy.signal import resample_poly

from helpers.paths import BUNDLED
from speechbrain_cffma.data.mixing import reverberate, rms
from speechbrain_cffma.data.rooms import simulate_room

#: Names as in WHAMR!: two utterances of WSJ0 and their levels.
NAMES = {
    "tr": [f"{i + 11}aa010{i}_1.{i}_02no0210_-1.{i}" for i in range(5)],
    "cv": ["22ga010b_0.5_20ho010c_-0.5", "23wa010b_0.6_20ho010d_-0.6"],
    "tt": ["440c020a_1.1_443o030b_-1.1", "441c020a_1.2_443o030b_-1.2"],
}
RATES = {16000: "wav16k", 8000: "wav8k"}


@functools.cache
def recordings(kind):
    """Recordings [S] of a bundled folder, without the silence at their beginning."""
    paths = sorted((BUNDLED / kind).glob("*.opus"))[:7]
    return [soundfile.read(path)[0][6000:38000] for path in paths]


def signals(index, version):
    """The eleven signals of a mixture, {folder: [S] at 16 kHz}."""
    rng = np.random.default_rng(index)
    rooms = [simulate_room(rng, rt60=(0.2, 0.3)) for _ in range(2)]
    lengths = [16000 + 320 * index, 12000 + 320 * index]
    speech = [
        recordings("speech/en")[(index + i) % 7][: lengths[i]] / (i + 1)
        for i in range(2)
    ]
    n_samples = (min if version == "min" else max)(map(len, speech))
    noise = recordings("noise")[index % 7][:n_samples]
    made = {"noise": noise * 0.5 * rms(speech[0]) / rms(noise)}
    for i, (dry, room) in enumerate(zip(speech, rooms, strict=True), start=1):
        dry = np.pad(dry, (0, max(0, n_samples - len(dry))))
        made[f"s{i}_anechoic"] = dry[:n_samples]
        made[f"s{i}_reverb"] = reverberate(dry, room)[:n_samples]
    for room in ("anechoic", "reverb"):
        first, second = made[f"s1_{room}"], made[f"s2_{room}"]
        made[f"mix_single_{room}"] = first + made["noise"]
        made[f"mix_clean_{room}"] = first + second
        made[f"mix_both_{room}"] = first + second + made["noise"]
    return made


def write_tree(folder):
    """Write a small data set in both sample rates and versions."""
    for version in ("min", "max"):
        index = 0
        for split, names in NAMES.items():
            for name in names:
                for kind, samples in signals(index, version).items():
                    for rate, top in RATES.items():
                        path = folder / top / version / split / kind / f"{name}.wav"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        low = resample_poly(samples, 1, 16000 // rate)
                        soundfile.write(path, 4 * low, rate, "FLOAT")
                index += 1
    return folder
