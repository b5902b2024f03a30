"""The part of a picture that training and evaluation see, computed from the picture and numbers in [0, 1).

Pillow decodes, scales and colours. The region that is kept is scaled straight out of the picture, so that nothing is
computed that a crop would cut off. The formulas are those of torchvision's transforms of the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import permutations
from math import ceil, exp, log, sqrt
from typing import TYPE_CHECKING

import numpy as np

from iftplan.base.errors import InputError
from iftplan.nn.training.data.image_folder import Pixels
from iftplan.runs.settings import DataConfig

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a region, in pixels of the picture."""

_TRIES = 10
_ASPECT = log(4 / 3)
_ORDERS = tuple(permutations(range(4)))
MIRROR, LEFT, TOP, SCALE, COLOUR, ORDER, ROW, COLUMN, TRIES = 0, 1, 2, 3, 4, 8, 9, 10, 11
"""Places of the random numbers of one picture; four are for colours, and two for each try of a crop."""
DRAWS = TRIES + 2 * _TRIES
"""How many random numbers one picture needs, whatever is asked for."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Regions, colours and holes of pictures.

    Attributes:
        size: side of the resulting picture, in pixels.
        shorter_side: range of the shorter side, in pixels, to which pictures are scaled before a random crop.
        random_resized_crop: range of the part of the area that is cropped and scaled.
        eval_shorter_side: shorter side in evaluation, of which the centre is taken; 0 for the whole picture.
        crop: pixels of padding around the scaled picture, out of which it is cropped again.
        flip: whether half of the pictures are mirrored.
        color_jitter: largest change of brightness, contrast, saturation and hue.
        cutout: side of the square that is painted over, in pixels.
        fill: red, green and blue of padding and holes.
    """

    size: int
    shorter_side: tuple[int, int] | None = None
    random_resized_crop: tuple[float, float] | None = None
    eval_shorter_side: int = 0
    crop: int = 0
    flip: bool = False
    color_jitter: tuple[float, float, float, float] | None = None
    cutout: int = 0
    fill: tuple[int, int, int] = (0, 0, 0)

    def pixels(self, picture: Image, draws: Sequence[float] | None) -> Pixels:
        """Bytes (size, size, 3) of a picture; without draws as evaluation sees it."""
        from PIL.Image import Resampling

        if draws is None:
            box = centre_box(picture.width, picture.height, self.size, self.eval_shorter_side)
        else:
            box = self.training_box(picture.width, picture.height, draws)
        scaled = picture.resize((self.size, self.size), Resampling.BILINEAR, box=box)
        if draws is not None and self.color_jitter is not None:
            scaled = coloured(scaled, self.color_jitter, draws)
        found: Pixels = np.asarray(scaled, dtype=np.uint8)
        return found if draws is None else self._cut(self._mirrored(self._moved(found, draws), draws), draws)

    def least_side(self, *, training: bool) -> int:
        """Pixels of the shorter side that a picture needs, so that nothing is scaled up for being decoded smaller."""
        if not training:
            return self.eval_shorter_side or self.size
        if self.random_resized_crop is not None:
            return ceil(self.size / sqrt(self.random_resized_crop[0]))
        return self.shorter_side[1] if self.shorter_side is not None else self.size

    def training_box(self, width: int, height: int, draws: Sequence[float]) -> Box:
        """Region of a picture that training sees.

        Args:
            width: of the picture, in pixels.
            height: of the picture, in pixels.
            draws: numbers in [0, 1).
        """
        if self.random_resized_crop is not None:
            return area_box(width, height, self.random_resized_crop, draws)
        if self.shorter_side is None:
            return 0, 0, width, height
        low, high = self.shorter_side
        side = self.size * min(width, height) / (low + int(draws[SCALE] * (high - low + 1)))
        return _square((width - side) * draws[LEFT], (height - side) * draws[TOP], side, width, height)

    def _moved(self, pixels: Pixels, draws: Sequence[float]) -> Pixels:
        if not self.crop:
            return pixels
        edge = 2 * self.crop + 1
        padded = np.empty((self.size + edge - 1, self.size + edge - 1, 3), dtype=np.uint8)
        padded[:] = self.fill
        padded[self.crop : self.crop + self.size, self.crop : self.crop + self.size] = pixels
        top, left = int(draws[TOP] * edge), int(draws[LEFT] * edge)
        return padded[top : top + self.size, left : left + self.size]

    def _mirrored(self, pixels: Pixels, draws: Sequence[float]) -> Pixels:
        return pixels[:, ::-1] if self.flip and draws[MIRROR] < 0.5 else pixels

    def _cut(self, pixels: Pixels, draws: Sequence[float]) -> Pixels:
        if not self.cutout:
            return pixels
        found = pixels.copy()
        rows, columns = (hole(draws[at], self.size, self.cutout) for at in (ROW, COLUMN))
        found[rows, columns] = self.fill
        return found


