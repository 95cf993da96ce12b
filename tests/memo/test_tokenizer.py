"""Tokenizers against sentencepiece, transformers and the whitespace words themselves."""

import hashlib
import importlib
import io
import json
import os
import random
import tarfile
import tracemalloc
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from data_pipeline.shards.tokenizer import TOKENIZER_FILES
from memo.tokenizer import Tokenizer, hugging_face, load_tokenizer, loading, train_sentencepiece

GRAMMAR = (
    "bin lay place set",
    "blue green red white",
    "at by in with",
    "a b c d e f g h i j k l m n o p q r s t u v x y z",
    "zero one two three four five six seven eight nine",
    "again now please soon",
)
MIXED_TEXTS = [
    "Don't stop -- she said, 'I am HAPPY'!",
    "정말 재밌다 ㅋㅋㅋㅠㅠ 그래서 눈물이 난다",
    "나는 오늘 정말 행복하다. 너는 오늘 슬프다.",
    "happy happiness unhappy happily, she was sad; sadly sadness",
    "the quick brown fox jumps over the lazy dog 0123456789 😀",
] * 3
HARD_TEXTS = [
    *MIXED_TEXTS,
    "",
    "  \t\n ",
    "Él está  naïve\u00a0coöperate\u3000Ångström",
    "東京に行く 我爱你abc",
    "emoji 😂👍🏽 done👨‍👩‍👧",
    "a.b,c!d?e (f) [g] {h} `i` ~j $5 ^ + = < >",
    "zero\u200bwidth soft\u00adhyphen \ufeffbom \u200b alone",
    "ﬁne ½ ① ㎏ Ⅷ",
    "x" * 150 + " short",
    unicodedata.normalize("NFD", "가슴이 아프다 Été"),
    "[MASK] [SEP] <mask> <s> </s> <pad> ▁ ▁▁x",
]
BERT_VOCAB = """
[PAD] [unused0] [UNK] [CLS] [SEP] [MASK] ! ' ( ) , - . ; ? [ ] a b c d e f s t x i 我 爱 행 정
##a ##b ##c ##s ##t ##복 ##말 ##하다 happy sad ##ly ##ness un ##happy she was the am don stop
Don HAPPY Él él el est esta 오늘 나는 😂 ½ 0 ##1 mask sep
"""
BERT_PIECES = BERT_VOCAB.split()


@pytest.fixture(scope="session")
def grid_texts() -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choice(words.split()) for words in GRAMMAR) for _ in range(300)]


