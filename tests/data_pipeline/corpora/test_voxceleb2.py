"""VoxCeleb2 in its own layout, small."""

from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from tests.data_pipeline.corpora.test_labelled import read, write

META = "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev\nid00017 ,n17 ,f ,test\n"
FIRST = "dev/mp4/id00012/21Uxsk56VDQ/00001.mp4"
SECOND = "vox2_test_mp4/mp4/id00017/01dfn2-_qyE/00002.mp4"


def test_people_and_videos_come_from_the_folders(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {FIRST: b"", SECOND: b"", "dev/txt/id00012/x/00001.txt": b""}
    first, second = read("voxceleb2", write(tmp_path, files))
    assert (first.key, first.media) == ("id00012-21Uxsk56VDQ-00001", FIRST)
    assert (first.speaker, first.session, first.split) == ("id00012", "21Uxsk56VDQ", "train")
    assert (first.text, first.labels, first.language) == (None, {}, "")
    assert (second.key, second.split) == ("id00017-01dfn2-_qyE-00002", "test")


@pytest.mark.parametrize("meta", [META, META.replace(",", "\t")], ids=["commas", "tabs"])
def test_the_table_tells_sex_and_set(tmp_path: Path, meta: str) -> None:
    bare = "mp4/id00017/01dfn2-_qyE/00002.mp4"
    other = "mp4/id00099/01dfn2-_qyE/00002.mp4"
    root = write(tmp_path, {"vox2_meta.csv": meta, FIRST: b"", bare: b"", other: b""})
    first, second, unknown = read("voxceleb2", root)
    assert (first.labels, first.split) == ({"sex": "male"}, "train")
    assert (second.labels, second.split) == ({"sex": "female"}, "test")
    assert (unknown.labels, unknown.split) == ({}, "train")


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the source has no mp4/<id>/<video>/<number>"):
        read("voxceleb2", tmp_path)
    write(tmp_path, {FIRST: b"", "meta/vox2_meta.csv": META.replace("Gender", "Sex")})
    with pytest.raises(UserError, match=r"meta/vox2_meta\.csv has no column 'Gender'"):
        read("voxceleb2", tmp_path)
    write(tmp_path, {"meta/vox2_meta.csv": META.replace(",f ,", ",? ,")})
    with pytest.raises(UserError, match=r"line 3 of .*vox2_meta\.csv has Gender='\?', not m or f"):
        read("voxceleb2", tmp_path)
    write(tmp_path, {"meta/vox2_meta.csv": META + "id00020\n"})
    with pytest.raises(UserError, match=r"line 4 of .* has not as many columns"):
        read("voxceleb2", tmp_path)
