import Control
import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// Rewriting while workers drain and routers come and go; what times out, and what comes at once.
    @Suite struct RewriteLife {
        @Test("a client that sends all and ends at once, and a remote that answers and closes at once, lose nothing")
        func atOnce() throws {
            try withStepping { proxy, _ in
                let origin = try Origin { peer in
                    let (bytes, _) = try peer.drain()
                    try peer.send(String(repeating: "s", count: 300_000) + String(decoding: bytes, as: UTF8.self))
                    peer.close()
                }
                for _ in 0..<20 {
                    let client = try proxy.client(steppingOrder(origin.address), "question")
                    client.end()
                    let text = try client.text()
                    #expect(text.utf8.count == 300_008 && text.hasSuffix("question"), "\(text.utf8.count)")
                }
                #expect(try proxy.accesses(20).allSatisfy { $0["reason"] == "done" })
            }
        }

        @Test("a verdict's data goes through the rewriter in place of the initial bytes")
        func dataThrough() throws {
            try withStepping { proxy, origin in
                let (client, server) = try proxy.stepping(
                    origin, request: ["read 2", "write [", "echo", "write ]", "end", "close"], "unseen",
                    verdict: #", "data": "xxdata, ", "consume": null"#)
                try client.send("later")
                client.end()
                #expect(try server.text() == "[data, later]")
                server.end()
                #expect(try client.ending() == .end)
            }
        }

        @Test("stream_end may come first: what is written after it counts")
        func endSaidFirst() throws {
            try withStepping { proxy, origin in
                let steps = ["end", "echo", "close"]
                let (client, server) = try proxy.stepping(origin, request: steps, response: steps)
                let (up, down) = (scrambled(5_000_000, seed: 1), scrambled(5_000_000, seed: 2))
                sending(up, from: client)
                sending(down, from: server)
                let received = draining(server)
                let (bytes, ending) = try client.drain(within: 60)
                #expect(ending == .end && bytes == down)
                #expect(try received.result().bytes == up)
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test("a remote is not silent because its rewriter does not read, and is when it says nothing")
        func inactivity() throws {
            try withStepping { proxy, origin in
                let folder = Folder()
                let (client, server) = try proxy.stepping(
                    origin, response: ["wait \(folder.path)/go", "echo", "end", "close"],
                    verdict: #", "inactivity_timeout": 0.5"#)
                let sent = server.pour(atMost: 100_000_000, untilStuckFor: 1.5)
                server.end()
                _ = try folder.file("go")
                let (bytes, ending) = try client.drain(within: 60)
                #expect(ending == .end && bytes.count == sent, "\(bytes.count) of \(sent)")
                #expect(try proxy.access(client)["reason"] == "done")
                let (second, silent) = try proxy.stepping(origin, "?", verdict: #", "inactivity_timeout": 0.5"#)
                try silent.expect("?")
                #expect(try second.ending() == .end)
                #expect(try silent.drain().ending == .reset)
                #expect(try proxy.access(second)["reason"] == "inactivity_timeout")
            }
        }

        @Test("while workers drain, what is being rewritten goes on to its end", arguments: [SIGTERM, SIGQUIT])
        func drains(signal: Int32) throws {
            try withStepping { proxy, origin in
                let (client, server) = try proxy.stepping(origin, "hello")
                try server.expect("hello")
                proxy.process.signal(signal)
                try Deadline(in: patience).until("nobody listens") { (try? proxy.client()) == nil }
                let bytes = scrambled(3_000_000)
                sending(bytes, from: client)
                #expect(try server.drain(within: 30).bytes == bytes)
                try server.send("goodbye")
                server.end()
                #expect(try client.text() == "goodbye")
                #expect(try proxy.access(client)["reason"] == "done")
                #expect(try proxy.process.end() == 0)
            }
        }

        @Test("streams that a router took along before it dialled back are told to the next one")
        func diesBeforeDialling() throws {
            try withStepping { proxy, origin in
                let folder = Folder()
                let (client, server) = try proxy.stepping(
                    origin, request: ["die once \(folder.path)/died", "echo", "end", "close"], "hello",
                    verdict: #", "rewrite": "request""#)
                try server.expect("hello")
                client.end()
                #expect(try server.ending() == .end)
                server.end()
                #expect(try client.ending() == .end)
                #expect(try proxy.access(client)["reason"] == "done")
                try proxy.process.line(with: "exited with status 4")
                #expect(try proxy.sum(.streams) == 2)
            }
        }

        @Test("connections that come while routers are replaced are all rewritten")
        func reloads() throws {
            try withStepping(["-w", "2"]) { proxy, _ in
                let origin = try Origin.echo()
                let order = steppingOrder(
                    origin.address, request: ["read 1", "write re", "echo", "end", "close"],
                    response: ["echo", "write !", "end", "close"])
                let stop = Folder()
                let clients = (0..<4).map { number in
                    Beside<Int> {
                        var count = 0
                        while access("\(stop.path)/stop", F_OK) != 0 || count < 10 {
                            let client = try proxy.client(order, "-written \(number)")
                            client.end()
                            let text = try client.text()
                            guard text == "rewritten \(number)!" else {
                                throw Failure("connection \(count): \(text)")
                            }
                            count += 1
                        }
                        return count
                    }
                }
                for round in 1...4 {
                    proxy.process.signal(SIGHUP)
                    try proxy.process.line(with: "reloaded: ", count: round)
                }
                _ = try stop.file("stop")
                let count = try clients.map { try $0.result() }.reduce(0, +)
                #expect(try proxy.accesses(count).allSatisfy { $0["reason"] == "done" })
                #expect(try proxy.sum(.streamsFailed) == 0)
            }
        }

        @Test("when the time to drain is over both sides of a rewritten connection are reset")
        func drainEnds() throws {
            try withStepping(["--graceful-timeout", "0.5"]) { proxy, origin in
                let (client, server) = try proxy.stepping(origin, "hello")
                try server.expect("hello")
                let port = client.localPort
                proxy.process.signal(SIGTERM)
                #expect(try client.drain().ending == .reset)
                #expect(try server.drain().ending == .reset)
                #expect(try proxy.access(port: port)["reason"] == "stopped")
            }
        }
    }
}
