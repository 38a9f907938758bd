// A program started by a test. Its output is read on a thread, line by line, so that it never has to wait for the test;
// everybody who inherited that output is gone when it ends.

import Foundation
import Glibc

/// A running program, ended with the value that holds it.
final class Subprocess: @unchecked Sendable {
    let pid: pid_t
    private let news = NSCondition()
    private var gathered: [String] = []
    private var hasEnded = false
    private var status: Int32?

    /// Starts a program, searched in PATH, with standard input from /dev/null and both outputs gathered. Its directory is
    /// the test's; it leads a process group of its own.
    init(_ arguments: [String], environment: [String: String] = [:], closing: [Int32] = []) throws {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw Failure("pipe") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        posix_spawn_file_actions_adddup2(&actions, ends[1], 2)
        for raw in closing { posix_spawn_file_actions_addclose(&actions, raw) }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigdefault(&attributes, &all)
        // A crash is told by the log; the backtrace of a debug build takes longer than the tests wait.
        let whole = ProcessInfo.processInfo.environment
            .filter { !$0.key.hasPrefix("TPROXY_") }
            .merging(["SWIFT_BACKTRACE": "enable=no"]) { _, new in new }
            .merging(environment) { _, new in new }
        var started: pid_t = 0
        let argv = arguments.map { strdup($0) } + [nil]
        let envp = whole.map { strdup("\($0.key)=\($0.value)") } + [nil]
        let result = posix_spawnp(&started, arguments[0], &actions, &attributes, argv, envp)
        for text in argv + envp { free(text) }
        close(ends[1])
        guard result == 0 else {
            close(ends[0])
            throw Failure("\(arguments[0]): \(String(cString: strerror(result)))")
        }
        pid = started
        let reader = Thread { [weak self, output = ends[0]] in
            var rest: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 65_536)
            while true {
                let count = read(output, &buffer, buffer.count)
                if count < 0 && errno == EINTR { continue }
                if count <= 0 { break }
                rest += buffer[..<count]
                var lines: [String] = []
                while let end = rest.firstIndex(of: 10) {
                    lines.append(String(decoding: rest[..<end], as: UTF8.self))
                    rest.removeSubrange(...end)
                }
                self?.tell { $0.gathered += lines }
            }
            self?.tell {
                if !rest.isEmpty { $0.gathered.append(String(decoding: rest, as: UTF8.self)) }
                $0.hasEnded = true
            }
            close(output)
        }
        reader.start()
    }

    private func tell(_ change: (Subprocess) -> Void) {
        news.lock()
        change(self)
        news.broadcast()
        news.unlock()
    }

    deinit {
        if status == nil {
            kill(-pid, SIGKILL)
            kill(pid, SIGKILL)
            var ignored: Int32 = 0
            waitpid(pid, &ignored, 0)
        }
    }

    // MARK: Output

    /// All lines so far.
    var lines: [String] {
        news.lock()
        defer { news.unlock() }
        return gathered
    }

    var text: String { lines.joined(separator: "\n") }

    /// Waits until `find` finds something in the lines.
    @discardableResult
    func wait<Found>(
        for what: String, within time: Double = patience, _ find: ([String]) throws -> Found?
    ) throws -> Found {
        let deadline = Deadline(in: time)
        news.lock()
        defer { news.unlock() }
        while true {
            if let found = try find(gathered) { return found }
            if hasEnded { throw Failure("it ended without \(what):\n\(gathered.suffix(40).joined(separator: "\n"))") }
            if deadline.isOver { throw Failure("no \(what) in time:\n\(gathered.suffix(40).joined(separator: "\n"))") }
            _ = news.wait(until: deadline.date)
        }
    }

    /// The line that makes so many with this text in them.
    @discardableResult
    func line(with text: String, count: Int = 1, within time: Double = patience) throws -> String {
        try wait(for: "line with \(text.debugDescription)", within: time) { lines in
            let found = lines.filter { $0.contains(text) }
            return found.count >= count ? found[count - 1] : nil
        }
    }

    // MARK: The end

    func signal(_ number: Int32) { kill(pid, number) }

    /// Waits for the end of everybody who inherited the output, then for the program's status: its exit code, or 128 and
    /// the signal's number.
    @discardableResult
    func end(within time: Double = patience) throws -> Int32 {
        if let status { return status }
        let deadline = Deadline(in: time)
        news.lock()
        while !hasEnded && !deadline.isOver { _ = news.wait(until: deadline.date) }
        let ended = hasEnded
        news.unlock()
        guard ended else { throw Failure("it has not ended in time:\n\(lines.suffix(40).joined(separator: "\n"))") }
        var raw: Int32 = 0
        var result: pid_t = 0
        try deadline.until("its status") {
            result = waitpid(pid, &raw, WNOHANG)
            return result != 0
        }
        let code = raw & 0x7f == 0 ? raw >> 8 & 0xff : 128 + raw & 0x7f
        status = code
        return code
    }

    /// Runs a program to its end.
    static func run(
        _ arguments: [String], environment: [String: String] = [:], within time: Double = 60
    ) throws -> (status: Int32, text: String) {
        let process = try Subprocess(arguments, environment: environment)
        let status = try process.end(within: time)
        return (status, process.text)
    }
}

