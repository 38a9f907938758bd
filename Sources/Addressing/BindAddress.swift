// What `-b` takes: the address of a listener as people write it.

/// The address of a listener.
public enum BindAddress: Hashable, Sendable, CustomStringConvertible {
    /// An address and a port; port 0 lets the kernel choose.
    case ipv4(IPv4Address, port: UInt16)
    /// An IPv6 address; the socket takes no IPv4 (IPV6_V6ONLY).
    case ipv6(IPv6Address, port: UInt16)
    /// A host name, resolved once when it is bound.
    case name(String, port: UInt16)
    /// A Unix stream socket and the permissions of its file.
    case unix(path: String, mode: UInt16)
    /// A descriptor that tproxy was started with and that listens already.
    case descriptor(Int32)

    /// The port of a `-b HOST` without one.
    public static let defaultPort: UInt16 = 5000
    /// The permissions of a Unix listener without `?mode=`.
    public static let defaultMode: UInt16 = 0o600
    /// Where tproxy listens when nothing says otherwise.
    public static let standard = BindAddress.ipv4(.loopback, port: defaultPort)
    /// What is allowed, for messages that refuse something else.
    public static let allowed =
        "PORT, :PORT, HOST, HOST:PORT, [V6]:PORT, unix:PATH[?mode=0600] or fd://N, with tls:// before it or not"
    /// What stands before the address of a listener that speaks TLS: in `-b`, and in what routers and logs call it.
    public static let tlsPrefix = "tls://"

    /// Reads one `-b` value: `PORT` (on 127.0.0.1), `:PORT` (all IPv4), `HOST`, `HOST:PORT`, `[V6]:PORT`,
    /// `unix:PATH[?mode=0600]` or `fd://N`. The port 0 means any free one.
    public init?(_ text: some StringProtocol) {
        let text = Substring(text)
        if text.hasPrefix("fd://") {
            guard let number = Int32(text.dropFirst(5)), number >= 0 else { return nil }
            self = .descriptor(number)
        } else if text.hasPrefix("unix:") {
            self.init(unix: text.dropFirst(5))
        } else if let port = Self.port(text) {
            self = .ipv4(.loopback, port: port)
        } else if text.hasPrefix(":"), let port = Self.port(text.dropFirst()) {
            self = .ipv4(.any, port: port)
        } else if text.hasPrefix("["), let close = text.firstIndex(of: "]") {
            let rest = text[text.index(after: close)...]
            guard let address = IPv6Address(text[..<close].dropFirst()),
                let port = rest.isEmpty ? Self.defaultPort : rest.hasPrefix(":") ? Self.port(rest.dropFirst()) : nil
            else { return nil }
            self = .ipv6(address, port: port)
        } else {
            self.init(hostAndPort: text)
        }
    }

    private init?(hostAndPort text: Substring) {
        var host = text
        var port = Self.defaultPort
        if let colon = text.firstIndex(of: ":") {
            guard let number = Self.port(text[text.index(after: colon)...]) else { return nil }
            (host, port) = (text[..<colon], number)
        }
        // Endpoint knows what a host may look like; it wants a real port.
        switch Endpoint(host: host, port: 1) {
        case .ipv4(let address, _): self = .ipv4(address, port: port)
        case .name(let name, _): self = .name(name, port: port)
        default: return nil
        }
    }

    private init?(unix text: Substring) {
        var path = text
        var mode = Self.defaultMode
        if let question = text.lastIndex(of: "?") {
            let option = text[text.index(after: question)...]
            guard option.hasPrefix("mode="), let bits = UInt16(option.dropFirst(5), radix: 8), bits <= 0o777
            else { return nil }
            (path, mode) = (text[..<question], bits)
        }
        guard case .unix(let checked)? = Endpoint(unixPath: String(path)) else { return nil }
        self = .unix(path: checked, mode: mode)
    }

    private static func port(_ text: Substring) -> UInt16? {
        text == "0" ? 0 : Endpoint.port(text)
    }

    /// The normalised text: what routers get as `listener`.
    public var description: String {
        switch self {
        case .ipv4(let address, let port): "\(address):\(port)"
        case .ipv6(let address, let port): "[\(address)]:\(port)"
        case .name(let name, let port): "\(name):\(port)"
        case .unix(let path, let mode):
            mode == Self.defaultMode ? "unix:\(path)" : "unix:\(path)?mode=0\(String(mode, radix: 8))"
        case .descriptor(let number): "fd://\(number)"
        }
    }
}
