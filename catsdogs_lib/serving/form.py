"""The photo in a multipart form, collected as the form arrives."""

from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from catsdogs_lib.serving import problems

FIELD = "file"
HOW_TO_SEND = f"send a photo as multipart form (curl -F {FIELD}=@photo.jpg), or its bare bytes as image/*"
MAX_PARTS = 16
MAX_BOUNDARIES = 64
"""Maximum occurrences of the boundary in a form, inside files too: the parser takes microseconds for each."""
MAX_CONTENT_TYPE = 1024
"""Maximum length of a Content-Type header with a boundary."""
TEXT_ENCODINGS = ("base64", "quoted-printable")


class ReceivedPhoto(NamedTuple):
    """A photo's bytes, and the name of the sender's file, if any."""

    data: bytes
    filename: str | None


class FormBody:
    """The body of a multipart form, of which only the photo is kept.

    Errors are raised by `photo`, not before: most clients read the response only after sending the whole body.

    Parameters
    ----------
    content_type
        The header Content-Type, which names the boundary.
    """

    def __init__(self, content_type: str) -> None:
        self._data = bytearray()
        self._filename: bytes | None = None
        self._encoding = ""
        self._count = self._parts = self._boundaries = 0
        self._is_photo = self._complete = False
        self._header = b""
        self._headers: dict[bytes, bytes] = {}
        self._problem: problems.ProblemError | None = None
        # Some headers of 64 kB take long to parse.
        options = parse_options_header(content_type)[1] if len(content_type) <= MAX_CONTENT_TYPE else {}
        boundary = options.get(b"boundary", b"")
        self._delimiter = b"\r\n--" + boundary
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._collect_name,
                    "on_header_value": self._collect_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._begin_content,
                    "on_part_data": self._collect_content,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            boundary = b""
        if not boundary:
            self._fail("Content-Type names no boundary that can be used")

    def extend(self, chunk: bytes) -> None:
        """Parse the next piece of the body."""
        if self._problem is not None:
            return
        self._boundaries += chunk.count(self._delimiter)
        if self._boundaries > MAX_BOUNDARIES:
            self._fail(f"its boundary occurs more than {MAX_BOUNDARIES} times")
            return
        try:
            self._parser.write(chunk)
        except FormParserError:
            self._fail("its boundary, or the head of a part, breaks the format")

    def clear(self) -> None:
        """Drop the photo; it cannot be read afterwards."""
        self._fail("it is too large")

    def photo(self) -> ReceivedPhoto:
        """Return the photo.

        Raises
        ------
        ProblemError
            The form is malformed or cut off, holds no photo or several, or the photo is encoded as text.
        """
        if self._problem is not None:
            raise self._problem
        if not self._complete:
            raise problems.ProblemError(
                problems.FORM_CUT_OFF, "the form is cut off: its final boundary is missing; send the whole form again"
            )
        if self._count != 1:
            count = f"{self._count} fields" if self._count else "no field"
            raise problems.ProblemError(problems.NO_PHOTO, f"the form has {count} '{FIELD}'; {HOW_TO_SEND}")
        if self._filename is None:
            raise problems.ProblemError(problems.NO_PHOTO, f"the field '{FIELD}' is text, not a file; {HOW_TO_SEND}")
        if self._encoding in TEXT_ENCODINGS:
            raise problems.ProblemError(
                problems.TEXT_ENCODED,
                f"the file in the field '{FIELD}' is {self._encoding} text; send its bytes, without "
                "Content-Transfer-Encoding",
            )
        if not self._data:
            raise problems.ProblemError(
                problems.NO_PHOTO, f"the file in the field '{FIELD}' is empty; choose another photo"
            )
        return ReceivedPhoto(bytes(self._data), _decoded(self._filename)[:200] or None)

    def _begin_part(self) -> None:
        self._headers = {}
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise FormParserError

    def _collect_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end].lower()

    def _collect_value(self, data: bytes, start: int, end: int) -> None:
        self._headers[self._header] = self._headers.get(self._header, b"") + data[start:end]

    def _end_header(self) -> None:
        self._header = b""

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._is_photo = options.get(b"name") == FIELD.encode()
        if self._is_photo:
            self._count += 1
            self._filename = options.get(b"filename")
            self._encoding = _decoded(self._headers.get(b"content-transfer-encoding", b"")).strip().lower()

    def _collect_content(self, data: bytes, start: int, end: int) -> None:
        if self._is_photo:
            self._data += data[start:end]

    def _end(self) -> None:
        self._complete = True

    def _fail(self, reason: str) -> None:
        self._data.clear()
        self._problem = problems.ProblemError(
            problems.MALFORMED, f"the multipart form cannot be read ({reason}); {HOW_TO_SEND}"
        )


def _decoded(text: bytes) -> str:
    # Not in the sender's charset: some decode to text that cannot be logged.
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
