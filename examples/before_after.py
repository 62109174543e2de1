"""Mix speech with noise, enhance it with the default model, and draw both.

    python examples/before_after.py docs

It writes noisy.flac, enhanced.flac and before_after.webp. Speaker and noise are unseen in
training; the SNR is 5 dB.

Authors
 * The speechbrain-cffma developers 2026
"""

import sys
from pathlib import Path

import numpy as np
import soundfile
from matplotlib.figure import Figure

from speechbrain_cffma import audio
from speechbrain_cffma.data.mixing import add_noise
from speechbrain_cffma.lobes import CFFMAEnhancer

MIX = Path(__file__).parents[1] / "recipes" / "DynamicMix"
SPEECH = MIX / "speech" / "ru" / "demo-thanks.opus"
NOISE = MIX / "noise" / "stream.opus"


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    clean = audio.read(SPEECH)
    # At half the level, so that no peak exceeds the range of 16 bits.
    noisy = 0.5 * add_noise(clean, np.resize(audio.read(NOISE), len(clean)), snr=5)
    enhanced = CFFMAEnhancer.from_pretrained().enhance(noisy)

    figure = Figure(figsize=(10, 2.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name, wav in zip(
        axes, ("noisy", "enhanced"), (noisy, enhanced), strict=True
    ):
        soundfile.write(folder / f"{name}.flac", wav, audio.SAMPLE_RATE)
        axis.specgram(
            wav, NFFT=400, Fs=16, noverlap=240, cmap="magma", vmin=-80, vmax=0
        )
        axis.set_title(name.capitalize())
        axis.set_xticks([])
    axes[0].set_ylabel("kHz")
    figure.savefig(folder / "before_after.webp", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