/// Whether a program is there to test with.
func has(_ program: String) -> Bool {
    (try? Subprocess.run(["sh", "-c", "command -v \(program)"]))?.status == 0
}

/// Whether there is a Node.js that our package for it works with.
let hasNode =
    (try? Subprocess.run(["node", "-e", "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)"]))?.status == 0

/// What /proc says of processes.
enum Proc {
    /// A whole file of /proc: Foundation trusts its size, which is 0, and reads one page.
    static func text(_ path: String) throws -> String {
        let raw = open("/proc/" + path, O_RDONLY | O_CLOEXEC)
        guard raw >= 0 else { throw Failure("/proc/\(path): \(String(cString: strerror(errno)))") }
        defer { close(raw) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(raw, &buffer, buffer.count)
            guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
            bytes += buffer[..<count]
        }
    }

    /// The fields of /proc/PID/stat behind the name, the state first.
    static func stat(_ pid: pid_t) -> [Substring]? {
        guard let text = try? text("\(pid)/stat"),
            let name = text.range(of: ") ", options: .backwards)
        else { return nil }
        return text[name.upperBound...].split(separator: " ")
    }

    /// Running children, in order of their pids.
    static func children(of parent: pid_t) -> [pid_t] {
        let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return all.compactMap { pid_t($0) }.filter { pid in
            guard let stat = stat(pid), stat.count > 1 else { return false }
            return stat[0] != "Z" && pid_t(stat[1]) == parent
        }.sorted()
    }

    static func isAlive(_ pid: pid_t) -> Bool { stat(pid).map { $0[0] != "Z" } ?? false }

    /// CPU used so far, in clock ticks (100 a second).
    static func ticks(_ pid: pid_t) throws -> Int {
        guard let stat = stat(pid), let user = Int(stat[11]), let system = Int(stat[12]) else {
            throw Failure("process \(pid) is gone")
        }
        return user + system
    }

    /// A line of /proc/PID/status in kB.
    static func kilobytes(_ pid: pid_t, _ name: String) throws -> Int {
        let text = try text("\(pid)/status")
        let line = text.split(separator: "\n").first { $0.hasPrefix(name + ":") }
        guard let value = line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap({ Int($0) }) else {
            throw Failure("no \(name) in /proc/\(pid)/status")
        }
        return value
    }

    /// What the descriptors are, by number.
    static func descriptors(_ pid: pid_t) throws -> [Int: String] {
        let folder = "/proc/\(pid)/fd"
        var result: [Int: String] = [:]
        for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
            guard let number = Int(name) else { continue }
            result[number] = (try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\(name)")) ?? "?"
        }
        return result
    }
}
