"""Encoded images to tensors: any kind of file, the asked geometry, and what is no image is named."""

from __future__ import annotations

import dataclasses
import io
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from batchonnx.planning.bindings import Encoded, ImageColumn, Pixels
from batchonnx.runtime.signature import TensorSpec
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.encode import Encoder
from batchonnx.scoring.encode.blobs import Undecodable
from batchonnx.scoring.encode.pixels import decode_smaller, read_image
from tests.pixels import PLAIN

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def want(**changes: object) -> Pixels:
    return dataclasses.replace(PLAIN, **changes)  # type: ignore[arg-type]


def read_pixels(data: bytes, pixels: Pixels) -> np.ndarray:
    return read_image(data, pixels)[0]


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    values = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def column(values: pa.Array, pixels: Pixels, threads: int = 1, **binding: object) -> np.ndarray:
    """The tensor of a column's rows, in batches of two."""
    spec = TensorSpec("x", str(binding.pop("dtype", "uint8")), ("n", None, None, None))
    given = {"encoded": "bytes", "folder": "/"} | binding
    feature = ImageColumn(spec, "image", pixels=pixels, **given)  # type: ignore[arg-type]
    rows = Encoder([feature], 2, {}, threads).load(pa.record_batch({"image": values}))
    starts = range(0, len(values), 2)
    return np.concatenate([rows(i, min(i + 2, len(values)))["x"].copy() for i in starts])


