"""An HTTP server that answers with what it was asked, in chunks: method, path, Host, the body's length and SHA-256."""

import hashlib
import http.server


class Reporter(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while count := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(count)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def do_GET(self):
        body = self.body()
        words = self.command, self.path, self.headers["Host"], len(body), hashlib.sha256(body).hexdigest()
        text = (" ".join(map(str, words)) + "\n").encode()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(text), 20):
            piece = text[start:start + 20]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    do_PUT = do_POST = do_GET

    def log_message(self, *words):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Reporter)
print("port", server.server_address[1], flush=True)
server.serve_forever()
