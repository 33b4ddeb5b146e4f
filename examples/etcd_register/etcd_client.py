"""
A client of one key of etcd, over its HTTP gateway. Runs inside a node, on the server there.

It answers every request with ``(number, outcome, value)``. The outcome is "ok", "failed" when it is
certain that nothing has happened, and "unknown" when it may have happened, now or later.
"""

import base64
import http.client
import json


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def call(path, body, timeout):
    connection = http.client.HTTPConnection("127.0.0.1", 2379, timeout=timeout)
    try:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(answer.get("error", response.status))
    return answer


def perform(kind, key, value, expected, stale, timeout):
    if kind == "read":
        body = {"key": encoded(key), "serializable": stale}
        found = call("/v3/kv/range", body, timeout).get("kvs")
        return int(base64.b64decode(found[0]["value"])) if found else None
    put = {"key": encoded(key), "value": encoded(str(value))}
    if kind == "write":
        call("/v3/kv/put", put, timeout)
        return value
    compare = {"key": encoded(key), "target": "VALUE", "value": encoded(str(expected))}
    if expected is None:
        compare = {"key": encoded(key), "target": "VERSION", "version": "0"}
    body = {"compare": [compare], "success": [{"requestPut": put}]}
    return call("/v3/kv/txn", body, timeout).get("succeeded", False)


def main(channel):
    for number, request in channel:
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
    main(channel)  # noqa: F821
