"""The corpora of text, and of text with pictures: in their own layout, small, and the real ones."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import pytest

from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.clip import Word
from data_pipeline.corpora.base import load_corpus
from data_pipeline.corpora.fdu_mtl import DOMAINS
from data_pipeline.corpora.mvsa import APART, TAG
from data_pipeline.corpora.source import open_source, read_table
from data_pipeline.errors import UserError
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.registry import ModelChoice
from data_pipeline.shards.reader import open_dataset
from tests.data_pipeline.corpora.test_labelled import read, write

FDU = {f"{domain}.task.{part}": "" for domain in DOMAINS for part in ("train", "test", "unlabel")}


def test_fdu_mtl_has_domains_splits_and_old_bytes(tmp_path: Path) -> None:
    lines = {
        "books.task.train": b"1\tgood  book\n0\tbad\n",
        "MR.task.test": b"0\tclich\xe9 \x96 no\n\n",
        "dvd.task.unlabel": "1 disc, caf\u00e9\n".encode(),
    }
    write(tmp_path / "mtl-dataset", {**FDU, **lines})  # in a folder more, as archives have them
    found = read("fdu_mtl", tmp_path)
    assert [one.key for one in found] == [
        "books-train-0001",
        "books-train-0002",
        "dvd-unlabelled-0001",
        "MR-test-0001",
    ]
    assert [one.text for one in found] == [
        "good book",
        "bad",
        "1 disc, caf\u00e9",
        "clich\u00e9 \u2013 no",
    ]
    assert [one.session for one in found] == ["books", "books", "dvd", "MR"]
    assert [one.labels.get("sentiment") for one in found] == [
        "positive",
        "negative",
        None,
        "negative",
    ]


def test_fdu_mtl_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the source has no books\.task\.train"):
        read("fdu_mtl", tmp_path)
    write(tmp_path, {**FDU, "baby.task.test": "1\tfine\nno label\n"})
    with pytest.raises(UserError, match=r"line 2 of baby\.task\.test does not begin with 0 or 1"):
        read("fdu_mtl", tmp_path)


ISEAR = "ID|Field1|MYKEY|SIT|STATE|\n"


def test_isear_mends_answers_and_leaves_out_none(tmp_path: Path) -> None:
    lines = (
        "11|joy|0110011|When I met \u00e1 her.|1|\n"
        "12|guilt|0110012|[ No response.]|1|\n"
        '12|shame|0110013|I was \\hyper\\" then \u00e1|and ran."|1|\n'
    )
    first, second = read("isear", write(tmp_path, {"sog_text/isear.csv": ISEAR + lines}))
    assert (first.key, first.text) == ("isear-0110011", "When I met her.")
    assert (first.speaker, first.labels) == ("11", {"emotion": "joy"})
    assert second.text == 'I was "hyper" then and ran.'
    write(tmp_path, {"sog_text/isear.csv": ISEAR + "1|joy\n"})
    with pytest.raises(UserError, match=r"line 2 of .* has not as many columns"):
        read("isear", tmp_path)
    write(tmp_path, {"sog_text/isear.csv": "ID|SIT\n"})
    with pytest.raises(UserError, match="has no column 'Field1'"):
        read("isear", tmp_path)


def test_tec(tmp_path: Path) -> None:
    lines = "14:\tWow  :: such fun\t:: joy\n\n14:\toh\t:: fear\n"
    name = "Jan9-2012-tweets-clean.txt"
    found = read("tec", write(tmp_path, {name: lines}))
    assert [(one.key, one.text) for one in found] == [
        ("tec-00001", "Wow :: such fun"),
        ("tec-00003", "oh"),
    ]
    assert [one.labels["emotion"] for one in found] == ["joy", "fear"]
    write(tmp_path, {name: "14 joy\n"})
    with pytest.raises(UserError, match=r"line 1 of .* is not 'number: text :: emotion'"):
        read("tec", tmp_path)


def test_essays_have_five_labels(tmp_path: Path) -> None:
    header = "AUTHID,TEXT,cEXT,cNEU,cAGR,cCON,cOPN\n"
    root = write(tmp_path, {"essays.csv": header + '1997_50.txt,"Well, now",n,y,n,y,1\n'})
    (found,) = read("essays", root)
    published = (
        '"#AUTHID"' + header.removeprefix("AUTHID") + '1997_50.txt,"Well\x92s now",n,y,n,y,1\n'
    )
    write(tmp_path / "published", {"essays.csv": published.encode("latin-1")})
    (old,) = read("essays", tmp_path / "published")
    assert (old.text, old.labels, old.key) == ("Well\u2019s now", found.labels, found.key)
    assert (found.key, found.text) == ("essay-1997_50", "Well, now")
    assert found.labels == {
        "openness": "yes",
        "conscientiousness": "yes",
        "extraversion": "no",
        "agreeableness": "no",
        "neuroticism": "yes",
    }
    write(tmp_path, {"essays.csv": header + "a,b,n,maybe,n,y,y\n"})
    with pytest.raises(UserError, match="cNEU='maybe' of a, not y or n"):
        read("essays", tmp_path)


def picture() -> bytes:
    done, content = cv2.imencode(".jpg", np.full((8, 8, 3), 90, np.uint8))
    assert done
    return content.tobytes()


def build(
    corpus: str, source: Path, out: Path, options: Mapping[str, Path | str] = MappingProxyType({})
) -> None:
    extract = ExtractSettings(ModelChoice("denseface"), ModelChoice("whisper"))
    build_dataset(BuildSettings(corpus, source, out, extract, options=options))


MVSA = "id\tlabel\traw_text\ttext_no_tags\thashtags\timage\n"


def mvsa(lines: str, first: bytes, second: bytes) -> dict[str, str | bytes]:
    return {"manifest.tsv": MVSA + lines, "img/7.jpg": first, "img/8.jpg": second}


def test_mvsa_becomes_clips_with_images_and_needs_no_encoder(tmp_path: Path) -> None:
    lines = "7\tneutral\tx #a #b\tx\ta b\timg224/7.jpg\n8\tpositive\t\t\t\timg224/8.jpg\n"
    files = mvsa(lines, picture(), picture())
    source = write(tmp_path / "raw", files)
    build("mvsa", source, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert (dataset.info.features.face, dataset.info.features.speech) == (None, None)
    samples = dataset.whole()
    first, second = samples.read(0), samples.read(1)
    assert (first.text, first.tags, first.image) == ("x", ("a", "b"), picture())
    assert (second.text, second.tags, second.labels) == (None, (), {"sentiment": "positive"})
    assert second.source == "img/8.jpg"


def as_published(votes: str, folder: str = "data") -> dict[str, str | bytes]:
    words: dict[int, str | bytes] = {
        7: "So #glad to be here!#joy https://t.co/x9",
        10: b"caf\xe9 \x93closed\x94",
        8: "#only #tags",
        9: "RT @kim: well",
    }
    files: dict[str, str | bytes] = {f"{folder}/{at}.txt": one for at, one in words.items()}
    pictures = {f"{folder}/{at}.jpg": picture() for at in words}
    return files | pictures | {"labelResultAll.txt": votes}


def test_mvsa_as_published_has_both_sentiments_and_what_is_made_of_them(tmp_path: Path) -> None:
    votes = "ID\ttext,image\n7\tneutral,positive\n10\tnegative,positive\n8\tneutral,neutral\n"
    found = read("mvsa", write(tmp_path, as_published(votes + "9\tnegative,neutral\n")))
    assert [(one.key, one.text, one.tags, one.image) for one in found] == [
        ("mvsa-7", "So to be here!", ("glad", "joy"), "data/7.jpg"),
        ("mvsa-10", "caf\u00e9 \u201cclosed\u201d", (), "data/10.jpg"),
        ("mvsa-8", None, ("only", "tags"), "data/8.jpg"),
        ("mvsa-9", "RT @kim: well", (), "data/9.jpg"),
    ]
    assert [one.labels.get("sentiment") for one in found] == [
        "positive", None, "neutral", "negative",
    ]  # fmt: skip
    assert found[1].labels == {"text_sentiment": "negative", "image_sentiment": "positive"}


def test_mvsa_multiple_has_what_most_of_three_say(tmp_path: Path) -> None:
    votes = (
        "ID\ttext,image\ttext,image\ttext,image\n"
        "7\tneutral,positive\tneutral,neutral\tpositive,positive\n"
        "8\tneutral,positive\tnegative,positive\tpositive,positive\n"
    )
    write(tmp_path / "x", as_published(votes))
    write(tmp_path, {"about/8.txt": "how it was made"})
    first, second = read("mvsa", tmp_path)
    assert (first.image, second.text) == ("x/data/7.jpg", None)
    assert first.labels == {
        "sentiment": "positive",
        "text_sentiment": "neutral",
        "image_sentiment": "positive",
    }
    assert second.labels == {"image_sentiment": "positive"}


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ("ID\n7\tgood,neutral\n", "line 2 of labelResultAll.txt is not an id and text,image"),
        ("ID\n7\n", "line 2 of labelResultAll.txt is not an id and text,image sentiments: '7'"),
        ("ID\n\n5\tneutral,neutral\n", "data has no 5.jpg or no 5.txt, which labelResultAll.txt"),
        ("7\tneutral,neutral\n", "labelResultAll.txt does not begin with a line of ID"),
        ("", "labelResultAll.txt does not begin with a line of ID"),
    ],
)
def test_what_is_wrong_with_mvsa_as_published_is_one_line(
    tmp_path: Path, votes: str, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read("mvsa", write(tmp_path, as_published(votes)))


def test_two_sets_of_mvsa_are_not_one(tmp_path: Path) -> None:
    for name in ("MVSA", "MVSA_Single"):
        write(tmp_path / name, as_published("ID\ttext,image\n7\tneutral,neutral\n"))
    message = "MVSA/labelResultAll.txt and MVSA_Single/labelResultAll.txt are two corpora"
    with pytest.raises(UserError, match=message):
        read("mvsa", tmp_path)


def test_a_picture_that_cannot_be_decoded_is_quarantined(tmp_path: Path) -> None:
    lines = "7\tneutral\tx\tx\t\timg224/7.jpg\n8\tpositive\ty\ty\t\timg224/8.jpg\n"
    files = mvsa(lines, b"GIF89a", picture())
    build("mvsa", write(tmp_path / "raw", files), tmp_path / "out")
    assert len(open_dataset(tmp_path / "out").whole()) == 1
    assert "mvsa-7" in (tmp_path / "out" / "quarantine.jsonl").read_text()


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    lines = "key,text,speaker,mood,media,split\na,hello,s1,glad,,\n,bye,s2,,,test\n"
    path = tmp_path / "mine.csv"
    path.write_text(lines)
    first, second = read("table", path)
    assert (first.key, first.split, first.labels) == ("a", "train", {"mood": "glad"})
    assert (second.key, second.split, second.labels) == ("clip-000002", "test", {})
    assert first.media is None
    path.write_text("text;mood\nhello;glad\n")
    message = "one of the columns text, media, image; it has 'text;mood' (.csv: with commas"
    with pytest.raises(UserError, match=re.escape(message)):
        read("table", path)
    path.write_text("text,mood\n")
    with pytest.raises(UserError, match=r"mine\.csv has no line below the names of its columns"):
        read("table", path)
    with pytest.raises(UserError, match=r"the source has 0 \.csv and \.tsv files; one says"):
        read("table", write(tmp_path / "empty", {"a.txt": ""}))
    (clip,) = read("table", write(tmp_path / "loud", {"T.CSV": "text\nhello\n"}))
    assert clip.text == "hello"


def test_a_table_in_another_encoding_needs_its_name(tmp_path: Path) -> None:
    lines = 'text,mood\r\n"안녕\r\n하세요",기쁨\r\n'
    path = tmp_path / "mine.csv"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(lines.encode(encoding))
        (clip,) = read("table", path)
        assert (clip.text, clip.labels) == ("안녕\r\n하세요", {"mood": "기쁨"})
    path.write_bytes(lines.encode("cp949"))
    with pytest.raises(UserError, match=r"^mine\.csv: line 2 is not in utf-8; say with --encoding"):
        read("table", path)
    corpus = load_corpus("table", {"encoding": "cp949"})
    assert corpus.recordings(open_source(path)) == [clip]
    with pytest.raises(UserError, match="--encoding: 'koi9' is none that Python knows"):
        load_corpus("table", {"encoding": "koi9"}).recordings(open_source(path))


@pytest.mark.parametrize("corpus", ["table", "videos"])
def test_the_licence_of_ones_own_files_is_what_one_says(corpus: str) -> None:
    assert load_corpus(corpus).terms.startswith("not stated")
    assert load_corpus(corpus, {"licence": "CC-BY-4.0"}).terms == "CC-BY-4.0"
    with pytest.raises(UserError, match="--licence: say under which terms the files may be used"):
        _ = load_corpus(corpus, {"licence": " "}).terms
    with pytest.raises(UserError, match="--licence: not for corpus grid, but for table, videos"):
        load_corpus("grid", {"licence": "mine"})


def test_a_licence_stands_in_the_dataset(tmp_path: Path) -> None:
    table = write(tmp_path, {"mine.csv": "text\nhello\n"}) / "mine.csv"
    build("table", table, tmp_path / "out", {"licence": "by agreement with the clinic"})
    assert open_dataset(tmp_path / "out").info.licence == "by agreement with the clinic"


def test_files_of_a_table_lie_beside_it_in_the_source(tmp_path: Path) -> None:
    source = write(tmp_path, {"t.csv": "media\na.mp4\n", "a.mp4": b""})
    assert [one.media for one in read("table", source)] == ["a.mp4"]
    message = r"table: no file a\.mp4 \(1 are missing\); --source is the folder or archive that"
    with pytest.raises(UserError, match=message):
        read("table", source / "t.csv")
    write(tmp_path, {"t.csv": f"media\n{tmp_path}/a.mp4\n"})
    with pytest.raises(UserError, match=r"a\.mp4 \(1 are missing\); --source is the folder or"):
        read("table", source)


def test_words_of_a_table_have_times_in_its_clips(tmp_path: Path) -> None:
    words = '"[[""so"", 0.9, 1.2], [""it"", 1.5, 1.75], [""goes"", 2.5, 3.0]]"'
    table = f"media,begin_s,end_s,words,mood\na.mp4,1,2.6,{words},glad\n"
    (clip,) = read("table", write(tmp_path, {"t.csv": table, "a.mp4": b""}))
    assert clip.words == (Word("so", 0.0, 0.2), Word("it", 0.5, 0.75), Word("goes", 1.5, 1.6))
    assert clip.labels == {"mood": "glad"}
    (tmp_path / "t.csv").write_text("media,words\na.mp4,so\n")
    with pytest.raises(UserError, match="table: line 2: words should be as"):
        read("table", tmp_path)


def test_clips_of_a_table_may_be_parts_of_longer_files(tmp_path: Path) -> None:
    header = "media,begin_s,end_s,mood\n"
    lines = "a.mp4,0,2.5,glad\na.mp4,2.5,4,\na.mp4,,,\n"
    found = read("table", write(tmp_path, {"t.csv": header + lines, "a.mp4": b""}))
    assert [one.span for one in found] == [(0.0, 2.5), (2.5, 4.0), None]
    assert {one.longest_s for one in found} == {60.0}  # also of a whole file
    assert found[0].labels == {"mood": "glad"}
    for wrong in ("a.mp4,1,", "a.mp4,2,1", "a.mp4,0,soon", "a.mp4,-1,2", "a.mp4,nan,2", ",1,2"):
        write(tmp_path, {"t.csv": f"{header}{wrong},\n"})
        with pytest.raises(UserError, match=r"line 2 has begin_s='.*' and end_s='.*'; give the"):
            read("table", tmp_path)


@pytest.mark.parametrize(
    ("columns", "column", "name"),
    [
        ("start,end", "start", "begin_s"),
        ("Begin,Stop", "Begin", "begin_s"),
        ("start_s,stop_s", "start_s", "begin_s"),
        ("begin_s,end_time", "end_time", "end_s"),
        ("begin_s,END_S", "END_S", "end_s"),
        (" begin_s,end_s", " begin_s", "begin_s"),
        ("StartTime,EndTime", "StartTime", "begin_s"),
        ("begin_s,Stop (ms)", "Stop (ms)", "end_s"),
        ("onset,offset", "onset", "begin_s"),
        ("time_start,time_end", "time_start", "begin_s"),
        ("segment-end,x", "segment-end", "end_s"),
    ],
)
def test_a_column_of_times_is_not_taken_for_a_label(
    tmp_path: Path, columns: str, column: str, name: str
) -> None:
    write(tmp_path, {"t.csv": f"media,{columns}\na.mp4,1,2\n", "a.mp4": b""})
    message = f"table: t.csv: column {column!r} is a time by its name; call it {name}, in seconds"
    with pytest.raises(UserError, match=re.escape(message)):
        read("table", tmp_path)


@pytest.mark.parametrize(
    ("columns", "column", "name"),
    [("text,Media", "Media", "media"), ("text, speaker", " speaker", "speaker")],
)
def test_a_column_that_differs_in_case_or_blanks_is_not_taken_for_a_label(
    tmp_path: Path, columns: str, column: str, name: str
) -> None:
    write(tmp_path, {"t.csv": f"{columns}\nhello,a.mp4\n", "a.mp4": b""})
    message = f"table: t.csv: column {column!r} is no label by its name; call it {name}, or"
    with pytest.raises(UserError, match=re.escape(message)):
        read("table", tmp_path)


def test_other_columns_are_labels_whatever_letters_they_have(tmp_path: Path) -> None:
    names = ["tension", "gender", "trend", "started_crying", "stopword", "ending", "time", "bend"]
    values = ["x"] * len(names)
    path = tmp_path / "t.csv"
    path.write_text(f"text,{','.join(names)}\nhello,{','.join(values)}\n")
    (clip,) = read("table", path)
    assert list(clip.labels) == names


@pytest.mark.corpora
def test_the_real_ones(shared: Path) -> None:
    data = shared / "data"
    reviews = read("fdu_mtl", data / "fdu_mtl.tar.xz")
    assert Counter(one.split for one in reviews) == {
        "train": 25_379,
        "test": 6_400,
        "unlabelled": 30_475,
    }
    assert len({one.session for one in reviews}) == 16
    assert not any("\x80" <= letter < "\xa0" for one in reviews for letter in one.text or "")
    situations = read("isear", data / "sog_text.tar.xz")
    assert len(situations) == 7_666 - 199
    assert not any("\u00e1" in (one.text or "") for one in situations)
    assert len(read("tec", data / "sog_text.tar.xz")) == 21_051
    essays = read("essays", data / "sog_text.tar.xz")
    assert len(essays) == 2_468
    majority = Counter(one.labels["openness"] for one in essays).most_common(1)[0][1]
    assert majority / len(essays) == pytest.approx(0.515, abs=0.001)
    tweets = read("mvsa", data / "mvsa_single.zip")
    assert Counter(one.labels["sentiment"] for one in tweets) == {
        "neutral": 1_771,
        "positive": 1_646,
        "negative": 1_452,
    }
    assert sum(bool(one.tags) for one in tweets) == 2_416
    rows = read_table(open_source(data / "mvsa_single.zip"), "manifest.tsv", "MVSA", ["raw_text"])
    raw = [row["raw_text"] for row in rows]
    assert [tuple(TAG.findall(one)) for one in raw] == [one.tags for one in tweets]
    words = [" ".join(APART.sub("", one).split()) or None for one in raw]
    same = [one == tweet.text for one, tweet in zip(words, tweets, strict=True)]
    # The table's quotation marks stand behind a blank where the published files have none.
    assert all(same[at] or one.endswith('"') for at, one in enumerate(raw))
    assert sum(same) > 4_700


def test_text_alone_is_built_and_what_says_nothing_is_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("key,text,mood\na,hello,glad\nb,,sad\nc,bye,sad\n")
    build("table", path, tmp_path / "out")
    samples = open_dataset(tmp_path / "out").whole()
    assert [samples.read(at).key for at in range(len(samples))] == ["a", "c"]
    assert samples.read(1).labels == {"mood": "sad"}
    assert '"b"' in (tmp_path / "out" / "quarantine.jsonl").read_text()
    path.write_text("key,text\na,\n")
    with pytest.raises(UserError, match=r"no recording of .* can be used"):
        build("table", path, tmp_path / "other")
