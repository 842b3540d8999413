"""A model server of the Open Inference Protocol V2 that knows its files and some variables alone.

``python v2_server.py [HOST:PORT]`` serves the linear model of ``$NBMLOPS_FILES/model.json``.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAME = os.environ["NBMLOPS_MODEL"]
MODEL = json.loads((Path(os.environ["NBMLOPS_FILES"]) / "model.json").read_text())
TOKEN = Path(os.environ["NBMLOPS_TOKEN_FILE"]).read_text()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def say(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/v2":
            self.say(200, {"name": "plain", "version": "1", "extensions": []})
        else:
            self.say(200, {"ready": True})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.say(401, {"error": "who are you?"})
            return
        columns = {one["name"]: one["data"] for one in asked["inputs"]}
        rows = len(next(iter(columns.values())))
        values = [
            MODEL["bias"]
            + sum(
                weight * columns[name][row]
                for name, weight in zip(MODEL["names"], MODEL["weights"], strict=True)
            )
            for row in range(rows)
        ]
        answer = {"name": "predict", "datatype": "FP64", "shape": [rows, 1], "data": values}
        self.say(200, {"model_name": NAME, "outputs": [answer]})

    def log_message(self, *said):
        pass


where = (os.environ["NBMLOPS_HOST"], os.environ["NBMLOPS_PORT"])
host, port = sys.argv[1].rsplit(":", 1) if len(sys.argv) > 1 else where
print(f"{NAME} listens on {host}:{port}", flush=True)
ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
