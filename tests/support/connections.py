"""A fake of the transport that a protocol of a server writes to."""

import asyncio


class Socket:
    """One of a client over TCP, of which the system tells nothing else."""

    def getpeername(self):
        return ("127.0.0.1", 1)

    getsockname = getpeername

    def fileno(self):
        raise OSError


class Transport(asyncio.Transport):
    """What a protocol writes, and whether it has aborted."""

    def __init__(self) -> None:
        super().__init__({"socket": Socket()})
        self.written, self.is_aborted, self.buffered = b"", False, 0

    def write(self, data):
        self.written += data

    def abort(self):
        self.is_aborted = True

    close = abort

    def is_closing(self):
        return self.is_aborted

    def get_write_buffer_size(self):
        return self.buffered

    def pause_reading(self):
        pass

    resume_reading = pause_reading
