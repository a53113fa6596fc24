"""Inventories of other projects, from text files: what intersphinx links to, without a network.

The first line of a file is the address of the project; every other line is one of the inventory:
name, domain:role, priority, page, shown name.
"""

import zlib
from pathlib import Path

__all__ = ["inventories"]


def inventories(texts: Path, out: Path) -> dict[str, tuple[str, str]]:
    """Write each text file as the inventory that Sphinx reads.

    Args:
        texts: The folder of text files, one per project.
        out: The folder where the inventories are written.

    Returns:
        What `intersphinx_mapping` takes: address and file of each project by its name.
    """
    out.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for text in sorted(texts.glob("*.txt")):
        address, *lines = text.read_text(encoding="utf-8").splitlines()
        head = f"# Sphinx inventory version 2\n# Project: {text.stem}\n# Version:\n"
        head += "# The remainder of this file is compressed using zlib.\n"
        body = zlib.compress("".join(f"{line}\n" for line in lines).encode())
        file = out / f"{text.stem}.inv"
        file.write_bytes(head.encode() + body)
        mapping[text.stem] = (address, str(file))
    return mapping
