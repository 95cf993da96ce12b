"""Sequences of tasks: the Fisher information, EWC's penalty, R, and whole runs."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from torch.nn import functional as F

from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.quarantine import Quarantine
from memo.evaluation.scores import score
from memo.evaluation.transfer import transfer
from memo.heads.base import LABEL
from memo.inference import EmotionModel, load
from memo.inference.export import export_model
from memo.settings import load_config
from memo.training.distributed import Ranks
from memo.training.signals import StopSignals
from memo.tuning import continual
from memo.tuning import fold as tuning_fold
from memo.tuning.artifact import open_tuned
from memo.tuning.config import FinetuneConfig
from memo.tuning.continual import TaskSequence, open_sequence
from memo.tuning.course import Course, Keeping
from memo.tuning.ewc import ElasticPenalty, Memory, diagonal_fisher
from memo.tuning.fold import FoldRun, Predictions
from memo.tuning.results import fold_folder
from memo.tuning.run import finetune
from memo.tuning.setup import build_model, set_up
from memo.tuning.transform import Pattern
from tests.distributed import run_ranks
from tests.memo.tuning.small_tuning import tuning_config, write_backbone, write_task
from tests.memo.tuning.test_model import batch_of

ANGRY_SIDE = ["angry", "disgust", "fear", "sad"]
HAPPY_SIDE = ["happy", "neutral", "surprise", "sad"]


def others(classes: list[str]) -> list[str]:
    return [name for name in {*ANGRY_SIDE, *HAPPY_SIDE} if name not in classes]


@pytest.fixture(scope="module")
def tasks(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tasks that share one class."""
    folder = tmp_path_factory.mktemp("tasks")
    speakers = [f"train-{number}" for number in range(40)]
    named = [{"valid": speakers[at : at + 4], "test": speakers[at + 4 : at + 14]} for at in (0, 14)]
    folds = {"by": "speaker", "named": named}
    return [
        write_task(
            folder / f"{name}.yaml",
            corpus,
            classes=classes,
            ignore=others(classes),
            folds=folds,
            wording={},
        )
        for name, classes in (("a", ANGRY_SIDE), ("b", HAPPY_SIDE))
    ]


def sequence_config(
    tasks: list[Path], backbone: Path, run: Path, mode: str, *changes: str
) -> FinetuneConfig:
    config = tuning_config(Path("x"), backbone, run, mode, "folds=[0]", *changes)
    values = config.model_dump(mode="json") | {"task": None, "tasks": [str(one) for one in tasks]}
    return FinetuneConfig.model_validate(values)


def record(run: Path, fold: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fold_folder(run, fold, 1) / "result.json").read_text())
    return found


def test_figures_of_a_matrix_worked_by_hand() -> None:
    matrix = np.array([[0.2, 0.3, 0.25], [0.9, 0.4, 0.3], [0.6, 0.8, 0.35], [0.5, 0.7, 0.9]])
    found = transfer(matrix)
    assert found.average == pytest.approx((0.5 + 0.7 + 0.9) / 3)
    assert found.forgetting == pytest.approx(((0.9 - 0.5) + (0.8 - 0.7)) / 2)
    assert found.backward == pytest.approx(((0.5 - 0.9) + (0.7 - 0.8)) / 2)
    assert found.forward == pytest.approx(((0.4 - 0.3) + (0.35 - 0.25)) / 2)
    at_once = transfer(matrix[[0, 3]])
    assert at_once.average == found.average
    assert at_once.forgetting is at_once.backward is at_once.forward is None


def test_fisher_is_the_expected_squared_gradient(
    task: Path, backbone: Path, tmp_path: Path
) -> None:
    """Of a linear layer's bias it can be written down: sum over c of p_c (e_c - p)^2."""
    setup = set_up(tuning_config(task, backbone, tmp_path / "run", "linear"))
    model = build_model(setup.inputs, 1, torch.ones(7))
    batches = [batch_of(setup, range(at, at + 1)) for at in range(3)]
    found, clips = diagonal_fisher(model, batches)
    assert clips == 3
    assert set(found) == {name for name, one in model.named_parameters() if one.requires_grad}
    model.eval()
    expected = torch.zeros(7)
    with torch.no_grad():
        for batch in batches:
            chances = model.logits(batch).softmax(1)[0]
            for chosen in range(7):
                expected += chances[chosen] * (F.one_hot(torch.tensor(chosen), 7) - chances) ** 2
    torch.testing.assert_close(found["head.output.bias"], expected, atol=1e-6, rtol=1e-4)


