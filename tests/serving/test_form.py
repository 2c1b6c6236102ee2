"""Forms: the photo is found however they are split, and errors name their cause."""

import pytest

from catsdogs_lib.serving import problems
from catsdogs_lib.serving.form import MAX_PARTS, FormBody
from catsdogs_lib.serving.problems import ProblemError

HEAD = b'--X\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n'
END = b"\r\n--X--\r\n"
OTHER = b'--X\r\ncontent-disposition: form-data; name="other"; filename="o"\r\n\r\n0123456789\r\n'
CONTENT_TYPE = "multipart/form-data; boundary=X"
HEALTH_SECONDS = 1.0
"""250 ms on idle cores; other tests may keep them busy."""


def read(body, content_type=CONTENT_TYPE, step=None):
    form = FormBody(content_type)
    for at in range(0, len(body), step or len(body)):
        form.extend(body[at : at + (step or len(body))])
    return form.photo()


def refused(body, content_type=CONTENT_TYPE):
    with pytest.raises(ProblemError) as raised:
        read(body, content_type)
    return raised.value


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, None])
def test_a_photo_is_whole_however_its_form_is_cut_into_pieces(step):
    photo = b"\r\n--\r\n--Y\r\n--Xy\r\n--X-\r\n--X\r" + bytes(range(256))
    body = OTHER + HEAD + b"content-type: image/png\r\n\r\n" + photo + b"\r\n" + OTHER + b"--X--\r\n"
    assert read(body, step=step) == (photo, "a.png")


def test_a_form_cut_off_anywhere_says_so():
    body = HEAD + b"\r\n0123456789" + END
    for length in range(1, len(body) - 2):
        problem = refused(body[:length])
        assert (length, problem.kind) == (length, problems.FORM_CUT_OFF)
        assert "final boundary is missing" in problem.detail
    assert read(body[:-2]).data == b"0123456789"


def test_the_answer_to_a_form_cut_off_names_the_cause(served, photo):
    status, document = served.post(HEAD + b"\r\n" + photo, CONTENT_TYPE)
    assert (status, document["type"]) == (400, "/problems/form-cut-off")


@pytest.mark.parametrize("encoding", [b"base64", b" BASE64 ", b"quoted-printable"])
def test_a_part_that_is_text_says_so(encoding):
    problem = refused(HEAD + b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\naGVsbG8=" + END)
    assert problem.kind == problems.TEXT_ENCODED
    assert f"is {encoding.decode().strip().lower()} text; send its bytes" in problem.detail


@pytest.mark.parametrize("encoding", [b"binary", b"8bit", b"7bit"])
def test_a_transfer_encoding_that_changes_nothing_is_read(encoding):
    assert read(HEAD + b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\nabc" + END).data == b"abc"


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (HEAD + b"\r\nabc" + END, "multipart/form-data", "no boundary"),
        (HEAD + b"\r\nabc" + END, "multipart/form-data; boundary=", "no boundary"),
        (HEAD + b"\r\nabc" + END, f"multipart/form-data; boundary={'X' * 500}", "no boundary"),
        (HEAD + b"\r\nabc" + END, f"multipart/form-data{';' * 5000}; boundary=X", "no boundary"),
        (HEAD + b"\r\nabc" + END, "multipart/form-data; boundary=other", "breaks the format"),
        (b"--X\r\ncontent-disposition: form-data\r\n\r\nabc" + END, CONTENT_TYPE, "no field 'file'"),
        (HEAD + b"x: y\r\n" * 99 + b"\r\nabc" + END, CONTENT_TYPE, "breaks the format"),
        (OTHER * MAX_PARTS + HEAD + b"\r\nabc" + END, CONTENT_TYPE, "breaks the format"),
        (HEAD + b"\r\n" + b"\r\n--Xy" * 65 + END, CONTENT_TYPE, "occurs more than 64 times"),
    ],
)
def test_a_form_that_cannot_be_read_says_why(body, content_type, says):
    assert says in refused(body, content_type).detail


@pytest.mark.parametrize("unit", [b"\r\n--Xy", b"\r\n-", b"--X\r\n\r\n\r\n", b"\r\n--X\r\n"])
def test_health_is_answered_while_a_form_of_boundaries_arrives(served, unit):
    body = HEAD + b"\r\n" + unit * (23 * 2**20 // len(unit)) + END
    with served.watched_health() as seconds:
        status, _ = served.post(body, CONTENT_TYPE)
    assert status in (400, 415)
    assert max(seconds) < HEALTH_SECONDS
