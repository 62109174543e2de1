"""Experiments, the Brain, checkpoints, sweeps, and what they draw.

Authors
 * The speechbrain-cffma developers 2026
"""
