"""Tiny corpora, word numbers and settings for the tests of systems."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import torch
import yaml
from torch import nn

from data_pipeline.clip import Clip
from data_pipeline.packing import Example, PackedBatch, Targets, pack
from data_pipeline.shards.dataset import FeatureSchema
from data_pipeline.shards.writer import ShardWriter
from memo.heads.base import LABEL
from memo.multitask.texts import label_specs
from memo.settings import load_config
from memo.tuning.config import FinetuneConfig


def pack_texts(numbers: Sequence[Sequence[int]], dims: tuple[int, int] = (0, 0)) -> PackedBatch:
    """Word numbers of some texts as a batch, all of class 0; `dims` of rows that are not there."""
    nothing = np.zeros(0, dtype=bool)
    face, speech = (np.zeros((0, dim), np.float32) for dim in dims)
    examples = [
        Example(
            sample=at,
            key=f"text-{at}",
            text_ids=np.array(text, dtype=np.int64),
            face=face,
            face_masked=nothing,
            speech=speech,
            speech_masked=nothing,
            targets={LABEL: Targets(np.array([0]), np.array([[0]], dtype=np.int64))},
        )
        for at, text in enumerate(numbers)
    ]
    return pack(examples, label_specs(1), *dims)


def cast_parameters(model: nn.Module) -> None:
    """To bfloat16 as DeepSpeed does it: buffers stay as they are."""
    for one in model.parameters():
        one.data = one.data.to(torch.bfloat16)


MOODS = {"good": "sunny warm", "bad": "cold grey"}
TRAITS = {"calm": "slowly", "loud": "shouting"}
FILLERS = ("the", "a", "cat", "dog", "went", "home", "today", "again")


def write_moods(folder: Path, sessions: Sequence[str] = ("",), each: int = 60) -> Path:
    """Short texts whose two classes have words of their own, in parts train, test, unlabelled."""
    rng = np.random.default_rng(0)
    with _writer(folder) as writer:
        for session in sessions:
            for at in range(each):
                mood = list(MOODS)[at % 2]
                split = "unlabelled" if at % 6 == 5 else "test" if at % 3 == 2 else "train"
                labels = {"mood": mood} if split != "unlabelled" else {}
                text = " ".join([*rng.choice(FILLERS, 4), *MOODS[mood].split(), session])
                clip = Clip(
                    key=f"mood-{session}-{at:03}",
                    text=text,
                    session=session,
                    speaker=f"writer-{session}-{at:03}",
                    labels=dict(labels),
                )
                writer.write(split, clip)
    return folder


def write_people(folder: Path, odd: Mapping[int, str] = MappingProxyType({})) -> Path:
    """Longer texts whose two traits have words of their own; some have an odd text instead."""
    rng = np.random.default_rng(1)
    with _writer(folder) as writer:
        for at in range(120):
            has = {"calm": bool(at & 1), "loud": bool(at & 2)}
            cues = [TRAITS[name] for name, there in has.items() if there]
            words = rng.permutation([*rng.choice(FILLERS, 20), *cues])
            clip = Clip(
                key=f"person-{at:03}",
                text=odd.get(at, " ".join(words.tolist())),
                speaker=f"person-{at:03}",
                labels={name: "yes" if there else "no" for name, there in has.items()},
            )
            writer.write("train", clip)
    return folder


COLOURS = {"good": (250, 200, 40), "bad": (20, 30, 90)}


def write_posts(folder: Path, count: int = 90, broken: Collection[int] = ()) -> Path:
    """Posts of two classes, told by the picture's colour, the words and the tags.

    Every third has no tags, every tenth no text, every fifteenth no picture; those of `broken` have
    one that does not decode.
    """
    rng = np.random.default_rng(2)
    with _writer(folder) as writer:
        for at in range(count):
            mood = list(MOODS)[at % 2]
            pixels = rng.integers(0, 30, (24, 30, 3)) + np.array(COLOURS[mood]) - 15
            image = cv2.imencode(".jpg", pixels.clip(0, 255).astype(np.uint8))[1].tobytes()
            image = b"\xff\xd8\xff" if at in broken else image
            words = [*rng.choice(FILLERS, 4), f"w{at}", *MOODS[mood].split()]
            clip = Clip(
                key=f"post-{at:03}",
                text=None if at % 10 == 9 else " ".join(words),
                tags=() if at % 3 == 2 else (f"tag{mood}",),
                image=None if at % 15 == 14 else image,
                labels={"mood": mood},
            )
            writer.write("train", clip)
    return folder


def write_trimodal(folder: Path, broken: Collection[int] = ()) -> Path:
    """A corpus of posts, some of them with a broken image, and a system of them."""
    task = _write_task(
        folder / "posts.yaml",
        dataset=str(write_posts(folder / "posts_data", broken=broken)),
        label="mood",
        classes=list(MOODS),
        folds={"by": "text", "count": 3},
    )
    return write_system(folder / "trimodal.yaml", "trimodal", task)


def write_system(path: Path, system: str, task: Path) -> Path:
    """A system of one member."""
    members = [{"task": str(task), "longest": 12}]
    return _write(path, name=path.stem, system=system, members=members, seeds=[1])


def _writer(folder: Path) -> ShardWriter:
    features = FeatureSchema(face=None, speech=None)
    return ShardWriter(folder, name=folder.name, corpus="own", licence="own", features=features)


def write_sog(folder: Path, odd: Mapping[int, str] = MappingProxyType({})) -> Path:
    """Corpora, tasks and the system of two tasks: traits, with some odd texts, and moods."""
    write_people(folder / "people_data", odd)
    write_moods(folder / "moods_data")
    by_speaker = {"by": "speaker", "count": 3, "valid_groups": 8}
    _write_task(
        folder / "people.yaml",
        dataset=str(folder / "people_data"),
        traits=list(TRAITS),
        classes=["no", "yes"],
        folds=by_speaker,
    )
    _write_task(
        folder / "moods.yaml",
        dataset=str(folder / "moods_data"),
        label="mood",
        classes=list(MOODS),
        folds=by_speaker,
    )
    members = [
        {"task": str(folder / "people.yaml"), "longest": 30},
        {"task": str(folder / "moods.yaml"), "longest": 10},
    ]
    return _write(folder / "sog.yaml", name="sog", system="sog", members=members, seeds=[1])


def write_pairs(folder: Path, folds: dict[str, object]) -> Path:
    """A system of two tasks with the same writers, each of whom has a text for either.

    Args:
        folder: the corpus is written if it is not there.
        folds: of the second task; the first has three.
    """
    data, answers = folder / "pairs_data", ["no", "yes"]
    if not data.exists():
        with _writer(data) as writer:
            for at in range(48):
                label = ("mood", "calm")[at % 2]
                key, speaker = f"pair-{at:03}", f"writer-{at // 2:03}"
                answer = answers[at // 2 % 2]
                clip = Clip(key, text=f"text {at}", speaker=speaker, labels={label: answer})
                writer.write("train", clip)
    common = {"dataset": str(data), "classes": answers}
    three = {"by": "speaker", "count": 3, "valid_groups": 3}
    for label, of in (("mood", three), ("calm", folds)):
        _write_task(folder / f"{label}.yaml", label=label, folds=of, **common)
    members = [{"task": str(folder / f"{label}.yaml"), "longest": 10} for label in ("mood", "calm")]
    return _write(folder / "pairs.yaml", name="pairs", system="sog", members=members, seeds=[1])


def write_asp(folder: Path) -> Path:
    """A corpus of three sessions, each a task of its own."""
    write_moods(folder / "reviews_data", ("books", "films", "music"), 36)
    task = _write_task(
        folder / "reviews.yaml",
        dataset=str(folder / "reviews_data"),
        label="mood",
        classes=list(MOODS),
        folds={"by": "official", "valid_share": 0.2},
    )
    members = [{"task": str(task), "longest": 10}]
    return _write(
        folder / "asp.yaml",
        name="asp",
        system="asp_mtl",
        members=members,
        each_session=True,
        seeds=[1],
    )


def _write_task(path: Path, **settings: object) -> Path:
    return _write(path, name=path.stem, modalities=["text"], **settings)


def _write(path: Path, **settings: object) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path


OWN = {"sog": ["sog.filters=6", "sog.widths=[1,2]"], "trimodal": ["trimodal.width=8"]}
"""Settings of a system, on whatever it reads texts with."""
OWN_WORDS = {
    "asp_mtl": ["asp_mtl.hidden=6"],
    "trimodal": [
        "trimodal.tag_width=4", "trimodal.filters=4", "trimodal.image.model=test_resnet",
        "trimodal.image.size=32",
    ],
}  # fmt: skip
"""On words."""
WORDS = ["backbone=original", "words.fewest=1", "words.frozen=false"]


def system_config(task: Path, run: Path, *changes: str) -> FinetuneConfig:
    """A few epochs of small networks, on words unless the changes name a backbone."""
    system = yaml.safe_load(task.read_text()).get("system", "")
    words = [] if "backbone=memo" in changes else [*WORDS, *OWN_WORDS.get(system, [])]
    if words and not any(one.startswith("words.vectors=") for one in changes):
        words.append("words.width=8")
    return load_config(
        FinetuneConfig,
        None,
        [
            f"task={task}",
            f"run_dir={run}",
            "threads=1",
            "folds=[0]",
            "training.epochs=2",
            "batch.global_batch=8",
            "optimizer.lr=1e-2",
            "optimizer.warmup_steps=1",
            *OWN.get(system, []),
            *words,
            *changes,
        ],
    )
