import Foundation
import Glibc
import Testing

/// A connection that is relayed: both ends of it.
func relayed(_ proxy: TProxy, _ origin: Origin, receiveBuffer: Int32? = nil) throws -> (client: Peer, server: Peer) {
    let client = try proxy.client(receiveBuffer: receiveBuffer)
    try client.send(#"{"answer": {"remote": "\#(origin.address)"}, "rest": true}"# + "\n!")
    let server = try origin.accept()
    try server.expect("!")
    try server.send("?")
    try client.expect("?")
    return (client, server)
}

extension IntegrationTests {
    /// Ends, aborts and throttling between a client and a remote.
    @Suite struct Relaying {
        @Test("a half-closed client still receives the whole answer")
        func halfClosedClient() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let client = try proxy.client(#"{"answer": {"remote": "\#(origin.address)"}, "rest": true}"#, "request")
                // With the request, before any verdict.
                client.end()
                let server = try origin.accept()
                try server.expect("request")
                #expect(try server.ending() == .end)
                let answer = String(repeating: "0123456789", count: 300_000)
                let writer = Thread {
                    try? server.send(answer)
                    server.end()
                }
                writer.start()
                #expect(try client.text() == answer)
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test("a remote that ends first goes on reading")
        func halfClosedRemote() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let (client, server) = try relayed(proxy, origin)
                try server.send("all I have")
                server.end()
                #expect(try client.text() == "all I have")
                try client.send("still listening?")
                try server.expect("still listening?")
                client.end()
                #expect(try server.ending() == .end)
                #expect(try proxy.access(client)["reason"] == "done")
            }
        }

        @Test(
            "a client's abort is the remote's abort, with and without bytes on the way", arguments: [0, 1, 3_000_000])
        func abortedUpload(bytes: Int) throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let (client, server) = try relayed(proxy, origin)
                let port = client.localPort
                _ = client.pour(atMost: bytes, untilStuckFor: 0.2)
                client.reset()
                #expect(try server.drain().ending == .reset)
                #expect(try proxy.access(port: port)["reason"] == "client_reset")
            }
        }

        @Test("a remote's abort is the client's abort, behind the bytes that came before it")
        func remoteReset() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let (client, server) = try relayed(proxy, origin)
                let port = client.localPort
                server.reset()
                #expect(try client.ending() == .reset)
                #expect(try proxy.access(port: port)["reason"] == "remote_reset")
                let (second, other) = try relayed(proxy, origin)
                try other.send("a part")
                try second.expect("a part")
                other.reset()
                #expect(try second.ending() == .reset)
            }
        }

        @Test("a remote that closes with unread bytes aborts, and its answer was not lost on the way")
        func remoteClosesUnread() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let (client, server) = try relayed(proxy, origin)
                try client.send("never read")
                #expect(Deadline(in: patience).wait(for: server.raw, POLLIN))
                server.close()
                #expect(try client.drain().ending != .stillOpen)
            }
        }

        @Test("a remote that speaks and closes at once is heard to the end")
        func speaksAndCloses() throws {
            try withTProxy { proxy in
                let origin = try Origin { peer in
                    _ = try peer.receive(1)
                    try peer.send(String(repeating: "s", count: 300_000))
                    peer.end()
                    _ = try? peer.drain()
                }
                for _ in 0..<20 {
                    let client = try proxy.client(#"{"answer": {"remote": "\#(origin.address)"}, "rest": true}"#, "!")
                    #expect(try client.text().utf8.count == 300_000)
                }
            }
        }

        @Test("a client that reads nothing throttles a remote that pours, and costs a bounded memory")
        func throttled() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let worker = try proxy.worker()
                let before = try Proc.kilobytes(worker, "RssAnon")
                let (client, server) = try relayed(proxy, origin, receiveBuffer: 4096)
                let poured = server.pour(atMost: 200_000_000, untilStuckFor: 0.5)
                // The sockets' buffers, one pipe and one of ours: far from 200 MB.
                #expect(poured < 32_000_000, "\(poured)")
                #expect(try Proc.kilobytes(worker, "RssAnon") - before < 4096)
                // And it is all there when the client reads at last.
                server.end()
                #expect(try client.drain(within: 60).bytes.count == poured)
            }
        }

        @Test("a remote that reads nothing throttles a client that pours")
        func throttledUpload() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let (client, server) = try relayed(proxy, origin)
                let poured = client.pour(atMost: 200_000_000, untilStuckFor: 0.5)
                #expect(poured < 32_000_000, "\(poured)")
                client.end()
                #expect(try server.drain(within: 60).bytes.count == poured)
                server.close()
                #expect(try client.ending() == .end)
            }
        }

        @Test("small messages both ways keep their order")
        func pingPong() throws {
            try withTProxy { proxy in
                let origin = try Origin.echo()
                let client = try proxy.client(#"{"answer": {"remote": "\#(origin.address)"}, "rest": true}"#)
                for round in 0..<2000 {
                    let message = "message \(round) " + String(repeating: "m", count: round % 50) + "\n"
                    try client.send(message)
                    try client.expect(message)
                }
                client.end()
                #expect(try client.ending() == .end)
            }
        }

        @Test("a gibibyte each way at once arrives with the right hash", arguments: ["splice", "copy"])
        func gibibyte(way: String) throws {
            // Where a user who may read little can read them, with a Python that is not in anybody's home.
            let folder = Folder()
            let files = FileManager.default
            let binary = (Repository.binary as NSString).resolvingSymlinksInPath
            try files.copyItem(atPath: binary, toPath: "\(folder.path)/tproxy")
            try files.copyItem(atPath: Repository.router("told.py"), toPath: "\(folder.path)/told.py")
            try files.copyItem(atPath: Repository.helper("hold_pipes.py"), toPath: "\(folder.path)/hold_pipes.py")
            let environment = ["PATH": "/usr/local/bin:/usr/bin:/bin"]
            // A user's pipes are made tiny after 64 of a mebibyte: then flows copy. Another process holds those 64.
            var user: [String] = []
            var holder: Subprocess?
            if way == "copy" {
                if getuid() == 0 { user = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all"] }
                holder = try Subprocess(
                    user + ["python3", "\(folder.path)/hold_pipes.py"], environment: environment)
                let said = try holder?.line(with: "pipes") ?? ""
                try #require(!said.contains("privileged"), "copying cannot be tested: this user's pipes have no limit")
            }
            let proxy = try TProxy(
                router: "python3 -S \(folder.path)/told.py", environment: environment, prefix: user,
                binary: "\(folder.path)/tproxy")
            let worker = try proxy.worker()
            func pipeEnds() throws -> Int { try Proc.descriptors(worker).values.count { $0.hasPrefix("pipe:") } }
            let others = try pipeEnds()
            let origin = try Subprocess(["python3", Repository.helper("bulk.py"), "origin"])
            let port = try #require(try origin.line(with: "port").split(separator: " ").last)
            let client = try Subprocess(
                [
                    "python3", Repository.helper("bulk.py"), "client", "\(proxy.port)",
                    #"{"answer": {"remote": "127.0.0.1:\#(port)"}, "rest": true}"#,
                ])
            try client.line(with: "half", within: 120)
            if way == "splice" {
                try Deadline(in: patience).until("a pipe in flight") { try pipeEnds() >= others + 2 }
            } else {
                for _ in 0..<100 { #expect(try pipeEnds() == others) }
            }
            try expectWhole(client, origin, within: 120)
            let access = try proxy.accesses(1)[0]
            #expect(access["to_remote"] == "1073741824" && access["to_client"] == "1073741824", "\(access)")
            #expect(access["reason"] == "done", "\(access)")
            try proxy.stop()
            withExtendedLifetime(holder) {}
        }
    }
}
