# What SpeechBrain loads by foreign_class(source="this folder or its hub id").
from speechbrain_cffma.interface import EnhancerInterface as CustomInterface  # noqa: F401
