"""Every fault that a shard can have, made in the first shard of the small dataset."""

import json
import pickle
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.small_data import FACE_DIM, SPEECH_DIM
from benchmarks.tars import Part, join_tar, member, npy, npy_header
from data_pipeline.clip import MOST_BYTES
from data_pipeline.shards.tar import BLOCK

SHARD = "train-000000.tar"
"""The one that is damaged; it holds k0 to k3."""
VICTIM = "k1"
JSON, SPEECH = f"{VICTIM}.json", f"{VICTIM}.speech.npy"
HACKED = "memo-was-hacked"
"""A file that the pickles below make if they are loaded."""
ROWS = np.ones((31, SPEECH_DIM), np.float16)

Damage = Callable[[list[Part]], bytes]
"""Members of the tar -> the damaged tar."""


@dataclass(frozen=True)
class Fault:
    """A fault of a shard.

    Attributes:
        name: of the fault.
        what: what was done to the data.
        damage: does it.
        lost: samples that a run must quarantine -> the member that is named.
        listed: `dataset.json` and the index are made anew, as if the shard had been written so;
            else both are those of the whole shard.
    """

    name: str
    what: str
    damage: Damage
    lost: Mapping[str, str]
    listed: bool = True


class _Evil:
    """Whose pickle makes a file when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (HACKED, "w")


def _place(parts: list[Part], suffix: str, key: str = VICTIM) -> int:
    """Where a member stands."""
    return next(at for at, part in enumerate(parts) if part.name == f"{key}.{suffix}")


def _replaced(suffix: str, *others: Part) -> Damage:
    """A member of the victim gives way to others, or to none."""

    def damage(parts: list[Part]) -> bytes:
        at = _place(parts, suffix)
        return join_tar([*parts[:at], *others, *parts[at + 1 :]])

    return damage


def _inserted(suffix: str, *others: Part) -> Damage:
    """Members are put before one of the victim's."""

    def damage(parts: list[Part]) -> bytes:
        at = _place(parts, suffix)
        return join_tar([*parts[:at], *others, *parts[at:]])

    return damage


def _alone(content: bytes) -> Damage:
    """The victim has this JSON member and nothing else."""

    def damage(parts: list[Part]) -> bytes:
        at = _place(parts, "json")
        rest = [part for part in parts[at:] if not part.name.startswith(f"{VICTIM}.")]
        return join_tar([*parts[:at], member(JSON, content), *rest])

    return damage


def _flipped(suffix: str, at: int) -> Damage:
    """One bit of a member of the victim is another; `at` counts bytes from its header."""

    def damage(parts: list[Part]) -> bytes:
        start = sum(len(part.raw) for part in parts[: _place(parts, suffix)])
        tar = bytearray(join_tar(parts))
        tar[start + at] ^= 1
        return bytes(tar)

    return damage


def _apart(parts: list[Part]) -> bytes:
    at = _place(parts, "speech.npy")
    return join_tar([*parts[:at], *parts[at + 1 :], parts[at]])


def _cut_off(parts: list[Part]) -> bytes:
    at = _place(parts, "speech.npy", "k2")
    return b"".join(part.raw for part in parts[:at]) + parts[at].raw[: BLOCK + 100]


def _record(**values: object) -> bytes:
    return json.dumps({"text": "so it is", **values}).encode()


