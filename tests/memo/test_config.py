from pathlib import Path

import pytest

from memo.config import AUTO, PretrainConfig
from memo.multitask.idle import check_settings
from memo.multitask.members import load_system
from memo.multitask.setup import find_recipe
from memo.settings import load_config
from memo.tuning.config import FinetuneConfig
from memo.tuning.task import TASKS, is_system, load_task

PLACE = Path(__file__).parents[2] / "configs"
CONFIGS = sorted((PLACE / "pretrain").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid_and_named_after_its_file(path: Path) -> None:
    config = load_config(PretrainConfig, path, [])
    assert config.name == path.stem
    assert config.limits.longest <= config.batch.token_budget


@pytest.mark.parametrize("system", ["asp_mtl", "sog", "trimodal"])
def test_every_system_has_settings_of_its_original_form_that_it_heeds(system: str) -> None:
    path = PLACE / "finetune" / f"{system}_original.yaml"
    config = load_config(FinetuneConfig, path, [f"task={system}"])
    assert config.backbone == "original"
    settings = load_system(system)
    check_settings(config, settings)
    longest = max(one.longest for one in settings.members)
    assert config.batch.token_budget >= longest * config.batch.global_batch  # MAML needs them whole


def test_an_automatic_budget_is_shown_as_it_was_written() -> None:
    config = load_config(PretrainConfig, None, ["batch.token_budget=auto"])
    assert config.batch.token_budget == AUTO
    shown = config.model_dump(mode="json")
    assert shown["batch"]["token_budget"] == "auto"
    assert PretrainConfig.model_validate(shown) == config


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
