// An address as people write it, as a value: what a verdict names and what a client is known by.

/// Where a connection comes from or goes to.
public enum Endpoint: Hashable, Sendable, CustomStringConvertible {
    case ipv4(IPv4Address, port: UInt16)
    case ipv6(IPv6Address, port: UInt16)
    /// A name that has to be resolved first. Never empty, without NUL, at most 255 bytes (RFC 1035).
    case name(String, port: UInt16)
    /// A Unix stream socket. Never empty, without NUL, at most `unixPathBytesMax` bytes.
    case unix(String)

    /// What fits into `sockaddr_un.sun_path` with its NUL (unix(7)).
    public static let unixPathBytesMax = 107

    /// Reads `host:port`, `[v6]:port` or `unix:/path`. The port is needed and is 1 to 65535.
    public init?(_ text: some StringProtocol) {
        if text.hasPrefix("unix:") {
            self.init(unixPath: String(text.dropFirst(5)))
            return
        }
        guard let colon = text.lastIndex(of: ":"), let port = Self.port(text[text.index(after: colon)...])
        else { return nil }
        let host = text[..<colon]
        if host.hasPrefix("[") {
            guard host.hasSuffix("]"), let v6 = IPv6Address(host.dropFirst().dropLast()) else { return nil }
            self = .ipv6(v6, port: port)
            return
        }
        guard !host.contains(":") else { return nil }
        self.init(host: host, port: port)
    }

    /// Makes an endpoint of a host (a name, an IPv4 address, or an IPv6 address with or without brackets) and a port.
    public init?(host: some StringProtocol, port: UInt16) {
        guard port != 0 else { return nil }
        if let v4 = IPv4Address(host) {
            self = .ipv4(v4, port: port)
        } else if host.contains(":") {
            let bare =
                host.hasPrefix("[") && host.hasSuffix("]") ? Substring(host.dropFirst().dropLast()) : Substring(host)
            guard let v6 = IPv6Address(bare) else { return nil }
            self = .ipv6(v6, port: port)
        } else {
            guard Self.isName(host) else { return nil }
            self = .name(String(host), port: port)
        }
    }

    /// Makes an endpoint of a Unix socket's path.
    public init?(unixPath path: String) {
        let bytes = path.utf8
        guard !bytes.isEmpty, bytes.count <= Self.unixPathBytesMax, !bytes.contains(0) else { return nil }
        self = .unix(path)
    }

    /// A decimal port, 1 to 65535, without sign or spaces.
    public static func port(_ text: some StringProtocol) -> UInt16? {
        guard (1...5).contains(text.utf8.count),
            text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
            let port = UInt16(text), port != 0
        else { return nil }
        return port
    }

    /// What may be handed to the resolver: visible ASCII without the characters that mean something in an address.
    /// Digits and dots alone are a mistyped address, which the resolver would read as inet_aton(3) does: `1.2` is 1.0.0.2.
    private static func isName(_ host: some StringProtocol) -> Bool {
        (1...255).contains(host.utf8.count)
            && !host.utf8.allSatisfy { (0x30...0x39).contains($0) || $0 == 0x2e }
            && host.utf8.allSatisfy { (0x21...0x7e).contains($0) && !"[]/@:%\\\"'".utf8.contains($0) }
    }

    /// The port, nil for a Unix socket.
    public var port: UInt16? {
        switch self {
        case .ipv4(_, let port), .ipv6(_, let port), .name(_, let port): port
        case .unix: nil
        }
    }

    /// The host without port or brackets; the path of a Unix socket.
    public var host: String {
        switch self {
        case .ipv4(let address, _): address.description
        case .ipv6(let address, _): address.description
        case .name(let name, _): name
        case .unix(let path): path
        }
    }

    public var description: String {
        switch self {
        case .ipv4(let address, let port): "\(address):\(port)"
        case .ipv6(let address, let port): "[\(address)]:\(port)"
        case .name(let name, let port): "\(name):\(port)"
        case .unix(let path): "unix:\(path)"
        }
    }
}
