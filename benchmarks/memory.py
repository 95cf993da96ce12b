"""Memory of a rehearsal on a CPU: told from meta tensors, and measured.

    python benchmarks/memory.py [key=value ...]

Settings are those of `launch/pretrain.py`; without them, the demo's. Tokens ascend in one process.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from memo.config import PretrainConfig
from memo.settings import load_config
from memo.training.distributed import join
from memo.training.footprint import Footprint, passing_bytes
from memo.training.memory import GIB, ROOT, entry_bytes
from memo.training.pretrain import set_up
from memo.training.rehearsal import step

TOKENS = (264, 1056, 4224)
STATUS = ROOT / "proc/self/status"
DEMO = Path(__file__).parents[1] / "configs" / "pretrain" / "demo.yaml"


def main() -> None:
    """Print a row for each number of tokens."""
    with TemporaryDirectory() as folder, ExitStack() as lock:
        config = load_config(PretrainConfig, DEMO, [*sys.argv[1:], f"run_dir={folder}/run"])
        run = set_up(config, "never", join(config.threads), lock)
        recompute = config.distribution.activation_checkpointing
        about = (config, run.spec, run.transform, run.ranks.device)
        footprint = Footprint(*about, "fp32", recompute)
        stage = config.distribution.zero_stage
        besides = passing_bytes(footprint.parameters, stage, 1, "fp32")
        rows = []
        for tokens in TOKENS:
            told = footprint.of(tokens) + besides
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak
            before = entry_bytes(STATUS, "VmRSS")
            step(run, tokens, free=1024 * GIB)
            measured = entry_bytes(STATUS, "VmHWM") - before
            rows.append({"tokens": tokens, "told_mib": told / 2**20, "rss_mib": measured / 2**20})
            print(rows[-1], flush=True)
    print("RESULT", json.dumps({"parameters": footprint.parameters, "rows": rows}))


if __name__ == "__main__":
    main()
