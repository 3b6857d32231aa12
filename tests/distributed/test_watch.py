"""Who is lost and who failed, as told from what a process has heard, and when by its own clock."""

import pytest

from sdd import watch

LOST_AFTER = 10.0


def seen(answered=100.0, failed=None, **beats):
    """``process=(beat, when it was new)``; names begin with a letter: p0, p1, ..."""
    return watch._Seen([answered], {int(p[1:]): beat for p, beat in beats.items()}, dict(failed or {}))


def verdict(heard, now):
    return watch.verdict(heard, now, LOST_AFTER)


def test_all_is_well_until_the_time_is_over():
    heard = seen(p1=("b 7", 100.0), p2=("c 7", 95.0))
    assert verdict(heard, 104.9) is None
    assert verdict(heard, 105.1) is not None


def test_one_is_lost():
    code, line = verdict(seen(answered=111.0, p1=("host-b 7", 100.0), p2=("host-c 9", 110.0)), 111.5)
    assert code == watch.LOST == 76
    assert "nothing was heard of process 1 (host-b) for 12 s" in line or "for 11 s" in line
    assert "process 2" not in line and "the same command goes on" in line and "\n" not in line


def test_several_are_lost_and_all_are_named():
    heard = seen(answered=120.0, p1=("b 7", 100.0), p2=("c 9", 119.0), p3=("d 2", 105.0))
    code, line = verdict(heard, 121.0)
    assert code == watch.LOST
    assert "process 1 (b), process 3 (d)" in line and "for 21 s" in line and "process 2" not in line


def test_one_that_was_never_heard_of_is_named_without_a_host():
    code, line = verdict(seen(answered=120.0, p1=("", 100.0)), 121.0)
    assert code == watch.LOST and "nothing was heard of process 1 for" in line and "()" not in line


def test_a_silent_coordinator_is_blamed_and_not_those_it_tells_of():
    heard = seen(answered=100.0, p0=("a 7", 100.0), p1=("b 7", 100.0), p2=("c 7", 100.0))
    code, line = verdict(heard, 111.0)
    assert code == watch.LOST
    assert "process 0 (a), which coordinates, has not answered for 11 s" in line and "process 1" not in line


def test_the_coordinator_is_named_as_such_also_if_its_last_answer_is_newer_than_its_last_beat():
    code, line = verdict(seen(answered=101.0, p0=("a 7", 100.0), p1=("b 7", 101.0)), 110.5)
    assert code == watch.LOST and "process 0 (a), which coordinates, has not answered for 10 s" in line


def test_the_coordinator_itself_may_get_no_answer():
    code, line = verdict(seen(answered=100.0, p1=("b 7", 111.0)), 111.0)
    assert code == watch.LOST and "process 0, which coordinates" in line


def test_a_failed_process_gives_its_code_and_what_it_said():
    heard = seen(answered=100.0, failed={2: "2 config.x=1: valid: 2 or 3"}, p1=("b 7", 1.0), p2=("c 9", 1.0))
    code, line = verdict(heard, 100.0)  # that both are silent as well is no news
    assert code == 2
    assert line == "process 2 (c) failed: config.x=1: valid: 2 or 3; this process ends too"


@pytest.fixture
def service(monkeypatch):
    """What the coordination service holds, as a dict, and this process's clock, as a list of one."""
    held: dict[str, str] = {}
    clock = [0.0]

    class Client:
        def key_value_dir_get(self, folder):
            return [(key, value) for key, value in held.items() if key.startswith(folder)]

    monkeypatch.setattr(watch, "client", Client)
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
    return held, clock


def test_a_beat_counts_from_when_it_was_first_seen_by_the_own_clock(service):
    held, clock = service
    heard = seen(answered=0.0, p1=("", 0.0), p2=("", 0.0))
    for tick in range(30):
        clock[0] = float(tick)
        # Numbers that go down, stay or jump, as from a clock that is wrong: only that they change counts.
        held["sdd/beat/1"] = f"b {1000 - 7 * tick}"
        held["sdd/beat/2"] = f"c {tick if tick < 5 else 10**9}"
        watch.listen(heard)
        found = verdict(heard, clock[0])
        if tick <= 15:  # process 2 was new at tick 5 for the last time
            assert found is None, tick
        else:
            assert found is not None and "process 2 (c)" in found[1] and "process 1" not in found[1], tick
    assert heard.answered == [29.0] and heard.beats[1] == ("b 797", 29.0) and heard.beats[2][1] == 5.0


def test_own_words_are_not_news(service):
    held, _ = service
    held |= {"sdd/beat/0": "a 1", "sdd/failed/0": "1 mine", "sdd/beat/1": "b 1"}
    heard = seen(p1=("", 0.0))
    watch.listen(heard)
    assert set(heard.beats) == {1} and not heard.failed
    held["sdd/failed/1"] = "70 not finite: 3 updates"
    watch.listen(heard)
    assert verdict(heard, 0.0) == (70, "process 1 (b) failed: not finite: 3 updates; this process ends too")


def test_hosts(service):
    held, _ = service
    held |= {"sdd/beat/0": "node-a 17", "sdd/beat/11": "node-b 3"}
    assert watch.hosts() == {0: "node-a", 11: "node-b"}
