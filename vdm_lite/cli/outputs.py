"""Files that a command is to write, tried before it does any work."""

import tempfile
from pathlib import Path

from vdm_lite import checks


def check(option: str, path: Path, suffixes: tuple[str, ...] = ()) -> None:
    """Make the folder of ``path`` and see that a file can be written there.

    Raises ``ValueError`` for a folder or another suffix, ``OSError`` where nothing can be written.
    """
    fits = not suffixes or path.suffix.lower() in suffixes
    checks.require(fits, option, f"a name that ends in {', '.join(suffixes)}", path)
    try:
        checks.require(not path.is_dir(), option, "the name of a file", f"the folder {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise OSError(f"{option}: {path} cannot be written: {error}") from error
