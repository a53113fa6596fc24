"""What the files of image data sets hold: their bytes turned into rows of 784 pixels.

Every image comes out upright, row by row of 28x28 pixels, with ink or object bright: some files
hold columns first, or ink as 0, or drawings of 105x105.
"""

import gzip
import io
import struct
import zipfile
from pathlib import PurePosixPath

import numpy as np
import scipy
from jaxtyping import Bool, Float32, Shaped, UInt8
from PIL import Image

__all__ = [
    "area_average",
    "read_binary_rows",
    "read_characters",
    "read_drawings",
    "read_idx",
    "read_silhouettes",
]

SIDE = 28
PIXELS = SIDE * SIDE
DRAWING = 105  # side of Lake's drawings


def read_idx(content: bytes, rows: int) -> UInt8[np.ndarray, "{rows} ..."]:
    """Return the images [rows, 784] or labels [rows] of an idx file, gzipped or not.

    Raises ValueError if it is not an idx file of unsigned bytes, or has other sizes than expected.
    Source: the description of the format by LeCun, Cortes and Burges beside MNIST.
    """
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError) as error:
            raise ValueError(f"the gzip archive is broken: {error}") from error
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"not an idx file of unsigned bytes: it begins with {content[:4]!r}")
    sizes = struct.unpack_from(f">{content[3]}I", content, 4)
    array = np.frombuffer(content, np.uint8, offset=4 + 4 * len(sizes))
    if sizes not in ((rows,), (rows, SIDE, SIDE)) or array.size != np.prod(sizes):
        raise ValueError(
            f"sizes {sizes} with {array.size} values, expected ({rows},) or ({rows}, 28, 28)"
        )
    return array.reshape(rows, PIXELS) if len(sizes) == 3 else array


def read_binary_rows(content: bytes, rows: int) -> UInt8[np.ndarray, "rows 784"]:
    """Return binary images, 0 or 1, of an .amat file: text with an image a line, or MATLAB's X.

    Raises ValueError if there are other values, or other sizes than expected.
    """
    if content.startswith(b"MATLAB"):
        return _binary(_matlab(content, "X"), rows)
    characters = np.frombuffer(content, np.uint8)
    digits = characters[characters > ord(" ")]
    if digits.size != rows * PIXELS:
        raise ValueError(f"{digits.size} values, expected {rows} lines of {PIXELS}")
    return _binary(digits.reshape(rows, PIXELS) - np.uint8(ord("0")), rows)


def read_silhouettes(
    content: bytes, rows: int
) -> tuple[UInt8[np.ndarray, "rows 784"], UInt8[np.ndarray, " rows"]]:
    """Return Marlin's silhouettes, the object 1 and the rest 0, and their classes from 0.

    The file holds columns first and the object as 0. Raises ValueError as above.
    """
    images = 1 - _binary(_matlab(content, "X"), rows)
    classes = _matlab(content, "Y").ravel()
    if classes.shape != (rows,) or classes.min() != 1:
        raise ValueError(f"{classes.size} classes from {classes.min()}, expected {rows} from 1")
    return _transposed(images), classes - np.uint8(1)


def read_characters(
    content: bytes, rows: int
) -> tuple[UInt8[np.ndarray, "n 784"], UInt8[np.ndarray, "m 784"]]:
    """Return the images of Burda et al.'s chardata.mat for training and for testing, ink bright.

    The file holds columns first, an image a column, and real grey values from 0 to 1, which are
    rounded to multiples of 1/255. Raises ValueError as above.
    """
    images = []
    for name in ("data", "testdata"):
        grey = _matlab(content, name)
        if grey.ndim != 2 or len(grey) != PIXELS:
            raise ValueError(f"{name} of shape {grey.shape}, expected {PIXELS} rows")
        if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 1):
            raise ValueError(f"{name} has grey values outside 0 to 1")
        images.append(_transposed(np.rint(255 * grey.T).astype(np.uint8)))
    train, test = images
    if len(train) + len(test) != rows:
        raise ValueError(f"{len(train)} + {len(test)} images, expected {rows} together")
    return train, test


def read_drawings(content: bytes, rows: int) -> UInt8[np.ndarray, "rows 784"]:
    """Return Lake's drawings of 105x105 reduced to 28x28 by area average, ink bright.

    Ordered by character, then by drawer, from the zip archive of PNG files or from an npz archive
    with `images` [characters, drawers, 105, 105]; in both True is paper. Raises ValueError as
    above.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if "images.npy" in archive.namelist():
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                paper = arrays["images"]
            paper = paper.reshape(-1, *paper.shape[-2:])
        else:
            names = [name for name in archive.namelist() if name.endswith(".png")]
            names.sort(key=lambda name: PurePosixPath(name).name)  # character_drawer.png
            paper = np.stack([np.asarray(Image.open(archive.open(name))) for name in names])
    if paper.shape != (rows, DRAWING, DRAWING) or paper.dtype != bool:
        raise ValueError(
            f"images of shape {paper.shape} and type {paper.dtype}, expected "
            f"{(rows, DRAWING, DRAWING)} and bool"
        )
    reduced = np.empty((rows, PIXELS), np.uint8)
    for start in range(0, rows, 1024):  # as numbers all drawings at once would fill the memory
        block = slice(start, start + 1024)
        reduced[block] = np.rint(255 * area_average(~paper[block])).reshape(-1, PIXELS)
    return reduced


def area_average(
    images: Bool[np.ndarray, "n side side"], side: int = SIDE
) -> Float32[np.ndarray, "n {side} {side}"]:
    r"""Return the mean of each image over the area of each new, larger pixel.

    .. math:: y = W x W^T, \quad W_{ij} = |[i r, (i+1) r] \cap [j, j+1]| / r

    with r old pixels, not always a whole number, to a new one; the mean of an image stays as it is.
    """
    ratio = images.shape[-1] / side
    edges = np.arange(side)[:, None] * ratio
    old = np.arange(images.shape[-1])
    overlap = np.minimum(edges + ratio, old + 1) - np.maximum(edges, old)
    weights = (overlap.clip(0) / ratio).astype(np.float32)
    return weights @ images.astype(np.float32) @ weights.T


def _matlab(content: bytes, name: str) -> Shaped[np.ndarray, "..."]:
    arrays = scipy.io.loadmat(io.BytesIO(content), variable_names=[name])
    if name not in arrays:
        raise ValueError(f"the MATLAB file has no variable {name}")
    return arrays[name]


def _binary(values: Shaped[np.ndarray, "..."], rows: int) -> UInt8[np.ndarray, "rows 784"]:
    if values.shape != (rows, PIXELS):
        raise ValueError(f"shape {values.shape}, expected {(rows, PIXELS)}")
    if not ((values == 0) | (values == 1)).all():
        raise ValueError("values other than 0 and 1")
    return values.astype(np.uint8)


def _transposed(images: UInt8[np.ndarray, "n 784"]) -> UInt8[np.ndarray, "n 784"]:
    """Return images whose columns stood first, row by row."""
    return images.reshape(-1, SIDE, SIDE).transpose(0, 2, 1).reshape(-1, PIXELS)
