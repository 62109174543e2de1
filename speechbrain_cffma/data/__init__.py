"""Recordings on disk, and the pairs of noisy and clean speech that are made of them.

Authors
 * The speechbrain-cffma developers 2026
"""
