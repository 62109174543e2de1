"""BSS-CFFMA speech enhancement as a SpeechBrain recipe extension.

The package itself is light: torch is imported with `speechbrain_cffma.lobes`.

Authors
 * The speechbrain-cffma developers 2026
"""

__version__ = "0.2.0"
