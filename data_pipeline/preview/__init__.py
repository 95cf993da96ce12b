"""What a dataset holds, to be looked at: all of it in numbers, and a few of its clips."""
