"""Who gets which shard: everything is done, whatever dies, sleeps or goes on for too long."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from batchonnx.engines.ray.handout import COPIES, DEEP, DEEPEST, HOPELESS, SUSPECT, HandOut, depth, turn_s
from batchonnx.planning.shards import Shard


def shards(*sizes: int) -> list[Shard]:
    return [Shard(number, (), None, size) for number, size in enumerate(sizes)]


def test_the_largest_shards_go_first_and_each_worker_has_the_next_one_already() -> None:
    hand = HandOut(shards(*range(1, 9)), ())
    assert hand.give("a", 0.0, 2, 0.0) == [7, 6]
    assert hand.give("b", 0.0, 2, 0.0) == [5, 4]
    assert hand.give("a", 0.0, 2, 0.0) == []


def test_the_last_shards_are_not_hoarded() -> None:
    hand = HandOut(shards(1, 1, 1), ())
    assert [len(hand.give(worker, 0.0, 3, 0.0)) for worker in "abc"] == [1, 1, 1]


def test_shards_that_take_no_time_are_handed_out_many_at_once() -> None:
    assert depth(1_000, 4, 0.1) == DEEP
    assert depth(1_000, 4, 20.0) == DEEP + 10
    assert depth(100_000, 4, 1e6) == DEEPEST


def test_the_driver_is_asked_as_often_by_sixty_workers_as_by_six() -> None:
    assert [workers / turn_s(workers) for workers in (1, 6, 60)] == [2.0, 8.0, 8.0]
    assert depth(1_000, 56, 1.0) == DEEP + 7


def test_once_it_is_closed_what_is_at_workers_is_the_last() -> None:
    hand = HandOut(shards(4, 3, 2, 1), ())
    assert hand.give("a", 0.0, 2, 0.0) == [0, 1]
    hand.close()
    assert hand.give("b", 0.0, 2, 0.0) == []
    assert not hand.is_needed(1)
    assert not hand.is_drained
    hand.commit("a", 0, 1.0)
    hand.lose("a")
    assert hand.is_drained
    assert hand.left == 3


def test_shards_that_saw_processes_die_come_last() -> None:
    hand = HandOut(shards(1, 2, 9), {2})
    assert hand.give("a", 0.0, 1, 0.0) == [1, 0]
    hand.commit("a", 1, 1.0)
    hand.commit("a", 0, 1.0)
    assert hand.give("a", 1.0, 1, 0.0) == [2]
    assert hand.suspects == {2}


def test_only_the_shard_that_a_worker_was_at_is_blamed_for_its_death() -> None:
    hand = HandOut(shards(4, 3, 2, 1), ())
    hand.give("a", 0.0, 1, 0.0)
    hand.lose("a")
    assert dict(hand.deaths) == {0: 1}
    assert hand.give("b", 0.0, 1, 0.0) == [0, 1]


def test_a_shard_over_which_two_workers_died_is_a_suspect_and_after_five_there_is_no_hope() -> None:
    hand = HandOut(shards(1), ())
    for death in range(1, HOPELESS + 1):
        worker = f"w{death}"
        assert hand.give(worker, 0.0, 1, 0.0) == [0]
        hand.lose(worker)
        assert (0 in hand.suspects) == (death >= SUSPECT)
        assert hand.hopeless == (0 if death == HOPELESS else None)


def test_what_a_silent_worker_has_goes_to_others_and_the_first_commit_counts() -> None:
    hand = HandOut(shards(2, 1), ())
    assert hand.give("a", 0.0, 1, 0.0) == [0, 1]
    hand.mistrust("a")
    assert hand.give("b", 20.0, 1, 0.0) == [0, 1]
    assert hand.commit("b", 0, 21.0)
    assert not hand.commit("a", 0, 22.0)
    assert hand.left == 1


def test_an_idle_worker_is_given_a_shard_that_takes_too_long() -> None:
    hand = HandOut(shards(3, 2, 1), ())
    assert [hand.give(worker, 0.0, 3, 0.0) for worker in "abc"] == [[0], [1], [2]]
    assert hand.commit("b", 1, 10.0)
    assert hand.commit("c", 2, 10.0)
    assert hand.give("b", 15.0, 3, 0.0) == []
    assert hand.give("b", 21.0, 3, 0.0) == [0]
    assert hand.give("c", 22.0, 3, 0.0) == []
    assert hand.copied == 1


def test_of_the_last_shards_each_keeps_a_second_worker_in_reserve() -> None:
    hand = HandOut(shards(3, 2), ())
    assert hand.give("a", 0.0, 2, 0.0) == [0]
    assert hand.give("b", 0.0, 2, 0.0) == [1]
    assert hand.is_needed(3)
    assert not hand.is_needed(4)
    hand.commit("a", 0, 1.0)
    assert hand.is_needed(1)
    assert not hand.is_needed(2)


def test_what_is_given_back_goes_to_the_next_and_nobody_is_blamed() -> None:
    hand = HandOut(shards(3, 2, 1), ())
    hand.give("a", 0.0, 1, 0.0)
    hand.give_back("a", [1])
    hand.leave("a")
    assert hand.give("b", 0.0, 1, 0.0) == [0, 1]
    assert not hand.deaths


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["give", "give", "commit", "commit", "lose", "leave", "mistrust", "give back"]),
        st.sampled_from("abcd"),
        st.floats(0, 100),
    ),
    max_size=80,
)


@settings(deadline=None)
@given(st.integers(0, 20), EVENTS)
def test_no_shard_is_lost_or_counted_twice_or_held_by_too_many(count: int, events: list) -> None:
    hand = HandOut(shards(*range(count)), ())
    done: list[int] = []
    now = 0.0
    for what, worker, wait in events:
        now += wait
        held = [one.shard for one in hand.held(worker)]
        if what == "give":
            hand.give(worker, now, 4, 0.0)
        elif what == "commit" and held:
            if hand.commit(worker, held[0], now):
                done.append(held[0])
        elif what == "give back":
            hand.give_back(worker, held[1:])
        elif what == "lose":
            hand.lose(worker)
        elif what == "leave":
            hand.leave(worker)
        elif what == "mistrust":
            hand.mistrust(worker)
        everywhere = [one.shard for other in "abcd" for one in hand.held(other)]
        assert all(everywhere.count(shard) <= COPIES for shard in everywhere)
        assert all(len({one.shard for one in hand.held(w)}) == len(hand.held(w)) for w in "abcd")
    for worker in "abcd":
        hand.leave(worker)
    while hand.left:
        given_now = hand.give("e", now, 1, 0.0)
        assert given_now
        done += [shard for shard in given_now if hand.commit("e", shard, now)]
    assert sorted(done) == list(range(count))