@pytest.fixture(scope="session")
def small(grid_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A vocabulary of a command grammar, without byte pieces."""
    return train_sentencepiece(grid_texts, tmp_path_factory.mktemp("small"), 200)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A Korean and English vocabulary with byte pieces."""
    return train_sentencepiece(MIXED_TEXTS, tmp_path_factory.mktemp("mixed"), 2000)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def xlm_r_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file in the form of XLM-R's, trained with SentencePiece's defaults."""
    folder = tmp_path_factory.mktemp("xlm-r")
    (folder / "sentencepiece.bpe.model").write_bytes(train_plain(MIXED_TEXTS))
    return folder


@pytest.fixture(scope="session", params=["small", "mixed", "bert", "xlm-r"])
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    name = str(request.param)
    if name in {"small", "mixed"}:
        tokenizer: Tokenizer = request.getfixturevalue(name)
        return tokenizer
    return load_tokenizer(request.getfixturevalue(f"{name.replace('-', '_')}_folder"))


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    cpu_torch.install()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return importlib.import_module("transformers")


@pytest.fixture(scope="session")
def minilm() -> Path:
    default = Path.home() / ".cache/memo/weights/minilm"
    place = Path(os.environ.get("MEMO_MINILM", default))
    if not (place / "vocab.txt").is_file():
        pytest.skip(f"no MiniLM at {place} (set MEMO_MINILM)")
    return place


class Reference(Protocol):
    """What is used of transformers' tokenizers."""

    def __len__(self) -> int: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@pytest.fixture(scope="session")
def minilm_pair(transformers: ModuleType, minilm: Path) -> tuple[Tokenizer, Reference]:
    return load_tokenizer(minilm), reference_bert(transformers, minilm)


def write_bert(folder: Path, **casing: bool | None) -> Path:
    (folder / "vocab.txt").write_text("\n".join(BERT_PIECES) + "\n", encoding="utf8")
    if casing:
        (folder / "tokenizer_config.json").write_text(json.dumps({"max_len": 9, **casing}))
    return folder


def train_plain(texts: Iterable[str]) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=400,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def reference_bert(transformers: ModuleType, folder: Path) -> Reference:
    """transformers' tokenizer, told to cut texts that spell special pieces like any text."""
    tokenizer: Reference = transformers.BertTokenizer.from_pretrained(
        folder, split_special_tokens=True
    )
    return tokenizer


def spm_of(tokenizer: Tokenizer, folder: Path) -> sentencepiece.SentencePieceProcessor:
    tokenizer.save(folder)
    return sentencepiece.SentencePieceProcessor(model_file=str(next(folder.glob("*.model"))))


def test_words_of_a_small_grammar_are_single_pieces(
    small: Tokenizer, grid_texts: list[str]
) -> None:
    for text in grid_texts[:50]:
        encoded = small.encode(text)
        assert encoded.ids.dtype == encoded.word.dtype == np.int64
        assert encoded.word.tolist() == list(range(6))
        assert small.decode(encoded.ids) == text


def test_special_pieces_are_the_first_five(small: Tokenizer, mixed: Tokenizer) -> None:
    for tokenizer in (small, mixed):
        special = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id)
        assert (*special, tokenizer.mask_id) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("text", ["[MASK]", "[CLS] a [SEP]", "<s> <mask>", "<pad></s>", "[PAD]"])
def test_no_text_yields_a_special_piece(any_tokenizer: Tokenizer, text: str) -> None:
    ids = set(any_tokenizer.encode(text).ids.tolist())
    t = any_tokenizer
    assert ids
    assert not ids & {t.pad_id, t.cls_id, t.sep_id, t.mask_id}


def test_decode_leaves_special_pieces_out(any_tokenizer: Tokenizer) -> None:
    t = any_tokenizer
    ids = t.encode("happy sad").ids.tolist()
    framed = [t.cls_id, *ids, t.mask_id, t.sep_id, t.pad_id]
    assert t.decode(framed) == t.decode(ids)


@settings(max_examples=60)
@given(text=st.lists(st.sampled_from(HARD_TEXTS) | st.text(max_size=12), max_size=4).map(" ".join))
def test_words_are_the_whitespace_words_that_leave_pieces(
    any_tokenizer: Tokenizer, text: str
) -> None:
    encoded = any_tokenizer.encode(text)
    alone = [any_tokenizer.encode(word).ids for word in text.split()]
    lengths = [len(ids) for ids in alone if len(ids)]
    assert encoded.ids.tolist() == [number for ids in alone for number in ids]
    assert np.bincount(encoded.word).tolist() == lengths
    assert (np.diff(encoded.word) >= 0).all()
    assert any_tokenizer.count(text) == len(encoded.ids) == len(encoded.word)
    assert ((encoded.ids >= 0) & (encoded.ids < any_tokenizer.vocab_size)).all()


@pytest.mark.parametrize("text", MIXED_TEXTS[:5])
def test_cutting_by_words_is_cutting_at_once(mixed: Tokenizer, tmp_path: Path, text: str) -> None:
    assert mixed.encode(text).ids.tolist() == spm_of(mixed, tmp_path).encode(text)


def test_single_hangul_letters_are_kept_and_decomposed_syllables_composed(
    mixed: Tokenizer,
) -> None:
    laughter = "ㅋㅋㅋㅠㅠ ㅎㅏ"
    assert mixed.decode(mixed.encode(laughter).ids) == laughter
    syllables = "정말 슬프다 é"
    decomposed = unicodedata.normalize("NFD", syllables)
    assert decomposed != syllables
    assert mixed.decode(mixed.encode(decomposed).ids) == syllables


