"""A proxy between a client and a service, for tests in which one of them misbehaves."""

import http.server
import os
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import service as quarry  # noqa: E402


class Between:
    """A proxy that a test can make answer, or do, something else. `on` is called with each request
    (method, path, body) and returns None to forward it, or (status, body), or (status, body,
    headers), or a function that writes the answer to the socket itself: it gets the handler."""

    def __init__(self):
        between = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def body(self):
                """All of it; None where it is broken off."""
                if self.headers.get("Transfer-Encoding") != "chunked":
                    length = int(self.headers.get("Content-Length") or 0)
                    body = self.rfile.read(length)
                    return body if len(body) == length else None
                pieces = []
                while True:
                    line = self.rfile.readline()
                    if not line.endswith(b"\r\n"):
                        return None
                    length = int(line, 16)
                    piece = self.rfile.read(length + 2)
                    if len(piece) < length + 2:
                        return None
                    if length == 0:
                        return b"".join(pieces)
                    pieces.append(piece[:-2])

            def forward(self):
                body = self.body()
                if body is None:  # the client broke off: nothing to forward
                    self.close_connection = True
                    return
                answer = between.on(self.command, self.path, body)
                if answer is None:
                    del self.headers["Transfer-Encoding"]
                    reply = quarry.call(self.command, between.target + self.path, body or None,
                                        dict(self.headers))
                    # The catalog leads here as well.
                    answer = (reply.status, reply.body.replace(between.target.encode(),
                                                               between.url.encode()))
                    headers = {k: v for k, v in reply.headers.items() if k.lower() in
                               ("content-type", "content-encoding", "x-subject-token", "location")}
                elif callable(answer):
                    self.close_connection = True
                    answer(self)
                    return
                else:
                    headers = answer[2] if len(answer) > 2 else {"Content-Type": "text/plain"}
                self.send_response(answer[0])
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = forward

            def log_message(self, *_):
                pass

        self.on = lambda method, path, body: None
        self.target = None
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Behind(quarry.Service):
    """A service, and before it a proxy (`between`) through which its clients go."""

    def start(self):
        super().start()
        self.between.target = self.base
        return self

    def entrance(self):
        return self.between.url

    def __enter__(self):
        self.between = Between()
        return super().__enter__()

    def __exit__(self, *what):
        super().__exit__(*what)
        self.between.stop()
