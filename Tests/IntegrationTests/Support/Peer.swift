// One end of a TCP or Unix connection, as a test or an origin holds it: blocking calls with a deadline.

import Foundation
import Glibc

/// How a peer's other side came to its end.
enum Ending: Equatable, Sendable { case end, reset, stillOpen }

/// A connected socket.
final class Peer: @unchecked Sendable {
    private(set) var raw: Int32

    init(owning raw: Int32) {
        self.raw = raw
        let flags = fcntl(raw, F_GETFL)
        _ = fcntl(raw, F_SETFL, flags | O_NONBLOCK)
        var on: Int32 = 1
        setsockopt(raw, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(4))
    }

    deinit { close() }

    /// Connects to a port of 127.0.0.1, from there or from another address of the loopback network.
    convenience init(port: UInt16, from host: UInt32? = nil, receiveBuffer: Int32? = nil) throws {
        let raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { throw Failure("socket: \(String(cString: strerror(errno)))") }
        if var size = receiveBuffer { setsockopt(raw, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(4)) }
        self.init(owning: raw)
        if let host, withAddress(host: host, port: 0, { bind(raw, $0, $1) }) != 0 {
            throw Failure("bind: \(String(cString: strerror(errno)))")
        }
        try withAddress(port: port) { try finishConnecting(connect(raw, $0, $1)) }
    }

    /// Connects to a Unix socket.
    convenience init(unix path: String) throws {
        let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { throw Failure("socket: \(String(cString: strerror(errno)))") }
        self.init(owning: raw)
        try withAddress(unix: path) { try finishConnecting(connect(raw, $0, $1)) }
    }

    private func finishConnecting(_ result: Int32) throws {
        if result == 0 { return }
        guard errno == EINPROGRESS else { throw Failure("connect: \(String(cString: strerror(errno)))") }
        guard Deadline(in: patience).wait(for: raw, POLLOUT) else { throw Failure("connect takes too long") }
        var error: Int32 = 0
        var length = socklen_t(4)
        getsockopt(raw, SOL_SOCKET, SO_ERROR, &error, &length)
        if error != 0 { throw Failure("connect: \(String(cString: strerror(error)))") }
    }

    var localPort: UInt16 { socketPort(raw) }

    // MARK: Sending

    func send(_ text: String, within time: Double = patience) throws { try send(Array(text.utf8), within: time) }

    func send(_ bytes: [UInt8], within time: Double = patience) throws {
        let deadline = Deadline(in: time)
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.send(raw, $0.baseAddress?.advanced(by: sent), bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count > 0 {
                sent += count
            } else if errno != EAGAIN && errno != EINTR {
                throw Failure("send: \(String(cString: strerror(errno)))")
            } else if !deadline.wait(for: raw, POLLOUT) {
                throw Failure("sent \(sent) of \(bytes.count) bytes in time")
            }
        }
    }

    /// Sends for as long as the other side takes it, at most `most` bytes; nil of a while means it is throttled. Returns
    /// the count.
    func pour(atMost most: Int, untilStuckFor time: Double) -> Int {
        let chunk = [UInt8](repeating: UInt8(ascii: "x"), count: 65_536)
        var sent = 0
        while sent < most {
            let count = Glibc.send(raw, chunk, min(chunk.count, most - sent), Int32(MSG_NOSIGNAL))
            if count > 0 {
                sent += count
            } else if errno != EAGAIN || !Deadline(in: time).wait(for: raw, POLLOUT) {
                break
            }
        }
        return sent
    }

    // MARK: Receiving

    private enum Piece {
        case bytes([UInt8])
        case end, reset, nothing
    }

    private func piece(_ most: Int, _ deadline: Deadline) throws -> Piece {
        var buffer = [UInt8](repeating: 0, count: min(most, 262_144))
        while true {
            let count = recv(raw, &buffer, buffer.count, 0)
            if count > 0 { return .bytes(Array(buffer[..<count])) }
            if count == 0 { return .end }
            switch errno {
            case EINTR: continue
            case ECONNRESET, EPIPE: return .reset
            case EAGAIN: if !deadline.wait(for: raw, POLLIN) { return .nothing }
            default: throw Failure("recv: \(String(cString: strerror(errno)))")
            }
        }
    }

    /// Exactly so many bytes.
    func receive(_ count: Int, within time: Double = patience) throws -> [UInt8] {
        let deadline = Deadline(in: time)
        var bytes: [UInt8] = []
        while bytes.count < count {
            switch try piece(count - bytes.count, deadline) {
            case .bytes(let more): bytes += more
            case .end: throw Failure("the end after \(bytes.count) of \(count) bytes: \(shown(bytes))")
            case .reset: throw Failure("a reset after \(bytes.count) of \(count) bytes: \(shown(bytes))")
            case .nothing: throw Failure("only \(bytes.count) of \(count) bytes in time: \(shown(bytes))")
            }
        }
        return bytes
    }

    /// Exactly this text.
    func expect(_ text: String, within time: Double = patience) throws {
        let bytes = try receive(text.utf8.count, within: time)
        if bytes != Array(text.utf8) { throw Failure("expected \(text.debugDescription), got \(shown(bytes))") }
    }

    /// Everything up to the end of the stream, and how it ended.
    func drain(within time: Double = patience) throws -> (bytes: [UInt8], ending: Ending) {
        let deadline = Deadline(in: time)
        var bytes: [UInt8] = []
        while true {
            switch try piece(262_144, deadline) {
            case .bytes(let more): bytes += more
            case .end: return (bytes, .end)
            case .reset: return (bytes, .reset)
            case .nothing: return (bytes, .stillOpen)
            }
        }
    }

    /// Everything up to a clean end, as text.
    func text(within time: Double = patience) throws -> String {
        let (bytes, ending) = try drain(within: time)
        if ending != .end { throw Failure("\(ending) after \(shown(bytes))") }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// How it ended, without another byte.
    func ending(within time: Double = patience) throws -> Ending {
        let (bytes, ending) = try drain(within: time)
        if !bytes.isEmpty { throw Failure("expected no more bytes, got \(shown(bytes))") }
        return ending
    }

    // MARK: Ending

    /// Ends our writing side.
    func end() { shutdown(raw, Int32(SHUT_WR)) }

    /// Closes with a reset.
    func reset() {
        var value = linger(l_onoff: 1, l_linger: 0)
        setsockopt(raw, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
        close()
    }

    func close() {
        if raw >= 0 { Glibc.close(raw) }
        raw = -1
    }
}

/// Bytes for a message.
func shown(_ bytes: [UInt8]) -> String {
    String(decoding: bytes.prefix(200), as: UTF8.self).debugDescription + (bytes.count > 200 ? "…" : "")
}

func withAddress<R>(
    host: UInt32 = 0x7f00_0001, port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) throws -> R
) rethrows -> R {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = host.bigEndian
    return try withUnsafePointer(to: &address) {
        try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            try body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
}

func withAddress<R>(unix path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) throws -> R) rethrows -> R {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix(107)) }
    return try withUnsafePointer(to: &address) {
        try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            try body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
    }
}

/// The local port of a socket.
func socketPort(_ raw: Int32) -> UInt16 {
    var address = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    _ = withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(raw, $0, &length) }
    }
    return UInt16(bigEndian: address.sin_port)
}
