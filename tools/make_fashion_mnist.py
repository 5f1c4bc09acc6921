"""Make the Fashion-MNIST subset that ships with the library, from the four original files.

    python tools/make_fashion_mnist.py /usr/share/datasets/fashion-mnist

(the folder of Debian's package ``dataset-fashion-mnist``). The subset holds the first 1,000
training and the first 200 test images of each of the ten classes, in file order.
"""

import sys
from pathlib import Path

import numpy as np

from vdm_lite.data import Images, checksum, fashion_mnist, rank_in_class

TARGET = Path(__file__).parents[1] / "vdm_lite" / "data" / "fashion_mnist.npz"


def subset(folder: str | Path) -> Images:
    """The first images of each class, in file order."""
    full = fashion_mnist(folder)
    train, test = rank_in_class(full.train_labels) < 1000, rank_in_class(full.test_labels) < 200
    labels = full.train_labels[train], full.test_labels[test]
    return Images(full.train[train], full.test[test], *labels, full.levels)


def main(folder: str) -> None:
    arrays = subset(folder)._asdict()
    arrays.pop("levels")
    np.savez_compressed(
        TARGET, **{k: array.numpy().astype(np.uint8) for k, array in arrays.items()}
    )
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.2f} MB, SHA-256 {checksum(arrays.values())}")


if __name__ == "__main__":
    main(sys.argv[1])
