"""Experiments, the Brain, checkpoints, sweeps and their figures.

Authors
 * The speechbrain-cffma developers 2026
"""
