import Foundation
import Glibc
import Testing

extension TProxy {
    /// Waits until there are so many workers that serve, and none besides.
    func workers(_ count: Int) throws -> [pid_t] {
        var found: [pid_t] = []
        try Deadline(in: patience).until("\(count) workers") {
            found = workers
            return found.count == count && found.allSatisfy { !routers(of: $0).isEmpty }
        }
        return found
    }

    /// Asks the told router through a new connection.
    func answer(_ text: String = "served") throws -> String {
        try client(#"{"answer": {"close": "\#(text)"}}"#).text()
    }
}

extension IntegrationTests {
    /// Signals that change how many workers there are, and where the log goes.
    @Suite struct ArbiterSignals {
        @Test("TTIN adds a worker, TTOU lets one finish and go, never the last one")
        func count() throws {
            try withTProxy { proxy in
                let first = try proxy.workers(1)[0]
                proxy.process.signal(SIGTTIN)
                try proxy.process.line(with: "worker 2")
                proxy.process.signal(SIGTTIN)
                try proxy.process.line(with: "worker 3")
                let three = try proxy.workers(3)
                #expect(three.contains(first))

                // The oldest one goes, and what it has open is finished first.
                let origin = try Origin()
                kill(three[1], SIGSTOP)
                kill(three[2], SIGSTOP)
                let (client, server) = try relayed(proxy, origin)
                kill(three[1], SIGCONT)
                kill(three[2], SIGCONT)
                proxy.process.signal(SIGTTOU)
                try proxy.process.line(with: "2 workers from now on", count: 2)
                #expect(try proxy.answer() == "served")
                try client.send("late")
                try server.expect("late")
                #expect(Proc.isAlive(first))
                client.end()
                server.end()
                #expect(try client.ending() == .end)
                #expect(try proxy.workers(2) == Array(three.dropFirst()))

                proxy.process.signal(SIGTTOU)
                #expect(try proxy.workers(1) == [three[2]])
                proxy.process.signal(SIGTTOU)
                try proxy.process.line(with: "it stays so")
                #expect(try proxy.answer() == "served")
                #expect(try proxy.workers(1) == [three[2]])
            }
        }

        @Test("INT in the moment in which other workers become ready ends them, too")
        func early() throws {
            for _ in 0..<10 {
                // It is ready with its first worker.
                let proxy = try TProxy(["-w", "3"])
                let time = try seconds { () throws in #expect(try proxy.stop(SIGINT) == 0) }
                #expect(time < 5, "\(time)")
            }
        }

        @Test("20 TTIN and TTOU under load fail nobody")
        func storm() throws {
            try withTProxy { proxy in
                for round in 0..<20 {
                    proxy.process.signal(round % 2 == 0 ? SIGTTIN : SIGTTOU)
                    for _ in 0..<10 { try #require(try proxy.answer() == "served") }
                }
            }
        }

        @Test("USR1 opens the log and the access log again, in every process")
        func logs() throws {
            let folder = Folder()
            let (log, lines) = (folder.path + "/log", folder.path + "/access")
            func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
            let process = try Subprocess([
                Repository.binary, "--router", Repository.python("told.py"), "-b", "127.0.0.1:0", "--log-file", log,
                "--access-log", lines,
            ])
            try Deadline(in: patience).until("ready") { text(log).contains("ready: 1 worker") }
            let port = try #require(text(log).firstMatch(of: /listening on 127.0.0.1:(\d+)/).flatMap { UInt16($0.1) })
            for path in [log, lines] { #expect(rename(path, path + ".1") == 0) }
            process.signal(SIGUSR1)
            try Deadline(in: patience).until("both logs") { access(log, F_OK) == 0 && access(lines, F_OK) == 0 }
            let client = try Peer(port: port)
            try client.send(#"{"answer": {"close": "x"}}"# + "\n")
            #expect(try client.text() == "x")
            try Deadline(in: patience).until("an access line") { text(lines).contains(" reason=") }
            process.signal(SIGTERM)
            #expect(try process.end() == 0)
            #expect(text(log).contains("stopped"))
            #expect(!text(log + ".1").contains("stopped"))
        }

        @Test("WINCH means nothing in the foreground: a terminal sends it whenever its window changes")
        func window() throws {
            try withTProxy(["--log-level", "debug"]) { proxy in
                let workers = proxy.workers
                proxy.process.signal(SIGWINCH)
                try proxy.process.line(with: "WINCH is for daemons")
                #expect(try proxy.answer() == "served")
                #expect(proxy.workers == workers)
            }
        }

        @Test("HUP to the arbiter, its workers and their routers at once harms nobody")
        func everybody() throws {
            try withTProxy(["-w", "2"]) { proxy in
                // Both serve: a router that is killed before it has answered hello is a failed start.
                try proxy.process.wait(for: "both workers") { lines in
                    lines.contains { $0.contains(/worker \d .*is ready/) } ? true : nil
                }
                let workers = try proxy.workers(2)
                let origin = try Origin()
                let (client, server) = try relayed(proxy, origin)
                for round in 1...3 {
                    let everybody = [proxy.process.pid] + workers + workers.flatMap { proxy.routers(of: $0) }
                    let waiting = try (0..<4).map { try proxy.client(#"{"answer": {"close": "\#(round).\#($0)"}}"#) }
                    for pid in everybody { kill(pid, SIGHUP) }
                    for (number, one) in waiting.enumerated() { #expect(try one.text() == "\(round).\(number)") }
                    try proxy.process.line(with: "reloaded:", count: round)
                }
                try client.send("still there")
                try server.expect("still there")
                #expect(proxy.workers == workers)
            }
        }
    }
}
