import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// What signals and deaths do to a running tproxy.
    @Suite struct SignalsAndDeaths {
        @Test(
            "TERM and INT end an idle tproxy at once, with status 0 and nobody left",
            arguments: [SIGTERM, SIGINT, SIGQUIT])
        func stops(signal: Int32) throws {
            let proxy = try TProxy(["-w", "2"])
            let processes = proxy.workers.flatMap { [$0] + proxy.routers(of: $0) }
            #expect(processes.count >= 2)
            let time = try seconds { () throws in #expect(try proxy.stop(signal) == 0) }
            #expect(time < 5, "\(time)")
            #expect(processes.allSatisfy { !Proc.isAlive($0) })
            #expect(throws: Failure.self) { try proxy.client() }
        }

        @Test("TERM leaves open connections their time, and no more")
        func graceful() throws {
            let proxy = try TProxy(["--graceful-timeout", "1"])
            let origin = try Origin()
            let (client, server) = try relayed(proxy, origin)
            let (other, _) = try relayed(proxy, origin)
            proxy.process.signal(SIGTERM)
            try Deadline(in: patience).until("no more accepting") { (try? Peer(port: proxy.port)) == nil }
            // Still served.
            try client.send("late")
            try server.expect("late")
            client.end()
            server.end()
            #expect(try client.ending() == .end)
            let time = try seconds { () throws in #expect(try proxy.process.end() == 0) }
            #expect(time < 5, "\(time)")
            #expect(try other.drain().ending != .stillOpen)
        }

        @Test("QUIT waits for what is open; a second signal does not")
        func quit() throws {
            let proxy = try TProxy(["--graceful-timeout", "60"])
            let origin = try Origin()
            let (client, server) = try relayed(proxy, origin)
            proxy.process.signal(SIGQUIT)
            try Deadline(in: patience).until("no more accepting") { (try? Peer(port: proxy.port)) == nil }
            try server.send("still served")
            try client.expect("still served")
            client.end()
            server.end()
            #expect(try proxy.process.end() == 0)

            let second = try TProxy(["--graceful-timeout", "60"])
            let (held, _) = try relayed(second, origin)
            second.process.signal(SIGTERM)
            try Deadline(in: patience).until("no more accepting") { (try? Peer(port: second.port)) == nil }
            second.process.signal(SIGTERM)
            #expect(try second.process.end(within: 5) == 0)
            #expect(try held.drain().ending != .stillOpen)
        }

        @Test("Ctrl-C goes to all processes at once: the arbiter alone obeys, and who is there is served to the end")
        func interruptedGroup() throws {
            let folder = Folder()
            let log = try folder.file("questions")
            let proxy = try TProxy(["--graceful-timeout", "60"], environment: ["TOLD_LOG": log])
            let worker = try proxy.worker()
            let router = try #require(proxy.routers(of: worker).first)
            // What a terminal tells is told to the group in front: the worker is in it, the router is not.
            #expect(getpgid(worker) == proxy.process.pid && getpgid(router) != proxy.process.pid)
            let origin = try Origin()
            let (relay, server) = try relayed(proxy, origin)
            let asking = try proxy.client()
            try asking.send(#"{"answer": "#)
            try Deadline(in: patience).until("the question") {
                try String(contentsOfFile: log, encoding: .utf8).contains(#""data":"{\"answer\": ""#)
            }
            #expect(kill(-proxy.process.pid, SIGINT) == 0)
            try Deadline(in: patience).until("no more accepting") { (try? Peer(port: proxy.port)) == nil }
            #expect(Proc.isAlive(worker) && Proc.isAlive(router))
            try relay.send("late")
            try server.expect("late")
            try asking.send(#"{"close": "served"}}"# + "\n")
            #expect(try asking.text() == "served")
            asking.end()
            relay.end()
            server.end()
            #expect(try relay.ending() == .end)
            #expect(try proxy.process.end() == 0)
            #expect(!proxy.process.text.contains("died"), "\(proxy.process.text)")
        }

        @Test("a client that waits in the accept queue is served before QUIT ends")
        func queued() throws {
            let proxy = try TProxy()
            let worker = try proxy.worker()
            kill(worker, SIGSTOP)
            let queued = try (0..<20).map { _ in try proxy.client(#"{"answer": {"close": "served"}}"#) }
            proxy.process.signal(SIGQUIT)
            try proxy.process.line(with: "QUIT")
            kill(worker, SIGCONT)
            for client in queued { #expect(try client.text() == "served") }
            #expect(try proxy.process.end() == 0)
        }

        @Test("at QUIT those in the accept queue are served, though the worker has as many as it takes")
        func queuedBeyondLimit() throws {
            let proxy = try TProxy(["--worker-connections", "2"])
            let origin = try Origin()
            let held = try [relayed(proxy, origin), relayed(proxy, origin)]
            let queued = try (0..<20).map { _ in try proxy.client(#"{"answer": {"close": "served"}}"#) }
            #expect(try queued[0].drain(within: 0.2).ending == .stillOpen)
            proxy.process.signal(SIGQUIT)
            for client in queued { #expect(try client.text() == "served") }
            for (client, server) in held {
                try server.send("still served")
                try client.expect("still served")
                client.end()
                server.end()
            }
            #expect(try proxy.process.end() == 0)
        }

        @Test("HUP changes routers without a client noticing; one that does not come up changes nothing")
        func reload() throws {
            let folder = Folder()
            func script(_ answer: String) throws -> String {
                try folder.file(
                    "route.py",
                    """
                    import json, sys
                    for line in sys.stdin:
                        message = json.loads(line)
                        if "id" in message:
                            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"close": "\(answer)"}}), flush=True)
                    """)
            }
            try withTProxy(router: "python3 -S \(try script("old"))") { proxy in
                func answer() throws -> String {
                    let client = try proxy.client("?")
                    return try client.text()
                }
                #expect(try answer() == "old")
                _ = try script("new")
                proxy.process.signal(SIGHUP)
                try Deadline(in: patience).until("the new answer") { try answer() == "new" }
                let worker = try proxy.worker()
                _ = try folder.file("route.py", "import sys; sys.exit('broken on purpose')")
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "broken on purpose")
                for _ in 0..<20 { #expect(try answer() == "new") }
                for number in 0..<5 {
                    _ = try script("number \(number)")
                    proxy.process.signal(SIGHUP)
                    proxy.process.signal(SIGHUP)
                    try Deadline(in: patience).until("number \(number)") { try answer() == "number \(number)" }
                }
                #expect(try proxy.worker() == worker)
                try Deadline(in: patience).until("one router") { proxy.routers(of: worker).count == 1 }
            }
        }

        @Test(
            "a killed worker is replaced within a second, and the log names the signal", arguments: [SIGKILL, SIGSEGV])
        func killedWorker(signal: Int32) throws {
            let proxy = try TProxy()
            let worker = try proxy.worker()
            let router = try #require(proxy.routers(of: worker).first)
            kill(worker, signal)
            let client = try proxy.client(#"{"answer": {"close": "served"}}"#)
            let time = try seconds { () throws in #expect(try client.text() == "served") }
            #expect(time < 2, "\(time)")
            try proxy.process.line(with: signal == SIGKILL ? "SIGKILL" : "SIGSEGV")
            try Deadline(in: patience).until("the end of its router") { !Proc.isAlive(router) }
            #expect(try proxy.stop() == 0)
        }

        @Test("a stuck worker is killed after its timeout and replaced")
        func stuckWorker() throws {
            let proxy = try TProxy(["-t", "3"])
            let worker = try proxy.worker()
            kill(worker, SIGSTOP)
            let client = try proxy.client(#"{"answer": {"close": "served"}}"#)
            #expect(try client.text(within: 20) == "served")
            #expect(!Proc.isAlive(worker))
            #expect(try proxy.stop() == 0)
        }

        @Test("when the arbiter is killed everybody leaves, and the port is free")
        func killedArbiter() throws {
            let proxy = try TProxy(["-w", "2", "--graceful-timeout", "0.5"])
            let processes = proxy.workers.flatMap { [$0] + proxy.routers(of: $0) }
            proxy.process.signal(SIGKILL)
            // The output ends with the last worker.
            #expect(try proxy.process.end() == 128 + SIGKILL)
            try Deadline(in: patience).until("the routers' end") { processes.allSatisfy { !Proc.isAlive($0) } }
            #expect(throws: Failure.self) { try proxy.client() }
        }

        @Test("several listeners serve, each under its own name")
        func listeners() throws {
            try withTProxy(["-b", "127.0.0.1:0", "-b", "[::1]:0", "-b", "0.0.0.0:0"]) { proxy in
                #expect(proxy.ports.count == 3)
                let client = try Peer(port: proxy.ports[2])
                try client.send("{\"report\": true}\n")
                #expect(try client.text().contains(#""listener": "0.0.0.0:"#))
            }
        }
    }
}
