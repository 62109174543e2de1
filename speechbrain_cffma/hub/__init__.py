"""Model folders, here and on the HuggingFace hub: configuration, weights and card.

Authors
 * The speechbrain-cffma developers 2026
"""
