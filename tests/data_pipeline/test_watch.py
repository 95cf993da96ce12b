"""What is said of a loader's activity."""

import re
from threading import Event, Thread

from data_pipeline.watch import NOTE, Activity, NotedActivity, Task, Work


def shard_of(sample: int) -> str:
    return "a.tar" if sample < 10 else "b.tar"


def test_the_stage_or_the_work_in_it_is_told_with_the_time() -> None:
    now = [100.0]
    activity = Activity(lambda: now[0])
    assert activity.describe(shard_of) == "starting (0 s)"
    activity.begins("making")
    now[0] += 3
    assert activity.describe(shard_of) == "making (3 s)"
    with activity.on("reading", 7):
        now[0] += 2
        assert activity.describe(shard_of) == "reading sample 7 of a.tar (2 s)"
    fetching = Task("fetching b.tar", 95.0)
    assert activity.describe(shard_of, fetching) == "making (5 s); fetching b.tar (10 s)"


def test_of_several_threads_the_one_that_began_first_is_told() -> None:
    work = Work()
    begun, go_on = Event(), Event()

    def stuck() -> None:
        with work.on("reading", 1):
            begun.set()
            assert go_on.wait(60)

    thread = Thread(target=stuck)
    with work.on("reading", 0):
        thread.start()
        assert begun.wait(60)
    with work.on("reading", 2):
        oldest = work.oldest()
    assert oldest is not None
    assert oldest.sample == 1
    go_on.set()
    thread.join()
    assert work.oldest() is None


def test_what_its_processes_do_is_told_as_well() -> None:
    activity = Activity()
    activity.share_notes(3)
    processes = [NotedActivity(activity.notes, number) for number in range(3)]
    activity.begins("waiting for its processes")
    with processes[1].on("transforming", 13), processes[2].on("reading", 4):
        processes[2].begins("packing")
        assert re.fullmatch(
            r"waiting for its processes \(\d{1,2} s\); a process is starting \(\d{1,2} s\); "
            r"a process is transforming sample 13 of b\.tar \(\d{1,2} s\); "
            r"a process is packing \(\d{1,2} s\)",
            activity.describe(shard_of),
        )
    processes[0].begins("x" + "é" * NOTE["what"].itemsize)
    assert "xéé" in activity.describe(shard_of)
