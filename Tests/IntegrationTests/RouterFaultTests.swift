import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// What routers do wrong. tproxy and its other connections live on.
    @Suite struct RouterFaults {
        /// A verdict that can be given at once: tproxy still serves.
        private func expectService(_ proxy: TProxy) throws {
            let client = try proxy.client(#"{"answer": {"close": "served"}}"#)
            #expect(try client.text() == "served")
        }

        @Test("lines that are no messages are logged, escaped and cut, and skipped")
        func strayLines() throws {
            try withTProxy { proxy in
                for line in ["Loading the table...", "", "[1, 2]", "\u{1b}[31mred"] {
                    let raw = line.replacing("\u{1b}", with: #"\u001b"#)
                    let client = try proxy.client(#"{"raw": "\#(raw)", "answer": {"close": "served"}}"#)
                    #expect(try client.text() == "served")
                }
                try proxy.process.line(with: "Loading the table...")
                #expect(!proxy.process.text.contains("\u{1b}"))
            }
        }

        @Test("lines that look like messages and are none are skipped, and ten in a row replace the router")
        func brokenLines() throws {
            try withTProxy { proxy in
                let worker = try proxy.worker()
                let first = proxy.routers(of: worker)
                for line in [
                    #"{broken"#, #"{}"#, #"{\"jsonrpc\":\"2.0\",\"id\":{id}}"#,
                    String(repeating: #"{\"a\":"#, count: 5000), #"{\"jsonrpc\":\"2.0\",\"id\":-1,\"result\":null}"#,
                    #"{\"jsonrpc\":\"2.0\",\"id\":1e400,\"result\":null}"#,
                ] {
                    let client = try proxy.client(#"{"raw": "\#(line)", "answer": {"close": "served"}}"#)
                    #expect(try client.text() == "served", "\(line)")
                }
                #expect(proxy.routers(of: worker) == first)
                let ten = try proxy.client(#"{"raw": "\#(String(repeating: #"{broken\n"#, count: 12))"}"#)
                try Deadline(in: patience).until("another router") {
                    let now = proxy.routers(of: worker)
                    return now.count == 1 && now != first
                }
                ten.close()
                try expectService(proxy)
            }
        }

        @Test("a line without an end replaces the router")
        func endlessLine() throws {
            try withTProxy(router: Repository.python("flooding.py")) { proxy in
                let worker = try proxy.worker()
                let first = proxy.routers(of: worker)
                let client = try proxy.client()
                try client.send("flood\n")
                try Deadline(in: 30).until("another router") {
                    let now = proxy.routers(of: worker)
                    return !now.isEmpty && now != first
                }
                #expect(try Proc.kilobytes(worker, "VmHWM") < 120_000)
                let second = try proxy.client()
                try second.send("hello\n")
                #expect(try second.text() == "hello\n")
            }
        }

        @Test("answers to nothing, twice, and late are dropped")
        func unknownAnswers() throws {
            try withTProxy { proxy in
                for line in [
                    #"{\"jsonrpc\":\"2.0\",\"id\":999999,\"result\":{\"close\":\"forged\"}}"#,
                    #"{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":{\"close\":\"forged\"}}"#,
                    #"{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{\"close\":\"served\"}}"#,
                    #"{\"jsonrpc\":\"2.0\",\"method\":\"unheard_of\",\"params\":{}}"#,
                ] {
                    let client = try proxy.client(#"{"raw": "\#(line)", "answer": {"close": "served"}}"#)
                    #expect(try client.text() == "served", "\(line)")
                }
                try expectService(proxy)
            }
        }

        @Test(
            "a verdict that is none closes its connection, and the log names the key",
            arguments: [
                (#"{"remot": "127.0.0.1:1"}"#, "remot"), (#"{"remote": "127.0.0.1:99999"}"#, "remote"),
                (#"{"remote": "127.0.0.1:0"}"#, "remote"), (#"{"remote": "127.0.0.1"}"#, "remote"),
                (#"{"remote": "host\u0000:80"}"#, "remote"), (#"{"remote": 80}"#, "remote"),
                (#"{"remote": ["127.0.0.1", "80"]}"#, "remote"),
                (#"{"remote": "a:1", "connect_timeout": -1}"#, "connect_timeout"),
                (#"{"remote": "a:1", "connect_timeout": 0}"#, "connect_timeout"),
                (#"{"remote": "a:1", "inactivity_timeout": 1e300}"#, "inactivity_timeout"),
                (#"{"remote": "a:1", "connect_timeout": "5"}"#, "connect_timeout"),
                (#"{"remote": "a:1", "ssl": 1}"#, "ssl"),
                (#"{"remote": "a:1", "ssl": true, "ssl_args": {"certs": "x"}}"#, "ssl_args.certs"),
                (#"{"close": "\u0100"}"#, "close"),
                (#"{"close": 1}"#, "close"),
                (#"{"file": -1}"#, "file"), (#"{"file": "/etc/hostname", "offset": -1}"#, "offset"),
                (#"{"file": "/etc/hostname", "nbytes": 1.5}"#, "nbytes"), (#"{"file": "a\u0000b"}"#, "file"),
                (#"{"remotes": []}"#, "remotes"), (#"{"wait": 0}"#, "wait"), (#"{"wait": 100000}"#, "wait"),
                (#"{"consume": 9999999}"#, "consume"), ("[]", "object"), ("7", "object"), ("{}", "decides"),
                (#"{"note": "only"}"#, "decides"),
            ])
        func badVerdicts(verdict: String, key: String) throws {
            try withTProxy { proxy in
                let client = try proxy.client(#"{"answer": \#(verdict)}"#)
                #expect(try client.text() == "")
                #expect(try proxy.access(client)["reason"] == "bad_verdict")
                try proxy.process.wait(for: "a log line with \(key)") { lines in
                    lines.contains { $0.contains("] [") && $0.contains(key) } ? true : nil
                }
                try expectService(proxy)
            }
        }

        @Test("an error answers for its connection alone; with a fallback it goes there")
        func errors() throws {
            try withTProxy { proxy in
                let client = try proxy.client(#"{"error": "no table yet"}"#)
                #expect(try client.text() == "")
                #expect(try proxy.access(client)["reason"] == "router_error")
                try proxy.process.line(with: "no table yet")
            }
            let origin = try Origin()
            try withTProxy(["--fallback", origin.address, "--router-timeout", "0.6"]) { proxy in
                for order in [#"{"error": "no table yet"}"#, #"{"do": "hang"}"#] {
                    let client = try proxy.client(order, "!")
                    // A router that answers others is not stuck: the question alone is lost.
                    try expectService(proxy)
                    let server = try origin.accept()
                    try server.expect(order + "\n!")
                    server.end()
                    #expect(try client.text() == "")
                    client.end()
                    #expect(try proxy.access(client)["verdict"] == "fallback")
                }
                // A verdict that is none is no reason to fall back.
                let bad = try proxy.client(#"{"answer": {"remot": 1}}"#)
                #expect(try bad.text() == "")
                #expect(!origin.hasVisitor)
            }
        }

        @Test("a question that is not answered in time costs its connection alone")
        func hangs() throws {
            try withTProxy(["--router-timeout", "0.4"]) { proxy in
                let origin = try Origin()
                let (client, server) = try relayed(proxy, origin)
                let hung = try proxy.client(#"{"do": "hang"}"#)
                try expectService(proxy)
                #expect(try hung.text() == "")
                #expect(try proxy.access(hung)["reason"] == "router_timeout")
                try client.send("still here")
                try server.expect("still here")
            }
        }

        @Test("a router that dies is replaced at once, and its open questions are put to the next one")
        func diesOnce() throws {
            let folder = Folder()
            try withTProxy { proxy in
                let origin = try Origin()
                let (client, server) = try relayed(proxy, origin)
                let waiting = try (0..<5).map { _ in
                    try proxy.client(
                        #"{"do": "exit once", "file": "\#(folder.path)/died", "answer": {"close": "served"}}"#)
                }
                let time = try seconds { () throws in for one in waiting { #expect(try one.text() == "served") } }
                #expect(time < 3, "\(time)")
                try client.send("unhurt")
                try server.expect("unhurt")
                // The replay says so.
                let report = try proxy.client(#"{"report": true}"#)
                #expect(try report.text().contains(#""replay": 0"#))
            }
        }

        @Test("a question at which routers die alone twice ends")
        func diesAlways() throws {
            try withTProxy { proxy in
                let client = try proxy.client(#"{"do": "exit"}"#)
                #expect(try client.text() == "")
                #expect(try proxy.access(client)["reason"] == "poison")
                try expectService(proxy)
            }
        }

        @Test("a router killed from outside, again and again, is replaced each time")
        func killed() throws {
            try withTProxy { proxy in
                let worker = try proxy.worker()
                for _ in 0..<4 {
                    try Deadline(in: patience).until("a router") { proxy.routers(of: worker).count == 1 }
                    kill(proxy.routers(of: worker)[0], SIGKILL)
                    try expectService(proxy)
                }
                try proxy.process.line(with: "KILL")
            }
        }

        @Test("a router that ends its socket and lives on is replaced, and so is one whose child holds it")
        func halfGone() throws {
            try withTProxy { proxy in
                let worker = try proxy.worker()
                let first = proxy.routers(of: worker)
                let client = try proxy.client(#"{"do": "end"}"#)
                try Deadline(in: patience).until("another router") {
                    proxy.routers(of: worker).contains { !first.contains($0) }
                }
                client.close()
                try expectService(proxy)
                // The one that lives on is ended, politely and then not.
                try Deadline(in: patience).until("the end of the old one") { !Proc.isAlive(first[0]) }
            }
            try withTProxy(router: "sh -c 'sleep 1000 & exec \(Repository.python("told.py").replacing("'", with: ""))'")
            { proxy in
                let worker = try proxy.worker()
                let first = proxy.routers(of: worker)
                kill(first[0], SIGKILL)
                try expectService(proxy)
            }
        }

        @Test("a router that floods its standard error blocks nobody; the log has some of it, and how much is left out")
        func floods() throws {
            try withTProxy { proxy in
                let client = try proxy.client(#"{"stderr": 20000, "answer": {"close": "served"}}"#)
                let time = try seconds { () throws in #expect(try client.text(within: 30) == "served") }
                try proxy.process.line(with: "line 0 xxx")
                // Each line is in the log, or is said to be not.
                let (logged, dropped) = try proxy.process.wait(for: "all lines") { lines in
                    let logged = lines.count { $0.contains(/line \d+ x{50}$/) }
                    let dropped = lines.compactMap { $0.firstMatch(of: /(\d+) more lines? of its standard error/)?.1 }
                        .compactMap { Int($0) }.reduce(0, +)
                    return logged + dropped >= 20_000 ? (logged, dropped) : nil
                }
                #expect(logged + dropped == 20_000)
                // The flood began and ended within some second of the clock, a little before and after this time.
                #expect(logged >= 200 && logged <= 200 * (Int(time) + 3), "\(logged) in \(time) s")
            }
        }

        @Test("a long line of a router's standard error is cut in the log, and those around it are not")
        func longErrors() throws {
            let script = ScriptFile()
            try script.write(
                "served",
                before: """
                    if message["method"] == "proxy":
                            print("before\\n<" + "x" * 3000 + ">\\n<" + "y" * 9000 + ">\\nafter", file=sys.stderr)
                    """)
            try withTProxy(router: script.command) { proxy in
                let client = try proxy.client("?")
                #expect(try client.text() == "served")
                try proxy.process.line(with: "router 1: after")
                let said = proxy.process.lines.compactMap { $0.firstMatch(of: /router 1: (.*)/)?.1 }.map(String.init)
                #expect(said.contains("before") && said.contains("<" + String(repeating: "x", count: 3000) + ">"))
                #expect(said.filter { $0.contains("y") } == ["<" + String(repeating: "y", count: 4095)])
            }
        }

        @Test("a router inherits its socket, its log and a clean environment, nothing else")
        func inherits() throws {
            // Any variable will do that tproxy reads and that changes nothing here.
            try withTProxy(environment: ["TPROXY_BACKLOG": "100", "NOTIFY_SOCKET": "/nowhere", "KEPT": "yes"]) {
                proxy in
                let worker = try proxy.worker()
                let router = try #require(proxy.routers(of: worker).first)
                #expect(try Proc.descriptors(router).keys.filter { $0 <= 2 }.count == 3)
                let kinds = try Proc.descriptors(router)
                #expect(kinds[0]?.hasPrefix("socket:") == true && kinds[0] == kinds[1])
                // Python's copy of the socket, and no more.
                #expect(kinds.filter { $0.key > 2 }.allSatisfy { $0.value == kinds[0] }, "\(kinds)")
                let environment = try Proc.text("\(router)/environ").split(
                    separator: "\0")
                #expect(!environment.contains { $0.hasPrefix("TPROXY_") || $0.hasPrefix("NOTIFY_") })
                #expect(environment.contains("KEPT=yes") && environment.contains("PYTHONUNBUFFERED=1"))
            }
        }

        @Test("a router that answers hello with a verdict, or not as it should, is a bare one")
        func bare() throws {
            try withTProxy(environment: ["TOLD_HELLO": "bare"]) { proxy in
                let client = try proxy.client(#"{"answer": {"close": "served"}}"#)
                #expect(try client.text() == "served")
                // It has no proxy_error.
                let refused = try proxy.client(
                    #"{"answer": {"remote": "127.0.0.1:\#(try deadPort())"}, "on_error": {"close": "never asked"}}"#)
                #expect(try refused.text() == "")
            }
        }

        @Test("a router of a later protocol does not start")
        func newer() throws {
            let result = try Subprocess.run(
                [Repository.binary, "-b", "127.0.0.1:0", "--router", Repository.python("told.py")],
                environment: ["TOLD_HELLO": #"{"protocol": 2, "methods": ["proxy"]}"#], within: 30)
            #expect(result.status == 3 && result.text.contains("protocol"), "\(result.text)")
        }
    }
}
