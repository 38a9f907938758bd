// What a service manager is told: sd_notify(3) is one datagram to a Unix socket, and needs no library.

import CLinux
import Glibc

/// The service manager that started us, if it wants to be told anything.
public final class ServiceManager {
    private let descriptor: Descriptor
    private let path: [UInt8]
    /// How often it wants to hear that we are alive, nil when it does not.
    public let watchdogMicroseconds: UInt64?

    /// Nil without NOTIFY_SOCKET, or with one that is no path of a Unix socket. WATCHDOG_PID, when it is set, says whom
    /// WATCHDOG_USEC is meant for.
    public init?(environment: [String], pid: Int32 = Process.pid) {
        func value(_ name: String) -> Substring? {
            environment.last { $0.hasPrefix(name + "=") }?.dropFirst(name.utf8.count + 1)
        }
        guard let address = value("NOTIFY_SOCKET"), address.hasPrefix("/") || address.hasPrefix("@") else {
            return nil
        }
        var path = Array(address.utf8)
        guard path.count > 1, path.count < MemoryLayout.size(ofValue: sockaddr_un().sun_path) else { return nil }
        // An abstract name begins with a NUL and has none at its end.
        if path[0] == UInt8(ascii: "@") { path[0] = 0 }
        let raw = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { return nil }
        var patience = timeval(tv_sec: 1, tv_usec: 0)
        setsockopt(raw, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        descriptor = Descriptor(owning: raw)
        self.path = path
        let isMeant = value("WATCHDOG_PID").map { Int32($0) == pid } ?? true
        let interval = value("WATCHDOG_USEC").flatMap { UInt64($0) } ?? 0
        watchdogMicroseconds = isMeant && interval > 0 ? interval : nil
    }

    /// Tells it these assignments, in one datagram. One whose queue is full is waited for, for a second at most.
    /// The C function is `sendto`.
    public func tell(_ lines: [String]) {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path) }
        let offset = MemoryLayout<sockaddr_un>.offset(of: \sockaddr_un.sun_path) ?? 2
        // No length may show more than the name: for an abstract one every byte counts.
        let length = socklen_t(offset + path.count + (path[0] == 0 ? 0 : 1))
        let text = Array(lines.joined(separator: "\n").utf8)
        let raw = descriptor.raw
        withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                _ = sendto(raw, text, text.count, Int32(MSG_NOSIGNAL), address, length)
            }
        }
    }
}
