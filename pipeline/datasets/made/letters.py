"""`letters`: A to J from fonts, as PNG files in class folders, after the idea of notMNIST.

The fonts are those that matplotlib carries and those of Debian's font packages that are installed: the same
fonts give the same pictures. All fonts of a family are in one split, so that the test shows what a model
makes of letters of a shape that it has not seen.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CLASSES = "ABCDEFGHIJ"
SIDES = (24, 96)  # least and largest of a picture, in pixels
TRAIN, VALIDATION, TEST = 550, 50, 120  # pictures of each class
SYSTEM_FONTS = Path("/usr/share/fonts")
# Of the broken files: less than data.max_bad of all.
BROKEN = (("train", "A", "empty"), ("train", "E", "truncated"), ("test", "J", "text"))

# Not letters, though they have characters at their places: boxes, calligraphy, pieces of large brackets.
_NO_LETTERS = ("lastresort", "cmex10", "cmsy10", "stixnonuni", "stixsiz", "display")
_ENDINGS = (".ttf", ".otf")
_CONTRAST = 90  # grey levels between a letter and its ground, at least
_TURN = 12  # degrees to each side


def make(
    folder: Path,
    train: int = TRAIN,
    validation: int = VALIDATION,
    test: int = TEST,
    system: Path = SYSTEM_FONTS,
) -> Mapping[str, Any]:
    """Write `train/<letter>/NNNN.png`, `validation/…`, `test/…`, and three files that are no pictures.

    Args:
        folder: where to.
        train: pictures of each class for training.
        validation: pictures of each class to select by.
        test: pictures of each class for the test.
        system: folder of the system's fonts.
    """
    counts = {"train": train, "validation": validation, "test": test}
    fonts_of = split_fonts(find_fonts(system))
    for number, (split, fonts) in enumerate(fonts_of.items()):
        for letter in CLASSES:
            (folder / split / letter).mkdir(parents=True)
            random = np.random.default_rng([number, ord(letter)])
            for at in range(counts[split]):
                picture = draw(letter, fonts[random.integers(len(fonts))], random)
                picture.save(folder / split / letter / f"{at:04d}.png", compress_level=6)
    for split, letter, how in BROKEN:
        _write_broken(folder / split / letter, how)
    names = {split: [path.name for path in fonts] for split, fonts in fonts_of.items()}
    return {"fonts": names, "broken": len(BROKEN)}


def find_fonts(system: Path = SYSTEM_FONTS) -> list[Path]:
    """Font files with Latin letters, by name; of files with the same name or the same content the first."""
    import matplotlib  # takes a second

    own = Path(matplotlib.get_data_path(), "fonts", "ttf")
    found: dict[str, Path] = {}
    contents: set[bytes] = set()
    for path in (*_font_files(own), *_font_files(system)):
        digest = hashlib.sha256(path.read_bytes()).digest()
        if path.name not in found and digest not in contents and _has_letters(path):
            found[path.name] = path
            contents.add(digest)
    return [found[name] for name in sorted(found)]


def split_fonts(fonts: Sequence[Path]) -> Mapping[str, list[Path]]:
    """The fonts of each split, whatever order they come in.

    Of the families, the sixth with the smallest hashes of their names is for the test, the twelfth after it
    for validation.
    """
    family_of = {font: ImageFont.truetype(str(font)).getname()[0] or font.stem for font in fonts}
    families = sorted(set(family_of.values()), key=lambda name: hashlib.sha256(name.encode()).digest())
    test = math.ceil(len(families) / 6)
    validation = test + math.ceil(len(families) / 12)
    of_split = {
        "train": families[validation:],
        "validation": families[test:validation],
        "test": families[:test],
    }
    return {
        split: [font for font in fonts if family_of[font] in chosen] for split, chosen in of_split.items()
    }


def draw(letter: str, font: Path, random: np.random.Generator) -> Image.Image:
    """One letter in the middle of a grey picture, light on dark or dark on light, slightly turned."""
    side = int(random.integers(SIDES[0], SIDES[1] + 1))
    ground = int(random.integers(256))
    ink = int(random.choice([level for level in range(256) if abs(level - ground) >= _CONTRAST]))
    share, angle = random.uniform(0.6, 0.85), random.uniform(-_TURN, _TURN)
    # Drawn large and made smaller, so that its edges are smooth at any angle.
    large = 2 * side
    mask = Image.new("L", (large, large))
    type_face = ImageFont.truetype(str(font), int(large * share))
    left, top, right, bottom = type_face.getbbox(letter)
    at = ((large - right - left) / 2, (large - bottom - top) / 2)
    ImageDraw.Draw(mask).text(at, letter, fill=255, font=type_face)
    mask = mask.rotate(angle, Image.Resampling.BILINEAR)
    mask = mask.resize((side, side), Image.Resampling.LANCZOS)
    picture = Image.new("L", (side, side), ground)
    picture.paste(ink, mask=mask)
    return picture


def _font_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _ENDINGS and not any(name in path.stem.lower() for name in _NO_LETTERS):
            yield path


def _has_letters(path: Path) -> bool:
    from matplotlib.ft2font import FT2Font

    try:
        characters: Collection[int] = FT2Font(str(path)).get_charmap()
    except RuntimeError:  # FreeType cannot read it
        return False
    return all(ord(letter) in characters and ord(letter.lower()) in characters for letter in CLASSES)


def _write_broken(folder: Path, how: str) -> None:
    if how == "truncated":
        whole = (folder / "0000.png").read_bytes()
        content = whole[: len(whole) // 2]
    else:
        content = b"" if how == "empty" else b"This is no picture.\n"
    (folder / f"broken-{how}.png").write_bytes(content)
