"""Small data sets as users have them: folders of speakers, and pairs."""

import os
import shutil

import numpy as np
import soundfile

from helpers.paths import SPEECH
from helpers.runs import SMALL_MIX
from helpers.signals import speech

SAMPLES = 8000
#: File names of a folder without subfolders.
FLAT = [f"{i:02d}.wav" for i in range(20)]


def dynamic_mix(folder):
    """Write a speech folder with 20 files of two speakers; return options that use it."""
    for speaker, count in (("en", 16), ("ru", 4)):
        (folder / speaker).mkdir(parents=True)
        for path in sorted((SPEECH / speaker).glob("*.opus"))[:count]:
            shutil.copy(path, folder / speaker)
    rooms = {"simulated_rooms": 2, "rt60": [0.2, 0.25]}
    return {"speech_folder": folder, **rooms, **SMALL_MIX}


def write_pairs(folder, names, clean_names=None, noisy="noisy", clean="clean"):
    """Write pairs of speech, noisy at 5 dB by white noise; return their folders by option."""
    random = np.random.default_rng(0)
    for index, name in enumerate(names):
        samples = speech(index % 5)[index * 10 :][:SAMPLES]
        noise = random.normal(size=SAMPLES) * samples.std() * 10 ** (-5 / 20)
        clean_name = clean_names[index] if clean_names else name
        for side, its_name, signal in (
            (noisy, name, samples + noise),
            (clean, clean_name, samples),
        ):
            path = folder / side / its_name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(os.fsencode(path), signal / 4, 16000)
    return {"noisy_folder": folder / noisy, "clean_folder": folder / clean}
