"""The browser page of `cffma app`.

Authors
 * The speechbrain-cffma developers 2026
"""