def _huge_header(size: int) -> Part:
    """A PAX header of so many bytes."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, size
    return Part("", info.tobuf(tarfile.USTAR_FORMAT), bytes(size))


def _flood(count: int) -> Part:
    """So many empty members."""
    return Part("", b"".join(member(f"t{number}.txt").header for number in range(count)))


def _lost_parts() -> list[Fault]:
    return [*_lost_bytes(), *_lost_headers(), *_lost_members(), *_gigantic_members()]


def _lost_bytes() -> list[Fault]:
    cut_off = {"k2": "speech.npy", "k3": "json"}
    found = [
        ("rows", "k1's speech", "speech.npy", 700),
        ("a text", "k1's", "json", BLOCK + 120),
        ("an npy header", "k1's speech", "speech.npy", BLOCK + 70),
    ]
    return [
        Fault("truncated tar", "it ends in k2's speech", _cut_off, cut_off, False),
        *(
            Fault(f"flipped bit in {name}", what, _flipped(suffix, at), {"k1": suffix}, False)
            for name, what, suffix, at in found
        ),
    ]


def _lost_headers() -> list[Fault]:
    name, damage = "flipped bit in a tar header", _flipped("speech.npy", 3)
    lost = {"k1": "", "k2": ""}
    return [
        Fault(name, "k1's speech; the index is there", damage, {}, False),
        Fault(name, "k1's speech; no index of before", damage, lost),
    ]


def _lost_members() -> list[Fault]:
    what = "k1's speech; the index is of before"
    moved = {"k1": "speech.npy", "k2": "json", "k3": "json"}
    faceless, twice = _replaced("face.npy"), _inserted("speech.npy", member(SPEECH, npy(ROWS)))
    found: list[tuple[str, str, Damage, str]] = [
        ("missing JSON", "k1's", _replaced("json"), "json"),
        ("missing required member", "k1's face, whose expression is there", faceless, "face.npy"),
        ("member there twice", "k1's speech", twice, "speech.npy"),
        ("members apart", "k1's speech stands behind k3", _apart, ""),
        ("empty text", "k1 has nothing else", _alone(_record(text=" ")), ""),
    ]
    return [
        Fault("member taken out", what, _replaced("speech.npy"), moved, False),
        *(Fault(name, what, damage, {"k1": named}) for name, what, damage, named in found),
    ]


def _gigantic_members() -> list[Fault]:
    far = member(SPEECH, npy(ROWS), size=50 << 30, form=tarfile.GNU_FORMAT)
    declared, lost = _replaced("speech.npy", far), {"k1": "", "k2": ""}
    image = member(f"{VICTIM}.jpg", bytes(MOST_BYTES + (1 << 20)))
    real = _inserted("face.npy", image)
    return [
        Fault("gigantic member, declared", "50 GiB of k1's speech", declared, lost),
        Fault("gigantic sample, real", "an image of 17 MiB for k1", real, {"k1": "jpg"}),
    ]


def _bad_contents() -> list[Fault]:
    objects = np.array([[_Evil()]], dtype=object)
    found = [
        ("wrong dtype", "k1's speech is float64", "speech.npy", npy(ROWS.astype(np.float64))),
        ("pickle in an npy", "k1's speech is an array of objects", "speech.npy", npy(objects)),
        ("wrong shape", "k1's speech has one dimension", "speech.npy", npy(ROWS[0])),
        ("wrong columns", "6 instead of 5", "speech.npy", npy(np.ones((31, 6), np.float16))),
        (
            "rows declared",
            "999,999,999 x 999,999,999",
            "speech.npy",
            npy_header(999999999, 999999999),
        ),
        ("rows declared", "10^9 x 10^9", "speech.npy", npy_header(10**9, 10**9)),
        ("NaN", "in k1's speech", "speech.npy", npy(np.full_like(ROWS, np.nan))),
        ("infinity", "in k1's speech", "speech.npy", npy(np.full_like(ROWS, np.inf))),
        ("JSON cut off", "`{`", "json", b"{"),
        ("JSON too deep", "100,000 brackets", "json", b"[" * 100_000),
        ("number too large", "a duration of 10^400 s", "json", _record(duration_s=10**400)),
        ("wrong type", "the text is a number", "json", _record(text=7)),
    ]
    faults = [
        Fault(name, what, _replaced(suffix, member(f"{VICTIM}.{suffix}", content)), {"k1": suffix})
        for name, what, suffix, content in found
    ]
    faces = member(f"{VICTIM}.face.npy", npy(np.ones((20, FACE_DIM), np.float16)))
    what = "20 faces, 21 expressions"
    return [
        *faults,
        Fault("wrong number of rows", what, _replaced("face.npy", faces), {"k1": "expression.npy"}),
    ]


def _foreign_members() -> list[Fault]:
    rows, evil = npy(ROWS), pickle.dumps(_Evil())
    holes = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    found = [
        ("name: parent folder", "`../k1.speech.npy`", member(f"../{SPEECH}", rows), "speech.npy"),
        (
            "name: absolute path",
            "`/tmp/k1.speech.npy`",
            member(f"/tmp/{SPEECH}", rows),
            "speech.npy",
        ),
        (
            "name: NUL",
            "`k1.sp\\0eech.npy` in PAX",
            member(SPEECH, rows, pax={"path": "k1.sp\0eech.npy"}),
            "",
        ),
        ("name: line feed", "`k1.speech.npy\\n`", member(f"{SPEECH}\n", rows), ""),
        (
            "name: long, GNU",
            "5,000 letters",
            member(f"{VICTIM}.{'x' * 5000}", rows, form=tarfile.GNU_FORMAT),
            "",
        ),
        ("name: long, PAX", "50,000 letters", member(f"{VICTIM}.{'x' * 50_000}", rows), ""),
        ("symbolic link", "k1's speech", member(SPEECH, kind=tarfile.SYMTYPE), "speech.npy"),
        ("hard link", "k1's speech", member(SPEECH, kind=tarfile.LNKTYPE), "speech.npy"),
        ("device", "k1's speech", member(SPEECH, kind=tarfile.CHRTYPE), "speech.npy"),
        (
            "sparse, GNU",
            "k1's speech",
            member(SPEECH, rows, kind=tarfile.GNUTYPE_SPARSE),
            "speech.npy",
        ),
        ("sparse, PAX", "k1's speech", member(SPEECH, rows, pax=holes), "speech.npy"),
        ("pickle", "`k1.speech.pickle`", member(f"{VICTIM}.speech.pickle", evil), "speech.pickle"),
        ("pickle", "`k1.speech.pyd`", member(f"{VICTIM}.speech.pyd", evil), "speech.pyd"),
    ]
    return [
        Fault(name, what, _replaced("speech.npy", part), {"k1": named})
        for name, what, part, named in found
    ]


def faults(tiny: int, huge: int) -> list[Fault]:
    """All of them.

    Args:
        tiny: members of the flood.
        huge: bytes of the PAX header.
    """
    stray = member("../z.json", _record())
    return [
        *_lost_parts(),
        *_bad_contents(),
        *_foreign_members(),
        Fault("stray member", "`../z.json` before k1", _inserted("json", stray), {}),
        Fault("tiny members", f"{tiny:,} before k1", _inserted("json", _flood(tiny)), {}),
        Fault(
            "huge PAX header",
            f"{huge >> 20} MiB before k1's speech",
            _inserted("speech.npy", _huge_header(huge)),
            {"k1": ""},
        ),
    ]
