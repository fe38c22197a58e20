"""Encoded sounds to tensors: any rate and length, windows, and what is no sound is named."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from batchonnx.planning.bindings import AudioColumn, RowShape, Sound
from batchonnx.runtime.signature import TensorSpec
from batchonnx.scoring.chunk import BadRow
from batchonnx.scoring.encode import Encoder
from batchonnx.scoring.encode.sound import cut, read_samples, windows

RATE = 8_000
PLAIN = Sound(
    rate=RATE,
    samples=None,
    window=None,
    hop=0,
    context=0,
    first_channel=False,
    normalize=False,
    max_seconds=60,
)


def want(**changes: object) -> Sound:
    return dataclasses.replace(PLAIN, **changes)  # type: ignore[arg-type]


def tone(samples: int, hertz: float = 440, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(np.arange(samples) * 2 * np.pi * hertz / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def rows(values: list[bytes | None], sound: Sound, shape: RowShape = (None,)) -> np.ndarray:
    spec = TensorSpec("x", "float32", ("n", *shape))
    feature = AudioColumn(spec, "sound", "bytes", "/", sound, shape)
    chunk = pa.record_batch({"sound": pa.array(values, pa.binary())})
    return Encoder([feature], 8, {}).load(chunk)(0, len(values))["x"]


class TestSamples:
    def test_samples_are_as_they_were_written(self) -> None:
        np.testing.assert_array_equal(read_samples(encoded(tone(1_000)), want()), tone(1_000))

    @pytest.mark.parametrize(
        ("kind", "subtype", "close"),
        [
            ("FLAC", None, 1e-4),
            ("OGG", None, 0.05),
            ("AIFF", "PCM_24", 1e-6),
            ("WAV", "ULAW", 0.03),
            ("MP3", None, 0.05),
        ],
    )
    def test_formats_differ_by_no_more_than_they_lose(
        self, kind: str, subtype: str | None, close: float
    ) -> None:
        samples = tone(4_000)
        found = read_samples(encoded(samples, kind=kind, subtype=subtype), want())
        assert abs(len(found) - len(samples)) <= 1_200  # MP3 fills up whole frames
        assert np.sqrt(np.mean(found**2)) == pytest.approx(np.sqrt(np.mean(samples**2)), abs=close + 0.02)

    @pytest.mark.parametrize("rate", [4_000, 11_025, 16_000, 44_100, 48_000])
    def test_a_tone_of_another_rate_is_the_same_tone(self, rate: int) -> None:
        found = read_samples(encoded(tone(rate, rate=rate), rate), want())
        assert abs(len(found) - RATE) <= 1
        middle = slice(500, len(found) - 500)
        np.testing.assert_allclose(found[middle], tone(len(found))[middle], rtol=0, atol=1e-3)

    def test_channels_become_their_mean_or_the_first(self) -> None:
        both = np.stack([tone(100), np.zeros(100, np.float32)], axis=1)
        np.testing.assert_allclose(read_samples(encoded(both), want()), tone(100) / 2, atol=1e-7)
        np.testing.assert_array_equal(read_samples(encoded(both), want(first_channel=True)), tone(100))

    def test_a_normalized_sound_has_mean_0_and_variance_1(self) -> None:
        found = read_samples(encoded(tone(8_000) * 0.1 + 0.3), want(normalize=True))
        assert found.mean() == pytest.approx(0, abs=1e-4)
        assert found.var() == pytest.approx(1, abs=1e-3)

    def test_so_many_samples_are_cut_or_filled_up_with_silence(self) -> None:
        assert cut(tone(5), 3).tolist() == tone(3).tolist()
        assert cut(tone(3), 5).tolist() == [*tone(3).tolist(), 0, 0]


class TestWindows:
    @settings(deadline=None)
    @given(
        length=st.integers(1, 200),
        window=st.integers(1, 40),
        hop=st.integers(1, 50),
        context=st.integers(0, 20),
    )
    def test_windows_hold_each_sample_where_it_belongs(
        self, length: int, window: int, hop: int, context: int
    ) -> None:
        samples = np.arange(1, length + 1, dtype=np.float32)
        found = windows(samples, want(window=window, hop=hop, context=context))
        assert found.shape[1] == context + window
        last = (len(found) - 1) * hop
        assert last + window >= length, "nothing is left out at the end"
        assert len(found) == 1 or last - hop + window < length, "no window too many"
        for number, one in enumerate(found):
            begin = number * hop - context
            expected = [
                samples[at] if 0 <= at < length else 0 for at in range(begin, begin + context + window)
            ]
            assert one.tolist() == expected

    def test_each_row_has_its_own_windows(self) -> None:
        found = rows([encoded(tone(n)) for n in (10, 25)], want(window=10, hop=10, context=2))
        assert [one.shape for one in found] == [(1, 12), (3, 12)]

    def test_a_model_that_wants_a_channel_gets_one(self) -> None:
        found = rows([encoded(tone(25))], want(window=10, hop=10), (1, 10))
        assert found[0].shape == (3, 1, 10)
        assert rows([encoded(tone(25))], want(samples=30), (1, 30)).shape == (1, 1, 30)


BROKEN = {
    "null": (None, "null, a file is wanted"),
    "no bytes": (b"", "no bytes"),
    "text": (b"this is no sound, whatever it may say", "no sound that can be decoded"),
    "a cut one": (encoded(tone(20))[:40], "no sound that can be decoded: Error in WAV file"),
    "zero length": (encoded(np.zeros(0, np.float32)), "a sound of no length"),
    "too long": (encoded(np.zeros(100, np.float32), 1), "100.0 s, at most 60 s"),
    "not a number": (encoded(np.array([0, np.nan], np.float32)), "samples that are no numbers"),
}


class TestBadRows:
    @pytest.mark.parametrize("name", BROKEN)
    def test_what_is_no_sound_is_a_bad_row_with_its_reason(self, name: str) -> None:
        data, reason = BROKEN[name]
        with pytest.raises(BadRow) as caught:
            rows([encoded(tone(20)), data], want(samples=20), (20,))
        (found,) = caught.value.each()
        assert (found.row, found.column) == (1, "sound")
        assert found.reason.startswith(reason)

    def test_a_sound_that_is_too_short_for_the_rate_is_a_bad_row(self) -> None:
        with pytest.raises(BadRow, match="a sound of no length at 10 Hz"):
            rows([encoded(np.zeros(1, np.float32), 48_000)], want(samples=20, rate=10), (20,))

    def test_a_sound_of_another_length_than_the_model_s_is_not_cut_silently(self) -> None:
        with pytest.raises(BadRow, match=r"30 samples, the model takes 20: audio\.samples would cut it"):
            rows([encoded(tone(20)), encoded(tone(30))], want(), (20,))