@given(st.text(st.characters(exclude_categories=["M", "Cs", "Cc", "Cf", "Lm", "Lo"])))
def test_normalisation_is_casefolded_nfkc(mixed: Tokenizer, text: str) -> None:
    """Letters without case and marks apart: they compose across characters."""
    text = text.replace("▁", "")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    assert mixed.decode(mixed.encode(text).ids) == " ".join(folded.split())


def test_a_large_vocabulary_knows_every_character_and_a_small_one_its_own(
    small: Tokenizer, mixed: Tokenizer
) -> None:
    assert mixed.unk_id not in mixed.encode("쀍 🦄 ж").ids
    assert small.unk_id in small.encode("쀍").ids
    assert small.unk_id not in small.encode("zebra quiz").ids


def test_lone_surrogates_become_question_marks(any_tokenizer: Tokenizer) -> None:
    half = json.loads(r'"a\ud83d b"')
    assert any_tokenizer.encode(half).ids.tolist() == any_tokenizer.encode("a? b").ids.tolist()


def test_words_without_end_are_cut_and_not_kept(mixed: Tokenizer) -> None:
    """The text of a damaged sample may be one word of megabytes, and another in every sample."""
    tracemalloc.start()
    for number in range(4):
        assert len(mixed.encode("happy" * 40_000 + str(number)).ids) > 40_000
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 200_000


def test_random_replacements_are_text(any_tokenizer: Tokenizer) -> None:
    t = any_tokenizer
    normal = t.normal_ids
    assert (np.diff(normal) > 0).all()
    assert not set(normal.tolist()) & {t.pad_id, t.unk_id, t.cls_id, t.sep_id, t.mask_id}
    assert all(t.decode([number]).isprintable() for number in normal.tolist())
    seen = {n for text in ("happy sad", "bin lay") for n in t.encode(text).ids.tolist()}
    assert seen - {t.unk_id} <= set(normal.tolist())


def test_byte_and_unused_pieces_are_no_random_replacements(
    mixed: Tokenizer, small: Tokenizer, bert_folder: Path
) -> None:
    assert len(mixed.normal_ids) == mixed.vocab_size - 5 - 256
    assert len(small.normal_ids) == small.vocab_size - 5
    assert len(load_tokenizer(bert_folder).normal_ids) == len(BERT_PIECES) - 6


def test_training_depends_on_the_words_alone(
    small: Tokenizer, grid_texts: list[str], tmp_path: Path
) -> None:
    shuffled = random.Random(1).sample(grid_texts, len(grid_texts))
    again = train_sentencepiece((f" {text}\n" for text in shuffled), tmp_path / "new" / "one", 200)
    assert again.fingerprint == small.fingerprint
    model = (tmp_path / "new" / "one" / "tokenizer.model").read_bytes()
    assert hashlib.sha256(model).hexdigest() == small.fingerprint
    assert [file.name for file in (tmp_path / "new" / "one").iterdir()] == ["tokenizer.model"]


