"""One optimizer step over DeepSpeed, whatever the ZeRO stage, the ranks and the micro-batches."""

import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from data_pipeline.errors import UserError
from memo.config import Distribution, Optimizer
from memo.objectives.base import LossSum
from memo.training.accelerator import deepspeed, supports_bf16
from memo.training.admission import refuse_unequal
from memo.training.distributed import Ranks
from memo.training.optimizer import MOMENTS, create_moments, idle, make_adam, seed_step
from memo.training.state import TrainingState

LARGEST_BUCKET = 500_000_000
"""Gradients that DeepSpeed collects in one buffer at most, as by its default."""


class Batch(Protocol):
    """A micro-batch; `PackedBatch` is one."""

    @property
    def tokens(self) -> int:
        """How many it has, for the throughput."""

    def count(self, name: str) -> int:
        """How much the sum of an objective's loss is to be divided by."""

    def to(self, device: torch.device) -> Self:
        """The batch with every tensor on a device."""


@dataclass(frozen=True)
class ObjectiveResult:
    """One objective over the whole global batch.

    Attributes:
        loss: mean over its masked positions; NaN if there is none.
        metric: likewise.
        count: masked positions.
    """

    loss: float
    metric: float
    count: int


@dataclass(frozen=True)
class StepResult:
    """What one step did, the same on every rank.

    Attributes:
        objectives: by name.
        loss: weighted sum of the objectives' losses, which was minimised.
        grad_norm: of all gradients, before clipping; NaN if the step was skipped.
        applied: False if a loss or gradient was not finite: nothing was changed.
        tokens: of the global batch.
    """

    objectives: Mapping[str, ObjectiveResult]
    loss: float
    grad_norm: float
    applied: bool
    tokens: int


@runtime_checkable
class Borrower(Protocol):
    """A module that reads parameters of others, not by calling these."""

    @property
    def borrowed(self) -> Sequence[nn.Parameter]:
        """The parameters."""


def _register_borrowed(model: nn.Module) -> None:
    """ZeRO-3 gathers what a module borrows with what is its own.

    It finds this out by itself in a pass through the engine, not in one through a part of the model
    before: a run that goes on at the end of an epoch begins with predictions.
    """
    for module in model.modules():
        for one in module.borrowed if isinstance(module, Borrower) else ():
            deepspeed.zero.register_external_parameter(module, one)


