"""An encoder of one's own: the example of the docs, and every way to get one wrong."""

import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import UserError
from data_pipeline.features.device import CPU
from data_pipeline.features.face_encoder import FACE
from data_pipeline.features.speech import SPEECH
from data_pipeline.registry import ModelChoice
from data_pipeline.shards.index import file_sha256

SOUND = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
FACES = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)

SPEECH_CLASS = """
import numpy as np
class Mine:
    dim, rows_per_s = 2, 100.0
    sha256 = "0" * 64
    def __init__(self, weights, device):
        self.given = weights, device
    def encode(self, sound):
        return np.ones((len(sound) // 160, 2))
"""
FACE_CLASS = """
import numpy as np
class Mine:
    dim, input_size = 64, 8
    classes = ("dark", "light")
    sha256 = "0" * 64
    def __init__(self, weights, device):
        self.given = weights, device
    def encode(self, faces):
        rows = faces.reshape(len(faces), -1) / 255
        return rows, np.stack([1 - rows.mean(axis=1), rows.mean(axis=1)], axis=1)
"""


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of one's own modules; what was imported from another one is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def write(folder: Path, code: str, old: str = "", new: str = "") -> None:
    """A module `mine` with a class `Mine`, in which something is replaced."""
    assert old in code
    (folder / "mine.py").write_text(code.replace(old, new, 1))


def test_the_example_of_the_docs_is_an_encoder(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "corpora.md").read_text("utf8")
    (example,) = (part.partition("```")[0] for part in page.split("```python\n")[1:])
    (tmp_path / "mine.py").write_text(example)
    encoder = SPEECH.load(ModelChoice("mine:Loudness"), CPU)
    assert (encoder.name, encoder.dim, encoder.rows_per_s) == ("mine:Loudness", 1, 50.0)
    assert encoder.sha256 == file_sha256(tmp_path / "mine.py")
    rows = encoder.encode(SOUND)
    assert rows.shape == (50, 1)
    assert rows.dtype == np.float32
    expected = [np.log(np.mean(SOUND[at : at + 320] ** 2) + 1e-6) for at in range(0, 16_000, 320)]
    np.testing.assert_allclose(rows[:, 0], expected, rtol=1e-5)


def test_a_face_encoder_of_ones_own_has_rows_and_posteriors(tmp_path: Path) -> None:
    write(tmp_path, FACE_CLASS)
    encoder = FACE.load(ModelChoice("mine:Mine"), CPU)
    assert (encoder.name, encoder.input_size, encoder.classes) == (
        "mine:Mine",
        8,
        ("dark", "light"),
    )
    rows, posteriors = encoder.encode(FACES)
    assert rows.dtype == posteriors.dtype == np.float32
    np.testing.assert_allclose(rows, FACES.reshape(5, 64) / 255, rtol=1e-6)
    np.testing.assert_allclose(posteriors.sum(axis=1), 1, rtol=1e-6)


def test_the_class_may_be_in_a_package_and_gets_weights_and_device(tmp_path: Path) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    said = "np.array([[float(self.given[0].read_text()), self.given[1].type == 'cpu']])"
    code = SPEECH_CLASS.replace("np.ones((len(sound) // 160, 2))", said)
    (package / "inner.py").write_text(code)
    weights = tmp_path / "w"
    weights.write_text("7")
    encoder = SPEECH.load(ModelChoice("own_package.inner:Mine", weights), CPU)
    np.testing.assert_array_equal(encoder.encode(SOUND[:160]), [[7, 1]])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent_module:Mine", "absent_module cannot be imported .*No module.*PYTHONPATH"),
        ("mine:Yours", r"there is no class Yours in .*mine\.py"),
        ("mine:np", r"there is no class np in .*mine\.py"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path, SPEECH_CLASS)
    with pytest.raises(UserError, match=f"^--speech {name}: {message}"):
        SPEECH.load(ModelChoice(name), CPU)


