# SpeechBrain's foreign_class(source="this folder or its hub id") loads this file.
from speechbrain_cffma.interface import EnhancerInterface as CustomInterface  # noqa: F401
