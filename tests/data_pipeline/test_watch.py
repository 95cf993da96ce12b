"""What is said of a loader's activity."""

import re

from data_pipeline.watch import Activity, NotedActivity


def test_the_stage_its_sample_and_the_time_are_told() -> None:
    now = [100.0]
    activity = Activity(lambda: now[0])
    assert activity.describe(str) == "starting (0 s)"
    activity.begins("reading", 7)
    now[0] += 3
    assert activity.describe("shard-{}.tar".format) == "reading sample 7 of shard-7.tar (3 s)"
    activity.begins("packing")
    assert activity.describe(str) == "packing (0 s)"


def test_what_its_processes_do_is_told_as_well() -> None:
    activity = Activity()
    activity.share_notes(2)
    NotedActivity(activity.notes, 1).begins("transforming", 3)
    activity.begins("waiting for its processes")
    assert re.fullmatch(
        r"waiting for its processes \(0 s\); a process is starting \(0 s\); "
        r"a process is transforming sample 3 of shard-3 \(0 s\)",
        activity.describe("shard-{}".format),
    )
