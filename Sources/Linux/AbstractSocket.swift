// Unix sockets whose names are no files: nothing is left behind, and no folder is needed to have one.

import CLinux
import Glibc
public import SystemPackage

/// Stream sockets in the abstract namespace (unix(7)): a name is free again as soon as its socket is closed.
public enum AbstractSocket {
    /// Longest name: sun_path without the byte 0 that marks it.
    public static let nameBytesMax = 107

    /// A non-blocking listener. Anybody on this machine's network namespace may connect: look who it is.
    /// The C functions are `socket`, `bind` and `listen`.
    public static func listen(_ name: String, backlog: Int32) throws(Errno) -> Descriptor {
        let descriptor = try Socket.open(family: AF_UNIX)
        let raw = descriptor.raw
        _ = try with(name) { (address, length) throws(Errno) in try check { bind(raw, address, length) } }
        try Socket.listen(descriptor, backlog: backlog)
        return descriptor
    }

    /// Connects at once or not at all. The C functions are `socket` and `connect`.
    public static func connect(_ name: String) throws(Errno) -> Descriptor {
        let descriptor = try Socket.open(family: AF_UNIX)
        let raw = descriptor.raw
        _ = try with(name) { (address, length) throws(Errno) in try check { Glibc.connect(raw, address, length) } }
        return descriptor
    }

    private static func with<Result>(
        _ name: String, _ body: (UnsafePointer<sockaddr>, socklen_t) throws(Errno) -> Result
    ) throws(Errno) -> Result {
        guard (1...nameBytesMax).contains(name.utf8.count) else { throw .invalidArgument }
        var storage = sockaddr_un()
        storage.sun_family = sa_family_t(AF_UNIX)
        // The length says where the name ends: bytes after it would be a part of it.
        let offset = (MemoryLayout<sockaddr_un>.offset(of: \sockaddr_un.sun_path) ?? 2) + 1
        withUnsafeMutableBytes(of: &storage) { bytes in
            for (index, byte) in name.utf8.enumerated() { bytes[offset + index] = byte }
        }
        let length = socklen_t(offset + name.utf8.count)
        let copy = storage
        // A typed throw does not pass through the standard library's closures.
        let result: Swift.Result<Result, Errno> = withUnsafePointer(to: copy) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                do throws(Errno) {
                    return .success(try body(address, length))
                } catch {
                    return .failure(error)
                }
            }
        }
        return try result.get()
    }
}

extension Socket {
    /// Reads into memory what stays to be read. The C function is `recv` with MSG_PEEK.
    public static func peek(_ raw: Int32, into buffer: UnsafeMutableRawPointer, count: Int) throws(Errno) -> Transfer {
        try transfer { recv(raw, buffer, count, Int32(MSG_PEEK)) }
    }
}
