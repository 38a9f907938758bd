// Stream sockets, non-blocking and close-on-exec from birth. A would-block is a value, never an error.

import CLinux
import Glibc
public import SystemPackage

/// A namespace for calls on stream sockets; the descriptors stay with their owners.
public enum Socket {
    /// Opens a non-blocking stream socket of a family. The C function is `socket`.
    public static func open(family: Int32) throws(Errno) -> Descriptor {
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        return Descriptor(owning: try check { Glibc.socket(family, kind, 0) })
    }

    /// What starting to connect came to.
    public enum Connecting: Equatable, Sendable {
        case connected
        /// Writability will tell, and then `pendingError`.
        case inProgress
        /// A Unix listener whose queue is full: try again a little later.
        case queueFull
    }

    /// Starts connecting. The C function is `connect`.
    public static func connect(_ descriptor: borrowing Descriptor, to address: SocketAddress) throws(Errno)
        -> Connecting
    {
        let raw = descriptor.raw
        let outcome = address.withSockaddr { pointer, length -> Errno? in
            Glibc.connect(raw, pointer, length) == 0 ? nil : currentErrno()
        }
        switch outcome {
        case nil, Errno(rawValue: EISCONN)?: return .connected
        // An interrupted connect goes on by itself (connect(2)).
        case .nowInProgress?, .interrupted?, .alreadyInProcess?: return .inProgress
        case .wouldBlock?: return .queueFull
        case .some(let error): throw error
        }
    }

    /// Gives a socket its local address. The C function is `bind`.
    public static func bind(_ descriptor: borrowing Descriptor, to address: SocketAddress) throws(Errno) {
        let raw = descriptor.raw
        _ = try address.withSockaddr { (pointer, length) throws(Errno) in
            try check { Glibc.bind(raw, pointer, length) }
        }
    }

    /// Gives a socket that is about to connect its local address. Port 0 is chosen when it connects: chosen now it would be
    /// nobody else's, and there are 28,000 of them; chosen then it can serve towards every remote
    /// (ip(7), IP_BIND_ADDRESS_NO_PORT).
    public static func bindSource(_ descriptor: borrowing Descriptor, to address: SocketAddress) throws(Errno) {
        var on: Int32 = 1
        // Without it a connect works as well, as long as ports last.
        _ = setsockopt(
            descriptor.raw, Int32(IPPROTO_IP), IP_BIND_ADDRESS_NO_PORT, &on, socklen_t(MemoryLayout<Int32>.size))
        try bind(descriptor, to: address)
    }

    /// Makes a bound socket a listener. The C function is `listen`.
    public static func listen(_ descriptor: borrowing Descriptor, backlog: Int32) throws(Errno) {
        let raw = descriptor.raw
        _ = try check { Glibc.listen(raw, backlog) }
    }

    /// An accepted client.
    public struct Accepted: ~Copyable {
        public let descriptor: Descriptor
        public let address: SocketAddress

        /// The two parts, to keep one without the other.
        public consuming func take() -> Descriptor { descriptor }
    }

