"""What is said of a loader's activity."""

import re
from contextlib import ExitStack
from threading import Event, Thread

from data_pipeline.watch import NOTE, Activity, NotedActivity, Task, Work


def test_the_stage_or_the_work_in_it_is_told_with_the_time() -> None:
    now = [100.0]
    activity = Activity(lambda: now[0])
    assert activity.describe() == "starting (0 s)"
    activity.begins("making")
    now[0] += 3
    assert activity.describe() == "making (3 s)"
    with activity.on("reading sample 7 of a.tar"):
        now[0] += 2
        assert activity.describe() == "reading sample 7 of a.tar (2 s)"
    assert activity.describe(Task("fetching b.tar", 95.0)) == "making (5 s); fetching b.tar (10 s)"


def test_of_several_threads_the_one_that_began_first_is_told() -> None:
    work = Work()
    begun, go_on = Event(), Event()

    def stuck() -> None:
        with work.on("reading sample 1"):
            begun.set()
            assert go_on.wait(10)

    thread = Thread(target=stuck)
    with work.on("reading sample 0"):
        thread.start()
        assert begun.wait(10)
    with work.on("reading sample 2"):
        oldest = work.oldest()
    assert oldest is not None
    assert oldest.what == "reading sample 1"
    go_on.set()
    thread.join()
    assert work.oldest() is None


def test_what_its_processes_do_is_told_as_well() -> None:
    activity = Activity()
    activity.share_notes(3)
    processes = [NotedActivity(activity.notes, number) for number in range(3)]
    activity.begins("waiting for its processes")
    with ExitStack() as stack:
        for what in ("transforming sample 3", "é" * NOTE["what"].itemsize):
            stack.enter_context(processes[1].on(what))
        with processes[2].on("reading sample 4"):
            pass
        processes[2].begins("packing")
        assert re.fullmatch(
            r"waiting for its processes \(0 s\); a process is starting \(0 s\); "
            r"a process is transforming sample 3 \(0 s\); a process is packing \(0 s\)",
            activity.describe(),
        )
    with processes[0].on("x" + "é" * NOTE["what"].itemsize):
        assert "xéé" in activity.describe()
