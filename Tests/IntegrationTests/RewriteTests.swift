import Control
import Foundation
import Glibc
import Testing

/// A connection through rewriters, as `rewriting.py` is told, once the remote has it.
private func rewritten(
    _ proxy: TProxy, _ origin: Origin, _ functions: [String: String], _ first: String = "", verdict: String = ""
) throws -> (client: Peer, server: Peer) {
    let client = try proxy.client()
    let told = functions.map { #""\#($0)": "\#($1)", "# }.joined()
    try client.send(#"{\#(told)"verdict": {"remote": "\#(origin.address)"\#(verdict)}}"# + "\n" + first)
    return (client, try origin.accept())
}

/// Whose package the router is written with.
private enum Language: CaseIterable {
    case python, node

    /// What there is on this machine.
    static let all = hasNode ? allCases : [.python]

    /// The command of the router that is told what to do.
    var router: String {
        switch self {
        case .python: Repository.python("rewriting.py")
        case .node: "node '\(Repository.router("rewriting.mjs"))'"
        }
    }
}

private func withRewriter(
    _ options: [String] = [], in language: Language = .python, _ body: (TProxy) throws -> Void
) throws {
    try withTProxy(options, router: language.router, body)
}

extension IntegrationTests {
    /// User code between client and remote, in a process of its own.
    @Suite struct Rewriting {
        @Test(
            "both directions are rewritten, the initial bytes first, lengths change, and ends are passed on",
            arguments: Language.all)
        fileprivate func both(language: Language) throws {
            try withRewriter(in: language) { proxy in
                let origin = try Origin()
                let (client, server) = try rewritten(
                    proxy, origin, ["request": "upper", "response": "double"], "first, ")
                try server.expect("FIRST, ")
                try client.send("second")
                try server.expect("SECOND")
                try server.send("ab")
                try client.expect("aabb")
                client.end()
                #expect(try server.ending() == .end)
                try server.send("c")
                server.end()
                #expect(try client.text() == "cc")
                let access = try proxy.access(client)
                #expect(access["reason"] == "done")
                #expect(access.number("to_remote") == 13, "\(access)")
            }
        }

        @Test("a reply is not rewritten and goes ahead; a verdict chooses the directions")
        func verdicts() throws {
            try withRewriter { proxy in
                let origin = try Origin()
                for (wish, request, response) in [
                    (#", "rewrite": true"#, "ABC", "XXYY"), (#", "rewrite": "request""#, "ABC", "xy"),
                    (#", "rewrite": "response""#, "abc", "XXYY"), (#", "rewrite": false"#, "abc", "xy"),
                ] {
                    let (client, server) = try rewritten(
                        proxy, origin, ["request": "upper", "response": "double"], "abc",
                        verdict: #", "reply": "hello ""# + wish)
                    try server.expect(request)
                    try client.expect("hello ")
                    try server.send("xy")
                    try client.expect(response == "xy" ? "xy" : "xxyy")
                    client.end()
                    server.end()
                    #expect(try client.ending() == .end)
                    #expect(try proxy.access(client)["reason"] == "done")
                }
            }
        }

        @Test(
            "half-closes in every order: each rewriter says its last word when its source has ended",
            arguments: [true, false], Language.all)
        fileprivate func halfCloses(clientFirst: Bool, language: Language) throws {
            try withRewriter(in: language) { proxy in
                let origin = try Origin()
                let (client, server) = try rewritten(
                    proxy, origin, ["request": "last", "response": "last"], "123")
                try server.send("12345")
                if clientFirst {
                    client.end()
                    #expect(try server.text() == "3 bytes")
                    server.end()
                    #expect(try client.text() == "5 bytes")
                } else {
                    server.end()
                    #expect(try client.text() == "5 bytes")
                    client.end()
                    #expect(try server.text() == "3 bytes")
                }
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test(
            "a rewriter that returns early ends its direction in order, and the other goes on",
            arguments: Language.all)
        fileprivate func early(language: Language) throws {
            try withRewriter(in: language) { proxy in
                let origin = try Origin()
                let (client, server) = try rewritten(proxy, origin, ["request": "early"], "this, and more")
                #expect(try server.text() == "enough of this")
                // What nobody wants any more does not hold the client up.
                #expect(client.pour(atMost: 8_000_000, untilStuckFor: 2) == 8_000_000)
                try server.send("the answer")
                server.end()
                #expect(try client.text() == "the answer")
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test("a rewriter that swallows everything lets the end through", arguments: Language.all)
        fileprivate func swallow(language: Language) throws {
            try withRewriter(in: language) { proxy in
                let origin = try Origin()
                let (client, server) = try rewritten(proxy, origin, ["request": "swallow"], "first")
                sending(scrambled(3_000_000), from: client)
                #expect(try server.ending() == .end)
                server.end()
                #expect(try client.ending() == .end)
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test(
            "a rewriter that raises, and a router that dies, reset both sides",
            arguments: ["fail", "die"], Language.all)
        fileprivate func aborted(how: String, language: Language) throws {
            try withRewriter(in: language) { proxy in
                let origin = try Origin()
                for function in ["request", "response"] {
                    let (client, server) = try rewritten(proxy, origin, [function: how], "part, and more")
                    let port = client.localPort
                    // The other one may be over by now.
                    if function == "response" { try server.send("part, and more") }
                    let (toServer, toClient) = (try server.drain(), try client.drain())
                    #expect(toServer.ending == .reset && toClient.ending == .reset, "\(function)")
                    #expect(try proxy.access(port: port)["reason"] == "rewrite_aborted")
                }
                // The next router rewrites as well.
                let (client, server) = try rewritten(proxy, origin, ["request": "upper"], "again")
                try server.expect("AGAIN")
                client.end()
                server.end()
                #expect(try client.ending() == .end)
            }
        }

        @Test(
            "a router that is killed resets what it rewrites, and nothing else: not what its rewriters have left",
            arguments: Language.all)
        fileprivate func killed(language: Language) throws {
            try withRewriter(in: language) { proxy in
                let origin = try Origin()
                let worker = try proxy.worker()
                func sockets() throws -> Int { try Proc.descriptors(worker).values.count { $0.hasPrefix("socket:") } }
                let idle = try sockets()
                let (left, alone) = try rewritten(proxy, origin, ["request": "leave", "response": "leave"], "zero")
                try alone.expect("<zero>")
                try alone.send("zero")
                try left.expect("<zero>")
                // The client's socket and the remote's are left.
                try Deadline(in: patience).until("the rewriters have left") { try sockets() == idle + 2 }
                let (other, plain) = try rewritten(proxy, origin, [:], "two", verdict: #", "rewrite": false"#)
                try plain.expect("two")
                let (client, server) = try rewritten(proxy, origin, [:], "one")
                try server.expect("one")
                try server.send("two")
                try client.expect("two")
                let port = client.localPort
                for router in proxy.routers(of: worker) { kill(router, SIGKILL) }
                #expect(try client.ending() == .reset)
                #expect(try server.ending() == .reset)
                #expect(try proxy.access(port: port)["reason"] == "rewrite_aborted")
                for (client, server) in [(left, alone), (other, plain)] {
                    try client.send("still")
                    try server.expect("still")
                    try server.send("here")
                    try client.expect("here")
                    client.end()
                    server.end()
                    #expect(try proxy.access(client)["reason"] == "done")
                }
            }
        }

        @Test(
            "a client's reset and a remote's reset are each other's in the middle of a stream", arguments: Language.all)
        fileprivate func resets(language: Language) throws {
            try withRewriter(in: language) { proxy in
                let origin = try Origin()
                let (client, server) = try rewritten(proxy, origin, [:], "one")
                try server.expect("one")
                let port = client.localPort
                client.reset()
                #expect(try server.drain().ending == .reset)
                #expect(try proxy.access(port: port)["reason"] == "client_reset")
                let (second, other) = try rewritten(proxy, origin, [:], "one")
                try other.expect("one")
                other.reset()
                #expect(try second.ending() == .reset)
            }
        }

        @Test(
            "large streams both ways at once come through whole, and so they do after leaving",
            arguments: ["identity", "leave"], Language.all)
        fileprivate func large(function: String, language: Language) throws {
            try withRewriter(in: language) { proxy in
                let origin = try Origin()
                let (client, server) = try rewritten(proxy, origin, ["request": function, "response": function])
                let (up, down) = (scrambled(20_000_000), scrambled(15_000_000, seed: 2))
                sending(up, from: client)
                sending(down, from: server)
                let received = draining(server)
                let atClient = try client.drain(within: 60)
                let atServer = try received.result().bytes
                func changed(_ bytes: [UInt8]) -> [UInt8] {
                    function == "leave" ? Array("<".utf8) + bytes[..<4] + Array(">".utf8) + bytes[4...] : bytes
                }
                #expect(atClient.ending == .end)
                #expect(atClient.bytes == changed(down))
                #expect(atServer == changed(up))
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test("a rewriter that stalls holds the client up, and costs a bounded memory")
        func stalled() throws {
            try withRewriter { proxy in
                let origin = try Origin()
                let worker = try proxy.worker()
                let before = try Proc.kilobytes(worker, "RssAnon")
                let (client, server) = try rewritten(proxy, origin, ["request": "stall"], "first")
                let sent = client.pour(atMost: 200_000_000, untilStuckFor: 1)
                #expect(sent < 40_000_000)
                #expect(try Proc.kilobytes(worker, "RssAnon") - before < 8000)
                let port = client.localPort
                client.reset()
                #expect(try server.drain().ending == .reset)
                #expect(try proxy.access(port: port)["reason"] == "client_reset")
            }
        }

        @Test("five hundred streams at once")
        func many() throws {
            try withRewriter { proxy in
                let origin = try Origin.echo()
                var clients: [Peer] = []
                for _ in 0..<250 {
                    let client = try proxy.client()
                    try client.send(
                        #"{"request": "upper", "response": "double", "verdict": {"remote": "\#(origin.address)"}}"#
                            + "\nx")
                    clients.append(client)
                }
                for client in clients { try client.expect("XX") }
                for client in clients {
                    try client.send("y")
                    client.end()
                }
                for client in clients { #expect(try client.text() == "YY") }
                #expect(try proxy.accesses(250).allSatisfy { $0["reason"] == "done" })
            }
        }

        @Test("few descriptors mean few connections at a time, and none that fails for want of one")
        func fewDescriptors() throws {
            let origin = try Origin.echo()
            let proxy = try TProxy(
                router: Repository.python("rewriting.py"), prefix: ["sh", "-c", #"ulimit -n 256; exec "$@""#, "sh"])
            var clients: [Peer] = []
            for _ in 0..<120 {
                let client = try proxy.client()
                try client.send(#"{"request": "upper", "verdict": {"remote": "\#(origin.address)"}}"# + "\nx")
                clients.append(client)
            }
            // As many as there is room for are there at once; the others wait to be accepted.
            let atOnce = 48
            for client in clients.prefix(atOnce) { try client.expect("X") }
            for (index, client) in clients.enumerated() {
                if index >= atOnce { try client.expect("X") }
                client.end()
                #expect(try client.ending() == .end)
            }
            #expect(try proxy.accesses(120).allSatisfy { $0["reason"] == "done" })
            #expect(
                !proxy.process.lines.contains { $0.contains("cannot accept") || $0.contains("Too many open files") })
            #expect(try proxy.stop() == 0)
        }

        @Test("after a reload old streams finish on the old router, new ones begin on the new one, and none is lost")
        func reload() throws {
            try withRewriter { proxy in
                let origin = try Origin()
                func begin() throws -> (client: Peer, server: Peer, router: String) {
                    let (client, server) = try rewritten(proxy, origin, ["request": "who"], "!")
                    var text = ""
                    while !text.hasSuffix("!") { text += String(decoding: try server.receive(1), as: UTF8.self) }
                    return (client, server, String(text.dropLast()))
                }
                let old = try begin()
                proxy.process.signal(SIGHUP)
                try proxy.process.wait(for: "the reload") { lines in
                    lines.contains { $0.contains("reloaded") } ? true : nil
                }
                let new = try begin()
                #expect(old.router != new.router)
                for one in [old, new] {
                    try one.client.send("still")
                    try one.server.expect("still")
                    one.client.end()
                    one.server.end()
                    #expect(try one.client.ending() == .end)
                    #expect(try proxy.access(one.client)["reason"] == "done")
                }
                // Only now may the old one go.
                let pid = try #require(pid_t(old.router))
                try Deadline(in: patience).until("the old router is gone") { !Proc.isAlive(pid) }
            }
        }

        @Test("what goes to the fallback is not rewritten")
        func fallback() throws {
            let origin = try Origin()
            try withRewriter(["--fallback", origin.address]) { proxy in
                // Without a verdict, which is an exception in the router.
                let client = try proxy.client(#"{"request": "upper"}"#, "abc")
                let server = try origin.accept()
                try server.expect(#"{"request": "upper"}"# + "\nabc")
                client.end()
                server.end()
                #expect(try client.ending() == .end)
                #expect(try proxy.access(client)["verdict"] == "fallback")
            }
        }

        @Test("a PROXY header goes ahead of the rewritten bytes, and is not rewritten")
        func proxyHeader() throws {
            try withRewriter { proxy in
                let origin = try Origin()
                let (client, server) = try rewritten(
                    proxy, origin, ["request": "double"], "ab", verdict: #", "proxy_protocol": 1"#)
                try server.expect("PROXY TCP4 127.0.0.1 127.0.0.1 \(client.localPort) \(proxy.port)\r\naabb")
                client.end()
                server.end()
                #expect(try client.ending() == .end)
            }
        }

        @Test(
            "TLS with the client and with the remote go with rewriting, and with leaving",
            arguments: ["double", "leave"])
        func tls(response: String) throws {
            let certificates = try Certificates()
            let pair = try certificates.leaf()
            let origin = try Origin.echo()
            // The second one ends the TLS that the first one begins; both rewrite.
            let ends = ["--ssl-certfile", pair.certificate, "--ssl-keyfile", pair.key, "-b", "tls://127.0.0.1:0"]
            try withRewriter(ends) { second in
                try withRewriter { first in
                    let client = try first.client()
                    let bytes = (0..<2_000_000).map { UInt8(ascii: "a") &+ UInt8(truncatingIfNeeded: $0 % 26) }
                    let toFirst =
                        #"{"response": "\#(response)", "verdict": {"remote": "127.0.0.1:\#(second.port)", "ssl": true, "#
                        + #""ssl_args": {"cert_reqs": 0}}}"# + "\n"
                    let toSecond =
                        #"{"request": "upper", "response": "\#(response)", "verdict": {"remote": "\#(origin.address)"}}"#
                        + "\n"
                    sending(Array(toFirst.utf8) + Array(toSecond.utf8) + bytes, from: client)
                    let got = try client.drain(within: 60)
                    #expect(got.ending == .end)
                    let upper = bytes.map { $0 &- 32 }
                    let expected =
                        response == "double"
                        ? upper.flatMap { [$0, $0, $0, $0] } : Array("<<ABC>D>".utf8) + upper[4...]
                    #expect(got.bytes == expected, "\(shown(got.bytes))")
                    #expect(try first.access(client)["reason"] == "done")
                    #expect(try second.accesses(1)[0]["reason"] == "done")
                }
            }
            withExtendedLifetime(certificates) {}
        }

        @Test("a router that somebody else runs rewrites, too")
        func outside() throws {
            let folder = Folder()
            let path = folder.path + "/route.sock"
            let router = try Subprocess(["python3", "-S", Repository.router("rewriting.py"), path])
            try Deadline(in: patience).until("the router listens") { FileManager.default.fileExists(atPath: path) }
            try withTProxy(["-w", "2"], router: "unix:" + path) { proxy in
                let origin = try Origin()
                for _ in 0..<6 {
                    let (client, server) = try rewritten(proxy, origin, ["request": "upper"], "abc")
                    try server.expect("ABC")
                    client.end()
                    #expect(try server.ending() == .end)
                    server.end()
                    #expect(try client.ending() == .end)
                }
            }
            router.signal(SIGTERM)
            try router.end()
        }
    }

    /// Routers that dial back late, twice, wrongly, or not at all.
    @Suite struct DiallingBack {
        private func withDialler(_ options: [String] = [], _ body: (TProxy, Origin) throws -> Void) throws {
            try withTProxy(options, router: Repository.python("dialling.py")) { try body($0, try Origin()) }
        }

        private func connection(_ proxy: TProxy, _ origin: Origin, _ how: String) throws -> (Peer, Peer) {
            let client = try proxy.client()
            try client.send(#"{"remote": "\#(origin.address)", "extra": "\#(how)"}"# + "\nhello")
            return (client, try origin.accept())
        }

        @Test(
            "whatever else dials, the one with the token rewrites",
            arguments: ["once", "twice", "wrong first", "strangers", "end first"])
        func token(how: String) throws {
            try withDialler { proxy, origin in
                let (client, server) = try connection(proxy, origin, how)
                #expect(try server.text() == "got hello")
                try server.send("answer")
                server.end()
                #expect(try client.text() == "answer")
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test(
            "a process of another user is turned away, though it has the token, and the rewriter itself is let in",
            .enabled(if: geteuid() == 0, "only root becomes somebody else"))
        func anotherUser() throws {
            try withDialler { proxy, origin in
                let (client, server) = try connection(proxy, origin, "another user")
                #expect(try server.text() == "got hello")
                try server.send("answer")
                server.end()
                #expect(try client.text() == "answer")
                #expect(try proxy.access(client)["reason"] == "done")
                try proxy.process.line(with: "a rewriter was turned away: user 12345 has no business here")
                #expect(try proxy.sum(.streamsRefused) == 1)
            }
        }

        @Test("a rewriter that never dials back costs its connection, in time")
        func never() throws {
            try withDialler(["--router-timeout", "0.5"]) { proxy, origin in
                let (client, server) = try connection(proxy, origin, "never")
                let port = client.localPort
                #expect(try client.ending(within: 5) == .reset)
                #expect(try server.ending() == .reset)
                #expect(try proxy.access(port: port)["reason"] == "rewrite_aborted")
                let (next, other) = try connection(proxy, origin, "once")
                #expect(try other.text() == "got hello")
                other.end()
                #expect(try next.ending() == .end)
            }
        }

        @Test("a client that leaves before the rewriter is there takes its stream along")
        func clientLeaves() throws {
            try withDialler { proxy, origin in
                let (client, server) = try connection(proxy, origin, "never")
                let port = client.localPort
                try Deadline(in: patience).until("the router is told") { try proxy.sum(.streams) == 1 }
                client.reset()
                #expect(try server.ending() == .reset)
                #expect(try proxy.access(port: port)["reason"] == "client_reset")
            }
        }

        @Test("a router that dies before it has dialled back costs nothing: the next one is told")
        func diesFirst() throws {
            let folder = Folder()
            try withTProxy(
                router: Repository.python("dialling.py"), environment: ["DIED": folder.path + "/died"]
            ) { proxy in
                let origin = try Origin()
                let (client, server) = try connection(proxy, origin, "die first")
                #expect(try server.text() == "got hello")
                try server.send("answer")
                server.end()
                #expect(try client.text() == "answer")
                #expect(try proxy.access(client)["reason"] == "done")
                #expect(FileManager.default.fileExists(atPath: folder.path + "/died"))
                #expect(try proxy.sum(.streams) == 2)
            }
        }

        @Test("a rewriter that comes when the client has left is turned away")
        func late() throws {
            try withDialler { proxy, origin in
                let (client, server) = try connection(proxy, origin, "late")
                try Deadline(in: patience).until("the router is told") { try proxy.sum(.streams) == 1 }
                client.reset()
                #expect(try server.ending() == .reset)
                try proxy.process.wait(for: "the router's word") { lines in
                    lines.contains { $0.contains("late and turned away") } ? true : nil
                }
                #expect(try proxy.sum(.streamsRefused) == 1)
                #expect(
                    proxy.process.lines.contains { $0.contains("a rewriter was turned away: its token is not waited") })
            }
        }

        @Test("what is said of other streams does not end this one in order")
        func othersWords() throws {
            try withDialler { proxy, origin in
                let (client, server) = try connection(proxy, origin, "others' words")
                let port = client.localPort
                #expect(try server.drain().ending == .reset)
                #expect(try client.ending() == .reset)
                #expect(try proxy.access(port: port)["reason"] == "rewrite_aborted")
            }
        }
    }
}
