"""Parts of a build, and what they are together."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.build_part import BuildPart
from data_pipeline.errors import UserError
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.filters import Filters
from data_pipeline.merge_parts import find_parts, merge_parts
from data_pipeline.shards.dataset import FeatureSchema
from tests.data_pipeline.features.media import make_sound
from tests.data_pipeline.mixed_corpus import FILTERS, ROWS, noise, write_corpus, write_table
from tests.data_pipeline.shards.test_merge import write
from tests.data_pipeline.test_build import content

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def settings(tmp_path: Path, extract_settings: ExtractSettings) -> BuildSettings:
    root = write_corpus(tmp_path / "mine")
    return BuildSettings(
        "table",
        root,
        tmp_path / "out",
        extract_settings,
        samples_per_shard=2,
        filters=FILTERS,
    )


def build_part(settings: BuildSettings, number: int, of: int) -> Path:
    part = BuildPart(number, of)
    out = part.folder(settings.out)
    build_dataset(replace(settings, part=part, out=out))
    return out


@pytest.mark.parametrize("of", [1, 4, 12])
def test_all_parts_in_whatever_order_are_one_build_bit_for_bit(
    settings: BuildSettings, of: int
) -> None:
    build_dataset(settings)
    parts = [build_part(settings, number, of) for number in range(1, of + 1)]
    merged = settings.out.with_name("merged")
    merge_parts(find_parts(parts[::-1]), merged)
    assert content(merged) == content(settings.out)


@pytest.fixture
def shuffled(settings: BuildSettings) -> BuildSettings:
    """Of a table whose clips stand in no order of their files."""
    root = settings.source
    for name in ("one", "two", "three"):
        (root / f"{name}.wav").write_bytes(make_sound(noise(2)))
    lines = ["media,begin_s,end_s,text,split"]
    for at in range(6):
        split = "valid" if at % 2 else "train"
        for name in ("one", "broken", "two", "three")[:: 1 if at % 3 else -1]:
            text = "one" if (name, at) in (("one", 4), ("three", 2)) else "one two"
            lines.append(f"{name}.wav,{at * 0.3:.1f},{at * 0.3 + 0.3:.1f},{text},{split}")
    (root / "clips.csv").write_text("\n".join([*lines, ",,,a text alone,test"]) + "\n")
    return replace(settings, extract=replace(settings.extract, face=None))


@pytest.mark.parametrize(("of", "with_some"), [(2, 2), (7, 5)])
def test_parts_of_a_shuffled_table_share_its_files_and_are_one_build_bit_for_bit(
    shuffled: BuildSettings, of: int, with_some: int
) -> None:
    build_dataset(shuffled)
    parts = [build_part(shuffled, number, of) for number in range(1, of + 1)]
    found = find_parts(parts)
    assert sum(one.report.recordings > 0 for one in found) == with_some
    merged = shuffled.out.with_name("merged")
    merge_parts(found, merged)
    assert content(merged) == content(shuffled.out)
    assert {"quarantine.jsonl", "filtered.jsonl"} <= content(merged).keys()


def test_a_part_that_does_not_say_where_its_clips_stand_is_refused(
    shuffled: BuildSettings,
) -> None:
    parts = [build_part(shuffled, number, 2) for number in (1, 2)]
    path = parts[1] / "build_report.json"
    report = json.loads(path.read_text())
    order = report.pop("order")
    path.write_text(json.dumps(report))
    with pytest.raises(UserError, match=r"2-of-2.* does not say where .* build part 2/2 again"):
        find_parts(parts)
    order["written"]["train"].pop()
    path.write_text(json.dumps({**report, "order": order}))
    with pytest.raises(UserError, match=r"its order is not that of as many clips"):
        find_parts(parts)


def test_a_part_may_have_no_clip_but_not_all_of_them(settings: BuildSettings) -> None:
    settings = replace(settings, filters=Filters(4, max_duration_s=0.01))
    parts = [build_part(settings, number, 2) for number in (1, 2)]
    assert json.loads((parts[0] / "dataset.json").read_text())["shards"] == []
    with pytest.raises(UserError, match="no recording of the 2 parts can be used"):
        merge_parts(find_parts(parts), settings.out)
    assert not settings.out.exists()


def test_a_part_that_has_lost_its_quarantine_is_refused(settings: BuildSettings) -> None:
    parts = [build_part(settings, number, 2) for number in (1, 2)]
    (parts[1] / "quarantine.jsonl").unlink()
    with pytest.raises(UserError, match=r"names 0 recordings, .* counts 1; build part 2/2 again"):
        merge_parts(find_parts(parts), settings.out)
    assert not settings.out.exists()


def test_parts_that_are_missing_or_there_twice_are_named(settings: BuildSettings) -> None:
    first, third = (build_part(settings, number, 4) for number in (1, 3))
    with pytest.raises(UserError, match="of the parts there is no 2/4, 4/4; build it with --part"):
        find_parts([first, third])
    shutil.copytree(first, first.with_name("copy"))
    with pytest.raises(UserError, match=r"1-of-4 and .*copy are both part 1/4"):
        find_parts([first, third, first.with_name("copy")])


def test_a_file_that_comes_while_parts_are_built_is_no_other_source(
    settings: BuildSettings,
) -> None:
    """The log of a job, for one; what the first part has counted is told of the whole."""
    sound = replace(settings.extract, face=None)
    settings = replace(settings, corpus="videos", filters=Filters(), extract=sound)
    for name in ("broken.wav", "faceless.mp4", "clips.csv"):
        (settings.source / name).unlink()
    parts = [build_part(settings, 1, 2)]
    (settings.source / "job.log").write_text("part 2")
    parts.append(build_part(settings, 2, 2))
    found = find_parts(parts)
    assert [one.report.left_out for one in found] == [{}, {".log": 1}]
    assert merge_parts(found, settings.out).left_out == {}
    (settings.source / "job.log").unlink()
    build_dataset(replace(settings, out=settings.out.with_name("whole")))
    assert content(settings.out.with_name("whole")) == content(settings.out)


def test_parts_built_on_different_devices_are_refused(settings: BuildSettings) -> None:
    parts = [build_part(settings, number, 2) for number in (1, 2)]
    report = parts[1] / "build_report.json"
    report.write_text(report.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    with pytest.raises(UserError, match="are not of one build: device is cpu and cuda"):
        find_parts(parts)
    report.write_text(report.read_text().replace('"device": "cuda",', ""))  # as of before
    assert len(find_parts(parts)) == 2


def test_parts_whose_faces_were_found_by_another_detector_are_refused(
    settings: BuildSettings,
) -> None:
    parts = [build_part(settings, number, 2) for number in (1, 2)]
    for one, sha256 in zip(parts, ("0", "1"), strict=True):
        info = json.loads((one / "dataset.json").read_text())
        face = info["features"]["speech"] | {"fps": 10, "classes": []}
        del face["rows_per_s"]
        info["features"]["face"] = face | {"detector": "yunet", "detector_sha256": sha256}
        (one / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(
        UserError, match=r"1-of-2 and .*2-of-2 .*: detector_sha256 of the face rows is 0 and 1; "
    ):
        find_parts(parts)


def test_parts_of_different_builds_are_refused(settings: BuildSettings) -> None:
    first = build_part(settings, 1, 2)
    others = {
        "the number of parts is 2 and 3": build_part(settings, 2, 3),
        "filters is .* and ": build_part(
            replace(settings, filters=Filters(), out=settings.out.with_name("f")), 2, 2
        ),
        "samples_per_shard is 2 and 3": build_part(
            replace(settings, samples_per_shard=3, out=settings.out.with_name("s")), 2, 2
        ),
        "name is table and other": build_part(
            replace(settings, name="other", out=settings.out.with_name("n")), 2, 2
        ),
    }
    others["licence is not stated; .* and mine"] = build_part(
        replace(settings, options={"licence": "mine"}, out=settings.out.with_name("l")), 2, 2
    )
    write_table(settings.source, (("whole", "another text", "whole.wav"), *ROWS[1:]))
    changed = replace(settings, out=settings.out.with_name("c"))
    others["corpus_sha256 is .* and "] = build_part(changed, 2, 2)
    for message, other in others.items():
        with pytest.raises(UserError, match=rf"1-of-2 and .* are not of one build: {message}"):
            find_parts([first, other])


def test_parts_and_whole_datasets_are_not_mixed(settings: BuildSettings) -> None:
    part = build_part(settings, 1, 2)
    whole = write(settings.out, "whole", FeatureSchema(), {})
    with pytest.raises(UserError, match=r"1-of-2 is part 1/2 of a build, .*out is none"):
        find_parts([part, whole])
    assert find_parts([whole]) == []
    (whole / "build_report.json").write_text('{"format": "mine"}')
    with pytest.raises(
        UserError, match=r"build_report\.json is no memo-build/1: format: Input should"
    ):
        find_parts([whole])
