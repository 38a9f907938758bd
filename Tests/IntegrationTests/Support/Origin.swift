// What tproxy connects to: listeners that a test accepts from itself, step by step, or that serve by themselves on threads.

import Foundation
import Glibc

/// A listener on a free port of 127.0.0.1, or on a Unix socket.
final class Origin: Sendable {
    let raw: Int32
    let port: UInt16
    private let path: String?
    /// How a verdict names it.
    let address: String
    private let stopPipe: (read: Int32, write: Int32)
    private let serves: Bool

    convenience init(backlog: Int32 = 1024) throws { try self.init(backlog: backlog, serves: false) }

    private init(backlog: Int32, serves: Bool) throws {
        self.serves = serves
        raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        let descriptor = raw
        let bound = withAddress(port: 0) { bind(descriptor, $0, $1) }
        guard bound == 0, listen(raw, backlog) == 0 else { throw Failure("no free port") }
        port = socketPort(raw)
        address = "127.0.0.1:\(port)"
        path = nil
        stopPipe = try Self.pipe()
    }

    init(unix path: String) throws {
        raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        let descriptor = raw
        let bound = withAddress(unix: path) { bind(descriptor, $0, $1) }
        guard bound == 0, listen(raw, 16) == 0 else { throw Failure("cannot bind \(path)") }
        port = 0
        address = "unix:\(path)"
        self.path = path
        serves = false
        stopPipe = try Self.pipe()
    }

    /// Serves every connection on a thread of its own, until the origin goes.
    convenience init(serving serve: @escaping @Sendable (Peer) throws -> Void) throws {
        try self.init(backlog: 1024, serves: true)
        let (raw, stop) = (self.raw, stopPipe.read)
        let thread = Thread {
            while true {
                var questions = [
                    pollfd(fd: raw, events: Int16(POLLIN), revents: 0),
                    pollfd(fd: stop, events: Int16(POLLIN), revents: 0),
                ]
                if poll(&questions, 2, -1) < 0 && errno == EINTR { continue }
                if questions[1].revents != 0 { break }
                let accepted = Glibc.accept(raw, nil, nil)
                guard accepted >= 0 else { continue }
                _ = fcntl(accepted, F_SETFD, FD_CLOEXEC)
                let peer = Peer(owning: accepted)
                let one = Thread { try? serve(peer) }
                one.stackSize = 524_288
                one.start()
            }
            Glibc.close(raw)
            Glibc.close(stop)
        }
        thread.start()
    }

    /// Sends back what comes, and ends when the other side ends.
    static func echo() throws -> Origin {
        try Origin { peer in
            while true {
                guard Deadline(in: 60).wait(for: peer.raw, POLLIN) else { return }
                var buffer = [UInt8](repeating: 0, count: 65_536)
                let count = recv(peer.raw, &buffer, buffer.count, 0)
                guard count > 0 else { return }
                try peer.send(Array(buffer[..<count]))
            }
        }
    }

    private static func pipe() throws -> (read: Int32, write: Int32) {
        var ends: [Int32] = [-1, -1]
        guard Glibc.pipe(&ends) == 0 else { throw Failure("pipe") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (ends[0], ends[1])
    }

    /// The next connection.
    func accept(within time: Double = patience) throws -> Peer {
        guard Deadline(in: time).wait(for: raw, POLLIN) else { throw Failure("nobody connected to \(address)") }
        let accepted = Glibc.accept(raw, nil, nil)
        guard accepted >= 0 else { throw Failure("accept: \(String(cString: strerror(errno)))") }
        _ = fcntl(accepted, F_SETFD, FD_CLOEXEC)
        return Peer(owning: accepted)
    }

    /// Whether a connection waits now.
    var hasVisitor: Bool { Deadline(in: 0).wait(for: raw, POLLIN) }

    deinit {
        // A serving thread closes the listener itself.
        if !serves {
            Glibc.close(raw)
            Glibc.close(stopPipe.read)
        }
        Glibc.close(stopPipe.write)
        if let path { unlink(path) }
    }
}

/// A port where nobody listens: refused at once.
func deadPort() throws -> UInt16 {
    let raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    defer { Glibc.close(raw) }
    guard withAddress(port: 0, { bind(raw, $0, $1) }) == 0 else { throw Failure("no free port") }
    return socketPort(raw)
}
