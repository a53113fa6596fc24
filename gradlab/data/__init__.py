"""Image data sets by name: where their files come from, and the digits that ship with gradlab."""

from gradlab.data.datasets import DATA_SETS, SPLITS, Images, load_images
from gradlab.data.download import data_folder

__all__ = ["DATA_SETS", "SPLITS", "Images", "data_folder", "load_images"]
