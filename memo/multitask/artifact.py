"""A trained system, saved so that it can be used: answers for texts, and the shared states.

```
system/
  system.safetensors   the trained tensors; of words their vectors as well
  system.json          tasks, settings, hash of the backbone
  words.txt            the vocabulary, a word a line, of an original backbone
```
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from data_pipeline.shards.index import file_sha256
from memo.multitask.members import Member
from memo.multitask.setup import SystemFold
from memo.tuning.job import Artifact

TENSORS = "system.safetensors"
RECORD = "system.json"
WORDS = "words.txt"
FORMAT = "memo-system/1"


@dataclass(frozen=True)
class SystemArtifact(Artifact):
    """A trained system.

    Attributes:
        name: of its folder.
        fold: that it was trained on.
        tensors: by name: what was trained, and what is nowhere else to be had.
    """

    name: str
    fold: SystemFold
    tensors: Mapping[str, Tensor]

    def save(self, folder: Path) -> None:
        """Write it into a new folder."""
        folder.mkdir(parents=True)
        save_file(dict(self.tensors), folder / TENSORS)
        setup = self.fold.setup
        if self.fold.vocabulary is not None:
            (folder / WORDS).write_text("\n".join(self.fold.vocabulary.words), "utf8")
        record = {
            "format": FORMAT,
            "config": setup.config.model_dump(mode="json"),
            "system": setup.system.model_dump(mode="json"),
            "tasks": _tasks(setup.members),
            "seed": self.fold.seed,
            "backbone_sha256": setup.backbone and setup.backbone.sha256,
            "tensors_sha256": file_sha256(folder / TENSORS),
        }
        (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), "utf8")


def _tasks(members: Sequence[Member]) -> list[dict[str, object]]:
    return [
        {"name": one.name, "answers": list(one.answers), "multi_label": bool(one.traits)}
        for one in members
    ]
