"""What a person sees where there is no terminal."""

import pytest

from memo.training.progress import Display

ROW = {
    "step": 20,
    "step_s": 2.0,
    "loss": 9.0,
    "loss/wwmlm": 3.14159,
    "metric/wwmlm": 0.5,
    "tokens_per_s": 12345.6,
    "data_wait": 0.034,
}


def test_a_row_is_a_line_with_losses_speed_and_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Display("run", steps=100, done=10, shown=True) as display:
        display.step(20)
        display.log(ROW)
        display.validation({"step": 20, "valid/loss": 1.0, "valid/metric/wwmlm": 0.25})
    row, valid = capsys.readouterr().out.splitlines()
    assert row == "step 20/100 wwmlm 3.142  12,346 tokens/s  data wait 3%  2:40 left"
    assert valid == "step 20 validation: wwmlm 0.250"


@pytest.mark.parametrize(("step_s", "left"), [(0.1, "0:08"), (45.0, "1:00:00"), (900, "20:00:00")])
def test_time_left(step_s: float, left: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Display("run", steps=100, done=10, shown=True) as display:
        display.log(ROW | {"step_s": step_s})
    assert capsys.readouterr().out.endswith(f"  {left} left\n")


def test_keys_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("run", steps=100, done=0, shown=True) as display:
        display.say("skipped: clip[/x] and [b]c")
    assert capsys.readouterr().out == "skipped: clip[/x] and [b]c\n"


def test_other_ranks_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("run", steps=100, done=0, shown=False) as display:
        display.say("a line")
        display.log(ROW)
    assert capsys.readouterr() == ("", "")