class Counted(Ranks):
    """Keeps what it is to sum up, or gives what has been summed up before."""

    kept: ClassVar[list[torch.Tensor]] = []
    given: ClassVar[list[torch.Tensor]] = []

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self.kept.append(values.double())
        return self.given.pop(0) if self.given else values.double()


def test_fisher_is_the_mean_over_all_clips_that_can_be_used_whatever_the_ranks(
    tasks: list[Path], backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the three clips of the first rank are bad."""
    config = sequence_config(tasks, backbone, tmp_path / "x", "ewc", "continual.fisher_clips=6")
    sequence, keeping = open_sequence(config), Keeping(tmp_path / "kept", StopSignals())
    seen: list[int] = []

    def without_bad(plain: TaskSequence, run: FoldRun, clips: NDArray[np.int64]) -> Any:  # noqa: ANN401
        seen.extend(clips.tolist())
        return one_by_one(plain, run, np.array([at for at in clips.tolist() if at not in bad]))

    def fisher(rank: int, ranks: int) -> dict[str, torch.Tensor]:
        place = Counted(rank, ranks, torch.device("cpu"))
        quarantine = Quarantine(tmp_path / "q.jsonl", 0)
        run = FoldRun(sequence.inputs, sequence.parts(0)[0], 1, place, "", quarantine, keeping)
        return continual._fisher(sequence, run, {})

    one_by_one, bad = continual._one_by_one, list[int]()
    monkeypatch.setattr(continual, "_one_by_one", without_bad)
    fisher(0, 2)
    bad = seen[:2]
    Counted.kept.clear()
    fisher(0, 2), fisher(1, 2)
    half = len(Counted.kept) // 2
    sums = [a + b for a, b in zip(Counted.kept[:half], Counted.kept[half:], strict=True)]
    expected = fisher(0, 1)
    Counted.given.extend(sums)
    found = fisher(0, 2)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
    Counted.kept.clear()


def test_the_penalty_is_that_of_every_earlier_task(
    task: Path, backbone: Path, tmp_path: Path
) -> None:
    setup = set_up(tuning_config(task, backbone, tmp_path / "run", "linear"))
    model = build_model(setup.inputs, 1, torch.ones(7))
    weight = dict(model.named_parameters())["head.output.bias"]
    memories = [
        Memory({"head.output.bias": torch.rand(7)}, {"head.output.bias": torch.randn(7)})
        for _ in range(2)
    ]
    penalty = ElasticPenalty(memories, strength=3.0)(model)
    expected = sum(
        1.5
        * (one.fisher["head.output.bias"] * (weight - one.weights["head.output.bias"]) ** 2).sum()
        for one in memories
    )
    torch.testing.assert_close(penalty, expected)
    model.eval()
    batch = batch_of(setup, range(4))
    plain = model(batch)[LABEL].sum
    model.penalty = ElasticPenalty(memories, strength=3.0)
    torch.testing.assert_close(model(batch)[LABEL].sum, plain + 4 * penalty)


def test_in_bf16_a_weight_that_stays_is_not_pulled() -> None:
    weights = {"weight": torch.randn(4, 3), "bias": torch.randn(4)}
    memory = Memory({name: torch.ones_like(one) for name, one in weights.items()}, weights)
    model = torch.nn.Linear(3, 4)
    model.load_state_dict(weights)
    model.to(torch.bfloat16)
    penalty = ElasticPenalty([memory], strength=2.0)
    assert float(penalty(model)) == 0
    with torch.no_grad():
        model.bias.add_(1)
    assert float(penalty(model)) == pytest.approx(4, rel=0.02)


@pytest.fixture(scope="module")
def runs(
    tasks: list[Path], backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sequences")
    for mode in ("full", "ewc", "replay", "adapter", "joint"):
        finetune(sequence_config(tasks, backbone, folder / mode, mode))
    return {path.name: path for path in folder.iterdir()}


def test_every_strategy_starts_alike_and_is_measured_after_every_stage(
    runs: dict[str, Path],
) -> None:
    for mode, run in runs.items():
        matrix = np.array(record(run)["R"]["uar"])
        assert matrix.shape == ((2, 2) if mode == "joint" else (3, 2))
        assert (run / "report.html").is_file()
    before = {mode: record(run)["R"]["uar"][0] for mode, run in runs.items() if mode != "adapter"}
    assert len(set(map(tuple, before.values()))) == 1
    first = {mode: record(runs[mode])["R"]["uar"][1] for mode in ("full", "ewc", "replay")}
    assert len(set(map(tuple, first.values()))) == 1, "they differ from the second task on"


def test_adapters_forget_nothing(runs: dict[str, Path]) -> None:
    found = record(runs["adapter"])
    assert found["confusion"][1][0] == found["confusion"][2][0]
    assert found["transfer"]["uar"]["forgetting"] == 0
    first, second = found["kept_numbers"]
    adapter = sum(
        one.numel()
        for one in open_tuned(fold_folder(runs["adapter"], 0, 1) / "stage-2").tensors.values()
    )
    assert second - first == adapter


def test_ewc_keeps_weights_and_fisher_of_each_task(runs: dict[str, Path]) -> None:
    first, second = record(runs["ewc"])["kept_numbers"]
    weights = record(runs["full"])["kept_numbers"][0]
    assert (first, second) == (3 * weights, 5 * weights)
    plain, elastic = (
        open_tuned(fold_folder(runs[mode], 0, 1) / "stage-2").tensors for mode in ("full", "ewc")
    )
    start = open_tuned(fold_folder(runs["full"], 0, 1) / "stage-1").tensors

    assert moved(elastic, start) < moved(plain, start)


def exported(run: Path, stage: str, out: Path) -> EmotionModel:
    export_model(fold_folder(run, 0, 1) / stage, None, out)
    return load(out)


@pytest.mark.parametrize("mode", ["full", "adapter"])
def test_an_exported_stage_answers_among_the_classes_of_its_task_as_it_was_scored(
    runs: dict[str, Path], tasks: list[Path], tmp_path: Path, mode: str
) -> None:
    config = FinetuneConfig.model_validate(yaml.safe_load((runs[mode] / "config.yaml").read_text()))
    for number, corpus in enumerate(open_sequence(config).corpora):
        model = exported(runs[mode], f"stage-{number + 1}", tmp_path / f"{number}")
        assert model.task.name == tasks[number].stem
        assert list(model.classes) == [ANGRY_SIDE, HAPPY_SIDE][number]
        test = corpus.folds[0].test
        chances = model.predict([corpus.samples.read(at) for at in test.tolist()])
        np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
        found = score(corpus.labels[test], chances.argmax(axis=1), 4)
        scored = record(runs[mode])["confusion"][number + 1][number]
        assert found.confusion.tolist() == scored
        card = (tmp_path / f"{number}" / "README.md").read_text()
        assert f"\nClasses: {', '.join(model.classes)}. Modalities: " in card
        others = (HAPPY_SIDE, ANGRY_SIDE)[number][:3]
        assert f"this one alone; it has outputs, too, of {', '.join(others)}.\n" in card


def test_tasks_learned_at_once_are_exported_as_all_of_them(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    model = exported(runs["joint"], "stage-1", tmp_path / "out")
    assert model.task.name == "a+b"
    assert model.classes == model.outputs == (*ANGRY_SIDE, *HAPPY_SIDE[:3])
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("# a+b, full\n")
    assert "\nIt has learned 2 tasks at once and answers among the classes of all of them; " in card


def test_a_stage_of_before_outputs_were_recorded_answers_as_it_did(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    stage = shutil.copytree(fold_folder(runs["full"], 0, 1) / "stage-2", tmp_path / "run")
    about = json.loads((stage / "tuned.json").read_text())
    about["task"]["classes"] = about.pop("outputs")
    (stage / "tuned.json").write_text(json.dumps(about))
    export_model(stage, None, tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "config.json").read_text())
    assert kept.pop("outputs") is None
    (tmp_path / "out" / "config.json").write_text(json.dumps(kept))
    model = load(tmp_path / "out")
    assert model.predict([Clip("a", text="tears")]).shape == (1, 7)
    assert model.classes == (*ANGRY_SIDE, *HAPPY_SIDE[:3])


def moved(tensors: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]) -> float:
    """How far the weights are from where they started."""
    return float(sum((tensors[name] - start[name]).square().sum() for name in start))


def two_ranks(settings: str) -> None:
    """On each of two ranks."""
    finetune(load_config(FinetuneConfig, Path(settings), []))


def test_ewc_on_two_ranks_at_zero_3_is_that_of_one(tasks: list[Path], tmp_path: Path) -> None:
    corpus = Path(yaml.safe_load(tasks[0].read_text())["dataset"])
    plain = write_backbone(
        corpus, tmp_path / "plain", "model.dropout=0", "model.attention_dropout=0"
    )
    few = "continual.fisher_clips=9"
    one = sequence_config(tasks, plain, tmp_path / "one", "ewc", "head.dropout=0", few)
    finetune(one)
    stage = {"zero_stage": 3, "precision": "fp32"}
    two = replace_settings(one, run_dir=tmp_path / "two", distribution=stage)
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(two.model_dump(mode="json")))
    run_ranks(two_ranks, str(path), 2)
    mine, theirs = (
        open_tuned(fold_folder(config.folder, 0, 1) / "stage-2").tensors for config in (two, one)
    )
    for name in theirs:
        torch.testing.assert_close(mine[name], theirs[name], atol=1e-4, rtol=1e-4)
    assert record(two.folder)["R"] == record(one.folder)["R"]


def test_an_epoch_is_judged_among_the_classes_of_its_task(
    tasks: list[Path], backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another task's class is the most probable one of every clip, and the right one the next."""
    config = sequence_config(tasks, backbone, tmp_path / "run", "full", "training.epochs=1")
    sequence, judged = open_sequence(config), list[float]()
    data = sequence.inputs.data
    of_others = [int(np.setdiff1d(np.arange(7), own)[0]) for own in sequence.own]

    def sure(model: object, run: FoldRun, part: NDArray[np.int64], pattern: Pattern) -> Predictions:
        del model, run, pattern
        chances = np.zeros((len(part), 7), np.float32)
        chances[np.arange(len(part)), data.labels[part]] = 0.4
        task = (part >= sequence.offsets[1]).astype(int)
        chances[np.arange(len(part)), np.array(of_others)[task]] = 0.6
        return Predictions(part, chances)

    monkeypatch.setattr(tuning_fold, "predict", sure)
    judge = Course.judge

    def note(course: Course, reached: float, about: Mapping[str, Any]) -> None:
        judged.append(reached)
        judge(course, reached, about)

    monkeypatch.setattr(Course, "judge", note)
    finetune(config)
    assert judged == [1, 1]


def replace_settings(config: FinetuneConfig, **changes: Any) -> FinetuneConfig:  # noqa: ANN401
    return FinetuneConfig.model_validate(config.model_dump() | changes)


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [
        ("linear", {}, r"'linear' cannot learn a sequence of tasks \(known: full, ewc, replay"),
        ("full", {"tasks": ("a", "a")}, "no task 'a'"),
    ],
)
def test_what_makes_no_sequence_is_refused(
    tasks: list[Path],
    backbone: Path,
    tmp_path: Path,
    mode: str,
    changes: dict[str, tuple[str, ...]],
    message: str,
) -> None:
    config = sequence_config(tasks, backbone, tmp_path / "run", mode)
    with pytest.raises(UserError, match=message):
        finetune(config.model_copy(update=changes))
    assert not (tmp_path / "run").exists()


