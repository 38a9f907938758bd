import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// TLS ends at tproxy: clients of all kinds, plain remotes.
    @Suite struct TLSClients {
        private func options(_ pair: Certificates.Pair, _ more: [String] = []) -> [String] {
            ["--ssl-certfile", pair.certificate, "--ssl-keyfile", pair.key] + more
        }

        /// The order for told.py as a step.
        private func order(_ verdict: String, _ more: String = "") -> String {
            #"send={"answer": \#(verdict)\#(more)}\n"#
        }

        private func trusting(_ certificates: Certificates) -> [String] {
            ["--ca", certificates.authorityFile, "--name", "localhost"]
        }

        @Test("the router sees what a TLS client sends, and what was agreed with it")
        func question() throws {
            let certificates = try Certificates()
            try withTProxy(options(try certificates.leaf(), ["--ssl-alpn", "h2,http/1.1"])) { proxy in
                let seen = try TLSClient.run(
                    proxy.port, ["facts", #"send={"report": true}\n"#, "all"],
                    options: trusting(certificates) + ["--alpn", "http/1.1"])
                #expect(seen[0].version == "TLSv1.3" && seen[0].alpn == "http/1.1")
                let question = try #require(seen.last?.all)
                #expect(question.contains(#""tls": {"version": "TLSv1.3", "cipher": "TLS_"#), "\(question)")
                #expect(question.contains(#""sni": "localhost", "alpn": "http/1.1", "client_certificate": null"#))
                #expect(!question.contains("client_hello"))
                #expect(seen.last?.ending == "end")
                #expect(try TLSClient.run(proxy.port, ["facts"], options: ["--max", "1.2"])[0].version == "TLSv1.2")
            }
        }

        @Test("every verdict reaches a TLS client: bytes, a file, a conversation, a remote")
        func verdicts() throws {
            let certificates = try Certificates()
            let folder = Folder()
            let bytes = Data((0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) })
            try bytes.write(to: URL(filePath: "\(folder.path)/file"))
            let origin = try Origin.echo()
            try withTProxy(options(try certificates.leaf())) { proxy in
                let trust = trusting(certificates)
                var seen = try TLSClient.run(proxy.port, [order(#"{"close": "bye"}"#), "all"], options: trust)
                #expect(seen.last?.all == "bye" && seen.last?.ending == "end")
                seen = try TLSClient.run(
                    proxy.port,
                    [order(#"{"file": "\#(folder.path)/file", "offset": 7, "reply": "head "}"#), "recv=5", "all"],
                    options: trust)
                #expect(seen.first?.recv == "head " && seen.last?.count == 2_999_993 && seen.last?.ending == "end")
                seen = try TLSClient.run(
                    proxy.port, [order(#"{"close": true, "reset": true}"#), "all"], options: trust)
                #expect(seen.last?.ending == "reset")
                seen = try TLSClient.run(
                    proxy.port,
                    [
                        order(#"{"remote": "\#(origin.address)", "reply": "so: "}"#, #", "rest": true"#) + "hello",
                        "recv=9",
                    ],
                    options: trust)
                #expect(seen.last?.recv == "so: hello")
                // Not yet: what was understood is dropped, and the next line decides.
                let exchange = #"{"answer": {"reply": "and? ", "consume": 00}}"#
                seen = try TLSClient.run(
                    proxy.port,
                    [
                        "send=" + exchange.replacing("00", with: "\(exchange.utf8.count + 1)") + "\\n", "recv=5",
                        order(#"{"close": "so be it"}"#), "all",
                    ], options: trust)
                #expect(seen.first?.recv == "and? " && seen.last?.all == "so be it", "\(seen)")
                #expect(seen.last?.ending == "end")
            }
            let file = ["PASSED": "\(folder.path)/file"]
            try withTProxy(
                options(try certificates.leaf()), router: Repository.python("passing.py"), environment: file
            ) { proxy in
                let seen = try TLSClient.run(proxy.port, ["send=file", "all"], options: trusting(certificates))
                #expect(seen.last?.count == bytes.count && seen.last?.ending == "end")
                #expect(seen.last?.sha256 == (try sha256("\(folder.path)/file")))
            }
        }

        private func sha256(_ path: String) throws -> String {
            String(try Subprocess.run(["sha256sum", path]).text.prefix(64))
        }

        @Test("bytes arrive whole, both ways at once", arguments: ["1.3", "1.2"])
        func integrity(version: String) throws {
            let certificates = try Certificates()
            let origin = try Origin.echo()
            let megabytes = Int(ProcessInfo.processInfo.environment["TLS_TEST_MEGABYTES"] ?? "") ?? 48
            try withTProxy(options(try certificates.leaf())) { proxy in
                let seen = try TLSClient.run(
                    proxy.port,
                    [
                        order(#"{"remote": "\#(origin.address)"}"#, #", "rest": true"#), "both=\(megabytes << 20)",
                        "notify",
                        "all",
                    ],
                    options: trusting(certificates) + ["--max", version], within: 600)
                #expect(seen.first?.both == megabytes << 20 && seen.first?.same == true, "\(seen)")
                #expect(seen.last?.count == 0 && seen.last?.ending == "end")
            }
        }

        @Test("close_notify is an end in its direction alone, whoever says it first")
        func halfClose() throws {
            let certificates = try Certificates()
            let origin = try Origin()
            try withTProxy(options(try certificates.leaf())) { proxy in
                let order = order(#"{"remote": "\#(origin.address)", "data": "question"}"#)
                // The client ends first and still gets the answer.
                var client = try TLSClient.start(proxy.port, [order, "notify", "all"], options: trusting(certificates))
                var remote = try origin.accept()
                #expect(try remote.text() == "question")
                try remote.send("the answer")
                remote.close()
                #expect(try client.end() == 0)
                var seen = Seen.of(client.lines)
                #expect(seen.last?.all == "the answer" && seen.last?.ending == "end")
                // The remote ends first and still gets what the client sends.
                client = try TLSClient.start(
                    proxy.port, [order, "all", "send=afterwards", "notify"], options: trusting(certificates))
                remote = try origin.accept()
                try remote.expect("question")
                try remote.send("all there is")
                remote.end()
                #expect(try remote.text() == "afterwards")
                #expect(try client.end() == 0)
                seen = Seen.of(client.lines)
                #expect(seen.last?.all == "all there is" && seen.last?.ending == "end")
            }
        }

        @Test("a stream that is cut is no end: the remote gets a reset, unless the client had the whole answer")
        func truncation() throws {
            let certificates = try Certificates()
            let origin = try Origin()
            try withTProxy(options(try certificates.leaf())) { proxy in
                let order = order(#"{"remote": "\#(origin.address)"}"#, #", "rest": true"#) + "half an upl"
                for (number, end) in ["fin", "rst"].enumerated() {
                    let client = try TLSClient.start(proxy.port, [order, "recv=2", end])
                    let remote = try origin.accept()
                    try remote.expect("half an upl")
                    try remote.send("go")
                    #expect(try remote.ending() == .reset)
                    try client.end()
                    let reason = try proxy.accesses(number + 1)[number]["reason"]
                    #expect(reason == (end == "fin" ? "client_truncated" : "client_reset"))
                }
                let client = try TLSClient.start(proxy.port, [order, "all", "fin"])
                let remote = try origin.accept()
                try remote.expect("half an upl")
                try remote.send("never mind")
                remote.end()
                _ = try remote.drain()
                try client.end()
                #expect(try proxy.accesses(3)[2]["reason"] == "done")
            }
        }

        @Test("a remote's reset cuts the client's stream, too")
        func remoteReset() throws {
            let certificates = try Certificates()
            let origin = try Origin()
            try withTProxy(options(try certificates.leaf())) { proxy in
                let client = try TLSClient.start(
                    proxy.port, [order(#"{"remote": "\#(origin.address)", "data": "x"}"#), "recv=4", "all"])
                let remote = try origin.accept()
                try remote.expect("x")
                try remote.send("half")
                _ = try client.line(with: "half")
                remote.reset()
                try client.end()
                #expect(Seen.of(client.lines).last?.ending == "reset")
            }
        }

        @Test("certificates of clients: not asked for, welcome, required")
        func clientCertificates() throws {
            let certificates = try Certificates()
            let strangers = try Certificates(authority: "strangers")
            let leaf = try certificates.leaf()
            func pem(_ pair: Certificates.Pair, _ name: String) throws -> [String] {
                ["--cert", try certificates.joined(name, [pair.certificate, pair.key])]
            }
            let good = try pem(try certificates.client("alice"), "alice.pem")
            let expired = try pem(try certificates.client("old", validity: .expired), "old.pem")
            let strange = try pem(try strangers.client("mallory"), "mallory.pem")
            let report = [#"send={"report": true}\n"#, "all"]
            for requirement in 0...2 {
                let asks =
                    requirement == 0
                    ? [] : ["--ssl-ca-certs", certificates.authorityFile, "--ssl-cert-reqs", "\(requirement)"]
                try withTProxy(options(leaf, asks)) { proxy in
                    func ask(_ more: [String]) throws -> Seen? {
                        try TLSClient.run(proxy.port, report, options: more).last
                    }
                    let known = try ask(good)
                    if requirement == 0 {
                        #expect(known?.all?.contains(#""client_certificate": null"#) == true)
                    } else {
                        #expect(
                            known?.all?.contains(#""subject": "O=Tests,CN=alice""#) == true,
                            "\(String(describing: known))")
                        #expect(known?.all?.contains("tproxy test authority") == true)
                    }
                    let nobody = try ask([])
                    #expect(
                        (nobody?.all?.contains("connection") == true) == (requirement < 2),
                        "\(String(describing: nobody))")
                    for refused in [expired, strange] {
                        let seen = try ask(refused)
                        #expect((seen?.all?.contains("connection") == true) == (requirement == 0))
                        if requirement > 0 {
                            #expect(seen?.ending?.contains("error") == true, "\(String(describing: seen))")
                        }
                    }
                    if requirement == 2 {
                        #expect(try proxy.accesses(4).filter { $0["reason"] == "client_tls" }.count == 3)
                        #expect(proxy.process.text.contains("peer did not return a certificate"))
                    }
                }
            }
        }

        @Test("the certificate is chosen by the name the client asks for")
        func serverNames() throws {
            let certificates = try Certificates()
            let pairs = [
                try certificates.leaf("first", names: ["one.example"]),
                try certificates.leaf("second", names: ["two.example", "*.wild.example"]),
            ]
            let files = pairs.flatMap { ["--ssl-certfile", $0.certificate, "--ssl-keyfile", $0.key] }
            try withTProxy(files) { proxy in
                let expected = [
                    "one.example": 0, "two.example": 1, "TWO.example": 1, "a.wild.example": 1, "a.b.wild.example": 0,
                    "wild.example": 0, "nobody.example": 0,
                ]
                for (name, index) in expected {
                    let shown = try Certificates.fingerprint(shownOn: proxy.port, name: name)
                    #expect(try shown == pairs[index].fingerprint(), "\(name)")
                }
                #expect(try Certificates.fingerprint(shownOn: proxy.port) == pairs[0].fingerprint())
            }
        }

        @Test("plain listeners and TLS listeners live side by side")
        func both() throws {
            let certificates = try Certificates()
            try withTProxy(options(try certificates.leaf(), ["-b", "tls://127.0.0.1:0", "-b", "127.0.0.1:0"])) {
                proxy in
                let ports = proxy.ports
                let seen = try TLSClient.run(ports[0], [order(#"{"close": "secret"}"#), "all"])
                #expect(seen.last?.all == "secret")
                let client = try Peer(port: ports[1])
                try client.send(#"{"answer": {"close": "plain"}}"# + "\n")
                #expect(try client.text() == "plain")
            }
        }

        @Test("what is no handshake is answered with an alert or closed, in time, and hurts nobody")
        func garbage() throws {
            let certificates = try Certificates()
            try withTProxy(options(try certificates.leaf(), ["--verdict-timeout", "1"])) { proxy in
                // Who speaks something else would not understand an alert; who speaks TLS hears what was wrong.
                let (unexpected, overflow): (UInt8, UInt8) = (10, 22)
                for (bytes, alert) in [
                    (Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8), nil),
                    ([0x16, 3, 1, 2, 0] + [UInt8](repeating: 0x78, count: 600), unexpected),
                    ([0x16, 3, 1, 0xff, 0xff] + [UInt8](repeating: 1, count: 65_535), overflow),
                ] as [([UInt8], UInt8?)] {
                    let client = try proxy.client()
                    try client.send(bytes)
                    let (answer, ending) = try client.drain()
                    #expect(ending == .end)
                    if let alert {
                        // A record of type alert: fatal, and which.
                        #expect(answer.count == 7 && answer[0] == 21 && answer.suffix(2) == [2, alert], "\(answer)")
                    } else {
                        #expect(answer.isEmpty, "\(answer)")
                    }
                    #expect(try proxy.access(client)["reason"] == "client_tls")
                }
                // Half a record, and nothing more.
                let silent = try proxy.client()
                try silent.send([22, 3, 1, 2, 0, 1, 0, 1])
                #expect(try silent.ending() == .end)
                #expect(try proxy.access(silent)["reason"] == "client_tls")
                _ = try proxy.process.line(with: "TLS handshake")
                // One who leaves before a word is no fault.
                let guest = try proxy.client()
                guest.end()
                #expect(try proxy.access(guest)["reason"] == "client_left")
                #expect(try TLSClient.run(proxy.port, [order(#"{"close": "here"}"#), "all"]).last?.all == "here")
            }
        }

        @Test("half handshakes by the hundred cost little, end in time, and others are served meanwhile")
        func flood() throws {
            let certificates = try Certificates()
            try withTProxy(options(try certificates.leaf(), ["--verdict-timeout", "3"])) { proxy in
                let worker = try proxy.worker()
                let before = try Proc.kilobytes(worker, "VmRSS")
                var clients: [Peer] = []
                for _ in 0..<400 {
                    let client = try proxy.client()
                    try client.send([22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])
                    clients.append(client)
                }
                #expect(try TLSClient.run(proxy.port, [order(#"{"close": "served"}"#), "all"]).last?.all == "served")
                #expect(try Proc.kilobytes(worker, "VmRSS") - before < 400 * 64)
                for client in clients { #expect(try client.ending() == .end) }
                #expect(try proxy.accesses(401).filter { $0["reason"] == "client_tls" }.count == 400)
            }
        }

        @Test("full handshakes by the hundred leave nothing behind, and nobody waits for long meanwhile")
        func handshakes() throws {
            let certificates = try Certificates()
            try withTProxy(options(try certificates.leaf())) { proxy in
                let worker = try proxy.worker()
                let ask = ["facts", order(#"{"close": "ok"}"#), "all"]
                func many(_ times: Int) throws -> [Subprocess] {
                    try (0..<4).map { _ in
                        try TLSClient.start(proxy.port, ask, options: ["--times", "\(times)", "--full"])
                    }
                }
                for client in try many(10) { #expect(try client.end() == 0) }
                let before = try Proc.kilobytes(worker, "VmRSS")
                let clients = try many(60)
                try clients[0].line(with: #""ok""#)
                let time = try seconds { () throws in
                    #expect(try TLSClient.run(proxy.port, ask).last?.all == "ok")
                }
                #expect(time < 5, "\(time)")
                for client in clients {
                    #expect(try client.end() == 0)
                    let seen = Seen.of(client.lines)
                    #expect(seen.filter { $0.all == "ok" && $0.ending == "end" }.count == 60)
                    #expect(seen.allSatisfy { $0.reused != true })
                }
                #expect(try Proc.kilobytes(worker, "VmRSS") - before < 2048)
                #expect(try proxy.accesses(281).allSatisfy { $0["reason"] == "closed" })
            }
        }

        @Test("a client cannot renegotiate, and many that try cost little")
        func renegotiation() throws {
            let certificates = try Certificates()
            try withTProxy(options(try certificates.leaf())) { proxy in
                let worker = try proxy.worker()
                let before = (try Proc.kilobytes(worker, "VmRSS"), try Proc.ticks(worker))
                // openssl reads its orders once the handshake is done; a FIFO that both ends are open of never ends.
                let clients = try (0..<16).map { number in
                    try Subprocess([
                        "sh", "-c",
                        """
                        mkfifo '\(certificates.path)/\(number)'
                        exec <>'\(certificates.path)/\(number)'
                        echo R >&0
                        exec openssl s_client -tls1_2 -connect 127.0.0.1:\(proxy.port)
                        """,
                    ])
                }
                #expect(try TLSClient.run(proxy.port, [order(#"{"close": "served"}"#), "all"]).last?.all == "served")
                for client in clients {
                    try client.end()
                    #expect(client.text.contains("RENEGOTIATING") && client.text.contains("no renegotiation"))
                }
                _ = try proxy.accesses(17)
                #expect(try Proc.kilobytes(worker, "VmRSS") - before.0 < 4096)
                #expect(try Proc.ticks(worker) - before.1 < 100)
            }
        }

        @Test("a record that cannot be read is answered by an alert, and the log says why", arguments: ["1.2", "1.3"])
        func badRecord(version: String) throws {
            let certificates = try Certificates()
            let origin = try Origin()
            // A record of 20480 bytes, and much more than anybody reads at once.
            let oversized =
                ["raw=\\x17\\x03\\x03\\x50\\x00"]
                + Array(repeating: "raw=" + String(repeating: "x", count: 60_000), count: 8)
            try withTProxy(options(try certificates.leaf())) { proxy in
                // Before the verdict, and after it.
                for number in 0..<2 {
                    let asks =
                        number == 0 ? [] : [order(#"{"remote": "\#(origin.address)", "data": "x"}"#), "recv=2"]
                    let client = try TLSClient.start(
                        proxy.port, asks + oversized + ["all"], options: trusting(certificates) + ["--max", version])
                    if number > 0 {
                        let remote = try origin.accept()
                        try remote.expect("x")
                        try remote.send("go")
                        #expect(try remote.ending() == .reset)
                    }
                    #expect(try client.end() == 0)
                    let ending = Seen.of(client.lines).last?.ending
                    #expect(ending?.contains("RECORD_OVERFLOW") == true, "\(client.text)")
                    #expect(try proxy.accesses(number + 1)[number]["reason"] == "client_reset")
                }
                try proxy.process.line(with: "TLS: ")
            }
        }

        @Test("a TLS client that reads nothing is not read for: memory stays flat")
        func slowReader() throws {
            let certificates = try Certificates()
            let origin = try Origin()
            try withTProxy(options(try certificates.leaf())) { proxy in
                let worker = try proxy.worker()
                let client = try TLSClient.start(
                    proxy.port,
                    [order(#"{"remote": "\#(origin.address)", "data": "x"}"#), "until=g", "raw=", "facts", "until=!"])
                let remote = try origin.accept()
                try remote.expect("x")
                let before = try Proc.kilobytes(worker, "VmRSS")
                client.signal(SIGSTOP)
                let poured = remote.pour(atMost: 1 << 28, untilStuckFor: 1)
                #expect(poured < 1 << 25, "\(poured)")
                #expect(try Proc.kilobytes(worker, "VmRSS") - before < 2048)
                client.signal(SIGKILL)
                _ = try? client.end()
            }
        }

        @Test("HUP under load: no handshake fails, and new connections are shown the new certificate")
        func reload() throws {
            let certificates = try Certificates()
            let (old, new) = (try certificates.leaf("old"), try certificates.leaf("new"))
            let folder = Folder()
            let (certificate, key) = ("\(folder.path)/cert.pem", "\(folder.path)/key.pem")
            func install(_ pair: Certificates.Pair) throws {
                for (from, to) in [(pair.certificate, certificate), (pair.key, key)] {
                    try Data(contentsOf: URL(filePath: from)).write(to: URL(filePath: to), options: .atomic)
                }
            }
            try install(old)
            try withTProxy(["--ssl-certfile", certificate, "--ssl-keyfile", key, "-w", "2"]) { proxy in
                let clients = try (0..<3).map { _ in
                    try TLSClient.start(
                        proxy.port, ["facts", order(#"{"close": "ok"}"#), "all"],
                        options: trusting(certificates) + ["--times", "150", "--full"])
                }
                let known = try Set([old, new].map { try $0.fingerprint().replacing(":", with: "").lowercased() })
                for round in 1...5 {
                    let now = round % 2 == 1 ? new : old
                    try install(now)
                    proxy.process.signal(SIGHUP)
                    try proxy.process.line(with: "reloaded: ", count: round)
                    #expect(try Certificates.fingerprint(shownOn: proxy.port) == now.fingerprint())
                    _ = try clients[0].wait(for: "progress") { $0.count >= round * 50 ? true : nil }
                }
                for client in clients {
                    #expect(try client.end() == 0)
                    let seen = Seen.of(client.lines)
                    let (shown, answers) = (seen.compactMap(\.fingerprint), seen.filter { $0.all != nil })
                    #expect(answers.count == 150 && answers.allSatisfy { $0.all == "ok" && $0.ending == "end" })
                    #expect(Set(shown) == known && shown.count == 150)
                }
            }
        }
    }
}
