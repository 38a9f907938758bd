import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// What clients do wrong: each has its end, its reason in the access log, and hurts nobody else.
    @Suite struct ClientFaults {
        @Test("a client that drips bytes is closed when its time for a verdict is up")
        func drip() throws {
            try withTProxy(["--verdict-timeout", "0.6"]) { proxy in
                let client = try proxy.client()
                let time = try seconds { () throws in
                    var ending = Ending.stillOpen
                    while ending == .stillOpen {
                        try? client.send("x")
                        ending = try client.drain(within: 0.1).ending
                    }
                    #expect(ending == .end)
                }
                #expect(time > 0.4 && time < 5, "\(time)")
                #expect(try proxy.access(client)["reason"] == "verdict_timeout")
            }
        }

        @Test("a client that says nothing is closed by the same deadline, and nobody is asked")
        func silent() throws {
            let folder = Folder()
            let log = try folder.file("questions")
            try withTProxy(["--verdict-timeout", "0.3"], environment: ["TOLD_LOG": log]) { proxy in
                let client = try proxy.client()
                #expect(try client.ending() == .end)
                let access = try proxy.access(client)
                #expect(access["reason"] == "verdict_timeout" && access["verdict"] == "none", "\(access)")
                #expect(access["verdict_ms"] == "-" && access["remote"] == "-", "\(access)")
                let questions = try String(contentsOfFile: log, encoding: .utf8)
                #expect(!questions.contains("\"proxy\""))
            }
        }

        @Test("ten megabytes before a verdict are not taken: the router sees the limit, then it ends")
        func tooMuch() throws {
            let folder = Folder()
            let log = try folder.file("questions")
            try withTProxy(["--max-initial-bytes", "10000"], environment: ["TOLD_LOG": log]) { proxy in
                let client = try proxy.client()
                let port = client.localPort
                let sent = client.pour(atMost: 10_000_000, untilStuckFor: 0.3)
                _ = try client.drain()
                #expect(try proxy.access(port: port)["reason"] == "undecided")
                let lines = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
                #expect((lines.map(\.utf8.count).max() ?? 0) < 11_000, "\(sent) sent")
                try proxy.process.line(with: "max-initial-bytes")
            }
        }

        @Test("a client that leaves without a word, or undecided, is over at once")
        func leaves() throws {
            try withTProxy { proxy in
                let client = try proxy.client()
                client.end()
                #expect(try client.ending() == .end)
                #expect(try proxy.access(client)["reason"] == "client_left")
                let undecided = try proxy.client()
                try undecided.send("half a line")
                undecided.end()
                #expect(try undecided.ending() == .end)
                #expect(try proxy.access(undecided)["reason"] == "undecided")
            }
        }

        @Test("a client that resets while its question is open is gone at once, and the late answer is dropped")
        func resetsWhileAsked() throws {
            let folder = Folder()
            let log = try folder.file("questions")
            try withTProxy(environment: ["TOLD_LOG": log]) { proxy in
                let client = try proxy.client(#"{"do": "hang"}"#)
                try Deadline(in: patience).until("the question") {
                    try String(contentsOfFile: log, encoding: .utf8).contains("hang")
                }
                let port = client.localPort
                let time = try seconds { () throws in
                    client.reset()
                    #expect(try proxy.access(port: port)["reason"] == "client_reset")
                }
                #expect(time < 1)
                try Deadline(in: patience).until("the cancel") {
                    try String(contentsOfFile: log, encoding: .utf8).contains(#""method":"cancel""#)
                }
                // It says whose question it was, though that connection is gone.
                let text = try String(contentsOfFile: log, encoding: .utf8)
                let id = try proxy.access(port: port)["id"]
                let cancel = text.split(separator: "\n").first { $0.contains(#""method":"cancel""#) }
                #expect(try #require(cancel).contains(#""connection":"\#(id)""#), "\(text)")
            }
        }

        @Test("a client that resets while connecting or relaying frees the remote within a second")
        func resetsLater() throws {
            try withTProxy { proxy in
                let full = try FullOrigin()
                let client = try proxy.client(#"{"answer": {"remote": "\#(full.origin.address)"}}"#)
                try Deadline(in: patience).until("connecting") { try proxy.isConnecting(to: full.origin.port) }
                let port = client.localPort
                client.reset()
                #expect(try proxy.access(port: port, within: 2)["reason"] == "client_reset")
                let origin = try Origin()
                let (second, server) = try relayed(proxy, origin)
                let time = try seconds { () throws in
                    second.reset()
                    #expect(try server.ending() == .reset)
                }
                #expect(time < 1)
            }
        }

        @Test("clients that reset before they are accepted cost nothing and log nothing")
        func resetsInTheQueue() throws {
            try withTProxy { proxy in
                let worker = try proxy.worker()
                kill(worker, SIGSTOP)
                defer { kill(worker, SIGCONT) }
                try Deadline(in: patience).until("its stop") { Proc.stat(worker)?.first == "T" }
                for number in 0..<100 {
                    let client = try proxy.client()
                    // With and without a word.
                    if number % 2 == 0 { try client.send("?") }
                    client.reset()
                }
                let client = try proxy.client(#"{"answer": {"close": "served"}}"#)
                kill(worker, SIGCONT)
                #expect(try client.text() == "served")
                client.end()
                #expect(try proxy.accesses(101).count { $0["reason"] == "client_reset" } == 100)
                #expect(proxy.process.lines.count { $0.contains("[error]") || $0.contains("[warning]") } == 0)
            }
        }

        @Test(
            "a client that is lost while it is accepted is no reason to pause, nor for a line in the log",
            .enabled(if: Faults.areInjectable, "strace is missing or may trace nobody"))
        func abortedInTheQueue() throws {
            let faults = Faults(of: "accept4", "ECONNABORTED", count: 4)
            try withTProxy(prefix: faults.prefix) { proxy in
                let client = try proxy.client(#"{"answer": {"close": "served"}}"#)
                #expect(try client.text() == "served")
                #expect(try faults.injected() == 4)
                #expect(proxy.process.lines.count { $0.contains("[error]") || $0.contains("[warning]") } == 0)
            }
        }

        @Test("what a client sends is escaped and cut in the log, and cannot forge a line")
        func logInjection() throws {
            try withTProxy { proxy in
                let client = try proxy.client(
                    #"{"answer": {"close": true, "note": "x\n1970 id=9 reason=forged \u001b[31m\u0007"}}"#)
                #expect(try client.text() == "")
                let access = try proxy.access(client)
                #expect(access.description.contains(#"note="x\n1970 id=9 reason=forged \x1b[31m\x07""#), "\(access)")
                let bad = try proxy.client(
                    #"{"answer": {"evil\nkey\u001b[2J\#(String(repeating: "k", count: 20_000))": 1}}"#)
                #expect(try bad.text() == "")
                let text = proxy.process.text
                #expect(!text.contains("\u{1b}") && !text.contains("\u{7}"))
                #expect(proxy.process.lines.allSatisfy { $0.utf8.count <= 8192 })
            }
        }

        @Test("a client that does not leave once it is answered is let go after some silence, and at once if it pours")
        func staysOn() throws {
            try withTProxy { proxy in
                let silent = try proxy.client(#"{"answer": {"close": "served"}}"#)
                let time = try seconds { () throws in
                    #expect(try silent.text() == "served")
                    let pouring = try proxy.client(#"{"answer": {"close": "served"}}"#)
                    #expect(try pouring.text() == "served")
                    let sent = pouring.pour(atMost: 1 << 28, untilStuckFor: 1)
                    #expect(sent > 1 << 24 && sent < 1 << 26, "\(sent)")
                    #expect(try proxy.access(port: pouring.localPort)["reason"] == "closed")
                    // Its own side is still open.
                    #expect(try proxy.access(port: silent.localPort)["reason"] == "closed")
                }
                #expect(time > 1.5 && time < 6, "\(time)")
            }
        }

        @Test("at the limit of connections a worker stops accepting, and goes on when one ends")
        func connectionLimit() throws {
            try withTProxy(["--worker-connections", "5"]) { proxy in
                let five = try (0..<5).map { _ in try proxy.client() }
                let sixth = try proxy.client(#"{"answer": {"close": "served"}}"#)
                #expect(try sixth.drain(within: 0.5).ending == .stillOpen)
                five[2].close()
                #expect(try sixth.text() == "served")
            }
        }

        @Test("at the limit of descriptors nothing spins, those that are served stay, and it recovers")
        func descriptorLimit() throws {
            let limited = "ulimit -n 600; exec \"$@\""
            let proxy = try TProxy(["--worker-connections", "1000"], prefix: ["sh", "-c", limited, "sh"])
            // Less than asked for, and the log says so.
            #expect(proxy.process.lines.contains { $0.contains("worker-connections") && $0.contains("600") })
            let origin = try Origin.echo()
            let worker = try proxy.worker()
            let first = try proxy.client(#"{"answer": {"remote": "\#(origin.address)"}, "rest": true}"#)
            try first.send("ping")
            try first.expect("ping")
            var crowd: [Peer] = []
            for _ in 0..<600 { crowd.append(try proxy.client()) }
            let before = try Proc.ticks(worker)
            let time = try seconds { () throws in
                // While nothing happens, for a second and a half.
                #expect(try first.drain(within: 1.5).ending == .stillOpen)
            }
            let used = try Double(Proc.ticks(worker) - before) / 100
            #expect(used < 0.3 * time, "\(used) s of CPU in \(time) s")
            try first.send("pong")
            try first.expect("pong")
            crowd.removeAll()
            let late = try proxy.client(#"{"answer": {"close": "served"}}"#)
            #expect(try late.text() == "served")
            proxy.process.signal(SIGINT)
            try proxy.stop()
        }

        @Test(
            "when the system has no room accepting pauses before each further try, says so once a second, and goes on",
            .enabled(if: Faults.areInjectable, "strace is missing or may trace nobody"),
            arguments: [
                ("ENFILE", "Too many open files in system"), ("ENOBUFS", "No buffer space available"),
                ("ENOMEM", "Cannot allocate memory"),
            ])
        func systemLimit(error: String, words: String) throws {
            let faults = Faults(of: "accept4", error, count: 4)
            try withTProxy(prefix: faults.prefix) { proxy in
                let time = try seconds { () throws in
                    let client = try proxy.client(#"{"answer": {"close": "served"}}"#)
                    #expect(try client.text() == "served")
                }
                // Four pauses of 100 ms: tries without them would be over at once.
                #expect(time > 0.35 && time < 5, "\(time)")
                #expect(try faults.injected() == 4)
                let complaints = proxy.process.lines.filter { $0.contains("cannot accept on") }
                #expect((1...3).contains(complaints.count), "\(complaints)")
                #expect(complaints.allSatisfy { $0.contains(words) }, "\(complaints)")
            }
        }
    }
}

/// A system call that fails for the first times that a process makes it, by strace. It starts the program itself, and stays
/// beside it: whom one has not started one may not trace everywhere.
private struct Faults {
    private static let strace = ["strace", "-D", "-f", "--seccomp-bpf", "-qq"]
    private let folder = Folder()
    private let call: String
    private var log: String { "\(folder.path)/calls" }
    /// What comes before the program's path.
    let prefix: [String]

    init(of call: String, _ error: String, count: Int) {
        self.call = call
        prefix =
            Self.strace + [
                "-o", "\(folder.path)/calls", "-e", "trace=\(call)", "-e",
                "inject=\(call):error=\(error):when=1..\(count)",
            ]
    }

    /// How often it has failed so far.
    func injected() throws -> Int {
        try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
            .count { $0.contains("\(call)(") && $0.contains("(INJECTED)") }
    }

    static let areInjectable = (try? Subprocess.run(strace + ["-o", "/dev/null", "true"]))?.status == 0
}

/// A listener whose queue is full: the kernel drops whoever connects, as an address does that does not answer.
final class FullOrigin {
    let origin: Origin
    private var visitors: [Int32] = []

    init() throws {
        origin = try Origin(backlog: 0)
        // The queue takes one more than its length; then connecting waits.
        while true {
            let raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            _ = fcntl(raw, F_SETFL, O_NONBLOCK)
            visitors.append(raw)
            let result = withAddress(port: origin.port) { connect(raw, $0, $1) }
            guard result == 0 || errno == EINPROGRESS, visitors.count < 64 else { throw Failure("connect") }
            if result != 0, !Deadline(in: 0.1).wait(for: raw, POLLOUT) { return }
        }
    }

    deinit { for raw in visitors { close(raw) } }
}

extension TProxy {
    /// Whether a worker has a connection to this port of 127.0.0.1 under way (state SYN_SENT in /proc/net/tcp).
    func isConnecting(to port: UInt16) throws -> Bool {
        let digits = String(port, radix: 16, uppercase: true)
        let remote = "0100007F:" + String(repeating: "0", count: 4 - digits.count) + digits
        let own = try Set(workers.flatMap { try Proc.descriptors($0).values }.filter { $0.hasPrefix("socket:[") })
        return try Proc.text("net/tcp").split(separator: "\n").contains { line in
            let fields = line.split(separator: " ")
            return fields.count > 9 && fields[2] == remote && fields[3] == "02" && own.contains("socket:[\(fields[9])]")
        }
    }
}
