"""Why a pair of songs can fail to make a mash-up."""

from storage.errors import StorageError


class Misfit(StorageError):
    """Two songs that do not go together: no beat, no vocals, or tempi too far apart."""
