"""Tune and evaluate: `deepspeed launch/finetune.py --mode MODE --task TASK --pretrained CKPT`.

Also runs under `torchrun`, `srun` and plain `python`; `launch/finetune.sh` starts it.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from memo.settings import load_config
from memo.training.rank import told_status


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Tune a pretrained model and evaluate it.")
    parser.add_argument(
        "--mode",
        help="full, linear, prompt, adapter or prompt+adapter; of a sequence full, ewc, replay, "
        "adapter or joint; of a system full, linear or adapter",
    )
    parser.add_argument("--task", help="name of a task in configs/tasks, or a YAML file")
    parser.add_argument("--tasks", metavar="A,B", help="several tasks, learned in this order")
    parser.add_argument("--pretrained", help="checkpoint or run of pretraining")
    parser.add_argument(
        "--backbone", help="memo, or of a system of several tasks the one of its original"
    )
    parser.add_argument("--vectors", help="file of word vectors, for an original's backbone")
    parser.add_argument("--config", type=Path, help="YAML file of settings")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=A,B",
        help="a run for each value, or each combination of values, in a folder of its own",
    )
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # given by deepspeed
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="replace a setting of memo/tuning/config.py, e.g. training.epochs=5",
    )
    return parser.parse_intermixed_args()


def main() -> int:
    """Run; a user's mistake is one line on stderr and exit status 2."""
    return told_status("finetune", partial(run, parse_arguments()))


def run(arguments: argparse.Namespace) -> int:
    """Tune with all combinations of settings; the exit status."""
    named = [
        f"{name}={value}"
        for name in ("mode", "task", "pretrained", "backbone")
        if (value := getattr(arguments, name)) is not None
    ]
    if arguments.tasks is not None:
        named.append(f"tasks=[{arguments.tasks}]")
    if arguments.vectors is not None:
        named.append(f"words.vectors={arguments.vectors}")
    from memo.tuning.config import FinetuneConfig  # noqa: PLC0415

    settings = [*named, *arguments.settings]
    configs = [load_config(FinetuneConfig, arguments.config, settings)]
    if arguments.vary:
        from memo.tuning.grid import vary  # noqa: PLC0415

        configs = vary(configs[0].folder, arguments.config, settings, arguments.vary)
    from memo.tuning.run import finetune_each  # noqa: PLC0415  (imports DeepSpeed)

    return finetune_each(configs)


if __name__ == "__main__":
    sys.exit(main())
