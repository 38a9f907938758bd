// What only listeners need: options of bound sockets, the files of Unix sockets, names that are bound to.

import Addressing
import CLinux
import Glibc
public import SystemPackage

extension Socket {
    /// Lets an address be bound though connections of its last listener still linger (socket(7), SO_REUSEADDR).
    public static func reuseAddress(_ raw: Int32) throws(Errno) { try set(raw, SOL_SOCKET, SO_REUSEADDR, 1) }

    /// Keeps IPv4 off an IPv6 socket, whatever the system's default is (ipv6(7), IPV6_V6ONLY).
    public static func onlyIPv6(_ raw: Int32) throws(Errno) { try set(raw, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1) }

    /// Whether IPv4 reaches this socket as well: an IPv6 one without IPV6_V6ONLY (ipv6(7)).
    public static func isDualStack(_ raw: Int32) -> Bool {
        (try? get(raw, Int32(IPPROTO_IPV6), IPV6_V6ONLY)) == 0
    }

    /// Whether this is a stream socket that listens (socket(7), SO_TYPE and SO_ACCEPTCONN). Throws when it is no
    /// socket or no descriptor at all.
    public static func isStreamListener(_ raw: Int32) throws(Errno) -> Bool {
        guard try get(raw, SOL_SOCKET, SO_TYPE) == Int32(SOCK_STREAM.rawValue) else { return false }
        return try get(raw, SOL_SOCKET, SO_ACCEPTCONN) != 0
    }

    private static func set(_ raw: Int32, _ level: Int32, _ name: Int32, _ value: Int32) throws(Errno) {
        var value = value
        _ = try check { setsockopt(raw, level, name, &value, socklen_t(MemoryLayout<Int32>.size)) }
    }

    private static func get(_ raw: Int32, _ level: Int32, _ name: Int32) throws(Errno) -> Int32 {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        _ = try check { getsockopt(raw, level, name, &value, &length) }
        return value
    }

    /// Gives away a standard descriptor (0, 1 or 2) under a higher number, with /dev/null in its old place; any other
    /// stays what it is. The C functions are `fcntl(F_DUPFD_CLOEXEC)` and `dup2`.
    public static func aboveStandard(_ raw: Int32) throws(Errno) -> Int32 {
        guard raw <= 2 else { return raw }
        let copy = try check { fcntl(raw, F_DUPFD_CLOEXEC, 3) }
        let null = Descriptor(owning: try check { Glibc.open("/dev/null", O_RDWR | O_CLOEXEC) })
        _ = try check { dup2(null.raw, raw) }
        return copy
    }
}

/// The file of a Unix socket.
public enum UnixSocketFile {
    /// What a path is before it is bound to.
    public enum State: Equatable, Sendable {
        case absent
        /// A socket that nobody listens on any more.
        case stale
        /// Somebody answers there, or it cannot be told.
        case alive
        /// It is no socket.
        case other
    }

    /// Looks whether somebody answers at a path. The C functions are `lstat` and `connect`.
    public static func state(of path: String) throws(Errno) -> State {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            let error = currentErrno()
            if error == .noSuchFileOrDirectory { return .absent }
            throw error
        }
        guard status.st_mode & S_IFMT == S_IFSOCK else { return .other }
        let probe = try Socket.open(family: AF_UNIX)
        do throws(Errno) {
            _ = try Socket.connect(probe, to: .unix(path))
            return .alive
        } catch {
            return error == .connectionRefused ? .stale : .alive
        }
    }

    /// The C function is `unlink`.
    public static func remove(_ path: String) throws(Errno) { _ = try check { unlink(path) } }

    /// Binds a socket to a path whose file has these permissions from its first moment on. For a process with one
    /// thread: the file mode mask is everybody's. The C functions are `umask` and `bind`.
    public static func bind(_ descriptor: borrowing Descriptor, to path: String, mode: UInt16) throws(Errno) {
        let previous = umask(~mode_t(mode) & 0o777)
        defer { _ = umask(previous) }
        try Socket.bind(descriptor, to: .unix(path))
    }
}

/// Asking the system's resolver, which takes its time: /etc/hosts, nsswitch.conf, DNS.
public enum NameLookup {
    /// Why a name has no address.
    public struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
        /// getaddrinfo(3)'s code.
        public let code: Int32
        /// What the system call under it said, when it was one that failed.
        public let errno: Errno?

        public var description: String {
            if let errno { return errno.description }
            return gai_strerror(code).map { String(cString: $0) } ?? "error \(code)"
        }
    }

    /// The addresses of a host's name with a port, in the resolver's order. Blocks. The C function is `getaddrinfo`.
    public static func addresses(of name: String, port: UInt16) throws(Failure) -> [SocketAddress] {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_NUMERICSERV
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(name, String(port), &hints, &list)
        guard code == 0 else { throw Failure(code: code, errno: code == EAI_SYSTEM ? currentErrno() : nil) }
        defer { freeaddrinfo(list) }
        var addresses: [SocketAddress] = []
        var next = list
        while let entry = next {
            next = entry.pointee.ai_next
            guard let address = entry.pointee.ai_addr,
                Int(entry.pointee.ai_addrlen) <= MemoryLayout<sockaddr_storage>.size
            else { continue }
            var storage = sockaddr_storage()
            memcpy(&storage, address, Int(entry.pointee.ai_addrlen))
            if let value = SocketAddress(storage, length: entry.pointee.ai_addrlen) { addresses.append(value) }
        }
        return addresses
    }
}
