#!/usr/bin/env python3
"""A worker in Python for `oncecast-consumer --handler http`, with the standard library alone.

    python3 examples/http_worker.py 8080
    oncecast-consumer --handler http --url http://127.0.0.1:8080/job

Each message is a POST. What is answered with 200 is recorded once: the members of a JSON object become fields. A 4xx
moves the message to the dead letters, with the answer as the reason; 500 has it delivered again. A message may come
more than once, with the same `Idempotency-Key`.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


def work(message):
    """The fields to record; None is left out. Replace this."""
    return {"message_id": message.get("message_id")}


class Worker(BaseHTTPRequestHandler):
    # Keeps connections open between requests, and sends each answer at once.
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            fields = work(json.loads(payload))
        except (ValueError, AttributeError) as error:
            return self.answer(422, f"this is not a message of mine: {error!r}")
        # What is known about the message is in the headers.
        fields["delivery"] = int(self.headers["Oncecast-Delivery"])
        fields["channel"] = unquote(self.headers.get("Oncecast-Channel", "")) or None
        self.answer(200, json.dumps(fields))

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        # Without the length, half an answer would look like a whole one.
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        """Nothing for each request."""


class Server(ThreadingHTTPServer):
    # Connections that wait to be accepted; as many as the consumers' threads may open at once.
    request_queue_size = 128


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Worker)
    print("listening on port", server.server_port, flush=True)
    server.serve_forever()
