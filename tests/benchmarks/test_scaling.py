"""The cost model against figures reckoned by hand."""

import pytest

from benchmarks.scaling import (
    A_NODE,
    AGREEMENT_S,
    AGREEMENTS,
    BATCH,
    BUDGET,
    CHECKPOINT_BYTES_S,
    CHECKPOINT_EVERY,
    GPUS,
    LAUNCH_S,
    LOADER,
    NODE_BYTES_S,
    PLAN_S,
    Gpu,
    Job,
    recipe_rows,
    send_time,
    step_time,
)

BASE = Job("base", parameters=10**8, flops=5e10, tokens=100.0, clip_bytes=8e4)
LARGE = Job("large", parameters=10**8, flops=2e11, tokens=100.0, clip_bytes=8e4)
GPU = Gpu("a GPU", peak=1e15, ring=4e11, price=2.0)


@pytest.mark.parametrize(
    ("job", "gpus", "parts", "volume"),
    [(BASE, 2, 1, 3), (BASE, 8, 4, 3), (BASE, 64, 1, 3), (LARGE, 8, 1, 2), (LARGE, 8, 2, 4)],
)
def test_a_ring_sends_the_parameters_at_the_rate_of_its_slowest_part(
    job: Job, gpus: int, parts: int, volume: int
) -> None:
    """Stage 1 sends 3 Psi a step, stage 3 2 Psi a micro-batch; 2 bytes a parameter."""
    rate = 4e11 if gpus <= A_NODE else NODE_BYTES_S
    sent = volume * 2 * 10**8 * (gpus - 1) / gpus
    expected = sent / rate + AGREEMENTS * AGREEMENT_S
    assert send_time(job, GPU, gpus, parts) == pytest.approx(expected)


def test_one_gpu_sends_nothing() -> None:
    assert send_time(LARGE, GPU, 1, 4) == 0


def test_a_step_is_its_arithmetic_or_its_kernels() -> None:
    """640 clips of 5e10 FLOPs at half of 1e15 a second are 64 ms; 12 layers take 12 ms at least."""
    assert step_time(BASE, GPU, 0.5, 1, 640).compute == pytest.approx(0.064)
    assert step_time(BASE, GPU, 0.5, 2, 640).compute == pytest.approx(0.032)
    assert step_time(BASE, GPU, 0.5, 256, 640).compute == pytest.approx(12 * LAUNCH_S)


def test_recomputed_activations_cost_a_third_more() -> None:
    assert step_time(LARGE, GPU, 0.5, 1, 600).compute == pytest.approx(600 * 2e11 * 4 / 3 / 5e14)


def test_every_micro_batch_starts_its_kernels() -> None:
    clips = 3 * BUDGET // 100
    slow = Job("base", 10**8, flops=1.0, tokens=100.0, clip_bytes=1.0)
    assert step_time(slow, GPU, 0.5, 1, clips).compute == pytest.approx(3 * 12 * LAUNCH_S)


def test_the_loader_makes_its_share_and_plans_all() -> None:
    step = step_time(BASE, GPU, 0.5, 8, 8000)
    assert step.data == pytest.approx(1000 / LOADER + 8000 * PLAN_S)
    assert step.bound == "loader"
    saving = 12 * 10**8 / CHECKPOINT_BYTES_S / CHECKPOINT_EVERY
    assert step.total == pytest.approx(step.data + saving)


def test_rows_agree_with_each_other() -> None:
    rows = list(recipe_rows(BASE, GPU, 0.5))
    assert [int(row["GPUs"]) for row in rows] == list(GPUS)
    assert rows[0]["efficiency"] == "1.00"
    assert float(rows[3]["clips a GPU"]) == BATCH / 8
    for row in rows:
        hours, spent = float(row["hours"]), float(row["GPU-hours"])
        assert spent == pytest.approx(int(row["GPUs"]) * hours, rel=0.05)
        assert float(row["$"].replace(",", "")) == pytest.approx(2 * spent, abs=1)