    /// Accepts one client, nil when none waits. The C function is `accept4`.
    ///
    /// Errors of the client that was about to be accepted (ECONNABORTED and those accept(2) names) end that client
    /// alone: the next one is accepted.
    public static func accept(_ listener: Int32) throws(Errno) -> Accepted? {
        while true {
            var storage = sockaddr_storage()
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let flags = Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
            let raw = withUnsafeMutablePointer(to: &storage) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { accept4(listener, $0, &length, flags) }
            }
            if raw >= 0 {
                let descriptor = Descriptor(owning: raw)
                guard let address = SocketAddress(storage, length: length) else { continue }
                return Accepted(descriptor: descriptor, address: address)
            }
            let error = currentErrno()
            switch error {
            case .wouldBlock: return nil
            case .interrupted, .connectionAbort, .protocolError, .networkDown, .networkUnreachable, .hostIsDown,
                .noRouteToHost, .connectionReset, .timedOut, .notPermitted, .notSupportedOnSocket,
                Errno(rawValue: ENONET), Errno(rawValue: ENOPROTOOPT):
                continue
            default: throw error
            }
        }
    }

    /// Reads into memory. The C function is `recv`.
    @inline(__always)
    public static func receive(_ raw: Int32, into buffer: UnsafeMutableRawPointer, count: Int) throws(Errno) -> Transfer
    {
        try transfer { recv(raw, buffer, count, 0) }
    }

    /// Throws away what has arrived, without copying it (tcp(7), MSG_TRUNC). A Unix socket copies into `scratch`.
    public static func discard(
        _ raw: Int32, scratch: UnsafeMutableRawPointer, count: Int, isTCP: Bool
    ) throws(Errno) -> Transfer {
        try transfer { recv(raw, scratch, count, isTCP ? Int32(MSG_TRUNC) : 0) }
    }

    /// Writes from memory; never raises SIGPIPE. The C function is `send`.
    @inline(__always)
    public static func send(_ raw: Int32, from buffer: UnsafeRawPointer, count: Int) throws(Errno) -> Transfer {
        try transfer { Glibc.send(raw, buffer, count, Int32(MSG_NOSIGNAL)) }
    }

    /// Ends our writing side: the peer reads an end of stream. The C function is `shutdown`.
    @inline(__always)
    public static func endWriting(_ raw: Int32) throws(Errno) {
        _ = try check { Glibc.shutdown(raw, Int32(SHUT_WR)) }
    }

    /// Makes the close that follows an abort: the peer gets a reset, what was unsent is dropped (socket(7), SO_LINGER).
    /// On a Unix socket nothing happens: there an end and an abort look alike.
    public static func resetOnClose(_ raw: Int32) {
        var value = linger(l_onoff: 1, l_linger: 0)
        _ = setsockopt(raw, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }

    /// The error that waits on a socket, nil when there is none; reading it clears it (socket(7), SO_ERROR).
    public static func pendingError(_ raw: Int32) -> Errno? {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        guard getsockopt(raw, SOL_SOCKET, SO_ERROR, &value, &length) == 0 else { return currentErrno() }
        return value == 0 ? nil : Errno(rawValue: value)
    }

    /// Sends small writes at once (tcp(7), TCP_NODELAY). Fails silently on a Unix socket, which never waits.
    @inline(__always)
    public static func sendAtOnce(_ raw: Int32) {
        var on: Int32 = 1
        _ = setsockopt(raw, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    /// Lets the kernel find out about peers that vanished (socket(7), SO_KEEPALIVE).
    @inline(__always)
    public static func keepAlive(_ raw: Int32) {
        var on: Int32 = 1
        _ = setsockopt(raw, SOL_SOCKET, SO_KEEPALIVE, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    /// The address a socket is bound to. The C function is `getsockname`.
    public static func localAddress(_ raw: Int32) throws(Errno) -> SocketAddress {
        try address(raw, getsockname)
    }

    /// The address of the peer. The C function is `getpeername`.
    public static func peerAddress(_ raw: Int32) throws(Errno) -> SocketAddress {
        try address(raw, getpeername)
    }

    private static func address(
        _ raw: Int32, _ call: (Int32, UnsafeMutablePointer<sockaddr>?, UnsafeMutablePointer<socklen_t>?) -> Int32
    ) throws(Errno) -> SocketAddress {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { call(raw, $0, &length) }
        }
        if result != 0 { throw currentErrno() }
        guard let address = SocketAddress(storage, length: length) else { throw .addressFamilyNotSupported }
        return address
    }

    /// Whether an address belongs to this machine: a datagram socket can be bound to it.
    public static func isLocal(_ address: SocketAddress) -> Bool {
        let portless: SocketAddress
        switch address {
        case .ipv4(let host, _): portless = .ipv4(host, port: 0)
        case .ipv6(let host, _): portless = .ipv6(host, port: 0)
        case .unix, .unnamed: return true
        }
        let raw = Glibc.socket(address.family, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { return false }
        let descriptor = Descriptor(owning: raw)
        do throws(Errno) {
            try bind(descriptor, to: portless)
            return true
        } catch {
            return false
        }
    }

    /// Two connected Unix stream sockets, both close-on-exec. The C function is `socketpair`.
    public static func pair() throws(Errno) -> DescriptorPair {
        var raw: (Int32, Int32) = (-1, -1)
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        _ = try withUnsafeMutableBytes(of: &raw) { (bytes) throws(Errno) in
            try check { socketpair(AF_UNIX, kind, 0, bytes.bindMemory(to: Int32.self).baseAddress) }
        }
        return DescriptorPair(first: Descriptor(owning: raw.0), second: Descriptor(owning: raw.1))
    }

    /// Clears O_NONBLOCK. The C function is `fcntl`.
    public static func setBlocking(_ raw: Int32) throws(Errno) {
        let flags = try check { fcntl(raw, F_GETFL) }
        _ = try check { fcntl(raw, F_SETFL, flags & ~O_NONBLOCK) }
    }

    /// Sets O_NONBLOCK on our end; flags of a socket pair's ends are apart. The C function is `fcntl`.
    public static func setNonBlocking(_ raw: Int32) throws(Errno) {
        let flags = try check { fcntl(raw, F_GETFL) }
        _ = try check { fcntl(raw, F_SETFL, flags | O_NONBLOCK) }
    }
}

/// Two descriptors that belong together.
public struct DescriptorPair: ~Copyable {
    public let first: Descriptor
    public let second: Descriptor

    /// Gives both numbers away: the caller closes them.
    public consuming func release() -> (Int32, Int32) { (first.release(), second.release()) }

    /// Keeps the first and closes the second.
    public consuming func takeFirst() -> Descriptor { first }

    /// Makes a pair of its ends.
    public init(first: consuming Descriptor, second: consuming Descriptor) {
        self.first = first
        self.second = second
    }
}
