"""How far a loop is, where there is no terminal: a plain line a minute."""

from sgmse.common import progress as module
from sgmse.common.progress import progress, track


def test_there_is_a_plain_line_a_minute_and_none_for_short_work(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for _ in track(range(150), 150, "scoring"):
        now[0] += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "scoring: 60 of 150 files, 1 files/s, end in 0:01:30",
        "scoring: 120 of 150 files, 1 files/s, end in 0:00:30",
    ]
    list(track(range(5), 5, "scoring"))
    assert capsys.readouterr().err == ""


def test_what_was_there_before_does_not_count_for_the_rate(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress(4_000_000, "a.zip", "B", first=2_000_000) as counter:
        now[0] = 100.0
        counter.update(1_000_000)
    assert capsys.readouterr().err == "a.zip: 3.00MB of 4.00MB, 10.0kB/s, end in 0:01:40\n"
