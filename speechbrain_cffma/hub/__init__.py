"""Model folders and the HuggingFace hub: configuration, weights and card.

Authors
 * The speechbrain-cffma developers 2026
"""
