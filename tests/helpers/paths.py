"""Where the repository has its parts."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
HPARAMS = ROOT / "hparams"
BUNDLED = ROOT / "recipes" / "DynamicMix"
SPEECH = BUNDLED / "speech"
