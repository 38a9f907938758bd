import Foundation
import Glibc
import Linux
import Reactor
import Testing

extension IntegrationTests {
    /// How much one worker carries, and how little it takes when there is nothing to do.
    @Suite struct Capacity {
        @Test("9,000 connections at once on one worker, none lost")
        func manyConnections() throws {
            // Two descriptors each here as in the worker. Where the machine allows fewer, as many as it allows.
            let allowed = try raiseDescriptorLimit()
            let count = min(9000, (allowed - 1000) / 2)
            try #require(count > 100, "too few descriptors are allowed here: \(allowed)")
            // To a file: a burst of thousands of lines may be more than a pipe's reader can follow.
            let folder = Folder()
            let log = try folder.file("access")
            let proxy = try TProxy([
                "--worker-connections", "9500", "--verdict-timeout", "120", "--access-log", log,
            ])
            let worker = try proxy.worker()
            let resident = try Proc.kilobytes(worker, "VmRSS")
            let origin = try CrowdOrigin()
            let order = #"{"answer": {"remote": "\#(origin.address)"}, "rest": true}"# + "\n"
            var clients: [Peer] = []
            clients.reserveCapacity(count)
            for number in 0..<count {
                let client = try proxy.client()
                try client.send(order + "\(number);")
                clients.append(client)
                // A step behind, so that neither the accept queue nor the router's is ever what is measured.
                if number >= 100 { try clients[number - 100].expect("\(number - 100);", within: 60) }
            }
            for (number, client) in clients.enumerated().suffix(min(100, count)) {
                try client.expect("\(number);", within: 60)
            }
            #expect(origin.count == count)
            // All of them are there, and all of them still work.
            for (number, client) in clients.enumerated() { try client.send("again \(number);") }
            for (number, client) in clients.enumerated() { try client.expect("again \(number);", within: 60) }
            // An idle connection holds no buffer: about a kilobyte each, the allocator's slack included.
            let grown = try Proc.kilobytes(worker, "VmRSS") - resident
            #expect(grown < 3 * count, "\(grown) kB for \(count) connections")
            for client in clients { client.end() }
            for client in clients { #expect(try client.ending(within: 60) == .end) }
            #expect(try proxy.stop() == 0)
            let lines = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
            #expect(lines.count == count && lines.allSatisfy { $0.contains(" reason=done") })
        }

        @Test("without connections a worker and the arbiter use no CPU and less than 15 MiB each")
        func idle() throws {
            try withTProxy(["-w", "2"]) { proxy in
                try proxy.process.line(with: "router 1 is ready", count: 2)
                let processes = [proxy.process.pid] + proxy.workers
                let quiet = try proxy.client()
                let before = try processes.map(Proc.ticks)
                #expect(try quiet.drain(within: 3).ending == .stillOpen)
                let used = zip(try processes.map(Proc.ticks), before).map { $0 - $1 }
                // Heartbeats cost a few microseconds a second: no tick in three seconds, or by chance one.
                #expect(used.allSatisfy { $0 <= 1 }, "\(used) ticks")
                if Repository.binary.contains("release") {
                    for process in processes {
                        let resident = try Proc.kilobytes(process, "VmRSS")
                        #expect(resident < 15 * 1024, "\(resident) kB")
                    }
                }
            }
        }

        @Test("after many connections nothing has grown")
        func nothingGrows() throws {
            try withTProxy { proxy in
                let origin = try Origin.echo()
                let worker = try proxy.worker()
                func round() throws {
                    for number in 0..<300 {
                        let order =
                            number % 3 == 0
                            ? #"{"answer": {"close": "bye"}}"#
                            : #"{"answer": {"remote": "\#(origin.address)"}, "rest": true}"#
                        let client = try proxy.client(order, "hello")
                        if number % 5 == 0 {
                            client.reset()
                        } else {
                            client.end()
                            _ = try client.drain()
                        }
                    }
                }
                try round()
                try Deadline(in: patience).until("quiet") { try proxy.accesses(300).count == 300 }
                let (descriptors, resident) = (try Proc.descriptors(worker).count, try Proc.kilobytes(worker, "VmRSS"))
                for _ in 0..<3 { try round() }
                _ = try proxy.accesses(1200)
                try Deadline(in: patience).until("all closed") { try Proc.descriptors(worker).count <= descriptors }
                #expect(try Proc.kilobytes(worker, "VmRSS") - resident < 1024)
            }
        }

        @Test("long connections that come one by one are spread over the workers, each within a quarter of the mean")
        func spread() throws {
            try withTProxy(["-w", "4"]) { proxy in
                try proxy.process.line(with: "router 1 is ready", count: 4)
                let origin = try CrowdOrigin()
                let order = #"{"answer": {"remote": "\#(origin.address)"}, "rest": true}"# + "\n"
                var clients: [Peer] = []
                for number in 0..<400 {
                    let client = try proxy.client()
                    try client.send(order + "\(number);")
                    try client.expect("\(number);")
                    clients.append(client)
                }
                for client in clients { client.end() }
                for client in clients { #expect(try client.ending() == .end) }
                let ids = try proxy.accesses(400).map { $0["id"] }
                let share = Dictionary(grouping: ids) { $0.prefix { $0 != "." } }.mapValues(\.count)
                #expect(share.count == 4 && share.values.allSatisfy { (75...125).contains($0) }, "\(share)")
                #expect(Set(ids).count == 400)
            }
        }
    }
}

/// Raises the soft limit of descriptors of the tests themselves to the hard one; what it is then.
private func raiseDescriptorLimit() throws -> Int {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { throw Failure("getrlimit") }
    limit.rlim_cur = limit.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    return Int(clamping: limit.rlim_max)
}

/// An origin that echoes for thousands on one thread.
private final class CrowdOrigin: @unchecked Sendable {
    let address: String
    private let lock = NSLock()
    private var accepted = 0
    private let stop: [Int32]

    var count: Int { lock.withLock { accepted } }

    init() throws {
        let listener = try Origin()
        address = listener.address
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw Failure("pipe") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        stop = ends
        let thread = Thread { [weak self, stopped = ends[0]] in
            Self.serve(listener, stopped) { self?.lock.withLock { self?.accepted += 1 } }
            close(stopped)
        }
        thread.start()
    }

    deinit { close(stop[1]) }

    /// By epoll: poll(2) looks at all of them for each byte, which took longer than all the rest.
    private static func serve(_ listener: Origin, _ stopped: Int32, _ note: () -> Void) {
        var peers: [Int32: Peer] = [:]
        guard var poller = try? Poller() else { return }
        func watch(_ raw: Int32, _ poller: borrowing Poller) {
            try? poller.add(raw, .readable, Token(bits: UInt64(raw)))
        }
        watch(stopped, poller)
        watch(listener.raw, poller)
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = (try? poller.wait(timeoutMilliseconds: -1)) ?? 0
            for index in 0..<count {
                let raw = Int32(truncatingIfNeeded: poller.event(index).token.bits)
                if raw == stopped { return }
                if raw == listener.raw {
                    guard let peer = try? listener.accept(within: 0) else { continue }
                    peers[peer.raw] = peer
                    watch(peer.raw, poller)
                    note()
                } else {
                    let count = recv(raw, &buffer, buffer.count, 0)
                    if count > 0 { try? peers[raw]?.send(Array(buffer[..<count])) } else { peers[raw] = nil }
                }
            }
        }
    }
}
