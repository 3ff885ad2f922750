"""The input pipeline, cached and streamed."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.training_data import Dataset, example, write_records
from trainer import batches, features
from trainer.batches import Split, evaluation_batches, read_split, training_batches

PLENTY = 1 << 30
BUDGETS = pytest.mark.parametrize("budget", [PLENTY, 0], ids=["cached", "streamed"])


def take(
    split: Split, digits: Dataset, count: int, seed: int = 0, first_step: int = 0, batch_size: int = 40
) -> list[bytes]:
    """The images of `count` batches, as raw bytes, in order."""
    found = training_batches(split, digits.transform, batch_size, seed, first_step)
    images = [batch[features.IMAGE].numpy() for batch, _ in islice(found, count)]
    return [np.round(image * 255).astype(np.uint8).tobytes() for image in np.concatenate(images)]


def test_reads_plain_and_compressed_shards(digits: Dataset) -> None:
    split = read_split(digits.patterns, PLENTY)

    assert [Path(file).name for file in split.files] == ["train-0", "train-1.gz"]
    assert split.size == len(digits.labels)
    assert split.images is not None
    assert Counter(split.images.numpy().tolist()) == Counter(digits.raw)


def test_streams_what_does_not_fit(digits: Dataset) -> None:
    split = read_split(digits.patterns, cache_bytes=784 * (len(digits.labels) - 1))

    assert split.images is None
    assert split.labels is None
    assert split.size == len(digits.labels)


@pytest.mark.slow
def test_refuses_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file matches .*nowhere"):
        read_split([str(tmp_path / "nowhere-*")], PLENTY)
    write_records(tmp_path / "empty", [])
    with pytest.raises(ValueError, match=r"no example in .*empty"):
        read_split([str(tmp_path / "empty")], PLENTY)


@BUDGETS
def test_a_broken_shard_is_an_error(tmp_path: Path, budget: int) -> None:
    write_records(tmp_path / "train-0", [example(bytes(784), 1)] * 3)
    whole = (tmp_path / "train-0").read_bytes()
    (tmp_path / "train-0").write_bytes(whole[:-100])

    with pytest.raises(tf.errors.DataLossError):
        read_split([str(tmp_path / "train-0")], budget)


def test_a_streamed_split_mixes_no_more_than_so_many_bytes(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_SHUFFLE_BYTES", 10 * 784)
    split = read_split(digits.patterns, 0)
    ordered = [
        np.round(image * 255).astype(np.uint8).tobytes()
        for batch, _ in evaluation_batches(split, digits.transform, 50)
        for image in batch[features.IMAGE].numpy()
    ]

    # With ten in memory, the last of forty is at most the fiftieth that was read.
    assert set(take(split, digits, 1, batch_size=40)) <= set(ordered[:50])


@BUDGETS
def test_each_example_comes_once_an_epoch_and_with_its_label(digits: Dataset, budget: int) -> None:
    split = read_split(digits.patterns, budget)
    label_of = dict(zip(digits.raw, digits.labels.tolist(), strict=True))

    found = list(islice(training_batches(split, digits.transform, 40, seed=0), 10))

    seen: list[bytes] = []
    for batch, labels in found:
        assert set(batch) == {features.IMAGE}
        assert batch[features.IMAGE].shape == (40, 28, 28, 1)
        assert labels.shape == (40,)
        raw = [np.round(image * 255).astype(np.uint8).tobytes() for image in batch[features.IMAGE].numpy()]
        assert [label_of[image] for image in raw] == labels.numpy().tolist()
        seen += raw
    assert Counter(seen) == Counter(digits.raw)


@BUDGETS
def test_the_order_differs_by_epoch_and_seed_and_is_reproducible(digits: Dataset, budget: int) -> None:
    split = read_split(digits.patterns, budget)

    two_epochs = take(split, digits, 20, seed=5)

    first, second = two_epochs[:400], two_epochs[400:]
    assert Counter(first) == Counter(second) == Counter(digits.raw)
    assert first != second
    assert take(split, digits, 20, seed=5) == two_epochs
    assert take(split, digits, 10, seed=6) != first


@BUDGETS
def test_goes_on_at_any_step(digits: Dataset, budget: int) -> None:
    split = read_split(digits.patterns, budget)

    assert take(split, digits, 6, first_step=7) == take(split, digits, 13)[7 * 40 :]


def test_batches_run_over_the_end_of_an_epoch(digits: Dataset) -> None:
    split = read_split(digits.patterns, PLENTY)

    images = take(split, digits, 15, batch_size=64)

    assert Counter(images[:400]) == Counter(digits.raw)
    assert len(images) == 15 * 64


@BUDGETS
def test_evaluation_sees_each_example_once_in_a_fixed_order(digits: Dataset, budget: int) -> None:
    split = read_split(digits.patterns, budget)

    found = list(evaluation_batches(split, digits.transform, 150))
    again = list(evaluation_batches(split, digits.transform, 150))

    assert [len(labels) for _, labels in found] == [150, 150, 100]
    labels = np.concatenate([labels for _, labels in found])
    assert Counter(labels.tolist()) == Counter(digits.labels.tolist())
    np.testing.assert_array_equal(labels, np.concatenate([labels for _, labels in again]))
