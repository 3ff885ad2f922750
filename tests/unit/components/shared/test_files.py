"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from components.shared import files


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    file = tmp_path / "new" / "page.html"

    for text in ("first, and longer", "ö"):
        files.write_text(file, text)

    assert file.read_text(encoding="utf-8") == "ö"
    assert list(file.parent.iterdir()) == [file]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    files.write_text(file, "before")

    with suppress(ValueError), files.draft(file) as unfinished:
        Path(unfinished).write_text("half")
        raise ValueError

    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)

    files.write_text(link, "new")

    assert link.is_symlink()
    assert file.read_text() == "new"


def test_a_pipe_is_written_to_directly(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        files.write_text(pipe, "new")
        assert reader.communicate(timeout=60)[0] == "new"

    assert pipe.is_fifo()
