"""The demo corpus: made-up clips, from a seed and in seconds, that a model can learn to complete.

Text, face and speech of a clip share hidden words and a hidden emotion, so that a masked piece of
one modality can be told from the others and not from its own surroundings:

- Text: one word of every slot of a simple sentence, drawn independently, and a word of the clip's
  emotion before or after it. The text tells a masked word's slot, hence one of five words.
- Speech rows: each half of a word has a vector of its own; added are the emotion's tone, as strong
  as the emotion is at that time, the speaker's voice, and noise.
- Face rows: words share `VISEMES` mouth shapes, which open and close once a word, so that lip
  reading tells a word only roughly; added are the emotion's look, the speaker's face, and noise.
- Expression: class posteriors that follow the emotion as it rises and falls around its word.

The speakers of split `valid` do not speak in `train`.
"""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import Clip, Word
from data_pipeline.shards.dataset import FaceSchema, FeatureSchema, SpeechSchema
from data_pipeline.shards.writer import ShardWriter

FACE_DIM = 48
SPEECH_DIM = 64
FACE_FPS = 10.0
SPEECH_ROWS_PER_S = 50 / 3
"""As of an encoder with 50 rows a second whose rows are averaged by three."""

VISEMES = 8
"""Mouth shapes that the words share."""

EMOTION_WORDS = {
    "angry": ("furious", "rage"),
    "disgust": ("gross", "rotten"),
    "fear": ("afraid", "scared"),
    "happy": ("glad", "joy"),
    "neutral": ("plain", "usual"),
    "sad": ("tears", "lonely"),
    "surprise": ("wow", "sudden"),
}
"""The words of each emotion; the emotions are the classes of FER2013, in alphabetical order."""

EMOTIONS = tuple(EMOTION_WORDS)
NEUTRAL = EMOTIONS.index("neutral")

SLOTS = (
    ("mother", "father", "sister", "brother", "teacher"),
    ("brings", "finds", "sells", "wants", "keeps"),
    ("red", "green", "blue", "white", "black"),
    ("bread", "boats", "stones", "flowers", "books"),
    ("outside", "upstairs", "downtown", "here", "abroad"),
    ("today", "tonight", "soon", "later", "again"),
)
"""A sentence takes one word of each slot, in this order."""

OPTIONAL = (2, 5)
"""Slots that may be left out. The longest clip has 7 words, 30 face rows and 50 speech rows."""

VOCABULARY = tuple(word for words in (*SLOTS, *EMOTION_WORDS.values()) for word in words)

WORD_S = (0.32, 0.40)
"""Shortest and longest word, in seconds."""

PAUSE_S = 0.1
"""Silence before the first and after the last word."""

TRAITS = 3
"""In how many ways voices and faces differ from one speaker to another."""

SWELL_S = 0.6
"""How long before and after its word an emotion has fallen to 1/e."""

NOISE = 0.25
SPEAKER = 0.3
"""Standard deviations of the noise and of a speaker's traits; a word's vectors have 1."""

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class _World:
    """What all clips share: a vector for everything that shows in a row.

    Attributes:
        onset, coda: (words, SPEECH_DIM), how a word begins and ends.
        mouth: (words, FACE_DIM), the mouth shape of a word.
        tone: (emotions, SPEECH_DIM).
        look: (emotions, FACE_DIM).
        voices: (TRAITS, SPEECH_DIM), how each trait of a speaker sounds.
        faces: (TRAITS, FACE_DIM), and how it looks.
    """

    onset: Rows
    coda: Rows
    mouth: Rows
    tone: Rows
    look: Rows
    voices: Rows
    faces: Rows

    @property
    def sha256(self) -> str:
        """Stands for the weights of the encoders that a real corpus has."""
        vectors = (getattr(self, field.name) for field in fields(self))
        return hashlib.sha256(b"".join(rows.tobytes() for rows in vectors)).hexdigest()


@dataclass(frozen=True)
class _Speaker:
    """A voice (SPEECH_DIM,) and a face (FACE_DIM,)."""

    name: str
    voice: Rows
    face: Rows


@dataclass(frozen=True)
class _Script:
    """What is hidden behind a clip.

    Attributes:
        emotion: its number.
        words: int64 (n,), numbers in `VOCABULARY`.
        ends: float64 (n + 1,), begin of the first word and the end of each, in seconds.
        peak: when the emotion is strongest, in seconds.
        strength: how strong it is then.
    """

    emotion: int
    words: NDArray[np.int64]
    ends: Rows
    peak: float
    strength: float

    @property
    def duration_s(self) -> float:
        """With the pauses at both ends."""
        return round(float(self.ends[-1]) + PAUSE_S, 3)

    def times(self, rows_per_s: float) -> Rows:
        """The middle of each row that fits into the clip, in seconds."""
        count = int(self.duration_s * rows_per_s)
        times: Rows = np.arange(0.5, count) / rows_per_s
        return times

    def swell(self, times: Rows) -> Rows:
        """(T, 1), how strong the emotion is at each time."""
        swell: Rows = self.strength * np.exp(-(((times - self.peak) / SWELL_S) ** 2))
        return swell[:, None]

    def spoken(self, times: Rows) -> tuple[NDArray[np.int64], Rows, NDArray[np.bool_]]:
        """(T,) word of each row, (T, 1) place in it from 0 to 1, (T, 1) whether one is spoken."""
        place = np.searchsorted(self.ends, times, side="right") - 1
        inside = (place >= 0) & (place < len(self.words))
        place = place.clip(0, len(self.words) - 1)
        passed = (times - self.ends[place]) / np.diff(self.ends)[place]
        return self.words[place], passed[:, None], inside[:, None]


