// What a router's Unix socket carries beside bytes: descriptors, and who wrote.

import CLinux
import Glibc
public import SystemPackage

/// Reading from a Unix socket together with passed descriptors and the writer's pid (unix(7)).
public enum RouterSocket {
    /// What came beside the bytes of one read.
    public struct Beside: Equatable, Sendable {
        /// The process that wrote the bytes, 0 when the kernel does not say.
        public var writer: Int32 = 0
        /// Descriptors that came with them: whoever gets this owns them.
        public var descriptors: [Int32] = []
        /// Some were lost because there were too many.
        public var isTruncated = false

        public init() {}
    }

    /// Reads into memory. Descriptors are appended to `beside` even when the bytes make no whole line yet.
    public static func receive(
        _ raw: Int32, into memory: UnsafeMutableRawPointer, count: Int, _ beside: inout Beside
    ) throws(Errno) -> Transfer {
        var received = tp_received()
        let result = try transfer {
            tp_receive(raw, memory, count, &received)
            if received.count < 0 { errno = received.error }
            return received.count
        }
        if received.writer != 0 { beside.writer = received.writer }
        if received.truncated != 0 { beside.isTruncated = true }
        withUnsafeBytes(of: &received.descriptors) { bytes in
            let numbers = bytes.bindMemory(to: Int32.self)
            for index in 0..<Int(received.descriptor_count) { beside.descriptors.append(numbers[index]) }
        }
        return result
    }

    /// Has the kernel say who writes. The C function is `setsockopt(SO_PASSCRED)`.
    public static func tellWriters(_ raw: Int32) throws(Errno) {
        _ = try check { tp_tell_writers(raw) }
    }

    /// The user of whoever listens behind a connected socket, as it was when it began to. The C function is
    /// `getsockopt(SO_PEERCRED)`.
    public static func peerUser(_ raw: Int32) throws(Errno) -> UInt32 {
        var user: uid_t = 0
        _ = try check { tp_peer_user(raw, &user) }
        return user
    }

    /// Whether a router behind a socket may be of this user: ours, root, or whom the socket's folder belongs to, for
    /// nobody else decides what lies in it. So a socket that somebody puts into /tmp is not taken for the router's.
    public static func isTrusted(user: UInt32, path: String) -> Bool {
        if user == 0 || user == geteuid() { return true }
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        var status = stat()
        return stat(folder, &status) == 0 && status.st_uid == user
    }

    /// A copy of a descriptor of another process, which must be of our user and readable to us.
    /// The C functions are `pidfd_open` and `pidfd_getfd`.
    public static func takeDescriptor(_ number: Int32, of process: Int32) throws(Errno) -> Descriptor {
        Descriptor(owning: try check { tp_take_descriptor(process, number) })
    }
}