def test_a_module_that_is_no_python_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine\n")
    with pytest.raises(
        UserError, match=r"mine cannot be imported \(.*mine\.py, line 1\)"
    ) as caught:
        SPEECH.load(ModelChoice("mine:Mine"), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["speech", "face"])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sha256 =", "hash =", "it lacks the attribute sha256, 64 hexadecimal digits"),
        ("def encode", "def encoded", "it lacks the attribute encode, the method"),
        ("weights, device):", "weights):", r"it is called with \(weights, device\), but too many"),
        ("sha256 = ", "dim = 0; sha256 = ", "dim is 0, not how many numbers"),
        ("sha256 = ", "dim = True; sha256 = ", "dim is True"),
        ('"0" * 64', '"mine"', "sha256 is 'mine', not 64 hexadecimal"),
    ],
)
def test_a_class_that_is_no_encoder_is_refused(
    tmp_path: Path, kind: str, old: str, new: str, message: str
) -> None:
    write(tmp_path, SPEECH_CLASS if kind == "speech" else FACE_CLASS, old, new)
    with pytest.raises(UserError, match=f"^--{kind} mine:Mine: {message}"):
        (SPEECH if kind == "speech" else FACE).load(ModelChoice("mine:Mine"), CPU)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("100.0", "0", "rows_per_s is 0, not how many rows"),
        ("100.0", "'9'", "rows_per_s is '9'"),
        ("100.0", "float('inf')", "rows_per_s is inf"),
        (
            '("dark", "light")',
            '["dark", "light"]',
            r"classes is \['dark', 'light'\], not the names",
        ),
        ('("dark", "light")', '("dark", 1)', "classes is"),
        ("64, 8", "64, (8, 8)", "input_size is"),
        ("64, 8", "64, 4096", "input_size is 4096, not how many pixels .* 1024"),
    ],
)
def test_attributes_of_the_wrong_kind_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    kind, code = ("speech", SPEECH_CLASS) if old == "100.0" else ("face", FACE_CLASS)
    write(tmp_path, code, old, new)
    with pytest.raises(UserError, match=f"^--{kind} mine:Mine: {message}"):
        (SPEECH if kind == "speech" else FACE).load(ModelChoice("mine:Mine"), CPU)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("np.ones((100, 3))", r"gave float64 \(100, 3\), not an array of floats \(T, 2\)"),
        ("np.ones(100)", r"gave float64 \(100,\)"),
        ("np.array(1.0)", r"gave float64 \(\)"),
        ("np.ones((100, 2), int)", r"gave int64 \(100, 2\)"),
        ("[[1.0, 2.0]] * 100", r"gave \[\[1.0, 2.0\], .*, not an array"),
        ("np.ones((50, 2))", "gave 50 rows of 1.30 s, but rows_per_s is 100"),
    ],
)
def test_speech_rows_that_are_none_are_refused(tmp_path: Path, rows: str, message: str) -> None:
    write(tmp_path, SPEECH_CLASS, "np.ones((len(sound) // 160, 2))", rows)
    sound = np.zeros(round(1.3 * 16_000), np.float32)
    with pytest.raises(UserError, match=f"^--speech mine:Mine: encode {message}"):
        SPEECH.load(ModelChoice("mine:Mine"), CPU).encode(sound)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("rows", ": encode gave ndarray, not a pair: rows and posteriors"),
        ("rows[1:], rows[:, :2]", r", rows: encode gave float64 \(4, 64\), .* \(5, 64\)"),
        ("rows, rows", r", posteriors: encode gave float64 \(5, 64\), .* \(5, 2\)"),
        ("rows, np.array(1.0)", r", posteriors: encode gave float64 \(\), "),
        ("rows, None", ", posteriors: encode gave None, not an array"),
    ],
)
def test_face_rows_that_are_none_are_refused(tmp_path: Path, answer: str, message: str) -> None:
    code = FACE_CLASS.partition("        return")[0] + f"        return {answer}\n"
    write(tmp_path, code)
    with pytest.raises(UserError, match=f"^--face mine:Mine{message}"):
        FACE.load(ModelChoice("mine:Mine"), CPU).encode(FACES)
