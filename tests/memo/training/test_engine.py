"""Every ZeRO stage, number of ranks and cut into micro-batches against plain PyTorch."""

import json
import math
from contextlib import redirect_stdout
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_pipeline.errors import AgreedError, UserError
from data_pipeline.packing import Example, PackedBatch, Targets, TargetSpec, pack
from memo.config import Distribution, Optimizer
from memo.objectives.base import LossSum
from memo.training.distributed import join
from memo.training.engine import Engine, choose_precision, deepspeed_config
from memo.training.optimizer import learning_rate
from memo.training.state import TrainingState
from tests.distributed import run_ranks

SETTINGS = Optimizer(lr=0.05, clip=0.7, warmup_steps=2)
WEIGHTS = {"near": 1.0, "far": 0.5}
SPECS = {name: TargetSpec(torch.float32, (3,)) for name in WEIGHTS}
SAMPLES, STEPS, SAVED = 12, 6, 3
BAD_STEP = 4
"""At this step one sample holds NaN: nobody may take it."""


class Toy(nn.Module):
    """Two objectives on one hidden layer; sizes that two ranks do not divide."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(5, 7)
        self.norm = nn.LayerNorm(7)
        self.heads = nn.ModuleDict({name: nn.Linear(7, 3) for name in WEIGHTS})

    def forward(self, batch: PackedBatch) -> dict[str, LossSum]:
        rows = batch.face.to(self.hidden.bias.dtype)
        hidden = self.norm(torch.tanh(self.hidden(rows)))
        losses = {}
        for name, head in self.heads.items():
            targets = batch.targets[name]
            errors = (head(hidden[targets.positions]) - targets.values).pow(2).mean(1)
            losses[name] = LossSum(
                errors.sum(), errors.new_tensor(float(len(errors))), errors.detach().sum()
            )
        return losses


def toy() -> Toy:
    torch.manual_seed(7)
    return Toy()


def sample(step: int, number: int) -> Example:
    """One row with a target of "near" in all samples, and of "far" in the first three alone."""
    rng = np.random.default_rng([step, number])
    row = rng.normal(size=(1, 5)).astype(np.float32)
    if (step, number) == (BAD_STEP, 1):
        row[:] = np.nan
    names = ["near", "far"] if number < 3 else ["near"]
    none = np.zeros((0, 2), dtype=np.float32)
    no_row = np.zeros(1, dtype=bool)
    return Example(
        sample=number,
        key=str(number),
        text_ids=np.zeros(0, dtype=np.int64),
        face=row,
        face_masked=no_row,
        speech=none,
        speech_masked=no_row[:0],
        targets={
            name: Targets(np.zeros(1, dtype=np.int64), rng.normal(size=(1, 3)).astype(np.float32))
            for name in names
        },
    )


def batches(step: int, rank: int, ranks: int, parts: int) -> list[PackedBatch]:
    """A rank's consecutive share of a step, in parts, and an empty micro-batch after them."""
    mine = np.array_split(np.arange(SAMPLES), ranks)[rank]
    cut = [[sample(step, int(one)) for one in part] for part in np.array_split(mine, parts)]
    return [pack(part, SPECS, face_dim=5, speech_dim=2) for part in [*cut, []]]


def reference() -> tuple[list[float], list[float], dict[str, Tensor]]:
    """Losses, gradient norms and final weights of plain PyTorch on the whole batch."""
    model = toy()
    matrices = [one for one in model.parameters() if one.ndim > 1]
    vectors = [one for one in model.parameters() if one.ndim <= 1]
    adam = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        eps=1e-8,
    )
    losses, norms = [], []
    for step in range(STEPS):
        for group in adam.param_groups:
            group["lr"] = learning_rate(step, SETTINGS, STEPS)
        batch = pack([sample(step, number) for number in range(SAMPLES)], SPECS, 5, 2)
        sums = model(batch)
        loss = sum(WEIGHTS[name] * one.sum / one.count for name, one in sums.items())
        assert isinstance(loss, Tensor)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), 0.7))
        losses.append(loss.item())
        norms.append(norm)
        if math.isfinite(norm):
            adam.step()
        adam.zero_grad()
    return losses, norms, model.state_dict()


