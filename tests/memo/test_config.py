from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from memo.config import AUTO, PretrainConfig, load_config
from memo.multitask.members import load_system
from memo.multitask.setup import find_recipe
from memo.tuning.task import TASKS, is_system, load_task

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
    assert {name: one.ratio for name, one in config.objectives.items()} == {
        "wwmlm": 3,
        "span_mvfr": 1,
        "span_mvfc_kl": 1,
        "span_mafr": 1,
    }
    assert config.optimizer.lr == pytest.approx(1e-4)
    assert config.optimizer.betas == (0.9, 0.98)


def test_an_automatic_budget_is_shown_as_it_was_written() -> None:
    config = load_config(PretrainConfig, None, ["batch.token_budget=auto"])
    assert config.batch.token_budget == AUTO
    shown = config.model_dump(mode="json")
    assert shown["batch"]["token_budget"] == "auto"
    assert PretrainConfig.model_validate(shown) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.lr=1", "unknown key 'optimiser'; did you mean 'optimizer'"),
        ("optimizer.learning=1", r"unknown key 'optimizer\.learning'.*known here: betas, clip"),
        ("optimizer.warmup_step=1", "did you mean 'warmup_steps'"),
        ("objectives.wwmlm.weigth=1", "did you mean 'weight'"),
        ("batch.token_budget=0", r"batch\.token_budget=0: .*must be 1 or more, or auto"),
        ("batch={token_budget: auto, micro_batches: 2}", "keeps global_batch"),
        ("optimizer.lr=-1", r"optimizer\.lr=-1: .*greater than 0"),
        ("model.size=tiny", r"model\.size='tiny'"),
        ("name=${x}", "'x' not found"),
        ("objectives=[1]", r"objectives=\[1\]: .*incompatible"),
        ("optimizer.betas=[0.9,1.5]", r"optimizer\.betas\.1=1\.5: .*less than 1"),
        ("optimizer.lr=.inf", r"optimizer\.lr=inf: .*finite"),
        ("model.heads=0", r"model\.heads=0"),
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


def test_one_objective_is_changed_and_another_taken_out() -> None:
    changes = ["objectives.wwmlm.weight=2", "objectives.span_mafr=null"]
    objectives = load_config(PretrainConfig, None, changes).objectives
    assert list(objectives) == ["wwmlm", "span_mvfr", "span_mvfc_kl"]
    assert (objectives["wwmlm"].ratio, objectives["wwmlm"].weight) == (2, 2)
    again = PretrainConfig.model_validate(
        load_config(PretrainConfig, None, changes).model_dump(mode="json")
    )
    assert again.objectives == objectives, "what was taken out stays out"


SYSTEMS = {path for path in TASKS.glob("*.yaml") if is_system(path.stem)}


@pytest.mark.parametrize("path", sorted(SYSTEMS), ids=lambda path: path.stem)
def test_every_shipped_system_has_a_recipe_and_known_members(path: Path) -> None:
    system = load_system(path.stem)
    assert system.name == path.stem
    find_recipe(system.system)
    for member in system.members:
        load_task(member.task)


@pytest.mark.parametrize(
    "path", sorted(set(TASKS.glob("*.yaml")) - SYSTEMS), ids=lambda path: path.stem
)
def test_every_shipped_task_is_valid_and_has_words_for_its_classes(path: Path) -> None:
    task = load_task(path.stem)
    assert task.name == path.stem
    for wording in task.wording.values():
        assert set(wording.words) == set(task.classes)
        assert wording.template.count("[MASK]") == 1
    for merged in task.merge.values():
        assert merged in task.classes
