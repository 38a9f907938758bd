// sockaddr as a value: what the kernel takes and gives, converted to and from `Endpoint`.

public import Addressing
public import CLinux
import Glibc

/// The address of an IP socket in 28 bytes, or that of a Unix socket.
public enum SocketAddress: Hashable, Sendable {
    case ipv4(IPv4Address, port: UInt16)
    case ipv6(IPv6Address, port: UInt16)
    case unix(String)
    /// A Unix socket without a name: the usual client.
    case unnamed

    /// Nil for a name, which has to be resolved first.
    public init?(_ endpoint: Endpoint) {
        switch endpoint {
        case .ipv4(let address, let port): self = .ipv4(address, port: port)
        case .ipv6(let address, let port): self = .ipv6(address, port: port)
        case .unix(let path): self = .unix(path)
        case .name: return nil
        }
    }

    /// As people write it; nil for a Unix socket without a name. A mapped IPv4 address is shown as IPv4.
    public var endpoint: Endpoint? {
        switch self {
        case .ipv4(let address, let port): .ipv4(address, port: port)
        case .ipv6(let address, let port):
            if let v4 = address.mappedIPv4 { .ipv4(v4, port: port) } else { .ipv6(address, port: port) }
        case .unix(let path): .unix(path)
        case .unnamed: nil
        }
    }

    /// The same host with another port; a Unix socket has none.
    public func with(port: UInt16) -> SocketAddress {
        switch self {
        case .ipv4(let address, _): .ipv4(address, port: port)
        case .ipv6(let address, _): .ipv6(address, port: port)
        case .unix, .unnamed: self
        }
    }

    /// The address family: AF_INET, AF_INET6 or AF_UNIX.
    public var family: Int32 {
        switch self {
        case .ipv4: AF_INET
        case .ipv6: AF_INET6
        case .unix, .unnamed: AF_UNIX
        }
    }

    /// The address as sockaddr, for the time of the call.
    public func withSockaddr<Result, Failure: Error>(
        _ body: (UnsafePointer<sockaddr>, socklen_t) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        var storage = sockaddr_storage()
        let length = write(to: &storage)
        let copy = storage
        var result: Swift.Result<Result, Failure>?
        withUnsafePointer(to: copy) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                do throws(Failure) {
                    result = .success(try body(address, length))
                } catch {
                    result = .failure(error)
                }
            }
        }
        guard let result else { preconditionFailure("withUnsafePointer always calls its body") }
        return try result.get()
    }

    private func write(to storage: inout sockaddr_storage) -> socklen_t {
        withUnsafeMutableBytes(of: &storage) { bytes in
            switch self {
            case .ipv4(let address, let port):
                var value = sockaddr_in()
                value.sin_family = sa_family_t(AF_INET)
                value.sin_port = port.bigEndian
                value.sin_addr.s_addr = address.bits.bigEndian
                bytes.storeBytes(of: value, as: sockaddr_in.self)
                return socklen_t(MemoryLayout<sockaddr_in>.size)
            case .ipv6(let address, let port):
                var value = sockaddr_in6()
                value.sin6_family = sa_family_t(AF_INET6)
                value.sin6_port = port.bigEndian
                value.sin6_scope_id = address.zone
                withUnsafeMutableBytes(of: &value.sin6_addr) {
                    $0.storeBytes(of: address.high.bigEndian, as: UInt64.self)
                    $0.storeBytes(of: address.low.bigEndian, toByteOffset: 8, as: UInt64.self)
                }
                bytes.storeBytes(of: value, as: sockaddr_in6.self)
                return socklen_t(MemoryLayout<sockaddr_in6>.size)
            case .unix(let path):
                let offset = MemoryLayout<sockaddr_un>.offset(of: \sockaddr_un.sun_path) ?? 2
                bytes.storeBytes(of: sa_family_t(AF_UNIX), as: sa_family_t.self)
                var end = offset
                for byte in path.utf8.prefix(Endpoint.unixPathBytesMax) {
                    bytes[end] = byte
                    end += 1
                }
                bytes[end] = 0
                return socklen_t(end + 1)
            case .unnamed:
                bytes.storeBytes(of: sa_family_t(AF_UNIX), as: sa_family_t.self)
                return socklen_t(MemoryLayout<sa_family_t>.size)
            }
        }
    }

    /// Reads what the kernel has written; nil for a family that we never open.
    public init?(_ storage: sockaddr_storage, length: socklen_t) {
        var copy = storage
        let value: SocketAddress? = withUnsafeBytes(of: &copy) { bytes in
            switch Int32(storage.ss_family) {
            case AF_INET:
                let value = bytes.loadUnaligned(as: sockaddr_in.self)
                return .ipv4(
                    IPv4Address(bits: UInt32(bigEndian: value.sin_addr.s_addr)), port: UInt16(bigEndian: value.sin_port)
                )
            case AF_INET6:
                let value = bytes.loadUnaligned(as: sockaddr_in6.self)
                let halves = withUnsafeBytes(of: value.sin6_addr) {
                    (
                        UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                        UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                    )
                }
                return .ipv6(
                    IPv6Address(high: halves.0, low: halves.1, zone: value.sin6_scope_id),
                    port: UInt16(bigEndian: value.sin6_port))
            case AF_UNIX:
                let offset = MemoryLayout<sockaddr_un>.offset(of: \sockaddr_un.sun_path) ?? 2
                let path = bytes[min(offset, bytes.count)..<min(max(Int(length), offset), bytes.count)].prefix {
                    $0 != 0
                }
                return path.isEmpty ? .unnamed : .unix(String(decoding: path, as: UTF8.self))
            default: return nil
            }
        }
        guard let value else { return nil }
        self = value
    }
}