def engine(
    stage: int,
    state: TrainingState | None = None,
    precision: str = "fp32",
    offload: bool = False,
) -> Engine:
    """What is offloaded goes from a CPU to itself here, by the code that a GPU needs for it."""
    model = toy()
    if state is not None:
        model.load_state_dict(dict(state.model))
    distribution = Distribution(zero_stage=stage, offload=offload)
    with (
        patch("memo.training.engine.deepspeed_config", keep_nothing),
        patch("memo.training.engine.choose_precision", lambda *_: precision),
        redirect_stdout(StringIO()) as printed,
    ):
        made = Engine(model, WEIGHTS, SETTINGS, distribution, join(1), seed=0)
    assert not printed.getvalue()
    if state is not None:
        made.restore(state)
    return made


def keep_nothing(*arguments: Any) -> dict[str, Any]:  # noqa: ANN401
    """As our own, but at stage 3 even the smallest parameter is given back and gathered again."""
    config = deepspeed_config(*arguments)
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return config


def run(stage: int, parts: int, first: int, last: int, made: Engine) -> list[list[float]]:
    """Loss and gradient norm of steps first..last - 1; all else about them is checked here."""
    ranks = made.ranks
    rows = []
    for step in range(first, last):
        rate = learning_rate(step, SETTINGS, STEPS)
        result = made.step(batches(step, ranks.rank, ranks.count, parts), step, rate)
        assert result.applied == (step != BAD_STEP), (stage, parts, step)
        assert result.tokens == SAMPLES
        assert result.objectives["far"].count == 3
        rows.append([result.loss, result.grad_norm])
    return rows


def save(state: TrainingState, path: Path) -> None:
    save_file(dict(state.model), f"{path}.model")
    save_file(dict(state.moments), f"{path}.moments")


def load(path: Path, updates: int) -> TrainingState:
    return TrainingState(load_file(f"{path}.model"), load_file(f"{path}.moments"), updates)


def record(folder: str) -> None:
    """On every rank: run each stage and cut, save in the middle, and go on from each other's."""
    place = Path(folder)
    ranks = join(1)
    found: dict[str, Any] = {}
    for stage in range(4):
        made = engine(stage)
        rows = run(stage, 2, 0, SAVED, made)
        state = made.collect()
        if state is not None:
            save(state, place / f"{ranks.count}-{stage}")
        rows += run(stage, 2, SAVED, STEPS, made)
        end = made.collect()
        assert (end is not None) == ranks.first
        if end is not None:
            assert end.updates == STEPS - 1
            save(end, place / f"end-{ranks.count}-{stage}")
        found[f"whole-{stage}"] = rows
        found[f"cut-{stage}"] = run(stage, 1 if stage % 2 else 3, 0, 2, engine(stage))
        refuse_different_parts(made)
    for stage in range(1, 4):
        made = engine(stage, precision="bf16")
        run(stage, 2, 0, SAVED, made)
        state = made.collect()
        if state is not None:
            save(state, place / f"bf16-{ranks.count}-{stage}")
        found[f"bf16-{stage}"] = run(stage, 2, SAVED, STEPS, made)
    if ranks.first:
        (place / f"found-{ranks.count}.json").write_text(json.dumps(found))


def refuse_different_parts(made: Engine) -> None:
    """One rank has a micro-batch more: none takes the step, and none waits."""
    if made.ranks.count > 1:
        mine = batches(STEPS, made.ranks.rank, made.ranks.count, 2 + made.ranks.rank)
        with pytest.raises(AgreedError, match="copies of it differ"):
            made.step(mine, STEPS, 0.0)


