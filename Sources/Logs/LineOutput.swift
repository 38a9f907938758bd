// Where lines go: a file, a pipe, a terminal or a socket, written without ever waiting. What cannot be written is kept up
// to a bound, then counted and dropped; nobody who logs ever sees an error.

import Glibc
import Linux
public import SystemPackage

/// A bounded buffer in front of a descriptor that is never waited for. SIGPIPE has to be ignored by the process.
public struct LineOutput: ~Copyable {
    /// Lines that were given up, and why.
    public struct Loss: Equatable, Sendable {
        public var lines: Int
        /// What the last failed write said; EAGAIN when the reader was too slow.
        public var reason: Errno
    }

    /// How not to wait for a descriptor.
    private enum Way {
        /// A description of our own, non-blocking.
        case plain
        /// A socket, perhaps shared: a flag of each call.
        case socket
        /// Shared, and could not be opened again: ask first, and write no more than a pipe takes in one piece.
        case afterAsking
    }

    private var descriptor: Descriptor
    private var way: Way
    private let path: String
    private let capacity: Int
    /// Whole lines, the first of them perhaps written in part already.
    private var buffer: [UInt8] = []
    /// A line was cut off by a failed write: the next one must not be glued to it.
    private var isTorn = false
    private var loss: Loss?
    /// Why the path could not be opened, when lines go to another one instead.
    let failure: Errno?

    /// Opens a log; `-` is standard error. At most `capacity` bytes wait to be written. `readerMayBeAway`: a FIFO that nobody reads
    /// now will do. `instead`: where lines go if the path cannot be opened, until `reopen` can.
    public init(
        path: String, capacity: Int, readerMayBeAway: Bool = false, instead: String? = nil
    ) throws(Errno) {
        (self.path, self.capacity) = (path, capacity)
        var failure: Errno?
        let opened = try Self.open(path, readerMayBeAway: readerMayBeAway, instead: instead, &failure)
        self.failure = failure
        way = opened.way
        descriptor = opened.take()
        buffer.reserveCapacity(capacity)
    }

    /// Opens the path anew, for it may have been moved away; on failure the old descriptor stays.
    public mutating func reopen() throws(Errno) {
        flush()
        let opened = try Self.open(path)
        way = opened.way
        descriptor = opened.take()
    }

    /// Whether a person may be reading.
    public var isTerminal: Bool { isatty(descriptor.raw) == 1 }

    /// What is said when the path could not be opened at all.
    var refusal: String? {
        failure.map { "the log \(path) cannot be opened: \($0); it goes elsewhere until it can be (USR1, HUP)" }
    }

    /// What is said when the path could not be opened anew.
    func refusal(_ error: Errno) -> String {
        "the log \(path) cannot be opened again: \(error); writing on to the old one"
    }

    /// Adds a line with its end; `flush` writes it. A line that does not fit is counted and dropped.
    public mutating func append(_ line: [UInt8]) {
        if isTorn, buffer.isEmpty {
            buffer.append(UInt8(ascii: "\n"))
            isTorn = false
        }
        if buffer.count + line.count > capacity { flush() }
        guard buffer.count + line.count <= capacity else {
            lose(1, .wouldBlock)
            return
        }
        buffer.append(contentsOf: line)
    }

    /// Writes as much as can be written now.
    public mutating func flush() {
        var written = 0
        var failure: Errno?
        while written < buffer.count, failure == nil {
            let count = unsafe buffer.withUnsafeBytes { bytes in
                unsafe write(UnsafeRawBufferPointer(rebasing: bytes[written...]))
            }
            if count > 0 { written += count } else { failure = count == 0 ? .wouldBlock : Errno(rawValue: errno) }
            if failure == .interrupted { failure = nil }
        }
        guard let failure else {
            buffer.removeAll(keepingCapacity: true)
            return
        }
        guard failure != .wouldBlock else {
            buffer.removeFirst(written)
            return
        }
        let isCutOff = written > 0 ? buffer[written - 1] != UInt8(ascii: "\n") : false
        isTorn = isTorn || isCutOff
        lose(buffer[written...].count { $0 == UInt8(ascii: "\n") }, failure)
        buffer.removeAll(keepingCapacity: true)
    }

    /// What was lost, once everything since has been written: then the loss is told and forgotten.
    public mutating func takeLoss() -> Loss? {
        guard buffer.isEmpty, let loss else { return nil }
        self.loss = nil
        return loss
    }

    private mutating func lose(_ lines: Int, _ reason: Errno) {
        loss = Loss(lines: (loss?.lines ?? 0) &+ lines, reason: reason)
    }

    private func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        switch way {
        case .plain: return unsafe Glibc.write(descriptor.raw, bytes.baseAddress, bytes.count)
        case .socket:
            return unsafe send(
                descriptor.raw, bytes.baseAddress, bytes.count,
                Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
        case .afterAsking:
            var question = pollfd(fd: descriptor.raw, events: Int16(POLLOUT), revents: 0)
            guard unsafe poll(&question, 1, 0) == 1 else { return 0 }
            return unsafe Glibc.write(descriptor.raw, bytes.baseAddress, min(bytes.count, Int(PIPE_BUF)))
        }
    }

    // MARK: Opening

    private struct Opened: ~Copyable {
        let descriptor: Descriptor
        let way: Way

        consuming func take() -> Descriptor { descriptor }
    }

    private static let flags = O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY

    private static func open(
        _ path: String, readerMayBeAway: Bool, instead: String?, _ failure: inout Errno?
    ) throws(Errno) -> Opened {
        do throws(Errno) {
            return try open(path, readerMayBeAway: readerMayBeAway)
        } catch {
            guard let instead else { throw error }
            failure = error
            return try open(instead)
        }
    }

    private static func open(_ path: String, readerMayBeAway: Bool = false) throws(Errno) -> Opened {
        guard path == "-" else {
            var raw = unsafe path.withCString { unsafe Glibc.open($0, flags | O_CREAT, 0o644) }
            // Whoever reads and writes a FIFO waits for nobody (fifo(7)): what is written stays in it until somebody reads.
            if raw < 0, errno == ENXIO, readerMayBeAway {
                raw = unsafe path.withCString { unsafe Glibc.open($0, flags & ~O_WRONLY | O_RDWR) }
            }
            guard raw >= 0 else { throw Errno(rawValue: errno) }
            return Opened(descriptor: Descriptor(owning: raw), way: .plain)
        }
        // Standard error is shared with whoever started us, so its own flags are not ours to change.
        var status = stat()
        let isOpen = unsafe fstat(STDERR_FILENO, &status) == 0
        if isOpen, status.st_mode & S_IFMT != S_IFSOCK {
            let raw = unsafe Glibc.open("/proc/self/fd/\(STDERR_FILENO)", flags)
            if raw >= 0 { return Opened(descriptor: Descriptor(owning: raw), way: .plain) }
        }
        // Closed at start: the number may become anything, so it is not written to.
        let raw = isOpen ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) : unsafe Glibc.open("/dev/null", flags)
        guard raw >= 0 else { throw Errno(rawValue: errno) }
        return Opened(
            descriptor: Descriptor(owning: raw), way: status.st_mode & S_IFMT == S_IFSOCK ? .socket : .afterAsking)
    }
}
