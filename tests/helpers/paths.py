"""Paths of the repository's folders."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
HPARAMS = ROOT / "hparams"
BUNDLED = ROOT / "recipes" / "DynamicMix"
SPEECH = BUNDLED / "speech"
