"""The search ends near the best setting, within its time, whatever the speeds."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from batchonnx.rehearsal.tune.search import search
from batchonnx.rehearsal.tune.settings import Setting

NOISE = 0.02


def grid_of(count: int) -> list[Setting]:
    return [Setting(workers=1, threads=1, batch_rows=number + 1) for number in range(count)]


@given(
    # A row takes no share of the time that counts: it is the least that can be tried.
    speeds=st.lists(st.floats(1e2, 1e8), min_size=1, max_size=20),
    guess=st.floats(0.1, 10.0),
    now=st.integers(0, 19),
    budget_s=st.floats(3.0, 300.0),
    seed=st.integers(0, 1000),
)
def test_the_best_is_found_within_the_noise_and_within_the_time(
    speeds: list[float], guess: float, now: int, budget_s: float, seed: int
) -> None:
    settings = grid_of(len(speeds))
    rates = dict(zip(settings, speeds, strict=True))
    given_setting = settings[now % len(settings)]
    draw, spent = Random(seed), 0.0

    def measure(setting: Setting, rows: int, most_s: float) -> float:
        nonlocal spent
        spent += min(rows / rates[setting], most_s)
        return rates[setting] * draw.uniform(1 - NOISE, 1 + NOISE)

    first = max(speeds) * guess
    found = search(settings, given_setting, first, budget_s, (1, 10**12), measure)
    assert rates[found[0].setting] >= 0.9 * max(speeds)
    assert {one.setting for one in found} == {*settings}
    # A wrong guess and slow settings cost more than their share, but no setting more than LATE times it.
    assert spent <= 2.6 * budget_s


def test_what_the_job_has_stays_unless_another_is_clearly_faster() -> None:
    slow, same, now = grid_of(3)
    rates = {slow: 50.0, same: 101.0, now: 100.0}
    found = search(
        [slow, same, now], now, 100.0, 9.0, (1, 10_000), lambda setting, rows, most_s: rates[setting]
    )
    assert [one.setting for one in found] == [now, same, slow]
    rates[same] = 110.0
    found = search(
        [slow, same, now], now, 100.0, 9.0, (1, 10_000), lambda setting, rows, most_s: rates[setting]
    )
    assert found[0].setting == same