class TestModes:
    """What a file holds, as the three colours (or the grey) that the model wants."""

    @pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "HSV"])
    def test_any_opaque_mode_is_what_pillow_makes_of_it(self, mode: str) -> None:
        kind = "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF" if mode == "HSV" else "PNG"
        image = noise(9, 7).convert(mode)
        if mode == "HSV":
            image = image.convert("RGB")
        data = encoded(image, kind)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(read_pixels(data, want()), expected)

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
    def test_what_is_transparent_shows_the_background(self, mode: str) -> None:
        image = Image.new("RGBA", (4, 4), (10, 10, 10, 0))
        image.putpixel((1, 2), (10, 10, 10, 255))
        image = image.convert("P") if mode == "PA" else image.convert(mode)
        found = read_pixels(encoded(image), want(background=(200, 100, 50)))
        assert found[0, 0].tolist() == [200, 100, 50]
        assert np.abs(found[2, 1].astype(int) - 10).max() <= 2

    def test_half_transparent_is_half_the_background(self) -> None:
        data = encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))
        assert read_pixels(data, want(background=(255, 255, 255)))[0, 0].tolist() == [127, 127, 127]

    def test_dropped_transparency_leaves_the_colours_beneath(self) -> None:
        data = encoded(Image.new("RGBA", (2, 2), (10, 20, 30, 0)))
        assert read_pixels(data, want(background=None))[0, 0].tolist() == [10, 20, 30]

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_16_bits_of_grey_keep_their_upper_half(self, kind: str) -> None:
        values = np.array([[0, 255, 256], [32_768, 65_280, 65_535]], np.uint16)
        found = read_pixels(encoded(Image.fromarray(values), kind), want())
        np.testing.assert_array_equal(found, np.repeat(values[:, :, None] >> 8, 3, axis=2))

    def test_one_channel_is_grey(self) -> None:
        image = noise(5, 4)
        found = read_pixels(encoded(image), want(channels="L"))
        np.testing.assert_array_equal(found[:, :, 0], np.asarray(image.convert("L")))

    def test_bgr_is_the_other_way_round(self) -> None:
        data = encoded(noise(5, 4))
        np.testing.assert_array_equal(
            read_pixels(data, want(channels="BGR")), read_pixels(data, want())[:, :, ::-1]
        )

    @pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
    def test_of_an_animation_the_first_frame_is_taken(self, kind: str) -> None:
        frames = [Image.new("RGB", (6, 6), color) for color in ("#ff0000", "#00ff00", "#0000ff")]
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, blue = read_pixels(data, want())[3, 3].astype(int).tolist()
        assert red > 240
        assert max(green, blue) < 15

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_turns_the_image_upright(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(noise(12, 7), "JPEG", exif=exif)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(read_pixels(data, want()), np.asarray(expected))
        assert read_pixels(data, want(upright=False)).shape == (7, 12, 3)


class TestGeometry:
    @settings(deadline=None)
    @given(
        width=st.integers(1, 60),
        height=st.integers(1, 60),
        size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        resize=st.sampled_from(["exact", "shortest", "letterbox", "none"]),
        edge=st.integers(1, 50),
        channels=st.sampled_from(["RGB", "L"]),
    )
    def test_whatever_comes_in_the_size_comes_out(
        self, width: int, height: int, size: tuple[int, int], resize: str, edge: int, channels: str
    ) -> None:
        pixels = want(size=size, resize=resize, edge=edge, channels=channels)
        found = read_pixels(encoded(Image.new("RGB", (width, height), "#804020")), pixels)
        assert found.shape == (*size, 3 if channels == "RGB" else 1)

    def test_exact_is_pillow_s_resize(self) -> None:
        image = noise(31, 17)
        for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"):
            found = read_pixels(encoded(image), want(size=(8, 12), resize="exact", resample=name))
            expected = np.asarray(image.resize((12, 8), Image.Resampling[name.upper()]))
            np.testing.assert_array_equal(found, expected)

    def test_shortest_keeps_proportions_and_takes_the_middle(self) -> None:
        image = noise(40, 20)
        found = read_pixels(encoded(image), want(size=(8, 8), resize="shortest", edge=10))
        expected = image.resize((20, 10), Image.Resampling.BILINEAR).crop((6, 1, 14, 9))
        np.testing.assert_array_equal(found, np.asarray(expected))

    def test_letterbox_shows_all_of_it_between_borders(self) -> None:
        found = read_pixels(
            encoded(Image.new("RGB", (40, 20), "#ffffff")),
            want(size=(16, 16), resize="letterbox", border=(114, 115, 116)),
        )
        assert (found[4:12] == 255).all()
        assert found[:4].reshape(-1, 3).tolist() == [[114, 115, 116]] * 64
        assert found[12:].reshape(-1, 3).tolist() == [[114, 115, 116]] * 64

    def test_a_draft_is_nearly_the_same_image(self) -> None:
        smooth = Image.linear_gradient("L").resize((640, 480)).convert("RGB")
        data = encoded(smooth, "JPEG", quality=95)
        pixels = want(size=(60, 80), resize="exact")
        full, draft = (read_pixels(data, dataclasses.replace(pixels, draft=on)) for on in (False, True))
        assert np.abs(full.astype(int) - draft.astype(int)).max() <= 3

    @pytest.mark.parametrize("orientation", [1, 6])
    def test_a_draft_is_never_smaller_than_what_is_wanted(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.open(io.BytesIO(encoded(noise(320, 160), "JPEG", exif=exif)))
        decode_smaller(
            image, want(size=(100, 50) if orientation == 6 else (50, 100), resize="exact", draft=True)
        )
        assert image.size == (160, 80)


class TestValues:
    @pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-6), ("float16", 2e-3), ("float64", 1e-6)])
    @pytest.mark.parametrize("channels_first", [True, False])
    def test_scaled_as_frameworks_do_it(self, dtype: str, close: float, channels_first: bool) -> None:
        image = noise(7, 5)
        factor = tuple(1 / 255 / deviation for deviation in STD)
        offset = tuple(-mean / deviation for mean, deviation in zip(MEAN, STD, strict=True))
        pixels = want(factor=factor, offset=offset, channels_first=channels_first)
        found = column(pa.array([encoded(image)]), pixels, dtype=dtype)[0]
        expected = (np.asarray(image) / 255 - np.array(MEAN)) / np.array(STD)
        assert found.dtype == np.dtype(dtype)
        expected = expected.transpose(2, 0, 1) if channels_first else expected
        np.testing.assert_allclose(found, expected, rtol=0, atol=close * 5)

    def test_whole_values_are_left_as_they_are(self) -> None:
        image = noise(7, 5)
        found = column(pa.array([encoded(image)]), want())[0]
        np.testing.assert_array_equal(found, np.asarray(image))

    @pytest.mark.parametrize("threads", [1, 4])
    def test_rows_come_in_their_order_however_many_decode(self, threads: int) -> None:
        images = [Image.new("RGB", (8, 8), (n, n, n)) for n in range(9)]
        found = column(pa.array(map(encoded, images)), want(size=(8, 8), resize="exact"), threads)
        assert found[:, 0, 0, 0].tolist() == list(range(9))

    def test_batches_of_one_size_share_their_memory(self) -> None:
        values = pa.array([encoded(noise(6, 6))] * 4)
        spec = TensorSpec("x", "uint8", ("n", 6, 6, 3))
        feature = ImageColumn(spec, "image", "bytes", "/", want(size=(6, 6), resize="exact"))
        rows = Encoder([feature], 2, {}).load(pa.record_batch({"image": values}))
        first = rows(0, 2)["x"]
        assert np.shares_memory(first, rows(2, 4)["x"])

    def test_other_threads_run_while_a_large_image_is_decoded(self) -> None:
        """Not by the clock: what waits for the interpreter gets it before the decoder is done."""
        data = encoded(noise(900, 900), "PNG")
        ran, done = threading.Event(), threading.Event()

        def other() -> None:
            while not done.is_set():
                ran.set()

        thread = threading.Thread(target=other)
        thread.start()
        try:
            ran.wait()
            ran.clear()
            read_pixels(data, want())
            assert ran.is_set()
        finally:
            done.set()
            thread.join()


