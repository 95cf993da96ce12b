"""Texts as they come: in UTF-8, in UTF-16 with its mark, or in what the user says they are in."""

import codecs
import re

from data_pipeline.errors import UserError

UTF_8 = "utf-8"
_CONTROLS = re.compile("[\0\x1b]")
"""Of UTF-16 without its mark, and of Japanese in seven bits, read as what they are not."""


def decode_text(name: str, content: bytes, encoding: str = UTF_8) -> str:
    """The text of a file in UTF-8, in UTF-16 with its mark, or in another encoding.

    Its lines end in a line feed, whatever they end in there.

    Args:
        name: of the file, for messages.
        content: of the file.
        encoding: of what is neither.

    Raises:
        UserError: it is in none of these; names the file and the line.
    """
    text = decode_exactly(name, content, encoding)
    return text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")


def decode_exactly(name: str, content: bytes, encoding: str) -> str:
    """The same with the ends of lines that it has.

    Raises:
        UserError: see `decode_text`.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif _is_utf_8(content):
        encoding = UTF_8
    try:
        text = checked_text(name, content.decode(encoding))
    except UnicodeError as error:
        before = content[: error.start] if isinstance(error, UnicodeDecodeError) else b""
        raise _not_in(name, before.count(b"\n") + 1, encoding) from None
    if control := _CONTROLS.search(text):
        raise _not_in(name, text.count("\n", 0, control.start()) + 1, encoding)
    return text.removeprefix("\ufeff")


def _is_utf_8(content: bytes) -> bool:
    try:
        return not _CONTROLS.search(content.decode(UTF_8))
    except UnicodeDecodeError:
        return False


def _not_in(name: str, line: int, encoding: str) -> UserError:
    return UserError(
        f"{name}: line {line} is not in {encoding}; say with --encoding what it is in, e.g. cp949, "
        "cp1251, gbk or shift_jis, or save it as UTF-8"
    )


def known_encoding(name: str) -> str:
    """The name of an encoding that `decode_text` can be given.

    Raises:
        UserError: Python does not know it, or it is none of text.
    """
    try:
        " ".encode(name)  # of no letter at all any name is taken
    except (LookupError, ValueError):
        raise UserError(
            f"--encoding: {name!r} is none that Python knows; e.g. cp949, cp1251, gbk or shift_jis"
        ) from None
    return name


def checked_text(where: str, text: str) -> str:
    """The text, if it can be stored: JSON can spell half of a letter.

    Raises:
        UserError: it cannot.
    """
    if text.encode("utf8", "ignore").decode() != text:
        raise UserError(f"{where}: {text!r:.60} has half of a surrogate pair in it")
    return text
