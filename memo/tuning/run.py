"""A tuning run from its settings to its results: what `launch/finetune.py` calls."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from data_pipeline.errors import UserError
from data_pipeline.quarantine import Quarantine
from memo.evaluation.scores import SCORES
from memo.training.distributed import Ranks, join
from memo.training.engine import choose_precision
from memo.training.progress import Display
from memo.tuning.artifact import save_tuned
from memo.tuning.config import FinetuneConfig
from memo.tuning.fold import FoldResult, FoldRun, train_fold
from memo.tuning.results import (
    RESULTS,
    fold_folder,
    fold_record,
    read_records,
    summarise_run,
)
from memo.tuning.setup import Setup, set_up

CONFIG = "config.yaml"
ORIGIN = "origin.json"


def finetune(config: FinetuneConfig) -> int:
    """Run every fold with every seed that is not done yet, and sum up.

    Returns:
        The exit status, 0.

    Raises:
        UserError: something that the user can mend, the same on every rank.
    """
    ranks = join(config.threads)
    with ranks.together():
        choose_precision(config.distribution, ranks.device)
        setup = set_up(config)
        _check_folder(setup)
    with ranks.together():
        if ranks.first:
            _write_atomically(config.folder / CONFIG, _dumped(config))
            _write_atomically(config.folder / ORIGIN, json.dumps(_origin(setup), indent=1))
    for fold in setup.folds:
        for seed in setup.seeds:
            _run_fold(setup, ranks, fold, seed)
    if ranks.first:
        results = summarise_run(setup, read_records(setup))
        content = json.dumps(results, indent=1, ensure_ascii=False)
        _write_atomically(config.folder / RESULTS, content)
        _show(results, config.folder)
    return 0


def _origin(setup: Setup) -> dict[str, Any]:
    """What the folds come from, beyond the settings: a name may mean something else tomorrow."""
    return {
        "backbone": setup.backbone.sha256,
        "dataset": setup.data.samples.fingerprint,
        "task": setup.data.task.model_dump(mode="json"),
    }


def _check_folder(setup: Setup) -> None:
    """The run's folder is new, or of a run with the same settings, backbone, corpus and task.

    Raises:
        UserError: it has a run with others.
    """
    config = setup.config
    path = config.folder / CONFIG
    if not path.is_file():
        return
    before, now = yaml.safe_load(path.read_text("utf8")), yaml.safe_load(_dumped(config))
    for free in ("folds", "threads"):  # neither changes what a fold gives
        before.pop(free, None), now.pop(free, None)
    if before != now:
        changed = [name for name in now if before.get(name) != now[name]]
        raise UserError(
            f"{config.folder} has a run with other settings ({', '.join(changed)}); set name= or "
            "run_dir=, or remove it"
        )
    origin, ours = json.loads((config.folder / ORIGIN).read_text("utf8")), _origin(setup)
    for name, value in ours.items():
        if origin[name] != value:
            raise UserError(
                f"{config.folder} has folds of another {name}; set name= or run_dir=, or remove it"
            )


def _dumped(config: FinetuneConfig) -> str:
    """The settings as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _write_atomically(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(content, "utf8")
    temporary.replace(path)


def _run_fold(setup: Setup, ranks: Ranks, fold: int, seed: int) -> None:
    """One fold with one seed, unless it is done."""
    config = setup.config
    folder = fold_folder(config.folder, fold, seed)
    done = ranks.gather(folder.is_dir())[0]
    if done:
        return
    name = f"fold {fold}, seed {seed}"
    part = setup.data.folds[fold]
    steps = max(round(len(part.train) / config.batch.global_batch), 1) * config.training.epochs
    quarantine = Quarantine(config.folder / "quarantine.jsonl", config.max_quarantined)
    run = FoldRun(setup, part, seed, ranks, name, quarantine)
    with Display(name, steps, 0, ranks.first) as display:
        result = train_fold(run, display)
    with ranks.together():
        if ranks.first:
            _save_fold(setup, folder, fold_record(setup, fold, seed, result), result)


def _save_fold(setup: Setup, folder: Path, record: dict[str, Any], result: FoldResult) -> None:
    """Write a fold's folder, whole or not at all."""
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    save_tuned(temporary / "tuned", setup.config, setup.data.task, setup.backbone, result.trained)
    content = json.dumps(record, indent=1, ensure_ascii=False)
    (temporary / "result.json").write_text(content, "utf8")
    for path in temporary.rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    temporary.rename(folder)


def _show(results: dict[str, Any], folder: Path) -> None:
    """The table of the run, on the terminal."""
    table = Table(title=f"{results['task']}, {results['mode']}: {results['runs']} runs")
    table.add_column("visible")
    for title in SCORES.values():
        table.add_column(title, justify="right")
    for pattern, scores in results["scores"].items():
        cells = [f"{scores[name]['mean']:.4f} ± {scores[name]['std']:.4f}" for name in SCORES]
        table.add_row(pattern, *cells)
    for name, scores in results["baselines"].items():
        table.add_row(f"baseline, {name}", *(f"{scores[one]:.4f}" for one in SCORES))
    console = Console()
    console.print(table)
    console.print(f"wrote {folder / RESULTS}", highlight=False)
