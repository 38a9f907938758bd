import Foundation
import Glibc
import Testing

/// One new connection after the other, on some threads, each asking the router which worker it is at.
private final class Visits: @unchecked Sendable {
    /// One of them, in seconds of the monotonic clock.
    struct Visit {
        var begin: Double
        var end: Double
        /// The worker's number and the connection's in it, or what went wrong.
        var answer: Result<(worker: Substring, number: Int), Failure>
    }

    private let lock = NSLock()
    private var gathered: [Visit] = []
    private var isOver = false
    private let threads = DispatchGroup()

    init(port: UInt16, threads count: Int) {
        for _ in 0..<count {
            threads.enter()
            let thread = Thread { [self] in
                while !lock.withLock({ isOver }) {
                    let visit = Self.visit(port)
                    lock.withLock { gathered.append(visit) }
                }
                threads.leave()
            }
            thread.start()
        }
    }

    static var now: Double { Double(DispatchTime.now().uptimeNanoseconds) / 1e9 }

    private static func visit(_ port: UInt16) -> Visit {
        let begin = now
        do {
            let client = try Peer(port: port)
            try client.send(#"{"report": true}"# + "\n")
            let text = try client.text()
            guard let id = text.firstMatch(of: /"connection": ?"([^".]+)\.(\d+)"/), let number = Int(id.2) else {
                throw Failure("answered with \(text.debugDescription)")
            }
            return Visit(begin: begin, end: now, answer: .success((id.1, number)))
        } catch {
            return Visit(begin: begin, end: now, answer: .failure(error as? Failure ?? Failure("\(error)")))
        }
    }

    /// Those so far.
    var all: [Visit] { lock.withLock { gathered } }

    /// No more of them.
    func finish() -> [Visit] {
        lock.withLock { isOver = true }
        threads.wait()
        return all
    }
}

extension IntegrationTests {
    /// Workers that are killed without a warning.
    @Suite struct Kills {
        @Test(
            "kill -9 of one of two workers loses its connections alone, and another is accepting in its place within a second",
            .timeLimit(.minutes(1)))
        func killed() throws {
            let origin = try Origin.echo()
            let proxy = try TProxy(["-w", "2"])
            // Long ones, until each worker has some.
            var open: [(client: Peer, worker: pid_t)] = []
            while open.count < 20 || Set(open.map(\.worker)).count < 2 {
                guard open.count < 200 else { throw Failure("200 connections, and one worker has them all") }
                let client = try proxy.client(
                    #"{"answer": {"remote": "\#(origin.address)"}, "rest": true, "worker": true}"#, "hello")
                var pid = ""
                while !pid.hasSuffix("\n") { pid += String(decoding: try client.receive(1), as: UTF8.self) }
                try client.expect("hello")
                open.append((client, try #require(pid_t(pid.dropLast()))))
            }
            let before = Set(proxy.workers)
            let visits = Visits(port: proxy.port, threads: 4)
            try Deadline(in: patience).until("steady visits") { visits.all.count > 200 }

            let victim = open[0].worker
            let kill = Visits.now
            Glibc.kill(victim, SIGKILL)
            try Deadline(in: patience).until("its death") { !Proc.isAlive(victim) }
            let death = Visits.now
            // A worker's number is never used again.
            let old = Set(visits.all.filter { $0.begin < kill }.compactMap { try? $0.answer.get().worker })
            try Deadline(in: patience).until("a connection at another worker") {
                visits.all.contains { visit in (try? visit.answer.get()).map { !old.contains($0.worker) } ?? false }
            }
            let successor = try #require(proxy.workers.first { !before.contains($0) })
            #expect(Set(proxy.workers) == before.subtracting([victim]).union([successor]))
            let all = visits.finish().sorted { $0.end < $1.end }

            // Of the new connections those were lost that were at the victim by then; nobody was refused.
            var lost = 0
            for visit in all {
                if case .failure(let failure) = visit.answer {
                    lost += 1
                    #expect(
                        visit.begin <= death, "a connection of \(visit.begin - death) s after the death: \(failure)")
                    #expect(!failure.description.contains("connect"), "\(failure)")
                }
            }
            #expect(lost <= 4, "one for each thread")
            let answered = all.filter { (try? $0.answer.get()) != nil && $0.begin > kill }
            let anywhere = try #require(answered.first).end - kill
            let inItsPlace =
                try #require(answered.first { visit in (try? !old.contains(visit.answer.get().worker)) ?? false }).end
                - kill
            func milliseconds(_ seconds: Double) -> String { String(format: "%.0f ms", seconds * 1000) }
            print(
                "kill -9 of a worker: \(lost) of \(all.count) new connections lost; the next one was answered after "
                    + "\(milliseconds(anywhere)), and one by the worker in its place after \(milliseconds(inItsPlace))")
            #expect(inItsPlace < 1)

            // Of the long ones, exactly the victim's.
            for (client, worker) in open {
                if worker == victim {
                    #expect(try client.drain().ending != .stillOpen)
                } else {
                    try client.send("still")
                    try client.expect("still")
                }
            }
            open = []
            #expect(try proxy.stop() == 0)
        }
    }
}