BROKEN = {
    "nothing at all": (b"", "empty"),
    "text": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "a cut PNG": (encoded(noise(50, 50))[:2000], "broken image"),
    "a cut JPEG": (encoded(noise(50, 50), "JPEG")[:900], "broken image"),
    "a header alone": (encoded(noise(50, 50))[:33], "a broken one"),
    "a bomb": (encoded(Image.new("1", (20_000, 20_000))), "400000000 pixels"),
    "more pixels than allowed": (encoded(Image.new("1", (1_100, 1_000))), "1,100 x 1,000 pixels"),
    "a program": (encoded(Image.new("RGB", (8, 8)), "EPS"), "PostScript"),
    "float pixels": (encoded(Image.new("F", (3, 3)), "TIFF"), "floats"),
    "32 bits": (encoded(Image.fromarray(np.full((3, 3), 70_000, np.int32)), "TIFF"), "32 bits"),
}


class TestBadRows:
    @pytest.mark.parametrize("name", BROKEN)
    def test_what_is_no_image_is_a_bad_row_with_its_reason(self, name: str) -> None:
        data, reason = BROKEN[name]
        values = pa.array([encoded(noise(8, 8)), data, encoded(noise(8, 8))])
        with pytest.raises(BadRow) as caught:
            column(values, want(size=(8, 8), resize="exact"))
        assert (caught.value.row, caught.value.column) == (1, "image")
        assert reason in caught.value.reason

    @pytest.mark.parametrize("threads", [1, 3])
    def test_all_bad_rows_of_a_batch_are_named_at_once(self, threads: int) -> None:
        values = pa.array([b"a", encoded(noise(8, 8)), None, b""])
        feature = ImageColumn(
            TensorSpec("x", "uint8", ("n", 8, 8, 3)), "image", "bytes", "/", want(size=(8, 8), resize="exact")
        )
        rows = Encoder([feature], 4, {}, threads).load(pa.record_batch({"image": values}))
        with pytest.raises(BadRow) as caught:
            rows(0, 4)
        assert [(one.row, one.reason.split(":")[0]) for one in caught.value.each()] == [
            (0, "not an image, or a broken one"),
            (2, "null, a file is wanted"),
            (3, "no bytes"),
        ]

    @settings(deadline=None)
    @given(st.binary(min_size=1, max_size=200), st.integers(0, 400))
    def test_bytes_that_were_changed_anywhere_never_raise_anything_else(self, junk: bytes, at: int) -> None:
        data = bytearray(encoded(noise(20, 20), "GIF"))
        data[at : at + len(junk)] = junk
        with suppress(Undecodable):
            assert read_pixels(bytes(data), want(size=(4, 4), resize="exact")).shape == (4, 4, 3)


class TestSources:
    """Bytes in the table, paths beside it, or both."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "one.png").write_bytes(encoded(Image.new("RGB", (4, 4), (1, 1, 1))))
        (tmp_path / "empty.png").touch()
        return tmp_path

    def load(self, values: pa.Array, source: Encoded, folder: str) -> list[int]:
        return column(values, want(), encoded=source, folder=folder)[:, 0, 0, 0].tolist()

    def test_paths_count_from_the_folder(self, folder: Path) -> None:
        values = pa.array(["one.png", str(folder / "one.png"), f"file://{folder}/one.png"])
        assert self.load(values, "paths", str(folder)) == [1, 1, 1]

    def test_paths_may_be_a_dictionary(self, folder: Path) -> None:
        assert self.load(pa.array(["one.png"] * 3).dictionary_encode(), "paths", str(folder)) == [1, 1, 1]

    def test_paths_of_any_fsspec_store(self) -> None:
        import fsspec

        with fsspec.open("memory://images/two.png", "wb") as file:
            file.write(encoded(Image.new("RGB", (4, 4), (2, 2, 2))))
        assert self.load(pa.array(["memory://images/two.png"]), "paths", "/") == [2]
        assert self.load(pa.array(["two.png"]), "paths", "memory://images") == [2]

    def test_a_struct_has_bytes_or_else_a_path(self, folder: Path) -> None:
        rows = [
            {"bytes": encoded(Image.new("RGB", (4, 4), (3, 3, 3))), "path": "one.png"},
            {"bytes": None, "path": "one.png"},
        ]
        assert self.load(pa.array(rows), "struct", str(folder)) == [3, 1]

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("missing.png", "no such file"),
            ("empty.png", "an empty file"),
            ("", "an empty path"),
            (".", "no such file"),
            ("nothing://x/y", "unknown scheme"),
            ("memory://images/missing.png", "no such file"),
            (None, "null"),
        ],
    )
    def test_a_path_to_nothing_is_a_bad_row(self, folder: Path, path: str | None, reason: str) -> None:
        with pytest.raises(BadRow) as caught:
            self.load(pa.array([path], pa.string()), "paths", str(folder))
        assert reason in caught.value.reason
