"""A folder of generated pages: written where they changed, and removed where their source went."""

from pathlib import Path

__all__ = ["write_folder"]


def write_folder(folder: Path, files: dict[str, str | bytes]) -> None:
    """Make the folder hold these files and no others.

    A file whose content is the same keeps its date, so that Sphinx reads only what changed.

    Args:
        folder: A folder that git ignores.
        files: Contents by file name.
    """
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        file, data = folder / name, content.encode() if isinstance(content, str) else content
        if not file.exists() or file.read_bytes() != data:
            file.write_bytes(data)
    for file in folder.iterdir():
        if file.name not in files:
            file.unlink()
