"""Reading settings: what wins over what, and one line for what is wrong."""

from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from memo.config import PretrainConfig
from memo.settings import load_config
from memo.tuning.config import FinetuneConfig


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("steps: 7\noptimizer:\n  lr: 0.5\n  warmup_steps: 3\n")
    config = load_config(PretrainConfig, path, ["optimizer.lr=1e-4", "objectives.wwmlm.ratio=3"])
    assert (config.steps, config.optimizer.warmup_steps) == (7, 3)
    assert {name: one.ratio for name, one in config.objectives.items()} == {
        "wwmlm": 3,
        "span_mvfr": 1,
        "span_mvfc_kl": 1,
        "span_mafr": 1,
    }
    assert config.optimizer.lr == pytest.approx(1e-4)
    assert config.optimizer.betas == (0.9, 0.98)


def test_one_value_of_a_group_leaves_the_others_as_the_run_has_them() -> None:
    asked = [
        "task=t",
        "pretrained=p",
        "optimizer.lr=1e-3",
        "limits.face=50",
        "batch.token_budget=9",
    ]
    config = load_config(FinetuneConfig, None, asked)
    plain = FinetuneConfig(task="t", pretrained=Path("p"))
    assert (config.optimizer.lr, config.limits.face, config.batch.token_budget) == (1e-3, 50, 9)
    assert config.optimizer.warmup_steps == plain.optimizer.warmup_steps == 20
    assert config.limits.text == plain.limits.text == 120
    assert config.batch.global_batch == plain.batch.global_batch == 32


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lr=1", "unknown key 'optimiser'; did you mean 'optimizer'"),
        ("optimizer.learning=1", r"unknown key 'optimizer\.learning'.*known here: betas, clip"),
        ("optimizer.warmup_step=1", "did you mean 'warmup_steps'"),
        ("objectives.wwmlm.weigth=1", "did you mean 'weight'"),
        ("batch.token_budget=0", r"batch\.token_budget=0: must be 1 or more, or auto"),
        ("batch={token_budget: auto, micro_batches: 2}", "keeps global_batch"),
        ("optimizer.lr=-1", r"optimizer\.lr=-1: .*greater than 0"),
        ("model.size=tiny", r"model\.size='tiny'"),
        ("name=${x}", "'x' not found"),
        ("objectives=[1]", r"objectives=\[1\]: .*incompatible"),
        ("optimizer.betas=[0.9,1.5]", r"optimizer\.betas\.1=1\.5: .*less than 1"),
        ("optimizer.lr=.inf", r"optimizer\.lr=inf: .*finite"),
        ("model.heads=0", r"model\.heads=0"),
        ("seed=18446744073709551616", r"seed=18446744073709551616: .*less than 1844"),
        ("steps", "write key=value"),
        ("=3", "write key=value"),
        ("optimizer=1e-4", r"optimizer=0\.0001: name which of its settings: betas, clip, eps, lr,"),
        ("data.mixture=[a]", r"data\.mixture\.0='a': name which of its settings: dataset, weight"),
        ("objectives.wwmlm=2", r"objectives\.wwmlm=2: name which of its settings: ratio, weight"),
        ("objectives.wwmm=null", r": objectives: there is no 'wwmm' to leave out, but wwmlm, s"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(PretrainConfig, None, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["a: [1", "- 1\n- 2\n", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"bad\.yaml") as caught:
        load_config(PretrainConfig, path, [])
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no config file"):
        load_config(PretrainConfig, tmp_path / "absent.yaml", [])


def test_settings_that_do_not_go_together_are_not_shown_as_a_whole() -> None:
    with pytest.raises(UserError) as refused:
        load_config(FinetuneConfig, None, ["task=ravdess", "mode=full"])
    assert str(refused.value) == (
        "the settings: --pretrained: give a checkpoint or run of pretraining"
    )
