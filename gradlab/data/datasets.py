"""Image data sets of 28x28 pixels by name, split for training, validation and test.

The package's own digits are always there; the public sets are read from a data folder or
downloaded. Images stay bytes until `as_floats`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from gradlab.checks import check_choice, check_known
from gradlab.data.digits import digits
from gradlab.data.download import read_source
from gradlab.data.image_files import (
    read_binary_rows,
    read_characters,
    read_drawings,
    read_idx,
    read_silhouettes,
)
from gradlab.data.sources import PUBLIC, SOURCES

__all__ = ["DATA_SETS", "SPLITS", "Images", "load_images"]

SPLITS = ("train", "valid", "test")

DATA_SETS = {
    "digits": "300 binarized MNIST digits that travel with the package (200 / 50 / 50)",
    **{name: one.about for name, one in PUBLIC.items()},
}


@dataclass(frozen=True, eq=False)
class Images:
    """A data set: images as rows of 28x28 pixels.

    Args:
        name: The name of the data set.
        train: The training images [n, 784], bytes from 0 to 255, or 0 and 1 where `binary`.
        valid: The validation images.
        test: The test images.
        labels: The classes, counted from 0, by split; None where a set has none.
        binary: Whether the pixels are 0 and 1.

    Example:
        >>> images = load_images("digits")
        >>> images.train.shape, images.binary
        (torch.Size([200, 784]), True)
    """

    name: str
    train: UInt8[Tensor, "train 784"]
    valid: UInt8[Tensor, "valid 784"]
    test: UInt8[Tensor, "test 784"]
    labels: dict[str, Int64[Tensor, " _"]] | None
    binary: bool

    def as_floats(self, split: str) -> Float32[Tensor, "n 784"]:
        """Return the images of a split as grey values.

        Args:
            split: "train", "valid" or "test".

        Returns:
            Images [n, 784], float32 in [0, 1].

        Raises:
            ValueError: If it is another split.
        """
        check_choice("split", split, SPLITS)
        images = getattr(self, split).to(torch.float32)
        return images if self.binary else images / 255

    def binarized(
        self, batch: Float[Tensor, "*batch 784"], generator: torch.Generator
    ) -> Float[Tensor, "*batch 784"]:
        """Return the batch with every pixel drawn as 1 with its grey value, else 0.

        The batch of a binary set is returned as it is, and takes nothing from the generator.

        Args:
            batch: Grey values in [0, 1], [..., 784], as `as_floats` returns them.
            generator: The source of the pixels.

        Returns:
            Pixels 0 and 1, [..., 784].

        Raises:
            ValueError: If the batch does not hold grey values in [0, 1].
        """
        # NaN is neither: aminmax returns it.
        low, high = torch.stack(torch.aminmax(batch)).tolist() if batch.numel() else (0, 1)
        if not (batch.is_floating_point() and low >= 0 and high <= 1):
            raise ValueError("batch must hold grey values in [0, 1]; as_floats(split) gives them")
        return batch if self.binary else torch.bernoulli(batch, generator=generator)


def load_images(
    name: str = "digits", folder: str | Path | None = None, download: bool = True
) -> Images:
    """Return a data set, from the data folder or else downloaded into it.

    - digits: binary, with labels; ten classes equally often in each split.
    - mnist, fashion-mnist: grey, with labels; the last 6,000 of the training files validate.
      LeCun, Cortes, Burges; Xiao, Rasul, Vollgraf 2017 (arXiv 1708.07747).
    - binarized-mnist: binary, without labels; its order is not MNIST's, and the test file is sorted
      by class. Salakhutdinov, Murray 2008; Larochelle, Murray 2011.
    - omniglot: grey. Split of the file; of a fixed permutation of its training images the last
      tenth validates. Burda, Grosse, Salakhutdinov 2016 (arXiv 1509.00519).
    - omniglot-105: grey; Lake's background set trains and (a tenth, as before) validates, his
      evaluation set of other alphabets tests. Likelihoods on it are not comparable with those on
      omniglot: other pixels, other split. Lake, Salakhutdinov, Tenenbaum 2015.
    - silhouettes: binary, object 1, with labels. The split is a fixed permutation, the last fifth
      of which validates and tests: it is not the standard one, and results are not comparable
      with those on it. Marlin, Swersky, Chen, de Freitas 2010.

    Args:
        name: One of the names above.
        folder: The data folder; by default $GRADLAB_DATA, else the folder data in the package's
            cache. Its files may lie in it or in a subfolder (mnist, fashion_mnist, binarized_mnist,
            omniglot, caltech101_silhouettes).
        download: Whether files that are missing may be downloaded.

    Returns:
        The images.

    Raises:
        ValueError: If the name is unknown or a file is damaged.
        FileNotFoundError: If a file is missing and cannot be downloaded. The message says which
            file, from where, and what to do.

    Example:
        >>> len(load_images("digits").test)
        50
    """
    check_known("data set", name, DATA_SETS)
    if name == "digits":
        return _digits()
    return _LAYOUTS[PUBLIC[name].layout](_Reader(name, folder, download))


T = TypeVar("T")


@dataclass(frozen=True)
class _Reader:
    name: str
    folder: str | Path | None
    download: bool

    def __call__(self, part: str, decode: Callable[[bytes, int], T]) -> T:
        """Return what the file of a part holds; an error names the file."""
        path, content = read_source(self.name, part, self.folder, self.download)
        try:
            return decode(content, SOURCES[self.name][part].rows)
        except ValueError as error:
            raise ValueError(
                f"the file {path} does not hold what {self.name} needs: {error}"
            ) from error


def _digits() -> Images:
    images, labels = digits()
    # Image i shows the class i mod 10.
    splits = {"train": slice(200), "valid": slice(200, 250), "test": slice(250, 300)}
    return Images(
        "digits",
        **{split: images[rows] for split, rows in splits.items()},
        labels={split: labels[rows] for split, rows in splits.items()},
        binary=True,
    )


def _idx_images(read: _Reader) -> Images:
    images, test = (_bytes(read(f"{s}-images-idx3", read_idx)) for s in ("train", "t10k"))
    classes, of_test = (_classes(read(f"{s}-labels-idx1", read_idx)) for s in ("train", "t10k"))
    kept = len(images) - len(images) // 10
    return Images(
        read.name,
        images[:kept],
        images[kept:],
        test,
        labels={"train": classes[:kept], "valid": classes[kept:], "test": of_test},
        binary=False,
    )


def _binary_rows(read: _Reader) -> Images:
    train, valid, test = (_bytes(read(split, read_binary_rows)) for split in SPLITS)
    return Images(read.name, train, valid, test, labels=None, binary=True)


def _characters(read: _Reader) -> Images:
    images, test = read("all", read_characters)
    return _drawn(read.name, _bytes(images), _bytes(test))


def _drawings(read: _Reader) -> Images:
    images, test = (_bytes(read(part, read_drawings)) for part in ("background", "evaluation"))
    return _drawn(read.name, images, test)


def _drawn(name: str, images: Tensor, test: Tensor) -> Images:
    order = _permutation(len(images))
    kept = len(images) - len(images) // 10
    return Images(name, images[order[:kept]], images[order[kept:]], test, labels=None, binary=False)


def _silhouettes(read: _Reader) -> Images:
    pixels, objects = read("all", read_silhouettes)
    images, classes = _bytes(pixels), _classes(objects)
    order, tenth = _permutation(len(images)), len(images) // 10
    parts = order.split([len(order) - 2 * tenth, tenth, tenth])
    rows = dict(zip(SPLITS, parts, strict=True))
    return Images(
        read.name,
        **{split: images[chosen] for split, chosen in rows.items()},
        labels={split: classes[chosen] for split, chosen in rows.items()},
        binary=True,
    )


def _permutation(n: int) -> Int64[Tensor, " n"]:
    """Return the order in which a sorted file is split; the same in every run."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))


def _bytes(array: UInt8[np.ndarray, "n 784"]) -> UInt8[Tensor, "n 784"]:
    return torch.tensor(array)


def _classes(array: UInt8[np.ndarray, " n"]) -> Int64[Tensor, " n"]:
    return torch.tensor(array, dtype=torch.int64)


# How the files of a data set become images, by its `layout`.
_LAYOUTS: dict[str, Callable[[_Reader], Images]] = {
    "idx": _idx_images,
    "binary rows": _binary_rows,
    "characters": _characters,
    "drawings": _drawings,
    "silhouettes": _silhouettes,
}
