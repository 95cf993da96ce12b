"""What of a cue's text is speech, and what is not."""

import pytest

from data_pipeline.spoken import speech_of


@pytest.mark.parametrize(
    ("text", "speech"),
    [
        ("[음악]", ""),
        ("（웃음） 그래요", "그래요"),
        ("【拍手】", ""),
        ("♪", ""),
        ("♫ I will survive\nShe left.", "She left."),
        ("...", ""),
        ("- - Well -- no", "- Well -- no"),
        ("a [b", "a [b"),
        ("", ""),
        ("*laughs*", ""),
        ("Well *chuckles softly* hello", "Well hello"),
        ("* la la la *\nShe left.", "She left."),
        ("*웃음*\n그래요", "그래요"),
        ("I *really* mean f**k, 2 * 3 * 4", "I *really* mean f**k, 2 * 3 * 4"),
        ("*sighs* *coughs* Well,\n*door slams*", "Well,"),
        ("# la la #", ""),
        ("#La la#\nShe left.", "She left."),
        ("# La la\nla la la\nla #", ""),
        ("# La la la", ""),
        ("la la la #\nShe left.", "She left."),
        ("#1 and #metoo", "#1 and #metoo"),
        (">> Hello\n>>> 5 of us", "Hello 5 of us"),
        ("JOHN: Hello.\nDR. O'NEIL-LEE (sighs): Bye.", "Hello. Bye."),
        (">> MAN #2: Hello.", "Hello."),
        ("- MARY:\n- Who?", "Who?"),
        ("ИВАН: Привет", "Привет"),
        ("MIN-JI: 안녕", "안녕"),
        ("HE SAID: GO HOME", "HE SAID: GO HOME"),
        ("PS: I love you", "PS: I love you"),
        ("John: hello. At 10:30 PM", "John: hello. At 10:30 PM"),
        ("NASA:5 to 3", "NASA:5 to 3"),
        ("Subtitles by opensubtitles.org", ""),
        ("Subtitles by\nJane Doe", ""),
        ("- SUBTITLED BY X -", ""),
        ("Captions provided by MBC", ""),
        ("Sync & corrections by explosiveskull", ""),
        ("Support us and become VIP member\nto remove all ads from www.OpenSubtitles.org", ""),
        ("Untertitel im Auftrag des ZDF, 2017", ""),
        ("Sous-titres réalisés para la communauté d'Amara.org", ""),
        ("Субтитры сделал X", ""),
        ("Subtitles by default are off", "Subtitles by default are off"),
        ("The subtitles are by a friend", "The subtitles are by a friend"),
        ("We sync by hand", "We sync by hand"),
    ],
)
def test_what_is_spoken_of_a_text(text: str, speech: str) -> None:
    assert speech_of(text) == speech
