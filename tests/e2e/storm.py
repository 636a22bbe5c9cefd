"""Many requests at the same moment, each over a connection of its own, and how long each took."""

import asyncio
import json
import resource
import time

TRIES = 50


class Answer:
    def __init__(self, status, headers, body, seconds, refused):
        self.status = status
        self.headers = headers
        self.body = body
        self.seconds = seconds    # of the last try
        self.refused = refused    # how often it was 503 before

    def json(self):
        return json.loads(self.body)


async def once(address, head, body):
    """One request: status, headers, body. OSError if the connection breaks."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(head + body)
        raw = await reader.readuntil(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        return int(lines[0].split()[1]), headers, await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionError(f"the answer was broken off: {error}") from error
    finally:
        writer.close()


async def patient(address, method, path, body, common):
    """As an honest client: told 503, it waits for as long as Retry-After says, and asks again."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n" + common + \
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    for refused in range(TRIES):
        started = time.monotonic()
        status, headers, answer = await once(address, head.encode(), data)
        took = time.monotonic() - started
        if status != 503:
            return Answer(status, headers, answer, took, refused)
        await asyncio.sleep(int(headers["retry-after"]))  # no honest 503 without it
    raise AssertionError(f"{method} {path} was refused {TRIES} times")


def storm(volumes, requests, answered=None):
    """All of `requests`, (method, path, body) each, at once; the answers in their order, an OSError
    in place of one that broke off. `answered` is called after each."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    host, _, rest = volumes.url.removeprefix("http://").partition("/")
    name, _, port = host.rpartition(":")
    common = "".join(f"{key}: {value}\r\n" for key, value in volumes.headers.items())
    common += "Content-Type: application/json\r\n"

    async def one(method, path, body):
        try:
            answer = await patient((name, int(port)), method, f"/{rest}{path}", body, common)
        except OSError as error:
            return error
        if answered is not None:
            answered(answer)
        return answer

    async def all_of_them():
        return await asyncio.gather(*(one(*request) for request in requests))
    return asyncio.run(all_of_them())


def figures(name, answers):
    """One line about how long they took."""
    took = sorted(answer.seconds * 1000 for answer in answers)
    refused = sum(answer.refused for answer in answers)
    return (f"{name}: {len(took)}, p50 {took[len(took) // 2]:.0f} ms, "
            f"p99 {took[len(took) * 99 // 100]:.0f} ms, max {took[-1]:.0f} ms, "
            f"{refused} times 503")
