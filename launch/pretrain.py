"""Pretrain: `deepspeed launch/pretrain.py [--config FILE] [key=value ...]`.

Also runs under `torchrun`, `srun` and plain `python`. Without arguments it makes the demo corpus
and trains on it.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from memo.config import PretrainConfig
from memo.settings import load_config
from memo.training.rank import told_status

DEMO_CONFIG = Path(__file__).parents[1] / "configs" / "pretrain" / "demo.yaml"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Pretrain the cross-modal transformer.")
    parser.add_argument(
        "--config",
        type=Path,
        default=DEMO_CONFIG,
        help="YAML file of settings; the demo's if not given",
    )
    parser.add_argument(
        "--resume", default="auto", help="auto (default), never, or a checkpoint's or run's folder"
    )
    parser.add_argument("--dry-run", action="store_true", help="plan the run, write nothing")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # given by deepspeed
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="replace a setting of memo/config.py, e.g. optimizer.lr=1e-4",
    )
    return parser.parse_intermixed_args()


def main() -> int:
    """Run; a user's mistake is one line on stderr and exit status 2."""
    return told_status("pretrain", partial(run, parse_arguments()))


def run(arguments: argparse.Namespace) -> int:
    """Pretrain, or plan it; the exit status."""
    config = load_config(PretrainConfig, arguments.config, arguments.settings)
    if arguments.dry_run:
        from memo.training.dry_run import dry_run  # noqa: PLC0415  (imports torch)

        return dry_run(config)
    from memo.training.pretrain import pretrain  # noqa: PLC0415  (imports DeepSpeed)

    return pretrain(config, arguments.resume)


if __name__ == "__main__":
    sys.exit(main())
