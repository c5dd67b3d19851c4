"""What there is to say of a folder before a process keeps its streams there. Nothing is made or changed."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from app.journal import JournalRefused
from app.journal.file.database import check_header
from app.journal.file.folder import Folder

# Bytes below which a disk counts as full.
_LITTLE = 1 << 20


def look(path: Path) -> tuple[bool, str]:
    """Return whether a process could keep its streams at *path*, and a clause with the reason, or with what is there.

    Another process that uses the folder is no failure: it may be the very service whose settings are checked.
    """
    folder = Folder(path)
    try:
        place = path if path.exists() else next(parent for parent in path.parents if parent.exists())
        status = place.stat()
        if not stat.S_ISDIR(status.st_mode):
            return False, f"{place} is not a folder"
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            return False, f"{place} cannot be written to by this user"
        facts = [f"{path} will be made"] if place != path else [str(path)]
        if place == path:
            folder.check_files()
            for file in path.iterdir():
                if not os.access(file, os.R_OK | os.W_OK):
                    return False, f"{file} cannot be written to by this user"
            if status.st_uid != os.geteuid() != 0:
                return False, f"{path} belongs to another user"
            if folder.database.exists():
                check_header(folder.database)
            if status.st_mode & 0o077:
                facts.append(f"other users may enter it until the next start (mode {status.st_mode & 0o777:04o})")
            if user := folder.user():
                facts.append(user)
        free = shutil.disk_usage(place).free
    except JournalRefused as error:
        return False, str(error)
    except OSError as error:
        return False, f"{path} cannot be used: {os.strerror(error.errno or 0)}"
    if free < _LITTLE:
        return False, f"the disk of {place} is full: {free} bytes are free"
    return True, "; ".join([*facts, f"{_amount(free)} are free"])


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
