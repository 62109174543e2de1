"""The recordings of open pages, which are removed when their page is closed.

Authors
 * The speechbrain-cffma developers 2026
"""

import shutil
import tempfile
from pathlib import Path


class Recordings:
    """The files of the open pages. Each page has one recording at a time.

    Arguments
    ---------
    folder : str or Path
        Folder for enhanced files.

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
        """Register a page's recording; a previous recording is removed.

        Arguments
        ---------
        session : str
            The page.
        noisy : Path
            The uploaded file.
        """
        if self._noisy.get(session) != noisy:
            self.end(session)
        self._noisy[session] = noisy

    def is_open(self, session):
        """Whether a page is open and has a recording."""
        return session in self._noisy

    def new_folder(self, session):
        """Create a folder for the next enhanced file of a page.

        Players identify files by name, so each file needs a new one. The page shows the
        previous file until the new one is complete; older files are removed.
        """
        folders = self._enhanced.setdefault(session, [])
        while len(folders) > 1:
            _remove(folders.pop(0))
        folders.append(Path(tempfile.mkdtemp(dir=self.folder)))
        return folders[-1]

    def end(self, session):
        """Remove the files of a page, since it was closed or has another recording."""
        for folder in self._enhanced.pop(session, []):
            _remove(folder)
        noisy = self._noisy.pop(session, None)
        # A file that is dropped on two pages is stored once.
        if noisy and noisy not in self._noisy.values():
            noisy.unlink(missing_ok=True)

    def end_all(self):
        """Remove the files of all pages, which stops running work."""
        for session in list(self._noisy):
            self.end(session)


def _remove(folder):
    # Running work may remove its own file at the same time.
    shutil.rmtree(folder, ignore_errors=True)