def augmentation_of(config: DataConfig, mean: Sequence[float]) -> Augmentation:
    """Augmentation of a run's data settings.

    Args:
        config: of the data.
        mean: of each channel in [0, 1], with which holes and padding are filled.

    Raises:
        InputError: settings that cannot be combined.
    """
    size, sides, area = config.size, config.shorter_side, config.random_resized_crop
    if not size:
        raise InputError("images that are read during training need one size; set it as in data.size = 224.")
    if sides is not None and area is not None:
        raise InputError(
            "data.shorter_side and data.random_resized_crop both say what is cropped; use one of them."
        )
    for key, found in (("shorter_side", sides), ("random_resized_crop", area)):
        if found is not None and found[0] > found[1]:
            raise InputError(f"data.{key} is a range, from low to high, but {found[0]} is above {found[1]}.")
    least = min(sides[0] if sides else size, config.eval_shorter_side or size)
    if least < size:
        key = "shorter_side" if sides and sides[0] == least else "eval_shorter_side"
        raise InputError(
            f"images scaled to a shorter side of {least} pixels hold no square of {size}; raise data.{key}, or lower "
            "data.size."
        )
    return Augmentation(
        size=size,
        shorter_side=sides,
        random_resized_crop=area,
        eval_shorter_side=config.eval_shorter_side,
        crop=config.crop,
        flip=config.flip,
        color_jitter=config.color_jitter,
        cutout=config.cutout,
        fill=tuple(round(255 * value) for value in mean),  # type: ignore[arg-type]  # three of them
    )


def decoded(content: bytes, name: Callable[[], str], least: int) -> Image:
    """An image file's content as a picture of three channels; a large JPEG is decoded at a half, quarter or eighth.

    Args:
        content: of the file.
        name: gives its name, for people.
        least: pixels of a side that must be left.

    Raises:
        InputError: it is no image, or is damaged.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content)) as file:
            file.draft("RGB", (least, least))
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        told = "its format is unknown" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(f"{name()} cannot be read as an image ({told}); remove or replace it.") from error


def centre_box(width: int, height: int, size: int, shorter_side: int) -> Box:
    """Central region of a picture after scaling; the whole picture if no shorter side is given.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        size: side of the centre, in pixels after scaling.
        shorter_side: to which the picture is scaled; 0 for none.
    """
    if not shorter_side:
        return 0, 0, width, height
    side = size * min(width, height) / shorter_side
    return _square((width - side) / 2, (height - side) / 2, side, width, height)


def area_box(width: int, height: int, area: tuple[float, float], draws: Sequence[float]) -> Box:
    """Region of a random part of the area, of a random aspect ratio from 3/4 to 4/3, in whole pixels.

    As torchvision's RandomResizedCrop has it: ten tries, then the largest centre of an allowed ratio.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        area: range of the part.
        draws: numbers in [0, 1).
    """
    for at in range(TRIES, DRAWS, 2):
        part = width * height * (area[0] + draws[at] * (area[1] - area[0]))
        ratio = exp((2 * draws[at + 1] - 1) * _ASPECT)
        w, h = round(sqrt(part * ratio)), round(sqrt(part / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(draws[LEFT] * (width - w + 1)), int(draws[TOP] * (height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def hole(draw: float, size: int, side: int) -> slice:
    """Rows, or columns, of a hole whose centre is anywhere: at the edge it is cut off.

    Args:
        draw: a number in [0, 1).
        size: of the picture, in pixels.
        side: of the hole, in pixels.
    """
    start = int(draw * size) - side // 2
    return slice(max(0, start), min(size, start + side))


def coloured(picture: Image, jitter: tuple[float, float, float, float], draws: Sequence[float]) -> Image:
    """The picture with its brightness, contrast, saturation and hue changed, in a random order.

    Args:
        picture: of three channels.
        jitter: largest relative changes, and the largest rotation of the hue as a part of the circle.
        draws: numbers in [0, 1).
    """
    from PIL import ImageEnhance

    changes = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for which in _ORDERS[int(draws[ORDER] * len(_ORDERS))]:
        most, drawn = jitter[which], draws[COLOUR + which]
        if not most:
            continue
        if which == 3:
            picture = _rotated(picture, most * (2 * drawn - 1))
        else:
            low = max(0.0, 1 - most)
            picture = changes[which](picture).enhance(low + drawn * (1 + most - low))
    return picture


def _rotated(picture: Image, turn: float) -> Image:
    """The picture with its hue rotated by a part of the circle."""
    from PIL import Image

    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point([(i + round(turn * 255)) % 256 for i in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _square(left: float, top: float, side: float, width: int, height: int) -> Box:
    """A square region, moved back into the picture if rounding put it outside."""
    return left, top, min(left + side, float(width)), min(top + side, float(height))
