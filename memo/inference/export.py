"""`memo export`: a tuned model with its backbone as one folder, to be used or published."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader
from safetensors.torch import save_file
from torch import Tensor

from data_pipeline.errors import UserError
from data_pipeline.shards.index import file_sha256
from memo.inference.model import CONFIG, FORMAT, MODEL, TOKENIZER
from memo.multitask.artifact import RECORD as SYSTEM
from memo.tuning.adapter import merge_low_rank
from memo.tuning.artifact import RECORD, Tuned, open_tuned
from memo.tuning.base import Parts, parse_mode
from memo.tuning.config import FinetuneConfig
from memo.tuning.model import TaskModel, build_task_model
from memo.tuning.setup import Backbone, open_backbone, pretrained_parts
from memo.tuning.wording import read_prompts


def export_model(place: Path, pretrained: Path | None, out: Path) -> None:
    """Write a folder that `memo.inference.load` loads.

    Low-rank adapters are merged into the weights beside them; bottlenecks stay modules.

    Args:
        place: of a tuned artifact; or of a run with a single one.
        pretrained: its backbone; where it was trained from if not given.
        out: folder to make.

    Raises:
        UserError: no artifact, several, or another backbone.
    """
    if out.exists():
        raise UserError(f"--out: {out} exists already; give a new folder or remove it")
    folder = find_tuned(place)
    tuned = open_tuned(folder)
    config = tuned.config
    if pretrained is not None:
        config = config.model_copy(update={"pretrained": pretrained})
    backbone = open_backbone(config)
    model = assemble(tuned, config, backbone)
    tuned.load_onto(model, backbone)
    config = _merge(model, config)
    temporary = out.with_name(f"{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_contiguous(model.state_dict()), temporary / MODEL)
    backbone.tokenizer.save(temporary / TOKENIZER)
    record = {
        "format": FORMAT,
        "model_sha256": file_sha256(temporary / MODEL),
        "spec": backbone.spec.model_dump(),
        "features": backbone.checkpoint.features.model_dump(mode="json"),
        "task": tuned.task.model_dump(mode="json"),
        "outputs": None if tuned.outputs == tuned.task.classes else tuned.outputs,
        "config": config.model_dump(mode="json"),
    }
    (temporary / CONFIG).write_text(json.dumps(record, indent=1, ensure_ascii=False), "utf8")
    (temporary / "README.md").write_text(_card(folder, tuned, backbone, model), "utf8")
    temporary.rename(out)


def find_tuned(place: Path) -> Path:
    """The artifact that a path means: itself, or the only one of a run.

    Raises:
        UserError: there is none, or several; names them.
    """
    if (place / RECORD).is_file():
        return place
    found = sorted(path.parent for path in place.glob(f"**/{RECORD}"))
    if not found and next(place.glob(f"**/{SYSTEM}"), None):
        raise UserError(
            f"{place} learned several tasks at once; 'memo predict' answers with it as it is, and "
            "so do open_texts and open_trimodal of memo.multitask.trained; this is for a run of "
            "one task"
        )
    if not found:
        raise UserError(f"there is no tuned model in {place}; give a run of one task that is done")
    if len(found) > 1:
        raise UserError(f"{place} has {len(found)} tuned models; name one, e.g. {found[0]}")
    return found[0]


def assemble(tuned: Tuned, config: FinetuneConfig, backbone: Backbone) -> TaskModel:
    """The model that an artifact belongs to, with new weights where they were new."""
    torch.manual_seed(tuned.seed)
    body, mlm = pretrained_parts(backbone, config)
    prompts = None
    if "prompt" in config.mode.split("+"):
        settings = config.prompt
        prompts = read_prompts(tuned.task, backbone.tokenizer, settings.template, settings.soft)
    outputs = len(tuned.outputs)
    parts = Parts(config, body, mlm, backbone.tokenizer, outputs, prompts)
    return build_task_model(parse_mode(config.mode), parts, torch.ones(outputs))


def _merge(model: TaskModel, config: FinetuneConfig) -> FinetuneConfig:
    """Merge low-rank adapters; the settings of a model that never had them."""
    if "adapter" not in config.mode.split("+") or config.adapter.kind != "lora":
        return config
    merge_low_rank(model)
    mode = {"adapter": "full", "prompt+adapter": "prompt"}[config.mode]
    return config.model_copy(update={"mode": mode})


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _card(folder: Path, tuned: Tuned, backbone: Backbone, model: TaskModel) -> str:
    """The model card: what it is, what made its rows, how well it did."""
    features = backbone.checkpoint.features
    result = folder.parent / "result.json"
    test = json.loads(result.read_text("utf8")).get("test", {}) if result.is_file() else {}
    environment = Environment(  # noqa: S701  (Markdown, in which nothing is escaped)
        loader=PackageLoader("memo.inference", "."), keep_trailing_newline=True
    )
    return environment.get_template("card.md.j2").render(
        task=tuned.task,
        mode=tuned.config.mode,
        several=len(tuned.config.tasks),
        others=[name for name in tuned.outputs if name not in tuned.task.classes],
        parameters=sum(one.numel() for one in model.parameters()),
        backbone=backbone.sha256,
        encoders=[one for one in (features.face, features.speech) if one is not None],
        scores=[(name, one["scores"]) for name, one in test.items()],
    )