def go_on(folder: str) -> None:
    """On every rank, at each stage: go on from every state that was saved."""
    place = Path(folder)
    ranks = join(1)
    found = {
        f"{path.stem}-{stage}": run(
            stage, 2, SAVED, STEPS, engine(stage, load(path.with_suffix(""), SAVED))
        )
        for path in sorted(place.glob("[12]-*.model"))
        for stage in range(4)
    }
    for stage in range(1, 4):
        state = load(place / f"bf16-{ranks.count}-{stage}", SAVED)
        found[f"bf16-{stage}"] = run(stage, 2, SAVED, STEPS, engine(stage, state, "bf16"))
    if ranks.first:
        (place / f"gone-on-{ranks.count}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one rank and two ranks have found, and where their files are."""
    folder = tmp_path_factory.mktemp("engine")
    for work in (record, go_on):
        for ranks in (1, 2):
            run_ranks(work, str(folder), ranks)
    files = sorted(folder.glob("*.json"))
    return {"folder": folder, **{file.stem: json.loads(file.read_text()) for file in files}}


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("ranks", [1, 2])
def test_losses_norms_and_weights_are_those_of_plain_pytorch(
    found: dict[str, Any], ranks: int, stage: int
) -> None:
    losses, norms, weights = reference()
    rows = np.array(found[f"found-{ranks}"][f"whole-{stage}"])
    np.testing.assert_allclose(rows[:, 0], losses, rtol=1e-5)
    np.testing.assert_allclose(rows[:, 1], norms, rtol=1e-5)
    ours = load_file(f"{found['folder']}/end-{ranks}-{stage}.model")
    assert ours.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_cut_into_micro_batches_does_not_matter(
    found: dict[str, Any], ranks: int, stage: int
) -> None:
    one, other = (
        found[f"found-{ranks}"][f"whole-{stage}"][:2],
        found[f"found-{ranks}"][f"cut-{stage}"],
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("source", [f"{ranks}-{stage}" for ranks in (1, 2) for stage in range(4)])
def test_any_ranks_and_stage_go_on_from_any_other(
    found: dict[str, Any], source: str, stage: int
) -> None:
    whole = found[f"found-{source[0]}"][f"whole-{source[2]}"][SAVED:]
    for ranks in (1, 2):
        gone_on = found[f"gone-on-{ranks}"][f"{source}-{stage}"]
        np.testing.assert_allclose(gone_on, whole, rtol=1e-5)
        if source == f"{ranks}-{stage}":
            assert json.dumps(gone_on) == json.dumps(whole), "not the same bits"


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2])
def test_bf16_is_near_fp32_and_goes_on_with_the_same_bits(
    found: dict[str, Any], ranks: int, stage: int
) -> None:
    whole = found[f"found-{ranks}"][f"bf16-{stage}"]
    assert json.dumps(found[f"gone-on-{ranks}"][f"bf16-{stage}"]) == json.dumps(whole)
    exact = np.array(found[f"found-{ranks}"][f"whole-{stage}"][SAVED:])
    np.testing.assert_allclose(np.array(whole)[:, 0], exact[:, 0], rtol=0.03)


def offload(folder: str) -> None:
    """On every rank, at each stage that has something to offload."""
    found = {
        f"{precision}-{stage}": run(
            stage, 2, 0, STEPS, engine(stage, precision=precision, offload=True)
        )
        for stage, precision in product((1, 2, 3), ("fp32", "bf16"))
    }
    if join(1).first:
        Path(folder, "found.json").write_text(json.dumps(found))


def test_offloading_changes_no_loss_and_outlives_a_step_that_is_not_finite(tmp_path: Path) -> None:
    run_ranks(offload, str(tmp_path), 2)
    for name, rows in json.loads((tmp_path / "found.json").read_text()).items():
        tolerance = 1e-5 if "fp32" in name else 0.03
        np.testing.assert_allclose(np.array(rows)[:, 0], reference()[0], tolerance, err_msg=name)


def test_bf16_is_refused_where_it_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr("memo.training.engine.supports_bf16", lambda: False)
    with pytest.raises(UserError, match="not supported"):
        choose_precision(Distribution(precision="bf16", zero_stage=1), cpu)
    assert choose_precision(Distribution(zero_stage=1), cpu) == "fp32"
    monkeypatch.setattr("memo.training.engine.supports_bf16", lambda: True)
    with pytest.raises(UserError, match="offload needs a GPU"):
        choose_precision(Distribution(zero_stage=1, offload=True), cpu)
    with pytest.raises(UserError, match="zero_stage=1 or more"):
        choose_precision(Distribution(precision="bf16"), cpu)
    assert choose_precision(Distribution(zero_stage=2), cpu) == "bf16"


def test_batch_sizes_are_never_handed_to_deepspeed() -> None:
    config = deepspeed_config(SETTINGS, Distribution(zero_stage=2), "bf16", trained=100)
    assert config["managed_gradient_accumulation"] is False
    assert config["bf16"]["check_grad_overflow"]
    assert config["zero_optimization"]["stage"] == 2
