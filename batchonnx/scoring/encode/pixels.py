"""One image: from encoded bytes to the values of its pixels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from math import ceil

import numpy as np
from PIL import Image, UnidentifiedImageError

from batchonnx.planning.bindings import Pixels
from batchonnx.scoring.encode.blobs import Undecodable
from batchonnx.scoring.frames import Frame

# We refuse by `max_pixels` before anything is decoded; Pillow's own word about it would be a second one. Of
# metadata that is broken it tells once more for each image, and reads on.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_FILTERS: Mapping[str, Image.Resampling] = {name.name.lower(): name for name in Image.Resampling}

_ORIENTATION = 0x0112
_UPRIGHT: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what turns the image upright."""

_LYING = (5, 6, 7, 8)
"""Orientations whose height is the stored width."""

_FROM_RIGHT, _FROM_BELOW = (2, 3, 6, 7), (3, 4, 7, 8)
"""Orientations whose left, or upper, side is where the file's rows, or columns, end."""


def read_image(data: memoryview | bytes, want: Pixels) -> tuple[np.ndarray, Frame]:
    """uint8[h, w, c] of one image, the first of an animation, resized as asked, and where it lies there.

    Other threads run meanwhile.

    Raises Undecodable with the reason.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            return _prepared(image, want)
    except (Undecodable, MemoryError):
        raise
    except UnidentifiedImageError:
        raise Undecodable(f"not an image, or a broken one: it begins with {bytes(data[:16])!r}") from None
    except Image.DecompressionBombError as error:
        raise Undecodable(f"too many pixels to be decoded: {error}") from None
    except Exception as error:  # of a broken file: its decoder's own class, whichever that is
        raise Undecodable(f"a broken image: {str(error) or type(error).__name__}"[:300]) from None


def _prepared(image: Image.Image, want: Pixels) -> tuple[np.ndarray, Frame]:
    if image.format == "EPS":
        raise Undecodable("PostScript: a program that would have to be run, no image")
    width, height = image.size
    if width * height > want.max_pixels:
        what = f"{width:,} x {height:,} pixels, at most {want.max_pixels:,} are decoded"
        raise Undecodable(f"{what} (max_pixels)")
    share = decode_smaller(image, want) if want.draft and image.format == "JPEG" else 1.0
    image.load()
    turned = _orientation(image) if want.upright else 1
    picture = _as_channels(image, want)
    if turned in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[turned])
    resized = _resize(picture, want)
    scale = share * resized.width / picture.width, share * resized.height / picture.height
    framed, (left, top) = _cut(resized, want)
    if turned in _LYING:
        width, height = height, width
    # What a draft stands for beyond the image's end is in front of it where it was turned round.
    ahead = picture.width / share - width, picture.height / share - height
    corner = (
        left - ahead[0] * scale[0] * (turned in _FROM_RIGHT),
        top - ahead[1] * scale[1] * (turned in _FROM_BELOW),
    )
    frame = Frame((width, height), framed.size, scale, corner)
    values = np.asarray(framed)
    if want.channels == "BGR":
        values = values[:, :, ::-1]
    return values if values.ndim == 3 else values[:, :, None], frame


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF that can't be read says nothing; every viewer shows such an image
        return 1


def decode_smaller(image: Image.Image, want: Pixels) -> float:
    """Have JPEG decode at a fraction of its size that is no smaller than what is wanted: which one.

    The last pixel of a row may then stand for fewer than the others, so that no quotient of sizes tells.
    """
    upright = want.upright and _orientation(image) in _LYING
    width, height = image.size if not upright else image.size[::-1]
    to_width, to_height = _resized(width, height, want)
    share = max(to_width / width, to_height / height)
    if share >= 1:
        return 1.0
    stored = image.size[0]
    drafted = image.draft(None, (ceil(stored * share), ceil(image.size[1] * share)))
    return drafted[1][2] / stored if drafted is not None else 1.0


def _as_channels(image: Image.Image, want: Pixels) -> Image.Image:
    """The image in RGB or L, whatever it was: transparency laid on the background, 16 bits as 8."""
    mode = "L" if want.channels == "L" else "RGB"
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    if image.mode == "F":
        raise Undecodable("pixels are floats: nothing tells which is white")
    if want.background is not None and image.has_transparency_data:
        base = Image.new("RGBA", image.size, (*want.background, 255))
        base.alpha_composite(image.convert("RGBA"))
        image = base
    elif image.mode == "P":
        image = image.convert(
            "RGBA" if image.has_transparency_data else "RGB"
        )  # Pillow warns of the way at once
    return image if image.mode == mode else image.convert(mode)


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Grey in 16 bits: the upper 8, as Pillow does it for colours."""
    values = np.asarray(image)
    if image.mode == "I" and values.size and not 0 <= values.min() <= values.max() <= 65_535:
        raise Undecodable("pixels have 32 bits: nothing tells which is white")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _resized(width: int, height: int, want: Pixels) -> tuple[int, int]:
    """Width and height that the image is resized to."""
    if want.resize == "none":
        return width, height
    if want.resize == "shortest":
        assert want.edge is not None
        short = min(width, height)
        return int(want.edge * width / short), int(want.edge * height / short)
    assert want.size is not None
    to_height, to_width = want.size
    if want.resize == "exact":
        return to_width, to_height
    share = min(to_width / width, to_height / height)
    return max(1, round(width * share)), max(1, round(height * share))


def _resize(picture: Image.Image, want: Pixels) -> Image.Image:
    size = _resized(*picture.size, want)
    if size[0] * size[1] > want.max_pixels:
        raise Undecodable(
            f"{size[0]:,} x {size[1]:,} pixels once resized, at most {want.max_pixels:,} (max_pixels)"
        )
    return picture.resize(size, _FILTERS[want.resample]) if size != picture.size else picture


def _cut(picture: Image.Image, want: Pixels) -> tuple[Image.Image, tuple[int, int]]:
    """Cut or filled up to the size, around the middle, and where in the picture its upper left corner is."""
    if want.size is None or picture.size == want.size[::-1]:
        return picture, (0, 0)
    to_height, to_width = want.size
    left, top = (picture.width - to_width) // 2, (picture.height - to_height) // 2
    if left >= 0 and top >= 0:
        return picture.crop((left, top, left + to_width, top + to_height)), (left, top)
    border = want.border if picture.mode == "RGB" else round(np.dot(want.border, (0.299, 0.587, 0.114)))
    frame = Image.new(picture.mode, (to_width, to_height), border)
    frame.paste(picture, (-left, -top))
    return frame, (left, top)
