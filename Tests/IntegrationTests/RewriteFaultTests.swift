import Control
import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// Rewriters that break off, ends in every order, and those who leave in the middle.
    @Suite struct RewriteFaults {
        /// A proper connection afterwards: nothing was left broken.
        private func expectWorking(_ proxy: TProxy, _ origin: Origin) throws {
            let (client, server) = try proxy.stepping(origin, "hello")
            try server.expect("hello")
            try server.send("world")
            try client.expect("world")
            client.end()
            #expect(try server.ending() == .end)
            server.end()
            #expect(try client.ending() == .end)
            #expect(try proxy.access(client)["reason"] == "done")
        }

        @Test(
            "whoever ends the writing side or closes without stream_end aborts: small and in full flow, either direction",
            arguments: ["shut", "close", "die"], ["request", "response"])
        func breaksOff(how: String, direction: String) throws {
            try withStepping { proxy, origin in
                for amount in [0, 40_000_000] {
                    let steps = amount == 0 ? ["echo 4", how, "hold"] : ["echo 3000000", how, "hold"]
                    let (client, server) = try proxy.stepping(
                        origin, request: direction == "request" ? steps : [],
                        response: direction == "response" ? steps : [], "first")
                    let port = client.localPort
                    // Who sends learns of a reset by the send that fails, and only one call does; who receives, by the last receive.
                    let (source, target) = direction == "request" ? (client, server) : (server, client)
                    let first = Array("first".utf8)
                    if direction == "response" { try server.expect("first") }
                    let bytes = scrambled(amount)
                    let sender = sending(direction == "request" ? bytes : first + bytes, from: source, ending: false)
                    let (received, ending) = try target.drain(within: 60)
                    #expect(ending == .reset)
                    // What did arrive is a beginning of what there was.
                    #expect((first + bytes).starts(with: received))
                    let sent = try sender.result()
                    #expect(sent == (amount == 0))
                    let left = try source.drain().ending
                    #expect(left == .reset || (!sent && left == .end))
                    #expect(try proxy.access(port: port)["reason"] == "rewrite_aborted")
                }
                try expectWorking(proxy, origin)
            }
        }

        @Test(
            "whoever leaves before the end of what it was given leaves a hole: the connection is reset",
            arguments: [0, 3_000_000])
        func leavesBytes(amount: Int) throws {
            try withStepping { proxy, origin in
                let (client, server) = try proxy.stepping(
                    origin, request: ["echo 5", "detach", "end", "close"], "first rest")
                let sender = sending(scrambled(amount), from: client)
                #expect(try server.drain(within: 60).ending == .reset)
                _ = try sender.result()
                #expect(try proxy.accesses(1)[0]["reason"] == "rewrite_aborted")
                try proxy.process.line(with: "had not read to the end")
                try expectWorking(proxy, origin)
            }
        }

        @Test("a rewriter that answers in the remote's place has answered, whatever becomes of the remote")
        func answersInstead() throws {
            try withStepping { proxy, origin in
                let (client, server) = try proxy.stepping(origin, response: ["write sorry", "end", "close"], "?")
                try server.expect("?")
                #expect(try client.text() == "sorry")
                server.reset()
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test("a remote whose last words nobody wanted is silent when it is silent")
        func silentAfterEarlyEnd() throws {
            try withStepping { proxy, origin in
                let (client, server) = try proxy.stepping(
                    origin, response: ["write x", "end", "close"], "?", verdict: #", "inactivity_timeout": 0.3"#)
                _ = try? server.send(scrambled(2_000_000), within: 10)
                #expect(try client.text() == "x")
                let port = client.localPort
                #expect(try proxy.access(port: port)["reason"] == "inactivity_timeout")
            }
        }

        @Test("a router that is killed in full flow resets its connections, and the next router rewrites")
        func killedInFullFlow() throws {
            try withStepping { proxy, origin in
                var ends: [(client: Peer, server: Peer)] = []
                var beside: [Beside<Bool>] = []
                for number in 0..<8 {
                    let (client, server) = try proxy.stepping(origin)
                    try server.send("?")
                    try client.expect("?")
                    beside.append(sending(scrambled(30_000_000, seed: UInt64(number)), from: client))
                    _ = try server.receive(500_000)
                    ends.append((client, server))
                }
                let router = try #require(proxy.routers(of: try proxy.worker()).first)
                kill(router, SIGKILL)
                for (client, server) in ends {
                    let port = client.localPort
                    #expect(try server.drain(within: 30).ending == .reset)
                    #expect(try proxy.access(port: port)["reason"] == "rewrite_aborted")
                }
                // By the send that failed.
                for one in beside { #expect(try one.result() == false) }
                try expectWorking(proxy, origin)
            }
        }

        @Test(
            "a client's or a remote's reset in full flow reaches the other side, the rewriters' sockets end, and nothing is left",
            arguments: ["client", "remote"], [["saw", "end"], ["saw"]])
        func resetInFullFlow(who: String, last: [String]) throws {
            try withStepping { proxy, origin in
                try expectWorking(proxy, origin)
                let worker = try proxy.worker()
                let descriptors = try Proc.descriptors(worker).filter { !$0.value.hasPrefix("pipe:") }.count
                for round in 1...5 {
                    let (client, server) = try proxy.stepping(
                        origin, request: ["echo"] + last, response: ["echo"] + last, "?")
                    try server.expect("?")
                    let port = client.localPort
                    let (gone, left) = who == "client" ? (client, server) : (server, client)
                    let sender = sending(scrambled(20_000_000), from: gone)
                    // In odd rounds the other direction flows as well.
                    let other = round % 2 == 1 ? sending(scrambled(20_000_000), from: left) : nil
                    _ = try left.receive(300_000)
                    if round % 2 == 1 { _ = try gone.receive(300_000) }
                    connectToNothing(gone.raw)
                    let ending = try left.drain(within: 30).ending
                    _ = try sender.result()
                    let wasTold = try other?.result() == false
                    #expect(ending == .reset || (wasTold && ending == .end), "round \(round): \(ending)")
                    let reason = try proxy.access(port: port)["reason"]
                    #expect(reason == "\(who)_reset", "\(reason)")
                    // Both rewriters are told: by an end or an error.
                    try proxy.process.wait(for: "the rewriters' ends") { lines in
                        lines.count { $0.contains("and the end") || $0.contains("broke off") } >= 2 * round ? true : nil
                    }
                }
                try Deadline(in: patience).until("all closed") {
                    try Proc.descriptors(worker).filter { !$0.value.hasPrefix("pipe:") }.count <= descriptors
                }
                try expectWorking(proxy, origin)
            }
        }

        /// connect(2) to AF_UNSPEC is how a reset is sent while others still hold the socket.
        private func connectToNothing(_ raw: Int32) {
            var nothing = sockaddr()
            nothing.sa_family = sa_family_t(AF_UNSPEC)
            _ = connect(raw, &nothing, socklen_t(MemoryLayout<sockaddr>.size))
        }

        /// What happens, in each of the orders in which it can: the client or the remote ends its side, or a rewriter writes
        /// stream_end and leaves.
        private static func orders(of events: [String] = ["client", "remote", "request", "response"]) -> [[String]] {
            events.isEmpty
                ? [[]]
                : events.flatMap { first in orders(of: events.filter { $0 != first }).map { [first] + $0 } }
        }

        @Test(
            "ends in every order are passed on as ends, and all that was written arrives",
            arguments: ["close", "shut"])
        func ends(leaving: String) throws {
            try withStepping { proxy, origin in
                for order in Self.orders() {
                    let folder = Folder()
                    func steps(_ name: String) -> [String] {
                        ["echo 6", "wait \(folder.path)/\(name)", "write \(name), last", "end", leaving, "hold"]
                    }
                    let (client, server) = try proxy.stepping(
                        origin, request: steps("request"), response: steps("response"), "client")
                    try server.expect("client")
                    try server.send("remote")
                    try client.expect("remote")
                    for event in order {
                        switch event {
                        case "client": client.end()
                        case "remote": server.end()
                        case "request":
                            _ = try folder.file(event)
                            #expect(try server.text() == "request, last", "\(order)")
                        default:
                            _ = try folder.file(event)
                            #expect(try client.text() == "response, last", "\(order)")
                        }
                    }
                    let access = try proxy.access(port: client.localPort)
                    #expect(access["reason"] == "done", "\(order): \(access)")
                    #expect(access["to_remote"] == "19" && access["to_client"] == "20", "\(order): \(access)")
                }
            }
        }

        @Test(
            "a rewriter that ends early gives its direction's source no reset, however much that still has to say",
            arguments: ["request", "response"])
        func earlyEnd(direction: String) throws {
            try withStepping { proxy, origin in
                let steps = ["read 4", "write enough", "end", "close"]
                let (client, server) = try proxy.stepping(
                    origin, request: direction == "request" ? steps : [],
                    response: direction == "response" ? steps : [])
                let (source, target) = direction == "request" ? (client, server) : (server, client)
                let sender = sending(scrambled(12_000_000), from: source)
                #expect(try target.text() == "enough")
                // The other direction goes on, to its own end, and arrives whole.
                let answer = scrambled(4_000_000, seed: 3)
                let answering = sending(answer, from: target)
                let (bytes, ending) = try source.drain(within: 60)
                #expect(ending == .end)
                #expect(bytes == answer, "\(bytes.count)")
                #expect(try sender.result(), "the source was reset")
                _ = try answering.result()
                #expect(try proxy.access(port: client.localPort)["reason"] == "done")
            }
        }

        @Test("what nobody wants any more costs no CPU, whether its source goes on, has ended or is gone")
        func quietAfterEarlyEnd() throws {
            try withStepping { proxy, origin in
                let early = ["echo 4", "end", "close"]
                var talkers: [Peer] = []
                var others: [Peer] = []
                for end in ["none", "own", "reset"] {
                    var (client, server) = try proxy.stepping(origin, request: early, "left")
                    #expect(try server.text() == "left")
                    talkers.append(client)
                    others.append(server)
                    if end == "own" { client.end() }
                    if end == "reset" {
                        // What the remote has said waits for the client, which reads nothing, and the client says more than
                        // is dropped in a turn, when the reset comes.
                        _ = server.pour(atMost: 40_000_000, untilStuckFor: 0.2)
                        _ = client.pour(atMost: 4_000_000, untilStuckFor: 1)
                        server.reset()
                        _ = client.pour(atMost: 4_000_000, untilStuckFor: 0.2)
                    }
                    (client, server) = try proxy.stepping(origin, response: early)
                    try server.send("left")
                    #expect(try client.text() == "left")
                    talkers.append(server)
                    others.append(client)
                    if end == "own" { server.end() }
                    if end == "reset" { server.reset() }
                    // Nor does one cost any who reads no more and has not ended.
                    (client, server) = try proxy.stepping(origin, request: ["echo 4", "deaf", "hold"], "left")
                    try server.expect("left")
                    talkers.append(client)
                    others.append(server)
                    if end == "own" { client.end() }
                    if end == "reset" { client.reset() }
                }
                let silent = try proxy.client()
                let worker = try proxy.worker()
                let before = try Proc.ticks(worker)
                for _ in 0..<20 {
                    for talker in talkers where talker.raw >= 0 { try? talker.send(".", within: 0) }
                    #expect(try silent.drain(within: 0.05).ending == .stillOpen)
                }
                // Two hundred bytes, one by one; a loop that never waits takes up to a hundred ticks in this second.
                let used = try Proc.ticks(worker) - before
                #expect(used < 20, "\(used) ticks")
                withExtendedLifetime(others) {}
            }
        }

        @Test("a remote that never stops talking does not hold a connection whose client has had its end")
        func earlyEndOfEndlessRemote() throws {
            try withStepping { proxy, origin in
                let (client, server) = try proxy.stepping(origin, response: ["echo 4", "end", "close"], "request")
                try server.expect("request")
                let pourer = Beside { server.pour(atMost: 4_000_000_000, untilStuckFor: 3) }
                #expect(try client.drain(within: 30).ending == .end)
                client.end()
                let access = try proxy.access(port: client.localPort, within: 60)
                #expect(access["reason"] == "done" || access["reason"] == "stalled", "\(access)")
                #expect(try pourer.result() < 4_000_000_000)
            }
        }

        @Test(
            "one that stalls holds up whichever side it reads from, and costs a bounded memory",
            arguments: [true, false])
        func stalls(request: Bool) throws {
            try withStepping { proxy, origin in
                try expectWorking(proxy, origin)
                let worker = try proxy.worker()
                let before = try Proc.kilobytes(worker, "RssAnon")
                let folder = Folder()
                let steps = ["echo 1", "wait \(folder.path)/go", "echo", "end", "close"]
                let (client, server) = try proxy.stepping(
                    origin, request: request ? steps : [], response: request ? [] : steps)
                let (source, target) = request ? (client, server) : (server, client)
                let sent = source.pour(atMost: 200_000_000, untilStuckFor: 1)
                #expect(sent < 32_000_000, "\(sent)")
                #expect(try Proc.kilobytes(worker, "RssAnon") - before < 4096)
                // It is all there once the rewriter goes on.
                source.end()
                _ = try folder.file("go")
                let (bytes, ending) = try target.drain(within: 60)
                #expect(ending == .end && bytes.count == sent, "\(bytes.count) of \(sent)")
                target.end()
                #expect(try source.ending() == .end)
            }
        }

        @Test("a destination that does not read holds the rewriter up, and the source through it")
        func throttled() throws {
            try withStepping { proxy, origin in
                let worker = try proxy.worker()
                let before = try Proc.kilobytes(worker, "RssAnon")
                let (client, server) = try proxy.stepping(origin)
                let sent = client.pour(atMost: 200_000_000, untilStuckFor: 1)
                #expect(sent < 40_000_000, "\(sent)")
                #expect(try Proc.kilobytes(worker, "RssAnon") - before < 4096)
                client.end()
                let (bytes, ending) = try server.drain(within: 60)
                #expect(ending == .end && bytes.count == sent)
            }
        }

        // MARK: Dialling

        @Test("one that dials back too late, or after the client has left, is turned away")
        func late() throws {
            try withStepping(["--router-timeout", "0.5"]) { proxy, origin in
                let folder = Folder()
                let (client, server) = try proxy.stepping(origin, request: ["later \(folder.path)/one"], "hello")
                let port = client.localPort
                #expect(try client.ending() == .reset)
                #expect(try server.ending() == .reset)
                #expect(try proxy.access(port: port)["reason"] == "rewrite_aborted")
                try proxy.process.line(with: "no router has dialled back")
                _ = try folder.file("one")
                try proxy.process.line(with: "request is turned away")
                let (second, other) = try proxy.stepping(origin, response: ["later \(folder.path)/two"], "hello")
                try other.expect("hello")
                let secondPort = second.localPort
                second.reset()
                #expect(try other.drain().ending == .reset)
                #expect(try proxy.access(port: secondPort)["reason"] == "client_reset")
                _ = try folder.file("two")
                try proxy.process.line(with: "response is turned away")
                #expect(try proxy.sum(.streamsRefused) == 2)
                try expectWorking(proxy, origin)
            }
        }

        @Test("a direction whose method is not listed passes by", arguments: ["request", "response"])
        func oneMethod(listed: String) throws {
            try withStepping(environment: ["STEPPING_METHODS": "rewrite_" + listed]) { proxy, origin in
                let steps = ["read 3", "write changed", "echo", "end", "close"]
                let (client, server) = try proxy.stepping(origin, request: steps, response: steps, "abc")
                try server.expect(listed == "request" ? "changed" : "abc")
                try server.send("xyz")
                try client.expect(listed == "response" ? "changed" : "xyz")
                client.end()
                #expect(try server.ending() == .end)
                server.end()
                #expect(try client.ending() == .end)
                #expect(try proxy.sum(.streams) == 1)
            }
        }

        @Test("connections by a kept verdict are rewritten with its extra, though nobody was asked about them")
        func cached() throws {
            try withStepping { proxy, origin in
                let order = steppingOrder(
                    origin.address, request: ["read 4", "write > ", "echo", "end", "close"],
                    verdict: #", "cache": {"key": "listener", "ttl": 60}"#, whole: true)
                for round in 0..<5 {
                    let client = try proxy.client(round == 0 ? order : "kept: round \(round)")
                    let server = try origin.accept()
                    client.end()
                    let text = try server.text()
                    #expect(text == "> " + (round == 0 ? order.dropFirst(4) : ": round \(round)") + "\n")
                    server.end()
                    #expect(try client.ending() == .end)
                }
                try Deadline(in: patience).until("the count of kept verdicts") { try proxy.sum(.cacheHits) == 4 }
                #expect(try proxy.sum(.streams) == 10)
            }
        }

        @Test("while no router is there a kept verdict waits for one: nothing passes by unrewritten")
        func keptWithoutRouter() throws {
            let folder = Folder()
            try withStepping(environment: ["STEPPING_AGAIN": folder.path + "/go"]) { proxy, origin in
                let order = steppingOrder(
                    origin.address, request: ["read 4", "write > ", "echo", "end", "close"],
                    verdict: #", "cache": {"key": "listener", "ttl": 60}"#, whole: true)
                let first = try proxy.client(order)
                first.end()
                #expect(try origin.accept().text().hasPrefix("> "))
                #expect(try first.ending() == .end)
                kill(try #require(proxy.routers(of: try proxy.worker()).first), SIGKILL)
                try proxy.process.line(with: "was ended by signal 9")
                let second = try proxy.client(order)
                second.end()
                #expect(try second.drain(within: 0.3).ending == .stillOpen)
                #expect(!origin.hasVisitor)
                _ = try folder.file("go")
                #expect(try origin.accept().text().hasPrefix("> "))
                #expect(try second.ending() == .end)
            }
        }
    }
}
