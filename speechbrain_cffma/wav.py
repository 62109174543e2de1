"""WAV headers without the true size, as in recordings that were never closed, from
pipes, and above 4 GiB.

Authors
 * The speechbrain-cffma developers 2026
"""

import io
import struct

#: The first size that RIFF's 32 bits can't hold.
FOUR_GIB = 2**32
#: Programs that don't know the size yet write 0 or a value near one of these.
PLACEHOLDERS = (2**31, FOUR_GIB)
#: Tolerance for these values: some programs subtract the header, some round to pages.
NEAR = 2**16
#: Maximum size of a header; the samples must begin before it ends.
MAX_HEADER = 2**24


def with_true_sizes(file):
    """Correct the sizes in a WAV header, as if the file had been closed.

    Arguments
    ---------
    file : binary file
        The file, open for reading and seekable.

    Returns
    -------
    binary file
        The same file, at its beginning, if it is no WAV or its sizes are right. Else a
        view of it whose samples extend to the file's end; above 4 GiB it is an RF64 file
        (EBU Tech 3306).

    Example
    -------
    >>> import soundfile
    >>> closed = io.BytesIO()
    >>> soundfile.write(closed, [0.5] * 800, 16000, format="WAV")
    >>> content = closed.getvalue()
    >>> never_closed = content[:4] + bytes(4) + content[8:40] + bytes(4) + content[44:]
    >>> len(soundfile.read(with_true_sizes(io.BytesIO(never_closed)))[0])
    800
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    header = _header(file)
    file.seek(0)
    if header is None:
        return file
    start = len(header)  # of the samples
    size = _true_size(*_sizes(header), start, end)
    if size is None:
        return file
    return _View(_with_sizes(header, size), file, start, size)


def _header(file):
    """The bytes of a WAV before its samples; None if it is no WAV."""
    header = file.read(12)
    if header[:4] not in (b"RIFF", b"RF64") or header[8:] != b"WAVE":
        return None
    while len(header) < MAX_HEADER:
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        header += chunk
        if chunk[:4] == b"data":
            return header
        (size,) = struct.unpack("<I", chunk[4:])
        header += file.read(min(size + size % 2, MAX_HEADER))
    return None


def _sizes(header):
    """Sizes in a header: bytes after the first 8, and bytes of the samples."""
    if header[12:16] == b"ds64" and len(header) >= 36:
        return struct.unpack("<QQ", header[20:36])
    return struct.unpack("<I", header[4:8]) + struct.unpack("<I", header[-4:])


def _true_size(riff, size, start, end):
    """The true size of the samples in bytes; None if the header is right."""
    rest = end - start
    if riff + 8 in (end - 1, end, end + 1) or size >= rest:
        return None  # closed, or cut: libsndfile reads to the end
    if end > FOUR_GIB and (riff + 8 - end) % FOUR_GIB == 0:  # upper bits were cut off
        return size + (rest - size) // FOUR_GIB * FOUR_GIB
    if size == 0 or any(abs(size - other) < NEAR for other in PLACEHOLDERS):
        return rest
    return None


def _with_sizes(header, size):
    riff = len(header) - 8 + size
    if header[:4] == b"RIFF" and riff < FOUR_GIB:
        return (
            header[:4]
            + struct.pack("<I", riff)
            + header[8:-4]
            + struct.pack("<I", size)
        )
    chunks = header[12:-4]
    if chunks[:4] == b"ds64":
        chunks = chunks[8 + struct.unpack("<I", chunks[4:8])[0] :]
    sizes = struct.pack("<QQQI", riff, size, 0, 0)
    unknown = b"\xff" * 4
    return (b"RF64" + unknown + b"WAVEds64" + struct.pack("<I", len(sizes)) + sizes) + (
        chunks + unknown
    )


class _View(io.RawIOBase):
    """A file with another header."""

    def __init__(self, header, file, start, size):
        self.header, self.file, self.start = header, file, start
        self.end = len(header) + size
        self.position = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.end}
        self.position = origin[whence] + offset
        return self.position

    def tell(self):
        return self.position

    def readinto(self, buffer):
        buffer = memoryview(buffer).cast("B")
        head = self.header[self.position : self.position + len(buffer)]
        buffer[: len(head)] = head
        self.position += len(head)
        body = buffer[len(head) :]
        n = 0
        if body:
            self.file.seek(self.start + self.position - len(self.header))
            n = self.file.readinto(body)
            self.position += n
        return len(head) + n
