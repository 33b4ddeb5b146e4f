"""
HTTP over a local socket: just enough to talk to a container engine.

Importing the Docker SDK takes about as long as starting a container, so on the
way to a running machine the few plain JSON requests that are needed are made
from here. Everything else (pulls, imports, TLS) is the SDK's work, see
:mod:`redock._engine`. The format is RFC 9112.
"""

from __future__ import annotations

# What the module socket adds is not used here and takes longer to load than a list of machines.
import _socket as socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from redock._process import Deadline

__all__ = [
    "PATIENCE",
    "ProtocolError",
    "Refused",
    "Request",
    "Response",
    "Stream",
    "quote",
    "urlencode",
]

#: Seconds of silence after which an engine counts as hung.
PATIENCE = 60.0
#: What an engine may send as the head of an answer; a bound on memory, not a rule of HTTP.
LONGEST_HEAD = 64 * 1024
#: What stands for itself in a path: RFC 3986, section 2.3, and the slash.
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")


class ProtocolError(OSError):
    """The other side sent something that is not an HTTP answer, or stopped in the middle."""


class Refused(Exception):
    """
    The other side answered a request for a stream, and there is none.

    :param response: The answer.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(f"no stream, but status {response.status}")
        self.response = response


def quote(text: str) -> str:
    """
    Write text so that it can stand in a path: RFC 3986, section 2.1.

    As :func:`urllib.parse.quote`, whose module takes longer to load than an engine to answer.

    :param text: Any text.
    :returns: The text with what means something else percent-encoded.
    """
    encoded = text.encode("utf-8")
    if UNRESERVED.issuperset(encoded):
        return text
    return "".join(chr(byte) if byte in UNRESERVED else f"%{byte:02X}" for byte in encoded)


def urlencode(query: Mapping[str, object]) -> str:
    """
    Write the parameters of a query.

    :param query: The parameters; a list is one that is repeated.
    :returns: What stands behind the question mark.
    """
    # Form encoding, as urllib.parse.urlencode has it.
    return "&".join(
        f"{name}={quote(str(each)).replace('/', '%2F').replace('%20', '+')}"
        for name, value in query.items()
        for each in (value if isinstance(value, list) else [value])
    )


def is_number(text: str) -> bool:
    """
    Check for a number as HTTP writes them.

    :param text: A field.
    :returns: True for up to 16 decimal digits.
    """
    return text.isascii() and text.isdigit() and len(text) <= 16


class Response:
    """
    The answer to a request.

    :param status: The HTTP status.
    :param headers: The header fields, names in lower case.
    :param body: The whole body.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Request:
    """
    A request that has been sent; the answer is read when it is asked for.

    Between the two the engine works, and so can we.

    :param address: The pathname of a UNIX socket.
    :param method: The HTTP method.
    :param target: The path and query.
    :param body: The body, empty for none; what comes in pieces is sent as it comes (RFC 9112,
                 section 7.1), so that it need not fit into memory.
    :param content_type: The media type of the body.
    :param timeout: Seconds of silence after which the engine counts as hung.
    :param upgrade: Ask for a raw byte stream after the answer's head.
    :raises OSError: The socket cannot be connected.
    """

    def __init__(
        self,
        address: str,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] = b"",
        content_type: str = "application/json",
        timeout: float = PATIENCE,
        upgrade: bool = False,
    ) -> None:
        self.method = method
        self.buffer = b""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        whole = body if isinstance(body, bytes) else None
        length = "Transfer-Encoding: chunked" if whole is None else f"Content-Length: {len(whole)}"
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(address)
            head = [f"{method} {target} HTTP/1.1", "Host: docker", length]
            if body:
                head.append(f"Content-Type: {content_type}")
            head += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else ["Connection: close"]
            self.socket.sendall("\r\n".join([*head, "", ""]).encode("ascii") + (whole or b""))
            if not isinstance(body, bytes):
                self.send_chunks(body)
        except BaseException:
            self.socket.close()
            raise

    def send_chunks(self, pieces: Iterable[bytes]) -> None:
        """
        Send a body in pieces, until its end or until the engine wants no more of it.

        :param pieces: The body.
        """
        ended = b"0\r\n\r\n"
        try:
            for piece in pieces:
                if piece and not self.send(b"%x\r\n%b\r\n" % (len(piece), piece)):
                    return
            self.send(ended)
        finally:
            # What a generator holds open is closed now, not when somebody collects it.
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def send(self, data: bytes) -> bool:
        """
        Send something.

        :param data: The bytes.
        :returns: False when the engine has hung up: it has an answer already, which says why.
        """
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def close(self) -> None:
        """Give up the request, or the stream that it became."""
        self.socket.close()

    def receive(self) -> bytes:
        """
        Get what has arrived.

        :returns: Some bytes, none at the end.
        """
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        return self.socket.recv(65536)

    def read_head(self) -> tuple[int, dict[str, str]]:
        """
        Read the status line and the header fields.

        :returns: The status and the header fields, names in lower case.
        :raises ProtocolError: What came is not HTTP.
        """
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.receive()
            if not more or len(data) > LONGEST_HEAD:
                raise ProtocolError("the engine closed the connection without an answer")
            data += more
        head, _, self.buffer = data.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        words = status_line.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not is_number(words[1]):
            raise ProtocolError(f"not an HTTP answer: {status_line[:60]!r}")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(words[1]), headers

    def response(self) -> Response:
        """
        Wait for the whole answer and close the connection.

        :returns: The answer.
        :raises OSError: The connection failed, or the engine was silent for too long.
        """
        try:
            status, headers = self.read_head()
            return Response(status, headers, b"".join(self.body(status, headers)))
        finally:
            self.close()

    def body(self, status: int, headers: dict[str, str]) -> Iterator[bytes]:
        """
        Read the body of the answer.

        :param status: The status.
        :param headers: The header fields.
        :returns: Yields the body, piece by piece.
        :raises ProtocolError: The body is cut off or malformed.
        """
        if self.method == "HEAD" or status in (204, 304):
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self.chunks()
        elif "content-length" in headers:
            length = headers["content-length"]
            if not is_number(length):
                raise ProtocolError(f"not a length: {length[:20]!r}")
            left = int(length)
            while left:
                data = self.receive()
                if not data:
                    raise ProtocolError(
                        "the engine closed the connection in the middle of an answer"
                    )
                yield data[:left]
                left -= min(left, len(data))
        else:
            yield from iter(self.receive, b"")

    def exactly(self, count: int) -> bytes:
        """
        Read a number of bytes.

        :param count: How many.
        :returns: Exactly that many bytes.
        :raises ProtocolError: The connection ended before.
        """
        data = b""
        while len(data) < count:
            more = self.receive()
            if not more:
                raise ProtocolError("the engine closed the connection in the middle of an answer")
            data += more
        data, self.buffer = data[:count], data[count:]
        return data

    def chunks(self) -> Iterator[bytes]:
        """
        Read a chunked body.

        :returns: Yields the contents of each chunk.
        :raises ProtocolError: The body is cut off or malformed.
        """
        while True:
            size = self.line()
            digits = size.partition(b";")[0].strip()
            if not digits or len(digits) > 16 or not HEXADECIMAL.issuperset(digits):
                raise ProtocolError(f"not a chunk size: {size[:20]!r}")
            count = int(digits, 16)
            if not count:
                return
            yield self.exactly(count)
            self.line()

    def line(self) -> bytes:
        """
        Read a line.

        :returns: The line without its end.
        :raises ProtocolError: The connection ended before.
        """
        data = b""
        while b"\r\n" not in data:
            more = self.receive()
            if not more or len(data) > LONGEST_HEAD:
                raise ProtocolError("the engine closed the connection in the middle of an answer")
            data += more
        line, _, self.buffer = data.partition(b"\r\n")
        return line

    def hijack(self) -> Stream:
        """
        Turn the connection into a raw byte stream.

        :returns: The stream; the caller closes it.
        :raises Refused: The engine did not agree.
        :raises ProtocolError: What came is not HTTP.
        """
        try:
            status, headers = self.read_head()
            if status not in (101, 200):
                raise Refused(Response(status, headers, b"".join(self.body(status, headers))))
        except BaseException:
            self.close()
            raise
        return Stream(self.socket, self.buffer)


