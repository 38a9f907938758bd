import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// Rewriters that hand their direction back.
    @Suite struct RewriteDetaching {
        /// What a rewriter of stepping.py has said of the bytes that it saw.
        private func saw(_ proxy: TProxy, _ direction: String, count: Int = 1) throws -> Int {
            let line = try proxy.process.line(with: "\(direction) saw ", count: count)
            return try #require(line.firstMatch(of: /saw (\d+)/).flatMap { Int($0.1) }, "\(line)")
        }

        @Test(
            "who leaves after so many bytes gives them on once and in order, and sees no more: the rest is spliced past it",
            arguments: [0, 1, 4096, 65_537, 3_000_000], [false, true])
        func exact(after count: Int, isBlocked: Bool) throws {
            try withStepping { proxy, origin in
                let folder = Folder()
                // Blocked: what is on its way piles up in front of the rewriter before it leaves.
                let pause = isBlocked ? ["wait \(folder.path)/go"] : []
                let steps = (count > 0 ? ["echo \(count)"] : []) + pause + ["detach", "echo", "saw", "end", "close"]
                let (client, server) = try proxy.stepping(origin, request: steps, response: steps)
                let (up, down) = (scrambled(24_000_000, seed: 1), scrambled(20_000_000, seed: 2))
                let senders = [sending(up, from: client), sending(down, from: server)]
                if isBlocked {
                    try Deadline(in: patience).until("both sources are held up") {
                        [client, server].allSatisfy { !Deadline(in: 0.05).wait(for: $0.raw, POLLOUT) }
                    }
                    _ = try folder.file("go")
                }
                let received = draining(server)
                let atClient = try client.drain(within: 60)
                let atServer = try received.result()
                #expect(atClient.ending == .end && atServer.ending == .end)
                #expect(atClient.bytes == down && atServer.bytes == up)
                for sender in senders { #expect(try sender.result()) }
                let access = try proxy.access(port: client.localPort)
                #expect(access["reason"] == "done", "\(access)")
                #expect(access["to_remote"] == "24000000" && access["to_client"] == "20000000", "\(access)")
                for direction in ["request", "response"] {
                    let seen = try saw(proxy, direction)
                    #expect(seen >= count && seen < count + 4_000_000, "\(seen)")
                }
            }
        }

        @Test("one that says it before it dials back leaves at once, with the initial bytes or without them")
        func beforeDialling() throws {
            try withStepping { proxy, origin in
                for first in ["", "initial bytes, "] {
                    let steps = ["detach", "echo", "end", "close"]
                    let (client, server) = try proxy.stepping(origin, request: steps, response: steps, first)
                    try client.send("more")
                    try server.expect(first + "more")
                    try server.send("answer")
                    try client.expect("answer")
                    client.end()
                    #expect(try server.ending() == .end)
                    server.end()
                    #expect(try client.ending() == .end)
                    #expect(try proxy.access(client)["reason"] == "done")
                }
            }
        }

        @Test("the source's end before, while and after one leaves is the destination's end")
        func sourceEnds() throws {
            try withStepping { proxy, origin in
                let folder = Folder()
                for (number, name) in ["before", "while", "after"].enumerated() {
                    let (go, gone) = ("\(folder.path)/\(name)", "\(folder.path)/\(name) 2")
                    let (client, server) = try proxy.stepping(
                        origin,
                        request: ["echo 5", "wait \(go)", "detach", "wait \(gone)", "echo", "saw", "end", "close"],
                        "hello")
                    try server.expect("hello")
                    try client.send(", world")
                    if name == "before" { client.end() }
                    _ = try folder.file(name)
                    if name == "while" { client.end() }
                    _ = try folder.file("\(name) 2")
                    try server.expect(", world")
                    _ = try saw(proxy, "request", count: number + 1)
                    client.end()
                    #expect(try server.ending() == .end)
                    server.end()
                    #expect(try client.ending() == .end)
                    #expect(try proxy.access(client)["reason"] == "done")
                }
            }
        }

        @Test(
            "one that leaves without stream_end takes the connection along: what it had in its hands is not lost unnoticed"
        )
        func withoutEnd() throws {
            try withStepping { proxy, origin in
                for direction in ["request", "response"] {
                    let steps = ["echo 2", "detach", "close"]
                    let (client, server) = try proxy.stepping(
                        origin, request: direction == "request" ? steps : [],
                        response: direction == "response" ? steps : [], "first")
                    let port = client.localPort
                    try server.send("first")
                    #expect(try server.drain().ending == .reset, "\(direction)")
                    #expect(try client.drain().ending == .reset, "\(direction)")
                    #expect(try proxy.access(port: port)["reason"] == "rewrite_aborted")
                }
            }
        }

        @Test("the router may die once its streams have left")
        func routerDies() throws {
            try withStepping { proxy, origin in
                let worker = try proxy.worker()
                func sockets(_ pid: pid_t) throws -> Int {
                    try Proc.descriptors(pid).values.count { $0.hasPrefix("socket:") }
                }
                let idle = try sockets(worker)
                let steps = ["echo 2", "detach", "echo", "saw", "end", "close"]
                let (client, server) = try proxy.stepping(origin, request: steps, response: steps, "hello")
                try server.expect("hello")
                try server.send("answer")
                try client.expect("answer")
                for direction in ["request", "response"] { _ = try saw(proxy, direction) }
                // The client's socket and the remote's are left.
                try Deadline(in: patience).until("the streams are over") { try sockets(worker) <= idle + 2 }
                for router in proxy.routers(of: worker) { kill(router, SIGKILL) }
                try proxy.process.line(with: "was ended by signal 9")
                let more = scrambled(3_000_000)
                sending(more, from: client)
                #expect(try server.drain().bytes == more)
                server.end()
                #expect(try client.ending() == .end)
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }
    }
}
