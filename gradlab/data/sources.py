"""The public image data sets: what they hold, where their files come from, their checksums.

One table, from the name of a data set to its row.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PUBLIC", "SOURCES", "DataSet", "Source"]


@dataclass(frozen=True)
class Source:
    """One file of a data set.

    `forms`: every name it may have on disk, with the checksums of what it may hold there (64 digits
    are SHA-256, 32 are MD5); the first name is the one at the `addresses`. `rows`: its images.
    """

    forms: dict[str, tuple[str, ...]]
    addresses: tuple[str, ...]
    rows: int


@dataclass(frozen=True)
class DataSet:
    """A public data set: one row of `PUBLIC` adds one.

    `about`: one phrase, with the numbers of images that train, validate and test. `layout`: how its
    files become images, see `gradlab.data.datasets`. `folder`: where its files lie below the data
    folder, and where downloads go. `files`: by the names of its parts.
    """

    about: str
    layout: str
    folder: str
    files: dict[str, Source]


def _idx(prefixes: Iterable[str], *files: tuple[str, str, str, int]) -> dict[str, Source]:
    """Return sources of gzipped idx files, which may also lie there uncompressed."""
    return {
        name: Source(
            {f"{name}-ubyte.gz": (packed,), f"{name}-ubyte": (plain,)},
            tuple(f"{prefix}/{name}-ubyte.gz" for prefix in prefixes),
            rows,
        )
        for name, packed, plain, rows in files
    }


def _binarized(split: str, text: str, matlab: str, rows: int) -> Source:
    file = f"binarized_mnist_{split}.amat"
    prefix = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
    return Source({file: (text, matlab)}, (f"{prefix}/{file}",), rows)


def _lake(split: str, archive: str, arrays: str, rows: int) -> Source:
    path = f"master/python/images_{split}.zip"
    return Source(
        {f"images_{split}.zip": (archive,), f"images_{split}.npz": (arrays,)},
        (
            f"https://github.com/brendenlake/omniglot/raw/{path}",
            f"https://raw.githubusercontent.com/brendenlake/omniglot/{path}",
        ),
        rows,
    )


# Every checksum was computed from the data themselves, but for three: the MD5 of chardata.mat is
# the one that the library tfsnippet checks, those of Omniglot's zip archives are torchvision's.
PUBLIC: dict[str, DataSet] = {
    "mnist": DataSet(
        "grey handwritten digits (54,000 / 6,000 / 10,000)",
        "idx",
        "mnist",
        _idx(
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist",
                "https://storage.googleapis.com/cvdf-datasets/mnist",
                "http://yann.lecun.com/exdb/mnist",
            ),
            (
                "train-images-idx3",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                60_000,
            ),
            (
                "train-labels-idx1",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                60_000,
            ),
            (
                "t10k-images-idx3",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                10_000,
            ),
            (
                "t10k-labels-idx1",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                10_000,
            ),
        ),
    ),
    "fashion-mnist": DataSet(
        "grey pieces of clothing (54,000 / 6,000 / 10,000)",
        "idx",
        "fashion_mnist",
        _idx(
            (
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
            ),
            (
                "train-images-idx3",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                60_000,
            ),
            (
                "train-labels-idx1",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                60_000,
            ),
            (
                "t10k-images-idx3",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                10_000,
            ),
            (
                "t10k-labels-idx1",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                10_000,
            ),
        ),
    ),
    "binarized-mnist": DataSet(
        "digits with Larochelle's fixed binarization (50,000 / 10,000 / 10,000)",
        "binary rows",
        "binarized_mnist",
        {
            "train": _binarized(
                "train",
                "db28b1a6ae0fe70cbd3da91acf46e477",
                "79a0312c7389d855cfc97e3812de3998417c5829d8a51543b56a90a91252ae7e",
                50_000,
            ),
            "valid": _binarized(
                "valid",
                "bf37822a04e94123630de6a7dfd9c9ef",
                "7436afc856959075c7787025bb8a4ba2b520b9230ee39667c66aa7dd2819dd68",
                10_000,
            ),
            "test": _binarized(
                "test",
                "14e41ae11040adba6ab8cb291eda0dd8",
                "5bc30222e1e7896cbccd1e1db6b28540cc1230f4d2d5473841a5f6cc54be8d38",
                10_000,
            ),
        },
    ),
    "omniglot": DataSet(
        "grey characters, 28x28 by Burda et al. (21,911 / 2,434 / 8,070)",
        "characters",
        "omniglot",
        {
            "all": Source(
                {"chardata.mat": ("21ecaf34373511aa7691cf2e0802aa3d",)},
                (
                    "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat",
                    "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/chardata.mat",
                ),
                24_345 + 8_070,
            )
        },
    ),
    "omniglot-105": DataSet(
        "grey characters, reduced here from Lake's 105x105 (17,352 / 1,928 / 13,180)",
        "drawings",
        "omniglot",
        {
            "background": _lake(
                "background",
                "68d2efa1b9178cc56df9314c21c6e718",
                "8bf84167413cd00beacdce3fe582f780ab538d8dbef043a6d688f2527bbce199",
                964 * 20,
            ),
            "evaluation": _lake(
                "evaluation",
                "6b91aef0f799c5bb55b94e3f2daec811",
                "0b84c7ffd94c4841c0040e529c86a82eaaccb986d8eadad5673f7991b7475276",
                659 * 20,
            ),
        },
    ),
    "silhouettes": DataSet(
        "binary Caltech-101 silhouettes, a split of our own (6,937 / 867 / 867)",
        "silhouettes",
        "caltech101_silhouettes",
        {
            "all": Source(
                {
                    "caltech101_silhouettes_28.mat": (
                        "862d0a4b828256d54ad5de7c5066c18c72f355cac5b7cde4c1c3be7c000d180b",
                    )
                },
                ("https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28.mat",),
                8_671,
            )
        },
    ),
}
"""The public data sets by name, one row each."""

SOURCES = {name: one.files for name, one in PUBLIC.items()}
"""The files of each data set."""