def test_too_few_pieces_are_refused_with_the_number_that_does(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^12 pieces are too few: .* need \d+$") as refusal:
        train_sentencepiece(["bin blue at f two now"], tmp_path / "out", 12)
    assert not (tmp_path / "out").exists()
    needed = int(str(refusal.value).split()[-1])
    assert train_sentencepiece(["bin blue at f two now"], tmp_path, needed).vocab_size == needed


@pytest.mark.parametrize("texts", [[], ["", " \n"], ["\x01"]])
def test_training_on_nothing_is_refused(texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="text"):
        train_sentencepiece(texts, tmp_path / "out", 100)
    assert not (tmp_path / "out").exists()


def test_long_texts_are_not_dropped(tmp_path: Path) -> None:
    tokenizer = train_sentencepiece(["tears " * 2000, "joy"], tmp_path, 100)
    assert tokenizer.count("tears") == 1


def test_a_saved_tokenizer_is_the_same(any_tokenizer: Tokenizer, tmp_path: Path) -> None:
    any_tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.fingerprint == any_tokenizer.fingerprint
    assert again.vocab_size == any_tokenizer.vocab_size
    for text in HARD_TEXTS:
        assert again.encode(text).ids.tolist() == any_tokenizer.encode(text).ids.tolist()


def test_casing_is_part_of_the_fingerprint(bert_folder: Path, tmp_path: Path) -> None:
    cased = load_tokenizer(write_bert(tmp_path, do_lower_case=False))
    uncased = load_tokenizer(bert_folder)
    assert cased.fingerprint != uncased.fingerprint
    assert load_tokenizer(bert_folder / "vocab.txt").fingerprint == uncased.fingerprint


@pytest.mark.parametrize(
    "casing",
    [
        {"do_lower_case": True},
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False},
    ],
)
def test_bert_pieces_are_those_of_transformers(
    transformers: ModuleType, tmp_path: Path, casing: dict[str, bool | None]
) -> None:
    ours = load_tokenizer(write_bert(tmp_path, **casing))
    theirs = reference_bert(transformers, tmp_path)
    special = (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id)
    assert special == tuple(
        BERT_PIECES.index(f"[{n}]") for n in ("PAD", "UNK", "CLS", "SEP", "MASK")
    )
    assert ours.vocab_size == len(theirs)
    for text in HARD_TEXTS:
        assert ours.encode(text).ids.tolist() == theirs.encode(text, add_special_tokens=False)


@given(st.text())
def test_minilm_pieces_are_those_of_transformers_for_any_text(
    minilm_pair: tuple[Tokenizer, Reference], text: str
) -> None:
    """Vertical tabs and the like apart, which separate words here."""
    ours, theirs = minilm_pair
    text = "".join(char for char in text if char not in "\x0b\x0c\x1c\x1d\x1e\x1f\x85")
    for example in [text, *HARD_TEXTS]:
        assert ours.encode(example).ids.tolist() == theirs.encode(example, add_special_tokens=False)


def test_minilm_reads_the_same_from_either_file(minilm: Path) -> None:
    from_vocab = load_tokenizer(minilm)
    from_json = load_tokenizer(minilm / "tokenizer.json")
    assert from_vocab.vocab_size == from_json.vocab_size == 30522
    assert (from_vocab.normal_ids == from_json.normal_ids).all()
    assert len(from_vocab.normal_ids) == 30522 - 5 - 994
    for text in HARD_TEXTS:
        assert (from_vocab.encode(text).ids == from_json.encode(text).ids).all()


def test_xlm_r_numbers_are_the_models_shifted_by_one(xlm_r_folder: Path) -> None:
    model = sentencepiece.SentencePieceProcessor(
        model_file=str(xlm_r_folder / "sentencepiece.bpe.model")
    )
    ours = load_tokenizer(xlm_r_folder)
    assert ours.vocab_size == len(model) + 2
    for text in MIXED_TEXTS[:5]:
        shifted = [3 if number == 0 else number + 1 for number in model.encode(text)]
        assert ours.encode(text).ids.tolist() == shifted
        assert ours.decode(shifted) == model.decode(model.encode(text))
    assert ours.unk_id in ours.encode("ж").ids


