"""Small data sets in every layout that the sources read, in their exact form."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("cat", "dog", "fox")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def picture(seed: int, height: int = 12, width: int = 10, channels: int = 3) -> NDArray[np.uint8]:
    """Noise, uint8 [H, W, C]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def encoded(pixels: NDArray[np.uint8], form: str = "PNG", **options: object) -> bytes:
    """A picture file."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.save(buffer, form, **options)
    return buffer.getvalue()


def class_folders(folder: Path, per_class: int = 4, splits: Sequence[str] = ("train", "test")) -> Path:
    """Pictures of several sizes; with no splits, one level of classes."""
    for split in splits or ("",):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(per_class):
                seed = hash((split == "test", label, number)) % 1000
                content = encoded(picture(seed, 10 + number, 9 + label), "JPEG" if number % 2 else "PNG")
                suffix = "jpg" if number % 2 else "png"
                (folder / split / name / f"{number}.{suffix}").write_bytes(content)
    return folder


def manifest(folder: Path, rows: Sequence[dict[str, str]], name: str = "labels.csv") -> Path:
    """A CSV or JSON-lines file of these rows, and a picture for each path."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        path = folder / next(iter(row.values()))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(number)))
    with (folder / name).open("w", newline="") as file:
        if name.endswith("csv"):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


def npz(
    folder: Path, names: Sequence[str] = ("x_train", "y_train", "x_test", "y_test"), **arrays: NDArray
) -> Path:
    """`x_train` and so on; noise where nothing is given."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {}
    for number, name in enumerate(names):
        count = 30 if number < 2 else 12
        content[name] = (
            np.arange(count, dtype=np.uint8) % 3
            if number % 2
            else np.random.default_rng(number).integers(0, 256, (count, 9, 8), np.uint8)
        )
    np.savez_compressed(folder / "data.npz", **content | arrays)
    return folder


def cifar10(folder: Path, form: str, per_file: int = 20) -> Path:
    """CIFAR-10 with few images, `binary` or `python`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        planes = np.random.default_rng(number).integers(0, 256, (per_file, 3072), np.uint8)
        labels = [(number + at) % 10 for at in range(per_file)]
        if form == "binary":
            records = np.concatenate([np.array(labels, np.uint8)[:, None], planes], axis=1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            content = {
                "batch_label": name,
                "labels": labels,
                "data": planes,
                "filenames": ["a.png"] * per_file,
            }
            (folder / name).write_bytes(_python2_pickle(content))
    if form == "binary":
        (folder / "batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")
    else:
        (folder / "batches.meta").write_bytes(
            _python2_pickle(
                {"num_cases_per_batch": per_file, "label_names": list(CIFAR10), "num_vis": 3072}
            )
        )
    return folder


def _python2_pickle(content: dict) -> bytes:
    """As the authors' files, whose strings are bytes."""
    as_bytes = {
        key.encode(): [one.encode() if isinstance(one, str) else one for one in value]
        if isinstance(value, list)
        else value
        for key, value in content.items()
    }
    return pickle.dumps(as_bytes, protocol=2)


def parquet(folder: Path, per_split: int = 15, names: Sequence[str] = CLASSES) -> Path:
    """As the `datasets` library writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        {"huggingface": json.dumps({"info": {"features": features}})} if names else None,
    )
    for number, split in enumerate(("train", "test")):
        rows = [
            {
                "image": {"bytes": encoded(picture(100 * number + at)), "path": f"{at}.png"},
                "label": at % 3 + (0 if names else 1),
            }
            for at in range(per_split)
        ]
        table = pa.Table.from_pylist(rows, schema)
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=4)
    return folder


def tfrecord(folder: Path, per_split: int = 15, first_label: int = 1) -> Path:
    """As TF-Slim's converters write it: labels from 1, with their names."""
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(("train", "validation")):
        with tf.io.TFRecordWriter(str(folder / f"{split}-00000-of-00001")) as writer:
            for at in range(per_split):
                example = tf.train.Example()
                feature = example.features.feature
                feature["image/encoded"].bytes_list.value.append(
                    encoded(picture(100 * number + at), "JPEG")
                )
                feature["image/class/label"].int64_list.value.append(at % 3 + first_label)
                feature["image/class/text"].bytes_list.value.append(CLASSES[at % 3].encode())
                writer.write(example.SerializeToString())
    return folder
