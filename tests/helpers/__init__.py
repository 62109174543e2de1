"""Helpers that several test files share: networks, data, runs, stand-ins."""
