// What a client that speaks TLS says first, read as it passes: TLS is not ended here, and nothing is answered.
// The message is RFC 8446 4.1.2, which is also how TLS 1.0 to 1.2 write it.

/// A whole ClientHello. It holds places in the initial bytes, not copies: lend it the bytes it was read from.
public struct ClientHello: Equatable, Sendable {
    /// Versions of TLS, as far as they have a name here.
    public struct Versions: OptionSet, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }

        public static let tls10 = Versions(rawValue: 1)
        public static let tls11 = Versions(rawValue: 2)
        public static let tls12 = Versions(rawValue: 4)
        public static let tls13 = Versions(rawValue: 8)

        /// Empty for a number that is no version: GREASE (RFC 8701), or one to come.
        init(wire: Int) {
            switch wire {
            case 0x0301: self = .tls10
            case 0x0302: self = .tls11
            case 0x0303: self = .tls12
            case 0x0304: self = .tls13
            default: self = []
            }
        }
    }

    /// What the client offers: its list (`supported_versions`), or without one the highest it speaks.
    public private(set) var versions: Versions
    /// A server name came and is not to be relied on: several names, or one that is empty, longer than 255 bytes, or
    /// has something else in it than visible ASCII, a NUL for example. Then there is none.
    public private(set) var hasUnusableServerName = false
    private var serverName: Piece?
    private var protocolNames: Piece?

    /// Longest server name, as in DNS.
    public static let serverNameBytesMax = 255

    public var hasServerName: Bool { serverName != nil }

    /// The server name (SNI) as the client sent it, upper case too. Never empty.
    public func serverName(in bytes: Span<UInt8>) -> String? {
        guard serverName != nil else { return nil }
        var name: [UInt8] = []
        _ = appendServerName(to: &name, in: bytes)
        return String(decoding: name, as: UTF8.self)
    }

    /// Appends the server name's bytes as they came; false when there is none.
    public func appendServerName(to text: inout [UInt8], in bytes: Span<UInt8>) -> Bool {
        serverName?.append(to: &text, in: bytes)
        return serverName != nil
    }

    /// The first protocols of the client's list (ALPN), the most wanted first, up to so many and so many bytes in all.
    /// They need not be text: GREASE is not.
    public func protocolNames(in bytes: Span<UInt8>, countMax: Int, bytesMax: Int) -> [[UInt8]] {
        var names: [[UInt8]] = []
        var rest = protocolNames
        var room = bytesMax
        while names.count < countMax, let name = rest?.takeShort(in: bytes), name.count <= room {
            room &-= name.count
            var text: [UInt8] = []
            name.append(to: &text, in: bytes)
            names.append(text)
        }
        return names
    }

    /// The extensions that are read.
    private enum Extension: Int {
        /// RFC 6066 3.
        case serverName = 0
        /// RFC 7301 3.1.
        case protocols = 16
        /// RFC 8446 4.2.1.
        case versions = 43
    }

    /// Reads the message after its type and length; nil when it is not formed as RFC 8446 4.1.2 says.
    init?(_ message: Piece, in bytes: Span<UInt8>) {
        var message = message
        // legacy_version and random.
        guard let version = message.takeNumber(in: bytes), version >> 8 == 3, message.take(32, in: bytes) != nil,
            let sessionID = message.takeShort(in: bytes), sessionID.count <= 32,
            let suites = message.takeLong(in: bytes), suites.count >= 2, suites.count & 1 == 0,
            let compressions = message.takeShort(in: bytes), compressions.count >= 1
        else { return nil }
        versions = Versions(wire: version)
        // Before TLS 1.3 a client need not have any extension.
        guard message.count > 0 else { return }
        guard var extensions = message.takeLong(in: bytes), message.count == 0 else { return nil }
        var seen = (serverName: false, protocols: false, versions: false)
        while extensions.count > 0 {
            guard let type = extensions.takeNumber(in: bytes), let value = extensions.takeLong(in: bytes)
            else { return nil }
            let isGood: Bool
            // None may come twice (RFC 8446 4.2): two readers would believe two different ones.
            switch Extension(rawValue: type) {
            case .serverName:
                isGood = !seen.serverName && readServerName(value, in: bytes)
                seen.serverName = true
            case .protocols:
                isGood = !seen.protocols && readProtocols(value, in: bytes)
                seen.protocols = true
            case .versions:
                isGood = !seen.versions && readVersions(value, in: bytes)
                seen.versions = true
            case nil: isGood = true
            }
            guard isGood else { return nil }
        }
    }

    /// A list of names with their kinds, of which only host_name exists; more than one of a kind is forbidden (RFC 6066 3).
    private mutating func readServerName(_ value: Piece, in bytes: Span<UInt8>) -> Bool {
        var value = value
        guard var list = value.takeLong(in: bytes), value.count == 0, list.count > 0,
            let kind = list.takeByte(in: bytes)
        else { return false }
        hasUnusableServerName = true
        // How another kind would be written is not known.
        guard kind == 0 else { return true }
        guard let name = list.takeLong(in: bytes) else { return false }
        guard list.count == 0, (1...Self.serverNameBytesMax).contains(name.count) else { return true }
        var rest = name
        while let byte = rest.takeByte(in: bytes) {
            guard (0x21...0x7e).contains(byte) else { return true }
        }
        hasUnusableServerName = false
        serverName = name
        return true
    }

    private mutating func readProtocols(_ value: Piece, in bytes: Span<UInt8>) -> Bool {
        var value = value
        guard let list = value.takeLong(in: bytes), value.count == 0, list.count > 0 else { return false }
        var rest = list
        while rest.count > 0 {
            guard let name = rest.takeShort(in: bytes), name.count > 0 else { return false }
        }
        protocolNames = list
        return true
    }

    private mutating func readVersions(_ value: Piece, in bytes: Span<UInt8>) -> Bool {
        var value = value
        guard var list = value.takeShort(in: bytes), value.count == 0, list.count >= 2 else { return false }
        versions = []
        while list.count > 0 {
            guard let version = list.takeNumber(in: bytes) else { return false }
            versions.formUnion(Versions(wire: version))
        }
        return true
    }
}
