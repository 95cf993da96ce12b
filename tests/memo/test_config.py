from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from memo.config import PretrainConfig, load_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "pretrain").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid_and_named_after_its_file(path: Path) -> None:
    config = load_config(PretrainConfig, path, [])
    assert config.name == path.stem
    assert config.limits.longest <= config.batch.token_budget


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("steps: 7\noptimizer:\n  lr: 0.5\n  warmup_steps: 3\n")
    config = load_config(PretrainConfig, path, ["optimizer.lr=1e-4", "objectives.wwmlm.ratio=3"])
    assert (config.steps, config.optimizer.warmup_steps) == (7, 3)
    assert config.optimizer.lr == pytest.approx(1e-4)
    assert config.optimizer.betas == (0.9, 0.98)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lr=1", "unknown key 'optimiser'; did you mean 'optimizer'"),
        ("optimizer.learning=1", r"unknown key 'optimizer\.learning'.*known here: betas, clip"),
        ("optimizer.warmup_step=1", "did you mean 'warmup_steps'"),
        ("objectives.wwmlm.weigth=1", "did you mean 'weight'"),
        ("optimizer.lr=-1", r"optimizer\.lr=-1: .*greater than 0"),
        ("model.size=tiny", r"model\.size='tiny'"),
        ("steps", "write key=value"),
        ("=3", "write key=value"),
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