class Stream:
    """
    A raw byte stream to a container.

    :param connection: The connected socket.
    :param arrived: What has been read from it already.
    """

    def __init__(self, connection: socket.socket, arrived: bytes = b"") -> None:
        self.socket = connection
        self.arrived = arrived

    def __iter__(self) -> Iterator[bytes]:
        if self.arrived:
            yield self.arrived
        while data := self.socket.recv(65536):
            yield data

    def frame(self, deadline: Deadline) -> tuple[int, bytes]:
        """
        Read one piece of what a command prints: eight bytes of header, four of them its length.

        :param deadline: When to give up.
        :returns: The number of the stream (1: standard output, 2: standard error) and the piece.
        :raises EOFError: There is no more output.
        :raises TimeoutError: None came in time.
        """
        header = self.exactly(8, deadline)
        return header[0], self.exactly(int.from_bytes(header[4:], "big"), deadline)

    def exactly(self, count: int, deadline: Deadline) -> bytes:
        """
        Read a number of bytes.

        :param count: How many.
        :param deadline: When to give up.
        :returns: Exactly that many.
        :raises EOFError: The stream ended before.
        :raises TimeoutError: They did not come in time.
        """
        while len(self.arrived) < count:
            self.arrived += self.piece(deadline)
        data, self.arrived = self.arrived[:count], self.arrived[count:]
        return data

    def piece(self, deadline: Deadline) -> bytes:
        """
        Read what comes next from the other side.

        :param deadline: When to give up.
        :returns: Some bytes.
        :raises EOFError: The stream has ended.
        :raises TimeoutError: Nothing came in time.
        """
        remaining = deadline.remaining
        self.socket.settimeout(None if remaining == float("inf") else max(0.001, remaining))
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("no more output")
        return data

    def end(self) -> None:
        """Tell the other side that nothing more follows."""
        from contextlib import suppress

        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        """
        Send everything, and that it was everything.

        :param data: The bytes.
        """
        self.socket.sendall(data)
        self.socket.shutdown(socket.SHUT_WR)

    def write(self, data: bytes) -> None:
        """
        Send something; more may follow.

        :param data: The bytes.
        """
        self.socket.sendall(data)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()
