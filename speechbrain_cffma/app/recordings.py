"""The recordings of a visit, which are removed with the page.

Authors
 * The speechbrain-cffma developers 2026
"""

import shutil
import tempfile
from pathlib import Path


class Recordings:
    """The files of the pages that are open, each of which has one recording at a time.

    Arguments
    ---------
    folder : str or Path
        Where enhanced files lie.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "noisy.wav").touch()
    >>> recordings = Recordings(folder)
    >>> recordings.begin("a page", folder / "noisy.wav")
    >>> recordings.end("a page")
    >>> list(folder.iterdir())
    []
    """

    def __init__(self, folder):
        self.folder = folder
        self._noisy = {}
        self._enhanced = {}

    def begin(self, session, noisy):
        """Note the recording of a page; if it had another one, that goes.

        Arguments
        ---------
        session : str
            The page.
        noisy : Path
            What was uploaded.
        """
        if self._noisy.get(session) != noisy:
            self.end(session)
        self._noisy[session] = noisy

    def is_open(self, session):
        """Whether a page is still there, with its recording."""
        return session in self._noisy

    def new_folder(self, session):
        """A folder for what a page's recording becomes now.

        Players know their files by name, so that each needs a new one. The page shows
        the one before until this is done; older ones go.
        """
        folders = self._enhanced.setdefault(session, [])
        while len(folders) > 1:
            _remove(folders.pop(0))
        folders.append(Path(tempfile.mkdtemp(dir=self.folder)))
        return folders[-1]

    def end(self, session):
        """Remove the files of a page, for it was closed or has another recording."""
        for folder in self._enhanced.pop(session, []):
            _remove(folder)
        noisy = self._noisy.pop(session, None)
        # The same file, dropped on two pages, is stored once.
        if noisy and noisy not in self._noisy.values():
            noisy.unlink(missing_ok=True)

    def end_all(self):
        """Remove the files of all pages; what is at work stops."""
        for session in list(self._noisy):
            self.end(session)


def _remove(folder):
    # What is at work in it may remove its own file at the same time.
    shutil.rmtree(folder, ignore_errors=True)
