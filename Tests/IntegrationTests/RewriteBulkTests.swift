import Control
import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// Much at once through rewriters.
    @Suite struct RewriteBulk {
        @Test("much each way at once through a rewriter that changes nothing arrives with the right hash")
        func hashed() throws {
            // 1024 is a gibibyte each way.
            let megabytes = Int(ProcessInfo.processInfo.environment["REWRITE_TEST_MEGABYTES"] ?? "") ?? 32
            let environment = ["BULK_MEGABYTES": "\(megabytes)"]
            try withStepping { proxy, _ in
                let origin = try Subprocess(
                    ["python3", Repository.helper("bulk.py"), "origin"], environment: environment)
                let port = try #require(try origin.line(with: "port").split(separator: " ").last)
                let client = try Subprocess(
                    [
                        "python3", Repository.helper("bulk.py"), "client", "\(proxy.port)",
                        steppingOrder("127.0.0.1:\(port)"),
                    ], environment: environment)
                try expectWhole(client, origin, within: 300)
                let access = try proxy.accesses(1)[0]
                #expect(access["to_remote"] == "\(megabytes << 20)" && access["to_client"] == "\(megabytes << 20)")
                #expect(access["reason"] == "done", "\(access)")
            }
        }

        @Test("500 connections, each through two rewriters with 100 kB each way, all at once")
        func manyStreams() throws {
            try withStepping { proxy, _ in
                let origin = try Origin.echo()
                let order = steppingOrder(
                    origin.address, request: ["read 7", "write request", "echo", "end", "close"],
                    response: ["echo 7", "write , response: ", "echo", "end", "close"])
                let clients = try (0..<500).map { _ in try proxy.client(order, "dropped") }
                // All streams are open before any ends.
                for client in clients { try client.expect("request") }
                for client in clients { try client.expect(", response: ") }
                #expect(try proxy.sum(.streams) == 1000)
                for (number, client) in clients.enumerated() {
                    sending(scrambled(100_000, seed: UInt64(number)), from: client)
                }
                for (number, client) in clients.enumerated() {
                    let (bytes, ending) = try client.drain(within: 60)
                    #expect(ending == .end && bytes == scrambled(100_000, seed: UInt64(number)), "\(number)")
                }
                #expect(try proxy.accesses(500).allSatisfy { $0["reason"] == "done" })
            }
        }

        @Test("routers that are replaced under connections in full flow cost none of them a byte")
        func rolling() throws {
            try withStepping(["-w", "2"]) { proxy, _ in
                let origin = try Origin.echo()
                let order = steppingOrder(origin.address)
                var flows: [(sent: Beside<Bool>, bytes: [UInt8], received: Beside<(bytes: [UInt8], ending: Ending)>)] =
                    []
                var clients: [Peer] = []
                for round in 0..<4 {
                    // A new router has proved itself when it has answered, or after a second.
                    if round > 0 { proxy.process.signal(SIGHUP) }
                    for number in 0..<6 {
                        let bytes = scrambled(3_000_000, seed: UInt64(round * 6 + number))
                        let client = try proxy.client(order)
                        let received = draining(client)
                        // It has not ended when the next routers come.
                        flows.append((sending(bytes, from: client, ending: false), bytes, received))
                        clients.append(client)
                    }
                    if round > 0 { try proxy.process.line(with: "reloaded: ", count: round) }
                }
                for flow in flows { #expect(try flow.sent.result()) }
                for client in clients { client.end() }
                for flow in flows {
                    let (bytes, ending) = try flow.received.result()
                    #expect(ending == .end && bytes == flow.bytes, "\(bytes.count) \(ending)")
                }
                #expect(try proxy.accesses(24).allSatisfy { $0["reason"] == "done" })
                #expect(try proxy.sum(.streams) == 48)
                // Each worker has one router again.
                try Deadline(in: patience).until("the old routers are gone") {
                    proxy.workers.allSatisfy { proxy.routers(of: $0).count == 1 }
                }
            }
        }
    }
}
