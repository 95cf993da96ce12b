from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.encoding import decode_text, known_encoding
from data_pipeline.errors import UserError


@pytest.mark.parametrize("name", ["cp9499", "", "base64", "rot13", "a\0b", "undefined", "\udcff"])
def test_encodings_that_python_does_not_know_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"--encoding: .* is none that Python knows"):
        known_encoding(name)
    assert known_encoding("EUC-KR") == "EUC-KR"


@given(st.binary(), st.sampled_from(["utf-8", "cp1251", "gbk", "iso2022_kr", "utf-7", "cp037"]))
def test_any_bytes_are_text_or_an_error(content: bytes, encoding: str) -> None:
    with suppress(UserError):
        assert not {"\r", "\ufeff"} & set(decode_text("a.srt", content, encoding))