def write_other_folds(folder: Path, corpus: Path) -> Path:
    """A task of the same corpus with more folds, of other speakers."""
    folds = {"by": "speaker", "count": 3, "valid_groups": 4}
    ignore = others(HAPPY_SIDE)
    return write_task(folder / "c.yaml", corpus, classes=HAPPY_SIDE, ignore=ignore, folds=folds)


def test_a_test_clip_of_one_task_is_not_trained_on_by_another(
    tasks: list[Path], corpus: Path, backbone: Path, tmp_path: Path
) -> None:
    other = write_other_folds(tmp_path, corpus)
    config = sequence_config([tasks[0], other], backbone, tmp_path / "run", "joint")
    with pytest.raises(UserError, match=r"fold 0 leaks: task . trains on clips or speakers that"):
        finetune(config)
    assert not (tmp_path / "run").exists()


def test_tasks_with_more_folds_and_with_fewer_need_to_be_told_which(
    tasks: list[Path], corpus: Path, backbone: Path, tmp_path: Path
) -> None:
    other = write_other_folds(tmp_path, corpus)
    config = sequence_config([tasks[0], other], backbone, tmp_path / "run", "joint").model_copy(
        update={"folds": None}
    )
    with pytest.raises(UserError, match=r"--tasks: . has . folds, . has .; .* are run: folds="):
        finetune(config)
    assert not (tmp_path / "run").exists()


def test_a_task_stands_in_a_sequence_once(
    tasks: list[Path], backbone: Path, tmp_path: Path
) -> None:
    config = sequence_config([tasks[0], tasks[0]], backbone, tmp_path / "run", "full")
    with pytest.raises(UserError, match="a, a: each task can be learned once"):
        finetune(config)


def test_one_task_or_several(task: Path, backbone: Path, tmp_path: Path) -> None:
    for given in ([], ["tasks=[a]"], ["task=a", "tasks=[b]"], ["task=a", "tasks=[b,c]"]):
        with pytest.raises(UserError, match="give --task, or --tasks with two or more"):
            load_config(FinetuneConfig, None, [f"pretrained={backbone}", *given])
    with pytest.raises(UserError, match="--mode ewc learns several tasks: give --tasks A,B"):
        set_up(tuning_config(task, backbone, tmp_path / "run", "ewc"))
