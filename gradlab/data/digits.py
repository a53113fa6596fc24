"""Three hundred real handwritten digits, small enough to travel with the package.

Thirty of each class from the MNIST test set, binarized. MNIST is the work of Yann LeCun, Corinna
Cortes and Christopher J. C. Burges, derived from NIST Special Databases 1 and 3; it is commonly
described as licensed under Creative Commons Attribution-ShareAlike 3.0, which then also holds for
this excerpt (DIGITS.md beside this file says what was changed).
"""

import hashlib
import io
from importlib import resources

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

__all__ = ["DIGITS_SHA256", "digit_rows", "digits"]

DIGITS_SHA256 = "bef1c1b2e6136577f7340af287b6f36ec0cd0b13113400dd13f0e97b5bc44a77"


def digits() -> tuple[UInt8[Tensor, "300 784"], Int[Tensor, " 300"]]:
    """Return the images of the digits and their labels; image i shows i mod 10.

    Returns:
        Binary images [300, 784], 0 or 1, row by row of pixels, and labels [300].

    Raises:
        RuntimeError: If the file that holds them is missing or damaged.

    Example:
        >>> images, labels = digits()
        >>> images.shape, labels[:3].tolist()
        (torch.Size([300, 784]), [0, 1, 2])
    """
    arrays = _read()
    images = np.unpackbits(arrays["packed"], axis=1)
    return torch.tensor(images), torch.tensor(arrays["labels"], dtype=torch.int64)


def digit_rows() -> Int[Tensor, " 300"]:
    """Return where each digit stands in the MNIST test set (t10k), counted from 0.

    Returns:
        Indices [300].
    """
    return torch.tensor(_read()["rows"].astype(np.int64))


def _read() -> dict[str, np.ndarray]:
    source = resources.files("gradlab.data") / "digits.npz"
    try:
        content = source.read_bytes()
    except OSError as error:
        raise RuntimeError(f"the digits file {source} cannot be read: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != DIGITS_SHA256:
        raise RuntimeError(
            f"the digits file {source} is damaged: SHA-256 {found}, expected {DIGITS_SHA256}; "
            "install the package again"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
