// The program under test: started on a free port, ready when it says so, its access log read line by line.

import Control
import Foundation
import Glibc
import Linux
import Testing

/// Paths of this repository and of the program under test.
enum Repository {
    static let root = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .path(percentEncoded: false)

    /// TPROXY_BINARY; else whichever build is newer.
    static let binary: String = {
        if let path = ProcessInfo.processInfo.environment["TPROXY_BINARY"], !path.isEmpty { return path }
        let built = [".build/release/tproxy", ".build/debug/tproxy"].map { root + $0 }
        func date(_ path: String) -> Date {
            let attributes = try? FileManager.default.attributesOfItem(
                atPath: (path as NSString).resolvingSymlinksInPath)
            return attributes?[.modificationDate] as? Date ?? .distantPast
        }
        return built.max { date($0) < date($1) } ?? built[1]
    }()

    static func router(_ name: String) -> String { root + "Tests/IntegrationTests/Routers/" + name }
    /// The command of a test's router in Python; `-S` starts it faster.
    static func python(_ name: String) -> String { "python3 -S '\(router(name))'" }
    static func helper(_ name: String) -> String { root + "Tests/IntegrationTests/Helpers/" + name }
    static func example(_ name: String) -> String { root + "routers/python/examples/" + name }
}

/// A folder of a test's own, gone with it.
final class Folder: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/tproxy-test-XXXXXX".utf8CString)
        mkdtemp(&template)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        chmod(path, 0o755)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String, _ text: String = "") throws -> String {
        try text.write(toFile: "\(path)/\(name)", atomically: false, encoding: .utf8)
        return "\(path)/\(name)"
    }
}

/// A running tproxy.
final class TProxy: Sendable {
    let process: Subprocess
    /// The port of the first listener on an IP address.
    let port: UInt16

    /// Starts tproxy with the told router, or with the arguments given, on a free port unless they say where.
    init(
        _ options: [String] = [], router: String? = nil, script: [String] = [], environment: [String: String] = [:],
        prefix: [String] = [], binary: String = Repository.binary
    ) throws {
        let routing = script.isEmpty ? ["--router", router ?? Repository.python("told.py")] : script
        let bind = options.contains("-b") ? [] : ["-b", "127.0.0.1:0"]
        process = try Subprocess(
            prefix + [binary] + routing + bind + ["--access-log", "-"] + options, environment: environment)
        // The arbiter's word: its router's comes a moment before, and a worker that is stopped by then has never been ready.
        try process.wait(for: "ready") { lines in lines.contains { $0.contains(/\bready: \d+ worker/) } ? true : nil }
        port = Self.ports(process.lines).first ?? 0
    }

    private static func ports(_ lines: [String]) -> [UInt16] {
        lines.compactMap { $0.firstMatch(of: /listening on \S*:(\d+)\b/) }.compactMap { UInt16($0.1) }
    }

    /// The ports of all listeners on IP addresses, in the order of `-b`.
    var ports: [UInt16] { Self.ports(process.lines) }

    /// A new client.
    func client(receiveBuffer: Int32? = nil) throws -> Peer { try Peer(port: port, receiveBuffer: receiveBuffer) }

    /// A client that has told the router what to answer: a JSON object for told.py, and what follows it.
    func client(_ order: String, _ rest: String = "") throws -> Peer {
        let client = try client()
        try client.send(order + "\n" + rest)
        return client
    }

    /// The sum of a field over all workers: the scoreboard is the arbiter's memory, which whoever may debug it can map.
    func sum(_ field: Field) throws -> UInt64 {
        let pid = process.pid
        let number = try #require(
            try Proc.descriptors(pid).first { $0.value.hasPrefix("/memfd:tproxy-scoreboard") }?.key)
        let raw = open("/proc/\(pid)/fd/\(number)", O_RDWR | O_CLOEXEC)
        try #require(raw >= 0)
        let board = try Scoreboard(mapping: Descriptor(owning: raw))
        return (0..<board.count).reduce(0) { $0 + (board.slot($1)?[field] ?? 0) }
    }

    // MARK: The access log

    /// A line of the access log as its fields.
    struct Access: CustomStringConvertible {
        var fields: [String: String]
        var description: String

        init?(_ line: String) {
            guard line.contains(" id="), line.contains(" reason=") else { return nil }
            description = line
            fields = [:]
            for match in line.matches(of: /([a-z_]+)=("(?:[^"\\]|\\.)*"|\S*)/) {
                fields[String(match.1)] = String(match.2)
            }
        }

        subscript(name: String) -> String { fields[name] ?? "(absent)" }
        func number(_ name: String) -> Double { Double(self[name]) ?? -1 }
    }

    /// The access line of a client, once its connection has ended; its own side ends now, so that nobody lingers for it.
    @discardableResult
    func access(_ client: Peer, within time: Double = patience) throws -> Access {
        client.end()
        return try access(port: client.localPort, within: time)
    }

    @discardableResult
    func access(port: UInt16, within time: Double = patience) throws -> Access {
        try process.wait(for: "access line of port \(port)", within: time) { lines in
            lines.lazy.compactMap { Access($0) }.first { $0["client"] == "127.0.0.1:\(port)" }
        }
    }

    /// All access lines, once there are so many.
    func accesses(_ count: Int, within time: Double = patience) throws -> [Access] {
        try process.wait(for: "\(count) access lines", within: time) { lines in
            let all = lines.compactMap { Access($0) }
            return all.count >= count ? all : nil
        }
    }

    // MARK: Its processes

    /// The workers, once there is one that has a router.
    var workers: [pid_t] { Proc.children(of: process.pid) }

    func worker() throws -> pid_t {
        var found: pid_t?
        try Deadline(in: patience).until("a worker") {
            found = workers.first
            return found != nil
        }
        return found ?? 0
    }

    func routers(of worker: pid_t) -> [pid_t] { Proc.children(of: worker) }

    /// Ends it and everybody it started; the status.
    @discardableResult
    func stop(_ signal: Int32 = SIGTERM, within time: Double = patience) throws -> Int32 {
        process.signal(signal)
        return try process.end(within: time)
    }
}

/// Starts tproxy for a test; when the test throws, what tproxy said is part of the report.
func withTProxy(
    _ options: [String] = [], router: String? = nil, script: [String] = [], environment: [String: String] = [:],
    prefix: [String] = [], _ body: (TProxy) throws -> Void
) throws {
    let proxy = try TProxy(options, router: router, script: script, environment: environment, prefix: prefix)
    do {
        try body(proxy)
    } catch {
        Issue.record("tproxy said:\n\(proxy.process.lines.suffix(60).joined(separator: "\n"))")
        throw error
    }
    // Every connection of the test is over by now, or is ended here; nobody may have died on the way.
    if Proc.isAlive(proxy.process.pid) {
        // Two that are not one when both wait.
        proxy.process.signal(SIGTERM)
        proxy.process.signal(SIGINT)
    }
    let status = try proxy.process.end()
    if status != 0 { Issue.record("status \(status); tproxy said:\n\(proxy.process.text)") }
    let deaths = proxy.process.lines.filter {
        $0.contains(/worker.* died|SIGILL|SIGSEGV|Fatal error/) && !$0.contains("told to end, died of SIGKILL")
    }
    if !deaths.isEmpty { Issue.record("a worker died:\n\(proxy.process.text)") }
}
