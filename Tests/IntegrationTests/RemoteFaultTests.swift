import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// What remotes do wrong.
    @Suite struct RemoteFaults {
        /// The question of `proxy_error` as the client gets it back.
        private func reported(_ client: Peer) throws -> [String: Any] {
            try #require(try JSONSerialization.jsonObject(with: Data(client.drain(within: 30).bytes)) as? [String: Any])
        }

        @Test("a remote that refuses is reported once, and the router's words reach the client")
        func refused() throws {
            let folder = Folder()
            let log = try folder.file("questions")
            func reports() throws -> Int {
                try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
                    .count { $0.contains(#""method":"proxy_error""#) }
            }
            try withTProxy(environment: ["TOLD_LOG": log]) { proxy in
                let dead = try deadPort()
                let client = try proxy.client(
                    #"{"answer": {"remote": "127.0.0.1:\#(dead)"}, "on_error": {"close": "502 sorry\n"}}"#)
                #expect(try client.text() == "502 sorry\n")
                let access = try proxy.access(client)
                #expect(access["reason"] == "connect_refused" && access["attempts"] == "1", "\(access)")
                #expect(access["connect_ms"] == "-" && access["to_remote"] == "0", "\(access)")
                #expect(try reports() == 1)
                let silent = try proxy.client(#"{"answer": {"remote": "127.0.0.1:\#(dead)"}}"#)
                #expect(try silent.text() == "")
                #expect(try proxy.access(silent)["reason"] == "connect_refused")
                #expect(try reports() == 2)
            }
        }

        @Test("the report has type, errno, attempts and both addresses")
        func report() throws {
            try withTProxy { proxy in
                let (one, two) = (try deadPort(), try deadPort())
                let client = try proxy.client(
                    #"{"answer": {"remotes": ["127.0.0.1:\#(one)", "127.0.0.1:\#(two)"]}, "on_error": "report"}"#)
                let port = client.localPort
                let question = try reported(client)
                #expect(question["type"] as? String == "connect_refused")
                #expect(question["errno"] as? Int == Int(ECONNREFUSED))
                #expect((question["message"] as? String)?.contains("127.0.0.1:\(two)") == true)
                #expect(question["remote"] as? String == "127.0.0.1:\(two)")
                #expect((question["client"] as? [Any])?.last as? Int == Int(port))
                let attempts = try #require(question["attempts"] as? [[String: Any]])
                #expect(attempts.map { $0["remote"] as? String } == ["127.0.0.1:\(one)", "127.0.0.1:\(two)"])
                #expect(attempts.allSatisfy { $0["type"] as? String == "connect_refused" })
            }
        }

        @Test("the remote that the router names instead gets all that the client has sent")
        func failover() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let order =
                    #"{"answer": {"remote": "127.0.0.1:\#(try deadPort())"}, "on_error": {"remote": "\#(origin.address)"}}"#
                let client = try proxy.client(order, "hello")
                let server = try origin.accept()
                try server.expect(order + "\nhello")
                server.end()
                #expect(try client.text() == "")
                let access = try proxy.access(client)
                #expect(access["attempts"] == "2" && access["remote"] == origin.address, "\(access)")
            }
        }

        @Test("an address that does not answer ends at the connect timeout, the verdict's or the option's")
        func blackhole() throws {
            try withTProxy(["--connect-timeout", "0.4"]) { proxy in
                let full = try FullOrigin()
                for timeout in ["", #", "connect_timeout": 0.2"#] {
                    let time = try seconds { () throws in
                        let client = try proxy.client(
                            #"{"answer": {"remote": "\#(full.origin.address)"\#(timeout)}, "on_error": "report"}"#)
                        #expect(try reported(client)["type"] as? String == "connect_timeout")
                        #expect(try proxy.access(client)["reason"] == "connect_timeout")
                    }
                    #expect(time > 0.15 && time < 3, "\(time)")
                }
                // The next one gets its own time.
                let origin = try Origin()
                let client = try proxy.client(
                    #"{"answer": {"remotes": ["\#(full.origin.address)", "\#(origin.address)"]}, "rest": true}"#, "!")
                try origin.accept().expect("!")
                client.close()
            }
        }

        @Test("a name that has no address is reported as that")
        func dns() throws {
            try withTProxy(["--connect-timeout", "3"]) { proxy in
                let client = try proxy.client(
                    #"{"answer": {"remote": "nobody.invalid:80"}, "on_error": "report"}"#)
                let type = try reported(client)["type"] as? String
                // Without any resolver to ask, looking up takes its time.
                #expect(type == "dns" || type == "connect_timeout", "\(type ?? "nothing")")
            }
        }

        @Test(
            "look-ups that hang take no longer than connecting may, and hold up nobody else",
            .enabled(if: HangingNames.areThere, "names are looked up without HOSTALIASES here"))
        func slowResolver() throws {
            let names = HangingNames()
            try withTProxy(["--connect-timeout", "1"], environment: names.environment) { proxy in
                let worker = try proxy.worker()
                let origin = try Origin.echo()
                // More than there are threads to look names up.
                let slow = try (0..<8).map {
                    try proxy.client(#"{"answer": {"remote": "slow\#($0):80"}, "on_error": "report"}"#)
                }
                let time = try seconds { () throws in
                    for _ in 0..<10 {
                        let client = try proxy.client(
                            #"{"answer": {"remote": "\#(origin.address)"}, "rest": true}"#, "ping")
                        try client.expect("ping")
                    }
                }
                #expect(time < 0.9, "\(time)")
                for client in slow {
                    #expect(try reported(client)["type"] as? String == "connect_timeout")
                    let access = try proxy.access(client)
                    #expect(access["reason"] == "connect_timeout", "\(access)")
                    #expect(access.number("duration_ms") > 900 && access.number("duration_ms") < 2000, "\(access)")
                }
                #expect(try proxy.worker() == worker)
            }
        }

        @Test("a remote that is silent ends at the inactivity timeout, though the client goes on sending")
        func inactive() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let client = try proxy.client(
                    #"{"answer": {"remote": "\#(origin.address)", "inactivity_timeout": 0.5}, "on_error": "report"}"#)
                let port = client.localPort
                let server = try origin.accept()
                let trickle = Thread {
                    while (try? client.send(".")) != nil, !Deadline(in: 0.05).wait(for: client.raw, POLLIN) {}
                }
                trickle.start()
                #expect(try reported(client)["type"] as? String == "inactivity_timeout")
                #expect(try proxy.access(port: port)["reason"] == "inactivity_timeout")
                _ = try server.drain()
            }
        }

        @Test("a remote that speaks often enough is not inactive, and its pauses count from its last byte")
        func active() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let client = try proxy.client(
                    #"{"answer": {"remote": "\#(origin.address)", "inactivity_timeout": 1}}"#)
                let server = try origin.accept()
                for _ in 0..<6 {
                    #expect(try client.drain(within: 0.3).ending == .stillOpen)
                    try server.send("still here")
                    try client.expect("still here")
                }
                let time = try seconds { () throws in #expect(try client.ending() != .stillOpen) }
                #expect(time > 0.7, "\(time)")
                #expect(try proxy.access(client)["reason"] == "inactivity_timeout")
            }
        }

        @Test("a remote that resets before any byte is reported, and the client told what the router says")
        func resetFirst() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let order = #"{"answer": {"remote": "\#(origin.address)"}, "on_error": {"close": "gone\n"}}"#
                let client = try proxy.client(order)
                let server = try origin.accept()
                try server.expect(order + "\n")
                server.reset()
                #expect(try client.text() == "gone\n")
                #expect(try proxy.access(client)["reason"] == "remote_reset")
            }
        }

        @Test("writing to a remote that is gone ends that connection and nothing else")
        func brokenPipe() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let worker = try proxy.worker()
                for _ in 0..<20 {
                    let (client, server) = try relayed(proxy, origin)
                    server.close()
                    _ = client.pour(atMost: 1_000_000, untilStuckFor: 0.1)
                    #expect(try client.drain().ending != .stillOpen)
                }
                #expect(try proxy.worker() == worker)
            }
        }

        @Test(
            "a remote that is tproxy itself is refused, however it is written",
            arguments: [
                "127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "127.0.0.2",
            ])
        func loop(host: String) throws {
            try withTProxy(["-b", "0.0.0.0:0"]) { proxy in
                let client = try proxy.client(
                    #"{"answer": {"remote": "\#(host):\#(proxy.port)"}, "on_error": "report"}"#)
                let question = try reported(client)
                #expect(question["type"] as? String == "loop")
                #expect(try proxy.access(client)["reason"] == "loop")
                let other = try proxy.client(#"{"answer": {"close": "served"}}"#)
                #expect(try other.text() == "served")
            }
        }
    }
}

/// Names whose look-up hangs: for one without a dot getaddrinfo(3) opens the file of aliases (hostname(7)), and this one is a FIFO
/// that nobody writes to.
private struct HangingNames {
    private let folder = Folder()
    private var path: String { "\(folder.path)/aliases" }
    var environment: [String: String] { ["HOSTALIASES": path] }

    init() { mkfifo(path, 0o600) }

    /// Whether names are looked up so on this machine: not where all of them go to a daemon.
    static let areThere: Bool = {
        let names = HangingNames()
        let probe = try? Subprocess(
            ["python3", "-S", "-c", "import socket; socket.getaddrinfo('slow', 80)"], environment: names.environment)
        guard let probe else { return false }
        var isWaitedFor = false
        try? Deadline(in: 5).until("it hangs or ends") {
            // There is a writer's end only once a reader waits at the other.
            let raw = open(names.path, O_WRONLY | O_NONBLOCK | O_CLOEXEC)
            if raw >= 0 { close(raw) }
            isWaitedFor = raw >= 0
            return isWaitedFor || !Proc.isAlive(probe.pid)
        }
        return isWaitedFor
    }()
}
