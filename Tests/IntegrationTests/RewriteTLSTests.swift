import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// Rewriters between sides of which one or both speak TLS: they see what is inside.
    @Suite(.enabled(if: has("openssl"))) struct RewriteTLS {
        private let tls: LocalTLS

        init() throws { tls = try LocalTLS() }

        /// Members of a verdict, behind others.
        private var ssl: String { ", " + tls.verdict }
        /// An order as a step of tls_peer.py, and what comes right behind it.
        private func step(_ order: String, _ rest: String = "") -> String { "send=" + order + "\\n" + rest }

        private static let leaving = ["echo 100000", "detach", "echo", "end", "close"]

        @Test(
            "bytes of a TLS client pass both rewriters whole, both ways at once, and so they do when those have left",
            arguments: [[], leaving], [false, true])
        func fromTLS(steps: [String], remoteToo: Bool) throws {
            let plain = try Origin.echo()
            let secure = try tls.origin(["echo"])
            try withTProxy(tls.listening, router: Repository.python("stepping.py")) { proxy in
                let order = steppingOrder(
                    remoteToo ? secure.address : plain.address, request: steps, response: steps,
                    verdict: remoteToo ? ssl : "")
                let seen = try TLSClient.run(
                    proxy.port, [step(order), "both=\(16 << 20)", "notify", "all"], options: tls.trusting)
                #expect(seen.first?.both == 16 << 20 && seen.first?.same == true, "\(seen)")
                #expect(seen.last?.count == 0 && seen.last?.ending == "end", "\(seen)")
                let access = try proxy.accesses(1)[0]
                #expect(access["reason"] == "done" && access["to_remote"] == "\(16 << 20)", "\(access)")
            }
        }

        @Test("so do those of a plain client with a TLS remote", arguments: [[], leaving])
        func toTLS(steps: [String]) throws {
            let secure = try tls.origin(["echo"])
            try withTProxy(router: Repository.python("stepping.py")) { proxy in
                let order = steppingOrder(secure.address, request: steps, response: steps, verdict: ssl)
                let client = try proxy.client(order)
                let bytes = scrambled(12_000_000)
                sending(bytes, from: client)
                let (received, ending) = try client.drain(within: 60)
                #expect(ending == .end && received == bytes, "\(received.count)")
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test("lengths may change, a reply goes ahead, and each end arrives as its own side says it")
        func changed() throws {
            let secure = try tls.origin(["all", "send=pong", "notify"])
            try withTProxy(tls.listening, router: Repository.python("stepping.py")) { proxy in
                let order = steppingOrder(
                    secure.address, request: ["read 4", "write a longer text, ", "echo", "end", "close"],
                    response: ["echo", "write !", "end", "close"], verdict: ssl + #", "reply": "connected ""#)
                let seen = try TLSClient.run(
                    proxy.port, [step(order, "ping"), "recv=10", "send=more", "notify", "all"], options: tls.trusting)
                #expect(seen.first?.recv == "connected ", "\(seen)")
                #expect(seen.last?.all == "pong!" && seen.last?.ending == "end", "\(seen)")
                let origin = try secure.seen(2).last
                #expect(
                    origin?.all == "a longer text, more" && origin?.ending == "end", "\(String(describing: origin))")
            }
        }

        @Test("a rewriter that breaks off resets a TLS client and a TLS remote", arguments: ["request", "response"])
        func breaksOff(direction: String) throws {
            let secure = try tls.origin(["recv=4", "send=pong", "all"])
            try withTProxy(tls.listening, router: Repository.python("stepping.py")) { proxy in
                let steps = ["echo 4", "close"]
                let order = steppingOrder(
                    secure.address, request: direction == "request" ? steps : [],
                    response: direction == "response" ? steps : [], verdict: ssl)
                let seen = try TLSClient.run(proxy.port, [step(order, "ping"), "all"], options: tls.trusting)
                #expect(seen.last?.ending == "reset", "\(seen)")
                // It may come while it still takes its steps.
                let ending = try secure.process.wait(for: "the remote's end") { lines in
                    Seen.of(lines).compactMap { $0.ending }.first
                }
                #expect(ending == "reset", "\(ending)")
                #expect(try proxy.accesses(1)[0]["reason"] == "rewrite_aborted")
            }
        }

        @Test("a TLS client's stream that is cut is no end behind a rewriter either")
        func truncated() throws {
            try withTProxy(tls.listening, router: Repository.python("stepping.py")) { proxy in
                let origin = try Origin()
                for end in ["fin", "rst"] {
                    let client = try TLSClient.start(
                        proxy.port, [step(steppingOrder(origin.address), "half an upl"), "recv=2", end],
                        options: tls.trusting)
                    let server = try origin.accept()
                    try server.expect("half an upl")
                    try server.send("go")
                    #expect(try server.ending() == .reset)
                    try client.end()
                }
                #expect(try proxy.accesses(2).map { $0["reason"] } == ["client_truncated", "client_reset"])
            }
        }
    }
}
