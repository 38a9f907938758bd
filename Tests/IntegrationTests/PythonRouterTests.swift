import Foundation
import Glibc
import Testing

/// The TLS that a client begins with and a server ends, between which tproxy only looks.
private let tlsServer = """
    import socket, ssl, sys, threading
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    context.set_alpn_protocols(["echo"])
    listener = socket.create_server(("127.0.0.1", 0))
    print("port", listener.getsockname()[1], flush=True)

    def serve(raw):
        with context.wrap_socket(raw, server_side=True) as client:
            client.sendall(sys.argv[3].encode() + b" got " + client.recv(100))

    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
    """

private let tlsClient = """
    import socket, ssl, sys
    context = ssl.create_default_context(cafile=sys.argv[2])
    context.set_alpn_protocols(["echo"])
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20) as raw:
        with context.wrap_socket(raw, server_hostname=sys.argv[3]) as server:
            server.sendall(b"hello")
            print(server.recv(100).decode(), server.selected_alpn_protocol())
    """

/// As much of SMTP as smtplib needs: the server speaks first.
private let smtpServer = """
    import socketserver

    class Mail(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"220 mail.example ready\\r\\n")
            for line in self.rfile:
                word = line.strip().upper()
                if word == b"DATA":
                    self.wfile.write(b"354 go on\\r\\n")
                    count = 0
                    while (part := self.rfile.readline()) not in (b".\\r\\n", b""):
                        count += 1
                    self.wfile.write(b"250 took %d lines\\r\\n" % count)
                elif word == b"QUIT":
                    self.wfile.write(b"221 bye\\r\\n")
                    return
                else:
                    self.wfile.write(b"250 fine\\r\\n")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Mail) as server:
        print("port", server.server_address[1], flush=True)
        server.serve_forever()
    """

private let smtpClient = """
    import smtplib, sys
    with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=20) as server:
        print(server.sendmail("a@a.example", "b@b.example", "Subject: x\\r\\n\\r\\nbody\\r\\n" * 10), "sent")
    """

