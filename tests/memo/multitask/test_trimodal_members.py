"""Other tasks that give the trimodal system training samples: whose posts, which classes."""

from pathlib import Path

import pytest
import yaml

from data_pipeline.errors import UserError
from data_pipeline.packing import PackedBatch
from data_pipeline.quarantine import Quarantine
from data_pipeline.stream import eval_batches
from memo.heads.base import LABEL
from memo.multitask.batches import TaskBatch
from memo.multitask.posts import PRESENT
from memo.multitask.setup import open_fold, set_up_system
from memo.multitask.texts import SharedStates
from memo.multitask.trimodal import TrimodalSystem
from memo.objectives.base import LossSum
from memo.training.signals import StopSignals
from memo.tuning.course import Keeping
from memo.tuning.run import finetune
from tests.memo.multitask.small_system import (
    system_config,
    write_moods,
    write_people,
    write_trimodal,
)
from tests.memo.tuning.test_run import alone

SPEAKERS = {"by": "speaker", "count": 3, "valid_groups": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system of posts, texts of moods, and people with traits."""
    folder = tmp_path_factory.mktemp("members")
    write_trimodal(folder)
    write_moods(folder / "moods_data")
    write_people(folder / "people_data")
    return folder


def with_member(folder: Path, to: Path, **settings: object) -> Path:
    """The system of posts with the texts of moods beside them, whose task has other settings."""
    posts = yaml.safe_load((folder / "posts.yaml").read_text())
    moods = {"name": "moods", "dataset": str(folder / "moods_data"), "folds": SPEAKERS, **settings}
    (to / "moods.yaml").write_text(yaml.safe_dump({**posts, **moods}))
    system = yaml.safe_load((folder / "trimodal.yaml").read_text())
    system["members"].append({"task": str(to / "moods.yaml"), "longest": 12})
    (to / "system.yaml").write_text(yaml.safe_dump(system))
    return to / "system.yaml"


def test_an_other_tasks_labels_are_classes_of_the_first(folder: Path, tmp_path: Path) -> None:
    """Its classes stand in another order, and it has texts alone."""
    system = with_member(folder, tmp_path, classes=["bad", "good"])
    setup = set_up_system(system_config(system, tmp_path / "run"), SharedStates())
    keeping = Keeping(tmp_path / "kept", StopSignals())
    fold = open_fold(setup, 0, 1, alone(), Quarantine(tmp_path / "q.jsonl", 0), keeping)
    part, split = fold.part(1).train, setup.members[1].corpus.samples
    batches = list(eval_batches(fold.maker(1, part, training=True)))
    told = {
        key: ("good", "bad")[number]
        for batch in batches
        for key, number in zip(batch.keys, batch.targets[LABEL].values[:, 0].tolist(), strict=True)
    }
    clips = [split.read(at) for at in part.tolist()]
    assert told == {clip.key: clip.labels["mood"] for clip in clips}
    assert set(told.values()) == {"good", "bad"}
    present = [row for batch in batches for row in batch.targets[PRESENT].values.tolist()]
    assert present == [[False, True, False]] * len(part)


@pytest.mark.parametrize("fusion", ["seven", "mean"])
def test_all_tasks_are_trained_on_and_the_first_is_asked_for(
    fusion: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, PackedBatch]] = []
    plain = TrimodalSystem.forward

    def forward(model: TrimodalSystem, batch: TaskBatch) -> dict[str, LossSum]:
        seen.append((batch.task, batch.texts))
        return plain(model, batch)

    monkeypatch.setattr(TrimodalSystem, "forward", forward)
    config = system_config(
        with_member(folder, tmp_path), tmp_path / "run", f"trimodal.fusion={fusion}"
    )
    finetune(config)
    setup = set_up_system(config, SharedStates())
    for task, member in enumerate(setup.members):
        names = {member.corpus.samples.location(at)[1] for at in member.folds[0].train}
        trained = {key for other, batch in seen if other == task for key in batch.keys}
        nothing = {f"post-{at:03}" for at in (29, 59, 89)}
        assert trained == names - nothing
    assert [view.task for view in setup.views] == [0] * 7


def test_what_another_task_cannot_give_is_refused(folder: Path, tmp_path: Path) -> None:
    merged = with_member(folder, tmp_path, classes=["good", "sad"], merge={"bad": "sad"})
    reason = "task moods has the class 'sad', posts has only good, bad"
    with pytest.raises(UserError, match=reason):
        finetune(system_config(merged, tmp_path / "run"))
    people = str(folder / "people_data")
    traits = {"traits": ["calm", "loud"], "classes": ["no", "yes"], "dataset": people}
    several = with_member(folder, tmp_path, **traits)
    with pytest.raises(UserError, match="trimodal: task moods has several labels a sample"):
        finetune(system_config(several, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