def test_xlm_r_pieces_are_those_of_transformers(
    transformers: ModuleType, xlm_r_folder: Path, tmp_path: Path
) -> None:
    theirs = transformers.XLMRobertaTokenizer.from_pretrained(xlm_r_folder)
    theirs.save_pretrained(tmp_path)  # as tokenizer.json
    for ours in (load_tokenizer(xlm_r_folder), load_tokenizer(tmp_path)):
        special = (ours.cls_id, ours.pad_id, ours.sep_id, ours.unk_id, ours.mask_id)
        assert special == (0, 1, 2, 3, len(theirs) - 1)
        assert (theirs.cls_token_id, theirs.pad_token_id, theirs.sep_token_id) == (0, 1, 2)
        assert ours.vocab_size == len(theirs)
        for text in ("she was HAPPY", "나는 오늘 정말 행복하다.", "dog 😀 жук", ""):
            assert ours.encode(text).ids.tolist() == theirs.encode(text, add_special_tokens=False)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("tokenizer.model", b"no model", "no SentencePiece model"),
        ("tokenizer.model", b"", "no SentencePiece model"),
        ("sentencepiece.bpe.model", b"no model", "no SentencePiece model"),
        ("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n", r"no piece \[MASK\]"),
        ("vocab.txt", b"\xff\xfe", "utf-8"),
        ("tokenizer.json", b"{", "Expecting"),
        ("tokenizer.json", b"[]", "model is None"),
        ("tokenizer.json", b'{"model": "WordPiece"}', "model is None"),
        ("tokenizer.json", b'{"model": {"type": ["WordPiece"]}}', "model is .*Wo"),
        ("tokenizer.json", b"[" * 100_000, "recursion"),
        ("tokenizer.json", b'{"model": {"type": "BPE"}}', "model is BPE"),
        ("tokenizer.json", b'{"model": {"type": "WordPiece"}}', "missing"),
        ("tokenizer.pkl", b"", "its name should be"),
    ],
)
def test_an_unusable_file_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=reason) as refusal:
        load_tokenizer(tmp_path / name)
    assert str(tmp_path / name) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_model_without_special_pieces_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(train_plain(MIXED_TEXTS))
    with pytest.raises(UserError, match=r"no piece \[PAD\] or <pad>"):
        load_tokenizer(tmp_path)


def test_our_model_under_the_name_of_xlm_r_is_refused(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    (tmp_path / "tokenizer.model").rename(tmp_path / "sentencepiece.bpe.model")
    with pytest.raises(UserError, match="XLM-R"):
        load_tokenizer(tmp_path)


def test_a_casing_that_is_no_boolean_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": "no"}')
    with pytest.raises(UserError, match="BertCasing"):
        load_tokenizer(tmp_path)


def test_a_server_is_asked_for_all_files_that_a_folder_may_hold() -> None:
    assert {*loading.KNOWN_FILES, hugging_face.CONFIG_FILE} == {*TOKENIZER_FILES}


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer at .*missing; train one"):
        load_tokenizer(tmp_path / "missing")
    with pytest.raises(UserError, match=r"none of tokenizer\.model"):
        load_tokenizer(tmp_path)


@pytest.mark.corpora
def test_real_korean_and_english_text(shared: Path, tmp_path: Path) -> None:
    texts = _real_texts(shared)
    tokenizer = train_sentencepiece(texts, tmp_path, 3000)
    for text in texts[::20]:
        encoded = tokenizer.encode(text)
        assert encoded.word[-1] + 1 == len(text.split())
        assert tokenizer.unk_id not in encoded.ids
        decoded = tokenizer.decode(encoded.ids)
        assert (tokenizer.encode(decoded).ids == encoded.ids).all()
        if text.isascii():
            assert decoded == " ".join(text.casefold().split())


def _real_texts(shared: Path) -> list[str]:
    korean = _lines_in(shared / "data/korean_text.tar.xz", "korean_text/nsmc_style_40k.tsv")
    english = _lines_in(shared / "data/grid_s1.tar", "transcripts.tsv")
    reviews = [line.split("\t")[1] for line in korean[1:2001]]
    return [text for text in reviews if text.strip()] + [
        line.split("\t")[1] for line in english[1:]
    ]


def _lines_in(archive: Path, name: str) -> list[str]:
    with tarfile.open(archive) as tar:
        member = next(entry for entry in tar if entry.name.endswith(name))
        file = tar.extractfile(member)
        assert file is not None
        return file.read().decode("utf8").splitlines()