extension IntegrationTests {
    /// The Python package and its examples, with real clients and servers.
    @Suite struct PythonRouters {
        /// A program in Python that says `port N` when it listens.
        private func server(_ code: String, _ arguments: [String] = []) throws -> (process: Subprocess, port: UInt16) {
            let process = try Subprocess(["python3", "-u", "-c", code] + arguments)
            let line = try process.line(with: "port ")
            return (process, try #require(line.firstMatch(of: /port (\d+)/).flatMap { UInt16($0.1) }))
        }

        private func mailServer() throws -> (process: Subprocess, port: UInt16) {
            guard has("aiosmtpd") else { return try server(smtpServer) }
            // It cannot choose a port itself, and does not say when it is ready.
            let port = try deadPort()
            let process = try Subprocess(["aiosmtpd", "-n", "-l", "127.0.0.1:\(port)"])
            try Deadline(in: patience).until("the mail server") { (try? Peer(port: port)) != nil }
            return (process, port)
        }

        private func python(_ code: String, _ arguments: String...) throws -> (status: Int32, text: String) {
            try Subprocess.run(["python3", "-c", code] + arguments)
        }

        /// A client that has said something.
        private func saying(_ text: String, to proxy: TProxy) throws -> Peer {
            let client = try proxy.client()
            try client.send(text)
            return client
        }

        private func httpServer(_ folder: Folder) throws -> (process: Subprocess, port: UInt16) {
            _ = try folder.file("index.html", "I am here\n")
            try Data(repeating: 0x61, count: 2_000_000).write(to: URL(filePath: "\(folder.path)/large"))
            let process = try Subprocess([
                "python3", "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", folder.path,
            ])
            let line = try process.line(with: " port ")
            return (process, try #require(line.firstMatch(of: /port (\d+)/).flatMap { UInt16($0.1) }))
        }

        private func curl(_ arguments: String...) throws -> (status: Int32, text: String) {
            // The environment may name a proxy, or hosts that need none.
            try Subprocess.run(
                ["env", "-u", "no_proxy", "-u", "NO_PROXY", "curl", "-sS", "--max-time", "20"] + arguments)
        }

        @Test("curl gets through the SOCKS 5 example by address and by name")
        func socks5() throws {
            let folder = Folder()
            let origin = try httpServer(folder)
            let dead = try deadPort()
            try withTProxy(script: [Repository.example("socks5.py")]) { (proxy) throws in
                let address = "127.0.0.1:\(proxy.port)"
                let url = "http://127.0.0.1:\(origin.port)/"
                #expect(try curl("--socks5", address, url).text == "I am here")
                #expect(try curl("--socks5-hostname", address, "http://localhost:\(origin.port)/").text == "I am here")
                let large = try curl(
                    "--socks5", address, "-w", "%{size_download}", "-o", "/dev/null", url + "large")
                #expect(large.text == "2000000")
                // curl's status 97: it was not connected. In brackets the code that it was told: 5, refused, and 1, failed.
                let refused = try curl("--socks5", address, "http://127.0.0.1:\(dead)/")
                #expect(refused.status == 97 && refused.text.contains("(5)"), "\(refused)")
                let loop = try curl("--socks5", address, "http://\(address)/")
                #expect(loop.status == 97 && loop.text.contains("(1)"), "\(loop)")
            }
            withExtendedLifetime(origin) {}
        }

        @Test("TLS goes by its server name, and the router is asked once for each", .enabled(if: has("openssl")))
        func serverName() throws {
            let folder = Folder()
            let (key, certificate) = ("\(folder.path)/key.pem", "\(folder.path)/cert.pem")
            let made = try Subprocess.run([
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=tests", "-addext",
                "subjectAltName=DNS:one.example,DNS:a.two.example,DNS:none.example",
            ])
            #expect(made.status == 0, "\(made.text)")
            let one = try server(tlsServer, [certificate, key, "one"])
            let two = try server(tlsServer, [certificate, key, "two"])
            let routes = "one.example=127.0.0.1:\(one.port),*.two.example=127.0.0.1:\(two.port)"
            try withTProxy(script: [Repository.example("sni_router.py")], environment: ["ROUTES": routes]) {
                (proxy) throws in
                for _ in 0..<3 {
                    for (name, answer) in [("one.example", "one"), ("a.two.example", "two")] {
                        let result = try python(tlsClient, "\(proxy.port)", certificate, name)
                        #expect(result.text == "\(answer) got hello echo" && result.status == 0, "\(result)")
                    }
                }
                // openssl itself, with the name in another case.
                let other = try Subprocess.run([
                    "sh", "-c",
                    "echo hello | openssl s_client -quiet -connect 127.0.0.1:\(proxy.port) -servername ONE.example 2>&1",
                ])
                #expect(other.text.contains("one got hello"), "\(other.text)")
                #expect(try python(tlsClient, "\(proxy.port)", certificate, "none.example").status != 0)
                let plain = try saying("GET / HTTP/1.1\r\n", to: proxy)
                #expect(try plain.text() == "")
                #expect(try proxy.access(plain)["note"] == #""no TLS""#)
                for name in ["one.example", "a.two.example", "none.example"] {
                    let asked = proxy.process.lines.filter { $0.contains("asked about \(name)") }
                    #expect(asked.count == 1, "\(asked)")
                }
            }
            withExtendedLifetime((one, two)) {}
        }

        @Test("a mail server, which speaks first, and an SSH server share a port")
        func speakingFirst() throws {
            let mail = try mailServer()
            let ssh = try Origin { peer in
                try peer.expect("SSH-2.0-client\r\n")
                try peer.send("SSH-2.0-server\r\n")
            }
            let addresses = ["SMTP": "127.0.0.1:\(mail.port)", "SSH": ssh.address]
            let example = [Repository.example("smtp_or_ssh.py")]
            try withTProxy(["--silence", "200"], script: example, environment: addresses) { (proxy) throws in
                let sent = try python(smtpClient, "\(proxy.port)")
                #expect(sent.text == "{} sent" && sent.status == 0, "\(sent)")
                let client = try saying("SSH-2.0-client\r\n", to: proxy)
                #expect(try client.text() == "SSH-2.0-server\r\n")
                #expect(try proxy.access(client)["note"] == "ssh")
                // A name that comes in pieces, and one who waits to be greeted.
                let slow = try proxy.client()
                try slow.send("SS")
                try proxy.process.wait(for: "the first note") {
                    $0.contains { $0.contains("note=silent") } ? true : nil
                }
                try slow.send("H-2.0-client\r\n")
                let answer = try slow.text()
                #expect(answer == "SSH-2.0-server\r\n" || answer.hasPrefix("220 "), "\(answer)")
                let silent = try proxy.client()
                try silent.expect("220 ")
                silent.end()
            }
            // Who is known to be a mail server need not wait.
            let known = addresses.merging(["MAIL_FROM": "127.0.0.0/8"]) { _, new in new }
            try withTProxy(["--silence", "60000"], script: example, environment: known) { (proxy) throws in
                let client = try proxy.client()
                try client.expect("220 ")
                #expect(try proxy.access(client)["note"] == "known")
            }
            withExtendedLifetime((mail, ssh)) {}
        }

        @Test("connections are spread by how many are open, and a remote that fails is replaced")
        func balance() throws {
            let (one, two) = (try Origin(), try Origin())
            let dead = "127.0.0.1:\(try deadPort())"
            try withTProxy(
                script: [Repository.example("balance.py")], environment: ["REMOTES": "\(one.address),\(two.address)"]
            ) { (proxy) throws in
                let first = try saying("1", to: proxy)
                let firstServer = try one.accept()
                let second = try saying("2", to: proxy)
                let secondServer = try two.accept()
                second.end()
                secondServer.end()
                try proxy.access(second)
                // The second one has ended: its remote has the fewest, twice if that has ended as well.
                for _ in 0..<3 {
                    let next = try saying("3", to: proxy)
                    let server = try two.accept()
                    server.end()
                    try proxy.access(next)
                }
                withExtendedLifetime((first, firstServer)) {}
            }
            try withTProxy(
                script: [Repository.example("balance.py")], environment: ["REMOTES": "\(dead),\(two.address)"]
            ) { (proxy) throws in
                for text in ["a", "b", "c"] {
                    let client = try saying(text, to: proxy)
                    let server = try two.accept()
                    try server.expect(text)
                    server.end()
                    try proxy.access(client)
                }
            }
        }

        @Test("a script drops cached verdicts and ends connections, in all workers, from a thread of its own")
        func telling() throws {
            let folder = Folder()
            let origin = try Origin()
            let fifo = "\(folder.path)/fifo"
            mkfifo(fifo, 0o600)
            let script = try folder.file(
                "telling.py",
                """
                import threading
                import tproxy

                def tell():
                    while True:
                        for line in open("\(fifo)"):
                            word, _, rest = line.strip().partition(" ")
                            if word == "invalidate":
                                tproxy.invalidate(key="data", value=rest)
                            else:
                                tproxy.close(tag=rest, reset=word == "reset")

                threading.Thread(target=tell, daemon=True).start()

                def proxy(data):
                    print("asked", data)
                    if data == b"stay":
                        return {"remote": "\(origin.address)", "tags": ["live"]}
                    return {"close": b"bye", "cache": {"key": "data", "ttl": 60}}

                def closed(connection):
                    print("closed", connection.reason)
                """)
            try withTProxy(script: [script]) { (proxy) throws in
                func ask() throws { #expect(try saying("same", to: proxy).text() == "bye") }
                func tell(_ line: String) throws {
                    let result = try Subprocess.run(["sh", "-c", "echo '\(line)' >'\(fifo)'"])
                    #expect(result.status == 0)
                }
                for _ in 0..<3 { try ask() }
                #expect(proxy.process.lines.filter { $0.contains("asked b'same'") }.count == 1)
                try tell("invalidate same")
                try Deadline(in: patience).until("a second question") {
                    try ask()
                    return proxy.process.lines.filter { $0.contains("asked b'same'") }.count == 2
                }
                for (word, wasReset) in [("close", false), ("reset", true)] {
                    let client = try saying("stay", to: proxy)
                    let server = try origin.accept()
                    try server.expect("stay")
                    try tell("\(word) live")
                    if wasReset {
                        #expect(throws: (any Error).self) { try client.text() }
                    } else {
                        #expect(try client.text() == "")
                    }
                    try proxy.access(client)
                }
                try proxy.process.line(with: "closed closed")
            }
        }

        @Test("a Python router that listens serves two workers, and is asked again after it was killed")
        func listening() throws {
            let folder = Folder()
            let path = "\(folder.path)/route.sock"
            let package = Repository.root + "routers/python"
            let script = try folder.file(
                "listening.py",
                """
                import os, sys, tproxy
                seen = set()
                async def proxy(data):
                    seen.add(data)
                    return {"close": f"{os.getpid()} {len(seen)}"}
                tproxy.run(proxy, listen="\(path)")
                """)
            func start() throws -> Subprocess {
                try Subprocess(["python3", script], environment: ["PYTHONPATH": package])
            }
            var router: Subprocess? = try start()
            try withTProxy(["-w", "2"], router: "unix:\(path)") { (proxy) throws in
                for n in 1...20 {
                    #expect(try saying("\(n)", to: proxy).text() == "\(router?.pid ?? 0) \(n)")
                }
                router = nil
                let waiting = try saying("again", to: proxy)
                let second = try start()
                #expect(try waiting.text() == "\(second.pid) 1")
                withExtendedLifetime(second) {}
            }
        }
    }
}
