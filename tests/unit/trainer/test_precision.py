"""Which arithmetic suits which machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from trainer import precision


@pytest.mark.parametrize(
    ("cpu_info", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16\n", "mixed_bfloat16"),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", "mixed_bfloat16"),
        ("flags\t\t: fpu avx512f avx2\n", "float32"),
        ("Features\t: asimd\n", "float32"),
        (None, "float32"),
    ],
)
def test_auto_precision_goes_by_the_cpu(
    cpu_info: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    if cpu_info is not None:
        file.write_text(cpu_info)
    monkeypatch.setattr(precision, "_CPU_INFO", file)

    assert precision.resolve_precision.__wrapped__("auto") == expected
    assert precision.resolve_precision("mixed_float16") == "mixed_float16"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([(9, 0)], "mixed_bfloat16"),
        ([(7, 5)], "mixed_float16"),
        ([(6, 1)], "float32"),
        ([(8, 0), (7, 0)], "mixed_float16"),
    ],
)
def test_auto_precision_goes_by_the_weakest_gpu(
    capabilities: list[tuple[int, int]], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: capabilities)
    monkeypatch.setattr(precision, "_compute_capability", lambda gpu: gpu)

    assert precision.resolve_precision.__wrapped__("auto") == expected