def write_demo(out: Path, seed: int = 0, train: int = 600, valid: int = 100) -> None:
    """Write the demo corpus; the same arguments give the same bytes.

    Args:
        out: folder of the dataset; must not exist.
        seed: of everything.
        train: clips of split `train`, by 40 speakers.
        valid: clips of split `valid`, by 10 others.

    Raises:
        UserError: `out` exists already.
    """
    rng = np.random.default_rng(seed)
    world = _make_world(rng)
    with ShardWriter(
        out, name="demo", corpus="demo", licence="CC0-1.0", features=_features(world)
    ) as writer:
        for split, clips, speakers in (("train", train, 40), ("valid", valid, 10)):
            people = [_make_speaker(rng, world, f"{split}-{number}") for number in range(speakers)]
            for number in range(clips):
                speaker = people[number % speakers]
                writer.write(split, _make_clip(rng, world, speaker, f"{split}-{number:05d}"))


def _features(world: _World) -> FeatureSchema:
    return FeatureSchema(
        face=FaceSchema(
            dim=FACE_DIM,
            fps=FACE_FPS,
            classes=EMOTIONS,
            encoder="demo",
            encoder_sha256=world.sha256,
        ),
        speech=SpeechSchema(
            dim=SPEECH_DIM,
            rows_per_s=SPEECH_ROWS_PER_S,
            encoder="demo",
            encoder_sha256=world.sha256,
        ),
    )


def _make_world(rng: np.random.Generator) -> _World:
    visemes = rng.normal(size=(VISEMES, FACE_DIM))
    return _World(
        onset=rng.normal(size=(len(VOCABULARY), SPEECH_DIM)),
        coda=rng.normal(size=(len(VOCABULARY), SPEECH_DIM)),
        mouth=visemes[rng.integers(VISEMES, size=len(VOCABULARY))],
        tone=rng.normal(size=(len(EMOTIONS), SPEECH_DIM)),
        look=rng.normal(size=(len(EMOTIONS), FACE_DIM)),
        voices=rng.normal(size=(TRAITS, SPEECH_DIM)),
        faces=rng.normal(size=(TRAITS, FACE_DIM)),
    )


def _make_speaker(rng: np.random.Generator, world: _World, name: str) -> _Speaker:
    traits = SPEAKER * rng.normal(size=TRAITS)
    return _Speaker(name, traits @ world.voices, traits @ world.faces)


def _make_script(rng: np.random.Generator) -> _Script:
    """Draw the emotion, the words and their times."""
    emotion = int(rng.integers(len(EMOTIONS)))
    kept = [slot for slot in range(len(SLOTS)) if slot not in OPTIONAL or rng.random() < 0.7]
    spelled = [str(rng.choice(SLOTS[slot])) for slot in kept]
    place = int(rng.choice([0, len(spelled)]))
    spelled.insert(place, str(rng.choice(EMOTION_WORDS[EMOTIONS[emotion]])))
    words = np.array([VOCABULARY.index(word) for word in spelled])
    spans = rng.uniform(*WORD_S, size=len(words)).cumsum().round(3)
    ends = PAUSE_S + np.concatenate([[0], spans])
    peak = float(ends[place : place + 2].mean())
    return _Script(emotion, words, ends, peak, strength=float(rng.uniform(1.0, 1.5)))


def _make_clip(rng: np.random.Generator, world: _World, speaker: _Speaker, key: str) -> Clip:
    script = _make_script(rng)
    spelled = [VOCABULARY[word] for word in script.words]
    spans = np.stack([script.ends[:-1], script.ends[1:]], axis=1).round(3).tolist()
    return Clip(
        key=key,
        text=" ".join(spelled),
        language="en",
        words=tuple(Word(word, *span) for word, span in zip(spelled, spans, strict=True)),
        duration_s=script.duration_s,
        speaker=speaker.name,
        labels={"emotion": EMOTIONS[script.emotion]},
        source="demo",
        face=_face(rng, world, speaker, script),
        expression=_expression(rng, script),
        speech=_speech(rng, world, speaker, script),
    )


def _speech(
    rng: np.random.Generator, world: _World, speaker: _Speaker, script: _Script
) -> NDArray[np.float16]:
    """(T, SPEECH_DIM)."""
    times = script.times(SPEECH_ROWS_PER_S)
    word, passed, inside = script.spoken(times)
    sound = inside * np.where(passed < 0.5, world.onset[word], world.coda[word])
    tone = script.swell(times) * world.tone[script.emotion]
    return _with_noise(rng, sound + tone + speaker.voice)


def _face(
    rng: np.random.Generator, world: _World, speaker: _Speaker, script: _Script
) -> NDArray[np.float16]:
    """(T, FACE_DIM)."""
    times = script.times(FACE_FPS)
    word, passed, inside = script.spoken(times)
    mouth = inside * np.sin(np.pi * passed) * world.mouth[word]
    look = script.swell(times) * world.look[script.emotion]
    return _with_noise(rng, mouth + look + speaker.face)


def _expression(rng: np.random.Generator, script: _Script) -> NDArray[np.float16]:
    """(T, emotions), the posteriors of a classifier that is fairly sure and a little noisy."""
    times = script.times(FACE_FPS)
    scores = NOISE * rng.normal(size=(len(times), len(EMOTIONS)))
    scores[:, NEUTRAL] += 2
    scores[:, script.emotion] += 5 * script.swell(times)[:, 0]
    odds = np.exp(scores)
    posteriors: Rows = odds / odds.sum(axis=1, keepdims=True)
    return posteriors.astype(np.float16)


def _with_noise(rng: np.random.Generator, rows: Rows) -> NDArray[np.float16]:
    return (rows + NOISE * rng.normal(size=rows.shape)).astype(np.float16)
