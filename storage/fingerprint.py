"""Has a source file changed since it was read?"""

import hashlib
import os
from collections.abc import Iterable


def fingerprint(path: str | os.PathLike) -> str:
    """Size and modification time of a file, as a short string; "absent" where it cannot be looked at.

    A stat call, not a hash of the bytes: a million tracks are planned in seconds.
    """
    try:
        status = os.stat(path)
    except OSError:
        return "absent"
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def joint_fingerprint(paths: Iterable[str | os.PathLike]) -> str:
    """One fingerprint for several files."""
    joined = "\n".join(f"{path}\0{fingerprint(path)}" for path in sorted(map(str, paths)))
    return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()[:16]
