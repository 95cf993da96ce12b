"""Texts and posts in files of one's own: a table, or a text a line.

A `.csv` or `.tsv` table has a column `text`; one of posts has `image` (a JPEG file, its name from
the table's folder), `text` and `tags` (separated by spaces), of which any cell may be empty. Other
columns say nothing here. A `.txt` file has a text a line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.clip import BadSampleError, Clip
from data_pipeline.corpora.source import parse_table
from data_pipeline.encoding import decode_exactly, decode_text
from data_pipeline.errors import UserError
from data_pipeline.features.picture import decode_jpeg
from memo.multitask.posts import POST

TEXT = ("text",)
TABLES = (".csv", ".tsv")


@dataclass(frozen=True)
class Row:
    """A text or a post.

    Attributes:
        file: that it stands in.
        line: its number; a table has its header at 1, and one for each row, however long.
        text: without blanks around it; "" if there is none.
        tags: of a post.
        image: name of its file as the table has it, "" if there is none.
    """

    file: Path
    line: int
    text: str
    tags: tuple[str, ...] = ()
    image: str = ""

    @property
    def image_file(self) -> Path:
        """The file of its image."""
        return self.file.parent / self.image

    def clip(self) -> Clip:
        """The post with its image read."""
        image = self.image_file.read_bytes() if self.image else None
        return Clip(f"line-{self.line}", text=self.text or None, tags=self.tags, image=image)


def read_texts(path: Path, encoding: str) -> list[Row]:
    """The texts of a table or of a text file, empty ones as well.

    Args:
        path: of it.
        encoding: of what is neither in UTF-8 nor in UTF-16.

    Raises:
        UserError: it is neither, is not there, has no column `text`, or nothing in it.
    """
    if path.suffix.lower() in TABLES:
        return [_row(path, line, row) for line, row in _read_table(path, encoding, TEXT)]
    right = "give .csv or .tsv tables with a column text, or .txt files with a text a line"
    _check_file(path, right)
    if path.suffix.lower() != ".txt":
        raise UserError(f"{path}: {right}")
    lines = decode_text(str(path), path.read_bytes(), encoding).removesuffix("\n").split("\n")
    if lines == [""]:
        raise UserError(f"{path} is empty; it shall have a text a line")
    return [Row(path, number, text.strip()) for number, text in enumerate(lines, start=1)]


def read_posts(path: Path, encoding: str) -> list[Row]:
    """The posts of a table, whose images are there and can be decoded.

    Args:
        path: of it.
        encoding: of what is neither in UTF-8 nor in UTF-16.

    Raises:
        UserError: it is no table, lacks a column or has no row, or an image is not there or does
            not decode: names the line and the file.
    """
    if path.suffix.lower() not in TABLES:
        raise UserError(f"{path}: give .csv or .tsv tables with the columns {', '.join(POST)}")
    posts = [_row(path, line, row) for line, row in _read_table(path, encoding, POST)]
    for post in posts:  # before hours are spent on the others
        if post.image:
            _check_image(post)
    return posts


def _row(path: Path, line: int, row: Mapping[str, str]) -> Row:
    tags, image = row.get("tags", "").split(), row.get("image", "").strip()
    return Row(path, line, row["text"].strip(), tuple(tags), image)


def _read_table(
    path: Path, encoding: str, columns: Sequence[str]
) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of each row."""
    _check_file(path, f"give .csv or .tsv tables with a column {', '.join(columns)}")
    text = decode_exactly(str(path), path.read_bytes(), encoding)
    rows = parse_table(text, str(path), "predict", columns)
    if not rows:
        raise UserError(f"{path} has no line below the names of its columns")
    return list(enumerate(rows, start=2))


def _check_file(path: Path, right: str) -> None:
    if not path.is_file():
        raise UserError(f"{path} {'is a folder' if path.is_dir() else 'is not there'}; {right}")


def _check_image(post: Row) -> None:
    where = f"{post.file}: line {post.line}: "
    if not post.image_file.is_file():
        raise UserError(
            f"{where}there is no image {post.image_file}; names count from the table's folder"
        )
    try:
        decode_jpeg(post.image_file.read_bytes())
    except BadSampleError as error:
        raise UserError(
            f"{where}{post.image_file} {error.reason}; give a JPEG file, or leave the cell empty"
        ) from None
