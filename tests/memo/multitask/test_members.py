"""Which texts are a task's, and task files that cannot be learned."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml

from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.dataset import FeatureSchema
from data_pipeline.shards.writer import ShardWriter
from data_pipeline.stream import Placement
from memo.multitask.batches import Sampling, TaskStreams, steps_of_epoch
from memo.multitask.excerpt import Excerpt
from memo.multitask.members import load_system, open_members
from memo.multitask.setup import SystemFold, open_fold, set_up_system
from memo.multitask.texts import SharedStates
from memo.training.signals import StopSignals
from memo.tuning import run
from memo.tuning.course import Keeping
from memo.tuning.run import finetune
from memo.tuning.together import Divided, check_leaks, tell_known_texts
from tests.memo.multitask import small_system
from tests.memo.multitask.small_system import system_config, write_asp, write_pairs
from tests.memo.tuning.test_run import alone


def test_every_session_has_its_own_clips(asp: Path) -> None:
    members = open_members(load_system(str(asp)), None)
    assert [one.name for one in members] == ["books", "films", "music"]
    seen: set[int] = set()
    for member in members:
        (fold,) = member.folds
        parts = [fold.train, fold.valid, fold.test, member.unlabelled]
        numbers = np.concatenate(parts).tolist()
        sessions = {member.corpus.groups.session[at] for at in numbers}
        assert sessions == {member.name}
        assert len(set(numbers)) == len(numbers) == 36
        assert not seen & set(numbers)
        seen |= set(numbers)
        assert (member.corpus.labels[member.unlabelled] == -1).all()


def test_traits_and_classes_are_read(sog: Path) -> None:
    people, moods = open_members(load_system(str(sog)), None)
    assert (people.outputs, people.answers) == (2, ("calm", "loud"))
    assert people.targets[:4].tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert (moods.outputs, moods.answers) == (2, ("good", "bad"))
    assert set(moods.targets[:, 0].tolist()) == {-1, 0, 1}


def test_what_is_read_of_a_tasks_texts_can_be_said_in_its_files_stead(sog: Path) -> None:
    setup = set_up_system(
        system_config(sog, Path("run"), "longest={people: 7}", "truncation={moods: head+tail}"),
        SharedStates(),
    )
    found = {one.name: one.excerpt for one in setup.members}
    assert found == {"people": Excerpt(7), "moods": Excerpt(10, "head+tail")}
    for setting in ("longest={mood: 7}", "truncation.mood=head"):
        config = system_config(sog, Path("run"), setting)
        with pytest.raises(UserError, match=r": no task 'mood' is learned, only people, moods$"):
            set_up_system(config, SharedStates())
    config = system_config(sog, Path("run"), "members=[moods]", "longest.people=7")
    with pytest.raises(UserError, match=r"^longest: no task 'people' is learned, only moods$"):
        set_up_system(config, SharedStates())


def write_labelled(folder: Path, clips: Sequence[tuple[str, str, dict[str, str]]]) -> str:
    """A corpus of (speaker, session, labels); those of session `...test` are of that split."""
    features = FeatureSchema(face=None, speech=None)
    with ShardWriter(folder, name="own", corpus="own", licence="own", features=features) as writer:
        for at, (speaker, session, labels) in enumerate(clips):
            name, _, test = session.partition(" ")
            clip = Clip(
                f"{at}", text=f"text {at}", speaker=speaker, session=name, labels=dict(labels)
            )
            writer.write(test or "train", clip)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (
            {"traits": ["calm", "loud"], "classes": ["no", "yes"]},
            "task moods: fold . has loud=no alone to train on; take fewer folds or leave the trait",
        ),
        (
            {"label": "loud", "classes": ["no", "yes"]},
            "task moods: fold . has no 'yes' to train on; take fewer folds or merge the class",
        ),
    ],
)
def test_a_fold_has_every_class_and_both_answers_to_train_on(
    kind: dict[str, object], reason: str, sog: Path, tmp_path: Path
) -> None:
    """One speaker alone is ever loud, and every speaker is in the test part of some fold."""
    clips = [
        (f"p{at // 2}", "", {"calm": ("no", "yes")[at % 2], "loud": ("no", "yes")[at < 2]})
        for at in range(24)
    ]
    folds = {"by": "speaker", "count": 3, "valid_groups": 2}
    data = write_labelled(tmp_path / "data", clips)
    with pytest.raises(UserError, match=reason):
        finetune(
            system_config(
                changed(sog, tmp_path, dataset=data, folds=folds, **kind), tmp_path / "run"
            )
        )
    assert not (tmp_path / "run").exists()


GOOD, BAD = {"mood": "good", "calm": "yes"}, {"mood": "bad", "calm": "no"}
SESSIONS = [
    (GOOD, GOOD, "label", "session 'films', fold 0: good alone to train on; take other folds"),
    (GOOD, GOOD, "traits", "session 'films', fold 0: calm=yes alone to train on; take other"),
    (GOOD, BAD, "label", "session 'films', fold 0: no clips to test; take other folds"),
]


@pytest.mark.parametrize(("first", "second", "kind", "reason"), SESSIONS)
def test_a_session_with_nothing_to_learn_or_to_test_is_refused(
    first: dict[str, str],
    second: dict[str, str],
    kind: str,
    reason: str,
    asp: Path,
    tmp_path: Path,
) -> None:
    own = [GOOD, BAD] * 10
    clips = [("", "books", one) for one in own] + [("", "books test", one) for one in own]
    clips += [("", "films", one) for one in [first, second] * 10]
    clips += [("", "films test", one) for one in own if first == second]
    task = yaml.safe_load((asp.parent / "reviews.yaml").read_text())
    task["dataset"] = write_labelled(tmp_path / "data", clips)
    if kind == "traits":
        task |= {"traits": ["calm"], "classes": ["no", "yes"]}
    (tmp_path / "reviews.yaml").write_text(yaml.safe_dump(task))
    system = yaml.safe_load(asp.read_text())
    system["members"][0]["task"] = str(tmp_path / "reviews.yaml")
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(system))
    with pytest.raises(UserError, match=f"task reviews: {reason}"):
        open_members(load_system(str(tmp_path / "system.yaml")), None)


def changed(sog: Path, folder: Path, **settings: object) -> Path:
    """The system with a change in the task of moods."""
    task = yaml.safe_load((sog.parent / "moods.yaml").read_text()) | settings
    (folder / "moods.yaml").write_text(yaml.safe_dump(task))
    system = yaml.safe_load(sog.read_text())
    system["members"][1]["task"] = str(folder / "moods.yaml")
    (folder / "system.yaml").write_text(yaml.safe_dump(system))
    return folder / "system.yaml"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"classes": ["good", "sad"]}, "clips are labelled 'bad', which is none of good, sad"),
        ({"label": "weather"}, "no clip of .* has a label 'weather'"),
        ({"classes": ["good"]}, "classes"),
        ({"ignore": ["bad"]}, "no clip of .* is labelled 'bad'"),
        ({"traits": ["mood"], "classes": ["good", "bad", "so"]}, "two answers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    settings: dict[str, object], reason: str, sog: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=reason):
        finetune(system_config(changed(sog, tmp_path, **settings), tmp_path / "run"))


def test_a_system_that_nobody_has_built_is_refused(sog: Path, tmp_path: Path) -> None:
    system = yaml.safe_load(sog.read_text()) | {"system": "sok"}
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(system))
    with pytest.raises(UserError, match="no system 'sok'; known are: asp_mtl, sog, trimodal"):
        finetune(system_config(tmp_path / "system.yaml", tmp_path / "run"))


def test_members_with_more_folds_and_with_fewer_need_to_be_told_which(
    sog: Path, tmp_path: Path
) -> None:
    system = changed(sog, tmp_path, folds={"by": "speaker", "count": 4, "valid_groups": 8})
    one = system_config(system, tmp_path / "run", "folds=[2]")
    assert set_up_system(one, SharedStates()).config.folds == (2,)
    reason = r"task sog: moods has 4 folds, people has 3; .* are run: folds=\[0, 1, 2\]"
    with pytest.raises(UserError, match=reason):
        finetune(one.model_copy(update={"folds": None}))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="there are the folds 0 to 2"):
        finetune(one.model_copy(update={"folds": (3,)}))


def beside(sog: Path, folder: Path, **folds: object) -> Path:
    """A system of the moods, and of the moods once more."""
    moods = yaml.safe_load((sog.parent / "moods.yaml").read_text())
    again = moods | {"name": "again", "folds": moods["folds"] | folds}
    (folder / "again.yaml").write_text(yaml.safe_dump(again))
    system = yaml.safe_load(sog.read_text())
    system["members"][0]["task"] = str(folder / "again.yaml")
    (folder / "system.yaml").write_text(yaml.safe_dump(system))
    return folder / "system.yaml"


def test_a_test_clip_of_a_member_is_not_trained_on_by_another(sog: Path, tmp_path: Path) -> None:
    system = beside(sog, tmp_path, count=4)
    reason = "fold 0 leaks: task again trains on clips or speakers that task moods is tested on"
    with pytest.raises(UserError, match=reason):
        finetune(system_config(system, tmp_path / "run", "folds=[0]"))
    assert not (tmp_path / "run").exists()


def test_members_of_one_corpus_may_have_the_same_folds(sog: Path, tmp_path: Path) -> None:
    for others in (8, 9):  # who validates is nobody else's business
        again, moods = open_members(
            load_system(str(beside(sog, tmp_path, valid_groups=others))), None
        )
        for one, other in zip(again.folds, moods.folds, strict=True):
            np.testing.assert_array_equal(one.test, other.test)


def test_a_speaker_whom_a_member_is_tested_on_trains_no_other(tmp_path: Path) -> None:
    """Each task has clips of its own, and the same speakers."""
    system = write_pairs(tmp_path, {"by": "speaker", "count": 3, "valid_groups": 3})
    first, second = open_members(load_system(str(system)), None)
    assert not {*first.folds[0].train.tolist()} & {*second.folds[0].test.tolist()}
    write_pairs(tmp_path, {"by": "speaker", "count": 4, "valid_groups": 3})
    with pytest.raises(UserError, match="fold 0 leaks: task mood trains on clips or speakers"):
        open_members(load_system(str(system)), None)


def with_texts(task: Divided, trained: Divided, **known: int) -> Divided:
    """The task with a text of its own for each clip; so many of a part of fold 1 have another's.

    Args:
        task: which.
        trained: has those texts in its training part.
        known: part -> how many.
    """
    texts = [f"{task.name} {at}" for at in range(len(task.corpus.samples))]
    for part, count in known.items():
        others = trained.folds[1].train.tolist()
        for at, other in zip(getattr(task.folds[1], part)[:count], others, strict=False):
            texts[at] = f"{trained.name} {other}"
    groups = replace(task.corpus.groups, text=texts)
    return task._replace(corpus=replace(task.corpus, groups=groups))


def test_texts_that_are_trained_on_and_judged_by_are_counted(sog: Path) -> None:
    people, moods = (one.divided for one in open_members(load_system(str(sog)), None))
    tasks = [with_texts(people, people, valid=2), with_texts(moods, people, valid=1, test=4)]
    valid, test = (
        sum(len(getattr(one.folds[1], part)) for one in tasks) for part in ("valid", "test")
    )
    told = f"3 of {valid} validation texts and 4 of {test} test texts (folds 1) are trained on"
    assert str(tell_known_texts(tasks, [1])).startswith(told)
    own = [with_texts(one, one) for one in (people, moods)]
    assert tell_known_texts(own, [0, 1, 2]) is None


def test_clips_of_equal_text_are_other_clips(sog: Path) -> None:
    people = open_members(load_system(str(sog)), None)[0].divided
    texts = with_texts(people, people, test=1)
    task = people.corpus.task.model_copy(update={"modalities": ("text", "face")})
    clips = texts._replace(corpus=replace(texts.corpus, task=task))
    assert tell_known_texts([texts], [1]) is not None
    assert tell_known_texts([clips], [1]) is None


def test_a_run_tells_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(small_system, "FILLERS", ["the"])  # so that all texts of a mood are equal
    config = system_config(write_asp(tmp_path), tmp_path / "run")
    for name in ("_run_fold", "_sum_up"):
        monkeypatch.setattr(run, name, lambda *_: None)
    finetune(config)
    (told,) = caplog.messages
    assert told.startswith(f"{tmp_path / 'run'}: 14 of 14 validation texts and 18 of 18 test texts")


def test_nor_is_it_read_without_its_label(sog: Path, tmp_path: Path) -> None:
    again, moods = (
        one.divided for one in open_members(load_system(str(beside(sog, tmp_path))), None)
    )
    check_leaks([again, moods])
    with pytest.raises(UserError, match="fold 1 leaks: task again trains on clips"):
        check_leaks([again._replace(unlabelled=moods.folds[1].test[:1]), moods])


def opened(asp: Path, tmp_path: Path) -> SystemFold:
    setup = set_up_system(system_config(asp, tmp_path / "run"), SharedStates())
    keeping = Keeping(tmp_path / "kept", StopSignals())
    return open_fold(setup, 0, 1, alone(), Quarantine(tmp_path / "q.jsonl", 0), keeping)


def test_more_ranks_than_texts_of_a_task_are_refused(asp: Path, tmp_path: Path) -> None:
    fold = opened(asp, tmp_path)
    makers = [fold.maker(task, np.arange(3)) for task in range(3)]
    crowd = [replace(maker, placement=Placement(0, 4)) for maker in makers]
    with pytest.raises(UserError, match="4 ranks, but split 'books, fold 0, seed 1' has only 3"):
        TaskStreams(crowd, [None] * 3, 8, "all", 1)


SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)


def streams_of(fold: SystemFold, sampling: Sampling, outer: int = 1, begin: int = 0) -> TaskStreams:
    """Streams of three tasks."""
    makers = [fold.maker(task, fold.part(task).train[: 4 + 8 * task]) for task in range(3)]
    return TaskStreams(makers, [None, None, makers[2]], 4, sampling, 1, outer, begin)


def test_samplings(asp: Path, tmp_path: Path) -> None:
    fold = opened(asp, tmp_path)

    def drawn(sampling: Sampling, steps: int = 6, outer: int = 1) -> list[list[int]]:
        with streams_of(fold, sampling, outer) as streams:
            shares = [streams.step(step) for step in range(steps)]
        return [[one.task for one in share if one.labelled] for share in shares]

    assert drawn("all", 2) == [[0, 1, 2], [0, 1, 2]]
    assert drawn("alternating") == [[0], [1], [2], [0], [1], [2]]
    assert drawn("episodes", 2, outer=2) == [[0, 1, 2, 1, 2], [1, 0, 2, 0, 2]]
    counts = np.bincount([one for (one,) in drawn("proportional", 300)], minlength=3) / 300
    np.testing.assert_allclose(counts, np.array([4, 12, 19]) / 35, atol=0.1)
    even = np.bincount([one for (one,) in drawn("uniform", 300)], minlength=3) / 300
    np.testing.assert_allclose(even, 1 / 3, atol=0.1)


def test_an_epoch_sees_the_largest_task_or_all_of_them() -> None:
    assert [steps_of_epoch([4, 12, 19], 4, one) for one in ("all", "episodes")] == [5, 5]
    assert [steps_of_epoch([4, 12, 19], 4, one) for one in ("uniform", "alternating")] == [9, 9]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_streams_begin_at_any_step(sampling: Sampling, asp: Path, tmp_path: Path) -> None:
    fold = opened(asp, tmp_path)

    def keys(begin: int) -> list[list[tuple[str, ...]]]:
        with streams_of(fold, sampling, begin=begin) as streams:
            shares = [streams.step(step) for step in range(begin, 12)]
        return [[batch.keys for one in share for batch in one.batches] for share in shares]

    whole = keys(0)
    for begin in (1, 5, 11):
        assert keys(begin) == whole[begin:]
