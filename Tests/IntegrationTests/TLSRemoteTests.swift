import Foundation
import Glibc
import Testing

/// Asks, says its end by close_notify, and hears the other one's, which Python's `SSLSocket` cannot.
private let tlsClient = """
    import socket, ssl, sys
    port, authority, certificate, key, order = sys.argv[1:]
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    raw = socket.create_connection(("127.0.0.1", int(port)), 20)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")

    def do(call, *arguments):
        while True:
            try:
                result = call(*arguments)
                raw.sendall(outgoing.read())
                return result
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                data = raw.recv(65536)
                incoming.write(data) if data else incoming.write_eof()

    do(tls.do_handshake)
    do(tls.write, order.encode() + b"\\nhello")
    text = b""
    while len(text) < 5:
        text += do(tls.read, 100)
    try:
        tls.unwrap()
    except ssl.SSLWantReadError:
        raw.sendall(outgoing.read())
    try:
        while data := do(tls.read, 100):
            text += data
    except ssl.SSLZeroReturnError:
        pass
    print(tls.selected_alpn_protocol(), text.decode())
    """

extension IntegrationTests {
    /// TLS towards remotes: what is verified, what is told, how it ends.
    @Suite(.enabled(if: has("openssl"))) struct TLSRemotes {
        private let certificates: Certificates

        init() throws { certificates = try Certificates() }

        /// A verdict's text with TLS; `arguments` are members of `ssl_args`, `more` of the verdict.
        private func verdict(_ remote: String, _ arguments: String = "", _ more: String = "") -> String {
            #"{"remote": "\#(remote)", "ssl": true, "ssl_args": {\#(arguments)}\#(more)}"#
        }

        /// The same with this test's authority.
        private func trusting(_ remote: String, _ arguments: String = "", _ more: String = "") -> String {
            let authority = #""ca_certs": "\#(certificates.authorityFile)""#
            return verdict(remote, arguments.isEmpty ? authority : authority + ", " + arguments, more)
        }

        /// A client for which the router gives this verdict, with `hello` for the remote.
        private func client(_ proxy: TProxy, _ verdict: String, onError: String = "null") throws -> Peer {
            try proxy.client(#"{"answer": \#(verdict), "rest": true, "on_error": \#(onError)}"#, "hello")
        }

        /// A client through whom the remote's echo is heard, to the orderly end.
        private func expectEcho(_ proxy: TProxy, _ verdict: String) throws {
            let client = try client(proxy, verdict)
            try client.expect("hello")
            client.end()
            #expect(try client.text() == "end")
            let access = try proxy.access(client)
            #expect(access["reason"] == "done" && access["verdict"] == "remote", "\(access)")
        }

        /// The question of `proxy_error`, which the client gets back.
        private func failure(_ proxy: TProxy, _ verdict: String) throws -> (question: [String: Any], reason: String) {
            let client = try client(proxy, verdict, onError: "\"report\"")
            let bytes = try client.drain(within: 30).bytes
            let question = try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any]
            return (try #require(question, "\(shown(bytes))"), try proxy.access(client)["reason"])
        }

        /// A failure that comes to the router as `tls` with these words.
        private func expectFailure(_ proxy: TProxy, _ verdict: String, _ words: String) throws {
            let (question, reason) = try failure(proxy, verdict)
            let message = question["message"] as? String ?? ""
            #expect(question["type"] as? String == "tls", "\(question)")
            #expect(message.contains(words), "\(message)")
            #expect(reason == "remote_tls")
        }

        // MARK: What is verified

        @Test("a remote is verified by its name against the authorities of the verdict, and by name or address only")
        func verified() throws {
            let server = try TLSServer(try certificates.leaf())
            try withTProxy { proxy in
                try expectEcho(proxy, trusting(server.named))
                #expect(try server.greeting().sni == "localhost")
                #expect(try server.end() == .init(ended: "end", got: 5, text: ""))
                // An address is not sent, and is verified.
                try expectEcho(proxy, trusting(server.address))
                #expect(try server.greeting(2).sni == nil)
                try expectEcho(proxy, trusting(server.address, #""server_hostname": "localhost""#))
                #expect(try server.greeting(3).sni == "localhost")
                try expectEcho(proxy, trusting(server.named, #""server_hostname": "127.0.0.1""#))
                #expect(try server.greeting(4).sni == nil)
                try expectFailure(
                    proxy, trusting(server.address, #""server_hostname": "other.example""#), "hostname mismatch")
                try expectFailure(
                    proxy, trusting(server.address, #""server_hostname": "127.0.0.2""#), "IP address mismatch")
                // The authority is none of the system's.
                try expectFailure(proxy, verdict(server.named), "unable to get local issuer certificate")
                let stranger = try Certificates()
                let other = #""ca_certs": "\#(stranger.authorityFile)""#
                try expectFailure(proxy, verdict(server.named, other), "unable to get local issuer certificate")
                // Nothing of the client's went to those.
                for number in 5..<5 + 4 { #expect(try server.end(number).got == 0) }
            }
        }

        @Test("an IPv6 address is verified as well, and a name is none of a certificate's addresses")
        func addresses() throws {
            let server = try TLSServer(try certificates.leaf(), "host=::1")
            let nameOnly = try TLSServer(try certificates.leaf("names", addresses: []))
            let wild = try TLSServer(try certificates.leaf("wild", names: ["*.wild.example"], addresses: []))
            try withTProxy { proxy in
                try expectEcho(proxy, trusting("[::1]:\(server.port)"))
                #expect(try server.greeting().sni == nil)
                try expectFailure(proxy, trusting(nameOnly.address), "IP address mismatch")
                try expectEcho(proxy, trusting(wild.address, #""server_hostname": "a.wild.example""#))
                try expectFailure(
                    proxy, trusting(wild.address, #""server_hostname": "b.a.wild.example""#), "hostname mismatch")
            }
        }

        @Test(
            "a certificate that is too old, too young, for clients, or signed by itself is refused in OpenSSL's words")
        func refused() throws {
            let cases = [
                (try certificates.leaf("expired", validity: .expired), "certificate has expired"),
                (try certificates.leaf("future", validity: .future), "certificate is not yet valid"),
                (try certificates.leaf("client", use: .client), "certificate purpose"),
                (try certificates.selfSigned(), "self-signed certificate"),
            ]
            try withTProxy { proxy in
                for (pair, words) in cases {
                    let server = try TLSServer(pair)
                    try expectFailure(proxy, trusting(server.named), words)
                    #expect(try server.end().got == 0)
                    // Whoever asks for it gets it all the same.
                    try expectEcho(proxy, verdict(server.named, #""cert_reqs": 0"#))
                }
            }
        }

        @Test("without verification nothing of a certificate is looked at, and a name is sent all the same")
        func unverified() throws {
            let server = try TLSServer(try certificates.leaf(names: ["a.example"], addresses: []))
            try withTProxy { proxy in
                try expectEcho(proxy, verdict(server.named, #""cert_reqs": 0"#))
                #expect(try server.greeting().sni == "localhost")
                try expectFailure(proxy, trusting(server.named, #""cert_reqs": 1"#), "hostname mismatch")
            }
        }

        // MARK: What is agreed on

        @Test("a certificate is shown to a remote that asks for one, from one file or two")
        func clientCertificate() throws {
            let pair = try certificates.client("alice")
            let both = try certificates.joined("both.pem", [pair.certificate, pair.key])
            // Version 1.2: with 1.3 a missing certificate is told after the handshake.
            let server = try TLSServer(
                try certificates.leaf(), "clients=\(certificates.authorityFile)", "max=1.2")
            try withTProxy { proxy in
                let two = #""certfile": "\#(pair.certificate)", "keyfile": "\#(pair.key)""#
                try expectEcho(proxy, trusting(server.named, two))
                #expect(try server.greeting().client == "alice")
                try expectEcho(proxy, trusting(server.named, #""certfile": "\#(both)""#))
                #expect(try server.greeting(2).client == "alice")
                try expectFailure(proxy, trusting(server.named), "alert")
                #expect(server.greetings == 2)
                // With 1.3 it is told after the handshake, when the client's bytes are on their way: no other remote gets them.
                let late = try TLSServer(try certificates.leaf("late"), "clients=\(certificates.authorityFile)")
                try expectFailure(proxy, trusting(late.named), "alert certificate required")
                let client = try client(
                    proxy, trusting(late.named), onError: #"{"remote": "\#(server.named)", "ssl": true}"#)
                let port = client.localPort
                #expect(try client.ending() == .reset)
                #expect(try proxy.access(port: port)["reason"] == "remote_tls")
                #expect(server.greetings == 2)
            }
        }

        @Test("a worker that has shown a remote a certificate holds a key, and leaves no core")
        func noCore() throws {
            let pair = try certificates.client("alice")
            let server = try TLSServer(try certificates.leaf())
            let folder = Folder()
            // The limit says that there may be one; only the process itself says no.
            let proxy = try TProxy(
                prefix: ["sh", "-c", "cd '\(folder.path)' && ulimit -c unlimited && exec \"$@\"", "sh"])
            let first = try proxy.worker()
            // One without a key does leave one, if they go to the folder it is in: of others nothing is known.
            kill(first, SIGSEGV)
            let isDumped = try proxy.process.line(with: "died of SIGSEGV").contains("core dumped")
            let pattern = try Proc.text("sys/kernel/core_pattern")
            #expect(isDumped || !pattern.hasPrefix("core"))
            try proxy.process.line(with: "worker 2 (pid")
            let shown = #""certfile": "\#(pair.certificate)", "keyfile": "\#(pair.key)""#
            try expectEcho(proxy, trusting(server.named, shown))
            kill(try proxy.worker(), SIGSEGV)
            let line = try proxy.process.line(with: "died of SIGSEGV", count: 2)
            #expect(!line.contains("core dumped"), "\(line)")
            #expect(try proxy.stop() == 0)
        }

        @Test("a file that is missing or wrong is a failure of TLS that names it, and not of the others")
        func files() throws {
            let server = try TLSServer(try certificates.leaf())
            let (one, other) = (try certificates.client("one"), try certificates.client("other"))
            try withTProxy { proxy in
                try expectFailure(proxy, verdict(server.named, #""ca_certs": "/nowhere/ca.pem""#), "/nowhere/ca.pem")
                try expectFailure(proxy, verdict(server.named, #""ca_certs": "\#(one.key)""#), one.key)
                try expectFailure(proxy, trusting(server.named, #""certfile": "\#(one.key)""#), one.key)
                let mixed = #""certfile": "\#(one.certificate)", "keyfile": "\#(other.key)""#
                try expectFailure(proxy, trusting(server.named, mixed), "the key does not belong to the certificate")
                try expectFailure(proxy, trusting(server.named, #""ciphers": "NONSENSE""#), "NONSENSE")
                try expectEcho(proxy, trusting(server.named))
            }
        }

        @Test("files are read again after HUP, and connections of before go on")
        func reloaded() throws {
            let server = try TLSServer(try certificates.leaf())
            let (folder, stranger) = (Folder(), try Certificates())
            let file = try folder.file("ca.pem", String(contentsOfFile: stranger.authorityFile, encoding: .utf8))
            let told = verdict(server.named, #""ca_certs": "\#(file)""#)
            try withTProxy { proxy in
                let open = try client(proxy, trusting(server.named))
                try open.expect("hello")
                try expectFailure(proxy, told, "unable to get local issuer certificate")
                _ = try folder.file("ca.pem", String(contentsOfFile: certificates.authorityFile, encoding: .utf8))
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "reloaded: 1 worker")
                try expectEcho(proxy, told)
                try open.send("more")
                try open.expect("more")
            }
        }

        @Test("protocols are offered in order, and the remote chooses; version and ciphers are those of the verdict")
        func agreed() throws {
            let server = try TLSServer(try certificates.leaf(), "alpn=h3,http/1.1")
            try withTProxy { proxy in
                try expectEcho(proxy, trusting(server.named, #""alpn": ["h2", "http/1.1"]"#))
                #expect(try server.greeting().alpn == "http/1.1")
                #expect(try server.greeting().version == "TLSv1.3")
                try expectEcho(
                    proxy,
                    trusting(
                        server.named, #""ssl_version": 5, "ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384", "alpn": []"#))
                let greeting = try server.greeting(2)
                #expect(greeting.alpn == nil && greeting.version == "TLSv1.2", "\(greeting)")
                #expect(greeting.cipher == "ECDHE-ECDSA-AES256-GCM-SHA384")
                try expectEcho(proxy, trusting(server.named, #""ssl_version": 2"#))
                #expect(try server.greeting(3).version == "TLSv1.3")
                // Too old for the server, and for OpenSSL.
                let (question, _) = try failure(proxy, trusting(server.named, #""ssl_version": 3"#))
                #expect(question["type"] as? String == "tls")
            }
        }

        @Test("a session is resumed with the same remote and the same arguments, and with no other")
        func resumption() throws {
            let (server, other) = (try TLSServer(try certificates.leaf()), try TLSServer(try certificates.leaf("two")))
            try withTProxy { proxy in
                for (number, version) in [(1, 2), (3, 5)] {
                    let same = trusting(server.named, #""ssl_version": \#(version)"#)
                    try expectEcho(proxy, same)
                    #expect(try !server.greeting(number).reused)
                    try expectEcho(proxy, same)
                    #expect(try server.greeting(number + 1).reused)
                }
                try expectEcho(proxy, trusting(server.named, #""alpn": ["h2"]"#))
                #expect(try !server.greeting(5).reused)
                // Not to a remote of another name, where it would not be verified.
                try expectFailure(
                    proxy, trusting(server.named, #""server_hostname": "other.example""#), "hostname mismatch")
                try expectEcho(proxy, trusting(other.named))
                #expect(try !other.greeting().reused)
            }
        }

        // MARK: What goes wrong

        @Test("a remote that speaks something else is a failure of TLS, and so is one that ends")
        func noTLS() throws {
            let plain = try Origin { peer in
                _ = try peer.receive(5)
                try peer.send("HTTP/1.1 400 Bad Request\r\n\r\n")
                _ = try peer.drain()
            }
            let ending = try Origin { peer in _ = try peer.receive(5) }
            try withTProxy { proxy in
                try expectFailure(proxy, verdict(plain.address), "wrong version number")
                let (question, _) = try failure(proxy, verdict(ending.address))
                #expect(question["type"] as? String == "tls", "\(question)")
            }
        }

        @Test("a remote that never answers the handshake is given up at the connect timeout, and the next one tried")
        func silent() throws {
            let silent = try Origin()
            let server = try TLSServer(try certificates.leaf())
            try withTProxy { proxy in
                let time = try seconds { () throws in
                    let (question, reason) = try failure(
                        proxy, trusting(silent.address, "", #", "connect_timeout": 0.3"#))
                    #expect(question["type"] as? String == "connect_timeout", "\(question)")
                    #expect(reason == "connect_timeout")
                }
                #expect(time > 0.25 && time < 5, "\(time)")
                let held = try silent.accept()
                let next = try client(
                    proxy,
                    #"{"remotes": ["\#(silent.address)", "\#(server.named)"], "ssl": true, "connect_timeout": 0.3, "#
                        + #""ssl_args": {"ca_certs": "\#(certificates.authorityFile)"}}"#)
                try next.expect("hello")
                next.end()
                #expect(try next.text() == "end")
                withExtendedLifetime(held) {}
            }
        }

        @Test("after a failure the next of the remotes is tried, and then the one that the router names instead")
        func failover() throws {
            let good = try TLSServer(try certificates.leaf())
            let bad = try TLSServer(try certificates.leaf("expired", validity: .expired))
            try withTProxy { proxy in
                let authority = #""ssl": true, "ssl_args": {"ca_certs": "\#(certificates.authorityFile)"}"#
                try expectEcho(proxy, #"{"remotes": ["\#(bad.named)", "\#(good.named)"], \#(authority)}"#)
                let instead = try client(
                    proxy, trusting(bad.named), onError: #"{"remote": "\#(good.named)", \#(authority)}"#)
                try instead.expect("hello")
                instead.end()
                #expect(try instead.text() == "end")
                let access = try proxy.access(instead)
                #expect(access["attempts"] == "2" && access["remote"] == good.named, "\(access)")
                // From TLS that fails to none.
                let origin = try Origin()
                let plain = try client(proxy, trusting(bad.named), onError: #"{"remote": "\#(origin.address)"}"#)
                let server = try origin.accept()
                try server.expect("hello")
                server.end()
                #expect(try plain.text() == "")
            }
        }

        @Test("a remote that ends without close_notify was cut: the client gets what came, and a reset")
        func truncated() throws {
            let server = try TLSServer(try certificates.leaf(), "do=cut")
            try withTProxy { proxy in
                let client = try client(proxy, trusting(server.named))
                let (bytes, ending) = try client.drain()
                #expect(ending == .reset && "part".hasPrefix(String(decoding: bytes, as: UTF8.self)), "\(ending)")
                #expect(try proxy.access(client)["reason"] == "remote_truncated")
            }
        }

        @Test("a remote that has said all, and then resets for bytes that it does not want, has answered")
        func resetAfterEnd() throws {
            let folder = Folder()
            let gate = "\(folder.path)/gate"
            mkfifo(gate, 0o600)
            let origin = try TLSOrigin(
                try certificates.leaf(), in: certificates,
                ["until=hello", "say=heard", "gate=\(gate)", "send=413 too large", "notify", "rst", "say=gone"])
            try withTProxy { proxy in
                let client = try client(proxy, verdict(origin.address, #""cert_reqs": 0"#))
                _ = try origin.process.line(with: "heard")
                // All of it has come before the worker looks.
                let worker = try proxy.worker()
                kill(worker, SIGSTOP)
                defer { kill(worker, SIGCONT) }
                _ = try Subprocess.run(["sh", "-c", "echo go >'\(gate)'"])
                _ = try origin.process.line(with: "gone")
                kill(worker, SIGCONT)
                #expect(try client.text() == "413 too large")
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test("a client that resets is no orderly end to the remote")
        func clientResets() throws {
            let server = try TLSServer(try certificates.leaf())
            try withTProxy { proxy in
                let client = try client(proxy, trusting(server.named))
                try client.expect("hello")
                let port = client.localPort
                client.reset()
                #expect(try server.end().ended != "end")
                #expect(try proxy.access(port: port)["reason"] == "client_reset")
            }
        }

        // MARK: What passes

        @Test("each side may end first, and the other one still says all it has to say")
        func halfClose() throws {
            let server = try TLSServer(try certificates.leaf(), "do=half")
            try withTProxy { proxy in
                let client = try client(proxy, trusting(server.named))
                // The remote's end, while the client goes on.
                #expect(try client.text() == "last")
                try client.send(" and more")
                client.end()
                let end = try server.end()
                #expect(end == .init(ended: "end", got: 14, text: "hello and more"), "\(end)")
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test("a reply waits for the remote's handshake, and is the first that the client hears")
        func reply() throws {
            let folder = Folder()
            let gate = "\(folder.path)/gate"
            mkfifo(gate, 0o600)
            let server = try TLSServer(try certificates.leaf(), "do=gate", "gate=\(gate)")
            let bad = try TLSServer(try certificates.selfSigned(), "do=first")
            try withTProxy { proxy in
                let client = try client(proxy, trusting(server.named, "", #", "reply": "ready ""#))
                let verdict = try client.drain(within: 0.3)
                #expect(verdict.bytes.isEmpty && verdict.ending == .stillOpen)
                _ = try Subprocess.run(["sh", "-c", "echo go >'\(gate)'"])
                try client.expect("ready hello")
                client.end()
                #expect(try client.text() == "end")
                // A promise that cannot be kept is not made, and last words reach a client that has heard nothing.
                let broken = try self.client(
                    proxy, trusting(bad.named, "", #", "reply": "ready""#), onError: #"{"close": "sorry"}"#)
                #expect(try broken.text() == "sorry")
                let lie = try self.client(
                    proxy, trusting(bad.named, "", #", "reply": "ready", "reply_when": "before""#),
                    onError: #"{"close": "sorry"}"#)
                #expect(try lie.text() == "ready")
            }
        }

        @Test("a remote that speaks first is heard, and large bodies pass whole in both directions at once")
        func large() throws {
            let server = try TLSServer(try certificates.leaf(), "do=first")
            try withTProxy { proxy in
                let client = try client(proxy, trusting(server.named))
                try client.expect("firsthello")
                let body = (0..<16_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 11) }
                let writer = Thread {
                    try? client.send(body, within: 60)
                    client.end()
                }
                writer.start()
                let (bytes, ending) = try client.drain(within: 60)
                #expect(ending == .end && bytes.count == body.count + 3)
                #expect(bytes.starts(with: body) && bytes.suffix(3) == Array("end".utf8)[...])
                #expect(try server.end().got == body.count + 5)
            }
        }

        @Test("a PROXY header goes ahead of the handshake and of plain bytes, to every remote that is tried")
        func proxyHeader() throws {
            let one = try TLSServer(try certificates.leaf(), "proxy=1")
            let two = try TLSServer(try certificates.leaf("two"), "proxy=2")
            try withTProxy { proxy in
                let client = try client(proxy, trusting(one.named, "", #", "proxy_protocol": 1"#))
                try client.expect("hello")
                let line = "PROXY TCP4 127.0.0.1 127.0.0.1 \(client.localPort) \(proxy.port)\r\n"
                #expect(try one.greeting().header == line)
                // After a failure the next one gets a header of its own.
                let other = try self.client(
                    proxy,
                    #"{"remotes": ["127.0.0.1:\#(try deadPort())", "\#(two.address)"], "ssl": true, "#
                        + #""proxy_protocol": 2, "ssl_args": {"ca_certs": "\#(certificates.authorityFile)"}}"#)
                try other.expect("hello")
                let ports = [other.localPort, proxy.port].flatMap { [UInt8($0 >> 8), UInt8($0 & 0xff)] }
                let expected: [UInt8] =
                    [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 0x21, 0x11, 0, 12]
                    + [127, 0, 0, 1, 127, 0, 0, 1] + ports
                #expect(try two.greeting().header == Data(expected).base64EncodedString())
                // Without TLS, and with nothing else to say.
                let origin = try Origin()
                let plain = try proxy.client(
                    #"{"answer": {"remote": "\#(origin.address)", "proxy_protocol": 1, "data": ""}}"#)
                let server = try origin.accept()
                try server.expect("PROXY TCP4 127.0.0.1 127.0.0.1 \(plain.localPort) \(proxy.port)\r\n")
                try plain.send("hello")
                try server.expect("hello")
            }
        }

        @Test(
            "what belongs to Python's own socket is passed over with one line of the log, and unknown words are refused"
        )
        func arguments() throws {
            let server = try TLSServer(try certificates.leaf())
            try withTProxy { proxy in
                for _ in 0..<3 {
                    try expectEcho(
                        proxy, trusting(server.named, #""suppress_ragged_eofs": true, "do_handshake_on_connect": true"#)
                    )
                }
                let lines = proxy.process.lines.filter { $0.contains("suppress_ragged_eofs") }
                #expect(lines.count == 1, "\(lines)")
                let client = try client(proxy, trusting(server.named, #""certificate": "x""#))
                #expect(try client.text() == "")
                #expect(try proxy.access(client)["reason"] == "bad_verdict")
                try proxy.process.line(with: "ssl_args.certificate")
            }
        }

        @Test("a cached verdict speaks TLS as the first one did, and is dropped when the remote is no longer good")
        func cached() throws {
            let (pair, other) = (try certificates.leaf(), try certificates.leaf("other", names: ["other.example"]))
            let folder = Folder()
            let log = try folder.file("asked")
            var server: TLSServer? = try TLSServer(pair)
            let port = try #require(server?.port)
            try withTProxy(environment: ["TOLD_LOG": log]) { proxy in
                let cache = #", "cache": {"key": "listener", "ttl": 60}"#
                let order = #"{"answer": \#(trusting("localhost:\(port)", "", cache))}"# + "\n"
                func asked() throws -> Int {
                    try String(contentsOfFile: log, encoding: .utf8).components(separatedBy: #""method":"proxy","#)
                        .count - 1
                }
                for _ in 0..<3 {
                    let client = try proxy.client()
                    try client.send(order)
                    try client.expect(order)
                    client.end()
                    #expect(try client.text() == "end")
                }
                #expect(try asked() == 1)
                #expect(try server?.greeting(3).reused == true)
                // Somebody else listens there, who cannot prove to be the same.
                server = nil
                server = try TLSServer(other, "port=\(port)")
                for count in [1, 2] {
                    let client = try proxy.client()
                    try client.send(order)
                    #expect(try client.text() == "")
                    #expect(try proxy.access(client)["reason"] == "remote_tls")
                    #expect(try asked() == count)
                }
            }
        }

        @Test("a remote behind a Unix socket is verified by the name that the verdict gives")
        func unix() throws {
            let folder = Folder()
            let server = try TLSServer(try certificates.leaf())
            let port = server.port
            // TLS begins behind a relay from the Unix socket to the server.
            let path = "\(folder.path)/socket"
            let relay = try Subprocess([
                "python3", "-S", "-u", "-c",
                """
                import socket, sys, threading
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(sys.argv[1]); listener.listen(); print("ready", flush=True)
                def copy(a, b):
                    try:
                        while data := a.recv(65536): b.sendall(data)
                    finally:
                        b.shutdown(socket.SHUT_WR)
                while True:
                    one = listener.accept()[0]
                    two = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
                    for pair in ((one, two), (two, one)): threading.Thread(target=copy, args=pair, daemon=True).start()
                """, path, "\(port)",
            ])
            try relay.line(with: "ready")
            try withTProxy { proxy in
                try expectEcho(proxy, trusting("unix:\(path)", #""server_hostname": "localhost""#))
                #expect(try server.greeting().sni == "localhost")
                try expectFailure(
                    proxy, trusting("unix:\(path)", #""server_hostname": "a.example""#), "hostname mismatch")
                try expectEcho(proxy, verdict("unix:\(path)", #""cert_reqs": 0"#))
                let nameless = try client(proxy, trusting("unix:\(path)"))
                #expect(try nameless.text() == "")
                #expect(try proxy.access(nameless)["reason"] == "bad_verdict")
            }
        }

        @Test("TLS on both sides: what is agreed with one is told, and each end reaches the other in order")
        func bothSides() throws {
            let (site, remote) = (try certificates.leaf("site"), try certificates.leaf("remote"))
            let alice = try certificates.client("alice")
            let server = try TLSServer(remote, "proxy=2")
            let options = [
                "--ssl-certfile", site.certificate, "--ssl-keyfile", site.key, "--ssl-alpn", "h2", "--ssl-ca-certs",
                certificates.authorityFile, "--ssl-cert-reqs", "2",
            ]
            try withTProxy(options) { proxy in
                let order = #"{"answer": \#(trusting(server.named, "", #", "proxy_protocol": 2"#)), "rest": true}"#
                let text = try python(
                    tlsClient, "\(proxy.port)", certificates.authorityFile, alice.certificate, alice.key, order)
                #expect(text == "h2 helloend")
                #expect(try server.end() == .init(ended: "end", got: 5, text: ""))
                let access = try proxy.accesses(1)[0]
                #expect(access["reason"] == "done" && access["to_client"] == "8", "\(access)")
                // The header tells who is behind: flags, verified, and what was agreed.
                let header = try #require(server.greeting().header.flatMap { Data(base64Encoded: $0) })
                let rest = [UInt8](header.dropFirst(16 + 12))
                #expect(rest.starts(with: [0x01, 0, 2] + Array("h2".utf8) + [0x02, 0, 9] + Array("localhost".utf8)))
                let tls = rest.dropFirst(5 + 12)
                #expect(tls.first == 0x20 && Array(tls.dropFirst(3).prefix(5)) == [5, 0, 0, 0, 0], "\(rest)")
                #expect(String(decoding: rest, as: UTF8.self).contains("TLSv1.3"))
            }
        }

        /// Runs a program in Python to its good end.
        private func python(_ code: String, _ arguments: String...) throws -> String {
            let (status, text) = try Subprocess.run(["python3", "-S", "-c", code] + arguments)
            guard status == 0 else { throw Failure(text) }
            return text
        }

        private func curl(_ arguments: String...) throws -> String {
            let (_, text) = try Subprocess.run(
                ["env", "-u", "no_proxy", "-u", "NO_PROXY", "curl", "-sS", "--max-time", "20"] + arguments)
            return text
        }

        // MARK: The examples

        @Test("curl gets a page over HTTP from a site that has HTTPS alone", .enabled(if: has("curl")))
        func example() throws {
            let pair = try certificates.leaf("site", names: ["site.example"], addresses: [])
            let site = try webServer(pair)
            let environment = ["REMOTE": "127.0.0.1:\(site.port)", "CA_CERTS": certificates.authorityFile]
            func page(_ name: String) throws -> String {
                var page = ""
                try withTProxy(
                    script: [Repository.example("tls_remote.py")],
                    environment: environment.merging(["SITE": name]) { _, new in new }
                ) { proxy in page = try curl("http://127.0.0.1:\(proxy.port)/") }
                return page
            }
            #expect(try page("site.example").contains("TLSv1.3"))
            let wrong = try page("other.example")
            #expect(wrong.hasPrefix("other.example: tls: ") && wrong.hasSuffix("hostname mismatch"), "\(wrong)")
            withExtendedLifetime(site) {}
        }

        @Test("the example routes by a client's certificate, and by the name asked for", .enabled(if: has("curl")))
        func certificateExample() throws {
            let pair = try certificates.leaf("site", names: ["a.example", "b.example"], addresses: [])
            let alice = try certificates.leaf("alice", names: ["alice.example"], addresses: [], use: .client)
            let origins = try ["alice", "site"].map { name in
                try Origin { peer in
                    var request: [UInt8] = []
                    while !request.suffix(4).elementsEqual("\r\n\r\n".utf8) { request += try peer.receive(1) }
                    try peer.send("HTTP/1.1 200 OK\r\nContent-Length: \(name.utf8.count)\r\n\r\n\(name)")
                    _ = try peer.drain()
                }
            }
            let environment = [
                "WHO": "DNS:alice.example=\(origins[0].address)", "SITES": "a.example=\(origins[1].address)",
            ]
            try withTProxy(
                [
                    "-b", "tls://127.0.0.1:0", "--ssl-certfile", pair.certificate, "--ssl-keyfile", pair.key,
                    "--ssl-ca-certs", certificates.authorityFile, "--ssl-cert-reqs", "1",
                ], script: [Repository.example("client_certificate.py")], environment: environment
            ) { proxy in
                func get(_ name: String, _ more: String...) throws -> String {
                    let (_, text) = try Subprocess.run(
                        [
                            "env", "-u", "no_proxy", "-u", "NO_PROXY", "curl", "-sS", "--max-time", "20", "--cacert",
                            certificates.authorityFile, "--resolve", "\(name):\(proxy.port):127.0.0.1",
                            "https://\(name):\(proxy.port)/",
                        ] + more)
                    return text
                }
                #expect(try get("b.example", "--cert", alice.certificate, "--key", alice.key) == "alice")
                #expect(try get("a.example") == "site")
                #expect(try get("b.example").contains("curl: ("))
                try proxy.process.line(with: "nobody for b.example")
            }
        }

        /// openssl's own, which answers with what was agreed.
        private func webServer(_ pair: Certificates.Pair) throws -> (process: Subprocess, port: UInt16) {
            let process = try Subprocess([
                "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", pair.certificate, "-key", pair.key, "-www",
            ])
            let line = try process.line(with: "ACCEPT ")
            return (process, try #require(line.split(separator: ":").last.flatMap { UInt16($0) }))
        }

        @Test("openssl s_server is spoken with, too")
        func openssl() throws {
            let server = try webServer(try certificates.leaf())
            try withTProxy { proxy in
                let client = try proxy.client(
                    #"{"answer": \#(trusting("localhost:\(server.port)")), "rest": true}"#, "GET / HTTP/1.0\r\n\r\n")
                let page = try client.drain()
                #expect(String(decoding: page.bytes, as: UTF8.self).contains("TLSv1.3"), "\(shown(page.bytes))")
            }
            withExtendedLifetime(server) {}
        }
    }
}
