"""Recordings on disk, and the pairs of noisy and clean speech made from them.

Authors
 * The speechbrain-cffma developers 2026
"""