class Engine:
    """DeepSpeed around a model that returns a `LossSum` for each objective.

    The loss of a step is the sum over objectives of weight * sum / count, where the count of masked
    positions is taken over all ranks and micro-batches of the step. It is known from the targets
    before the first forward pass, so every micro-batch contributes its exact share.

    Args:
        model: with its initial weights, the same on every rank.
        weights: objective name -> factor of its loss.
        optimizer: AdamW's settings.
        distribution: ZeRO stage, precision.
        ranks: this process among the others.
        seed: of dropout, with the step and the rank.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, float],
        optimizer: Optimizer,
        distribution: Distribution,
        ranks: Ranks,
        seed: int,
    ) -> None:
        precision = choose_precision(distribution, ranks.device)
        self.stage = distribution.zero_stage
        self.model = model
        self.ranks = ranks
        self.adam = make_adam(model, optimizer, self.stage)
        self._weights = weights
        self._seed = seed
        self._offloads = distribution.offload
        trained = sum(one.numel() for _, one in self._trained_parameters())
        config = deepspeed_config(optimizer, distribution, precision, trained)
        with redirect_stdout(StringIO()):  # in bf16 it prints the memory, whatever its log level
            self.deepspeed: Any = deepspeed.initialize(
                model=model, optimizer=self.adam, config=config, dist_init_required=False
            )[0]
        if self.stage == 3:
            _register_borrowed(model)
        # From here on the engine holds all that it will ever hold between two steps.
        self._begin_moments(0)

    def step(self, batches: Sequence[Batch], number: int, lr: float) -> StepResult:
        """One optimizer step.

        Args:
            batches: this rank's micro-batches; all ranks have the same number of them.
            number: of the step, from 0; seeds dropout.
            lr: learning rate.

        Raises:
            AgreedError: the ranks have different numbers of micro-batches.
        """
        seed_step(self._seed, number, self.ranks.rank)
        for group in self.adam.param_groups:
            group["lr"] = lr
        counts, tokens = self._count(batches)
        sums = self._accumulate(batches, counts)
        self._update()
        return self._result(self.ranks.sum(sums), counts, tokens)

    def rehearse(self, batches: Sequence[Batch]) -> None:
        """All of a step but the update of weights and moments, which stay as they are to the bit.

        Gradients are computed, reduced and clipped, and what is partitioned is gathered again, so
        that as much memory is taken as a step takes. Torch's generators are put back.

        Args:
            batches: as for `step`.

        Raises:
            AgreedError: the ranks have different numbers of micro-batches.
        """
        device = self.ranks.device
        with torch.random.fork_rng([] if device.type == "cpu" else [device]), idle(self.adam):
            self._accumulate(batches, self._count(batches)[0])
            self._update()

    def _update(self) -> None:
        """AdamW's step, unless a gradient is not finite."""
        self.deepspeed.step()
        if self._offloads and self.stage < 3 and not self.deepspeed.was_step_applied():
            # DeepSpeed would keep these gradients, and add those of the next step to them.
            self.deepspeed.optimizer.averaged_gradients.clear()

    def _accumulate(self, batches: Sequence[Batch], counts: Mapping[str, int]) -> Tensor:
        """Gradients of all micro-batches; sums of losses and metrics, (objectives, 2)."""
        sums = torch.zeros(len(self._weights), 2, device=self.ranks.device)
        for batch in batches:
            losses = self.deepspeed(batch.to(self.ranks.device))
            self.deepspeed.backward(self._loss(losses, counts), scale_wrt_gas=False)
            sums += torch.stack([_logged(losses[name]) for name in self._weights])
        return sums

    def _count(self, batches: Sequence[Batch]) -> tuple[dict[str, int], int]:
        """Masked positions of each objective, and tokens, over all ranks and micro-batches."""
        here = [sum(one.count(name) for one in batches) for name in self._weights]
        tokens_here, parts = sum(one.tokens for one in batches), len(batches)
        local = torch.tensor([*here, tokens_here, parts, parts * parts], dtype=torch.int64)
        *counts, tokens, parts, squares = (int(one) for one in self.ranks.sum(local).tolist())
        refuse_unequal(self.ranks, parts, squares)  # they would wait for one another for ever
        return dict(zip(self._weights, counts, strict=True)), tokens

    def _loss(self, losses: Mapping[str, LossSum], counts: Mapping[str, int]) -> Tensor:
        """This micro-batch's share of the step's loss.

        DeepSpeed divides gradients by the number of ranks; that is taken back here. A loss that is
        not finite makes every gradient NaN, so that the step is skipped on all ranks.
        """
        shares = [
            losses[name].sum * (weight / max(counts[name], 1))
            for name, weight in self._weights.items()
        ]
        loss = torch.stack(shares).sum() * self.ranks.count
        return loss * (1 + 0 * loss.detach())

    def _result(self, sums: Tensor, counts: Mapping[str, int], tokens: int) -> StepResult:
        objectives = {
            name: ObjectiveResult(
                _ratio(loss, counts[name]), _ratio(metric, counts[name]), counts[name]
            )
            for name, (loss, metric) in zip(self._weights, sums.tolist(), strict=True)
        }
        loss = sum(self._weights[name] * one.loss for name, one in objectives.items() if one.count)
        applied = bool(self.deepspeed.was_step_applied())
        norm = float(self.deepspeed.get_global_grad_norm()) if applied else math.nan
        return StepResult(objectives, loss, norm, applied, tokens)

    def trained(self) -> dict[str, Tensor]:
        """Every parameter that is trained, whole, in float32, on the host; on all ranks."""
        return {name: self._full(one) for name, one in self._trained_parameters()}

    def frozen(self) -> dict[str, Tensor]:
        """Every parameter that is not trained, whole, on the host; on all ranks."""
        found = {}
        for name, one in self.model.named_parameters():
            if one.requires_grad:
                continue
            if self.stage == 3:
                with deepspeed.zero.GatheredParameters([one]):
                    found[name] = one.detach().cpu().clone()
            else:
                found[name] = one.detach().cpu().clone()
        return found

    @torch.no_grad()
    def predict_with(self, tensors: Mapping[str, Tensor]) -> None:
        """Put into the model what `trained` gave; no step may follow.

        The optimizer keeps its own copies of the parameters, which are not set.
        """
        for name, parameter in self._trained_parameters():
            value = tensors[name].to(self.ranks.device)
            if self.stage == 3:
                with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                    parameter.copy_(value)
            else:
                parameter.copy_(value)

    def _trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]

    def close(self) -> None:
        """Give back what DeepSpeed holds; the model can be used on."""
        self.deepspeed.destroy()

    def collect(self) -> TrainingState | None:
        """Every trained parameter whole, with its moments, and buffers; all ranks call it together.

        Returns:
            On the first rank the state; on the others None, for one copy is enough for a node.
        """
        parameters: dict[str, Tensor] = {}
        moments: dict[str, Tensor] = {}
        for name, parameter in self._trained_parameters():
            whole = {key: self._full(parameter, key) for key in (None, *MOMENTS)}
            if self.ranks.first:
                parameters[name] = whole[None]
                moments |= {f"{key}.{name}": whole[key] for key in MOMENTS}
        if not self.ranks.first:
            return None
        buffers = {name: buffer.cpu() for name, buffer in self.model.named_buffers()}
        return TrainingState({**parameters, **buffers}, moments, self._updates())

    def restore(self, state: TrainingState) -> None:
        """Take up what any number of ranks at any ZeRO stage collected.

        The model must have been built with the state's parameters already (`TrainingState.model`);
        they are set again because a bfloat16 model has lost their last bits.
        """
        self._begin_moments(state.updates)
        for name, parameter in self._trained_parameters():
            self._set(parameter, state.model[name], None)
            for key in MOMENTS:
                self._set(parameter, state.moments[f"{key}.{name}"], key)

    def go_back(self, state: TrainingState) -> None:
        """Take up a state that was collected earlier in this run, or in one like it."""
        self.predict_with(state.model)  # what the next forward pass reads
        for name, buffer in self.model.named_buffers():
            buffer.copy_(state.model[name])
        self.restore(state)  # what the next update begins from

    def _begin_moments(self, updates: int) -> None:
        """Zero moments after so many updates; at stages 1 and 2 each parameter learns its part.

        Left to itself, DeepSpeed links parameters to AdamW's flat moments while it steps the first
        of the parameter groups, when the others have no moments yet, and takes that for done.
        """
        create_moments(self.adam, self._adam_parameters(), updates)
        if self.stage in (1, 2):
            self.deepspeed.optimizer._hp_optimizer_states_linked = False
            self.deepspeed.optimizer._lazy_init_hp_params_optimizer_state()

    def _adam_parameters(self) -> list[Tensor]:
        """The tensors that AdamW has moments of: the parameters, or this rank's flat partitions."""
        if self.stage == 3:
            return list(self.deepspeed.optimizer.fp32_partitioned_groups_flat)
        return [one for group in self.adam.param_groups for one in group["params"]]

    def _updates(self) -> int:
        """Updates made so far: steps less the skipped ones."""
        return int(next(float(one["step"]) for one in self.adam.state.values()))

    def _full(self, parameter: nn.Parameter, key: str | None = None) -> Tensor:
        """One parameter, or one of its moments, whole, in float32, on the host."""
        if self.stage == 0:
            whole = parameter.detach() if key is None else self.adam.state[parameter][key]
        elif key is None:
            whole = deepspeed.utils.safe_get_full_fp32_param(parameter)
        else:
            whole = deepspeed.utils.safe_get_full_optimizer_state(parameter, key)
        return whole.cpu().clone().contiguous()

    @torch.no_grad()
    def _set(self, parameter: nn.Parameter, value: Tensor, key: str | None) -> None:
        """Set one parameter, or one of its moments, or this rank's part of it."""
        value = value.to(self.ranks.device)
        if self.stage == 0:
            target = parameter if key is None else self.adam.state[parameter][key]
            target.copy_(value)
        elif self.stage == 3:
            self._set_partition(parameter, self._partition(parameter, value), key)
        elif key is None:
            deepspeed.utils.safe_set_full_fp32_param(parameter, value)
        else:
            deepspeed.utils.safe_set_full_optimizer_state(parameter, value, key)

    def _set_partition(self, parameter: nn.Parameter, part: Tensor, key: str | None) -> None:
        """Stage 3. DeepSpeed's setters of whole tensors fail on sizes that ranks do not divide."""
        if key is None:
            deepspeed.utils.safe_set_local_fp32_param(parameter, part)
        else:
            deepspeed.utils.safe_set_local_optimizer_state(parameter, part, key)

    def _partition(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        """This rank's part of a value at stage 3: an equal share, the last one filled up with 0."""
        share = _zero3(parameter).partition_numel()
        padded = torch.zeros(share * self.ranks.count, device=value.device)
        padded[: value.numel()] = value.flatten()
        return padded.narrow(0, share * self.ranks.rank, share)


def _zero3(parameter: nn.Parameter) -> Any:  # noqa: ANN401
    """A parameter with the attributes that ZeRO-3 has hung onto it, which no type knows of."""
    return parameter


def _logged(loss: LossSum) -> Tensor:
    """Sums of loss and metric (2,), without gradient."""
    return torch.stack([loss.sum.detach().float(), loss.metric_sum.float()])


def _ratio(total: float, count: int) -> float:
    return total / count if count else math.nan


def choose_precision(distribution: Distribution, device: torch.device) -> str:
    """`fp32` or `bf16`.

    Raises:
        UserError: bf16 or offloading is asked for where it is not supported.
    """
    check_stage(distribution)
    if distribution.offload and device.type == "cpu":
        raise UserError(
            "distribution.offload needs a GPU; on a cpu there is nothing to take elsewhere"
        )
    supported = supports_bf16()
    if distribution.precision is None:
        return "bf16" if supported and distribution.zero_stage > 0 else "fp32"
    if distribution.precision == "bf16" and not supported:
        raise UserError(
            f"distribution.precision=bf16 is not supported on this {device.type}; take fp32"
        )
    return distribution.precision


def check_stage(distribution: Distribution) -> None:
    """Refuse what no machine does at a ZeRO stage.

    Raises:
        UserError: bf16 or offloading at stage 0.
    """
    if distribution.zero_stage:
        return
    if distribution.offload:
        raise UserError(
            "distribution.offload needs distribution.zero_stage=1 or more; at stage 0 there is "
            "nothing to take elsewhere"
        )
    if distribution.precision == "bf16":
        raise UserError(
            "distribution.precision=bf16 needs distribution.zero_stage=1 or more, which keeps "
            "fp32 master weights"
        )


def deepspeed_config(
    optimizer: Optimizer, distribution: Distribution, precision: str, trained: int
) -> dict[str, Any]:
    """DeepSpeed's JSON, derived from ours.

    The micro-batches of a step vary in number, so the caller says where a step ends
    (`managed_gradient_accumulation` off), and batch sizes mean nothing here. Left to itself,
    DeepSpeed takes a buffer for 500 million gradients, however few there are.

    Args:
        optimizer: AdamW's settings.
        distribution: ZeRO stage, offloading.
        precision: `fp32` or `bf16`.
        trained: parameters that have gradients.
    """
    stage = distribution.zero_stage
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": optimizer.clip if stage else 0.0,
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": min(trained, LARGEST_BUCKET),
        },
    }
    if distribution.offload:
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
        config["zero_force_ds_cpu_optimizer"] = False  # ours runs on the host as well
    if precision == "bf16":
        config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config
