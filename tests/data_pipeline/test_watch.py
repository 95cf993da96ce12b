"""What is said of a loader's activity."""

from data_pipeline.watch import Activity


def test_the_stage_its_sample_and_the_time_are_told() -> None:
    now = [100.0]
    activity = Activity(lambda: now[0])
    assert activity.describe(str) == "starting (0 s)"
    activity.begins("reading", 7)
    now[0] += 3
    assert activity.describe("shard-{}.tar".format) == "reading sample 7 of shard-7.tar (3 s)"
    activity.begins("packing")
    assert activity.describe(str) == "packing (0 s)"
