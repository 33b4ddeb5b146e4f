"""
A client of one key of etcd, over its HTTP gateway. Runs inside a node, on the server there.

It answers every request with ``(number, outcome, value)``. The outcome is "ok", "failed" when it is
certain that nothing has happened, and "unknown" when it may have happened, now or later.
"""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def call(path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", 2379, timeout=timeout)
    try:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(answer.get("error", response.status))
    return answer


def perform(
    kind: str, key: str, value: int, expected: int | None, stale: bool, timeout: float
) -> int | bool | None:
    if kind == "read":
        body = {"key": encoded(key), "serializable": stale}
        found = call("/v3/kv/range", body, timeout).get("kvs")
        return int(base64.b64decode(found[0]["value"])) if found else None
    put = {"key": encoded(key), "value": encoded(str(value))}
    if kind == "write":
        call("/v3/kv/put", put, timeout)
        return value
    if expected is None:
        compare = {"key": encoded(key), "target": "VERSION", "version": "0"}
    else:
        compare = {"key": encoded(key), "target": "VALUE", "value": encoded(str(expected))}
    body = {"compare": [compare], "success": [{"requestPut": put}]}
    return "succeeded" in call("/v3/kv/txn", body, timeout)


def main(channel: Any) -> None:
    for number, request in channel:
        answer: tuple[str, int | bool | None]
        try:
            answer = "ok", perform(*request)
        except ConnectionRefusedError:
            answer = "failed", None
        except (OSError, ValueError, http.client.HTTPException):
            # No answer, or an error: "request timed out" and "leader changed" may both come from a
            # proposal that is accepted later.
            answer = "unknown", None
        channel.send((number, *answer))


if __name__ == "__channelexec__":
    main(globals()["channel"])
