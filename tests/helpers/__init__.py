"""What the tests of several files share: networks, data, runs, stand-ins."""
