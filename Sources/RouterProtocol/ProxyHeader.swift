// The PROXY header, which tells a remote whose connection this is before any other byte of it: haproxy's
// doc/proxy-protocol.txt, versions 1 and 2. Pure.

public import Addressing

/// The header in front of what a remote gets.
public enum ProxyHeader {
    /// The header's bytes. `version` is 1 or 2; `client` who connected to us, `local` to which of our addresses: where these are
    /// no two IP addresses of one kind, the header says that it does not know. `tls` is what was agreed with a client whose TLS
    /// ends here; version 2 tells it.
    public static func bytes(version: Int, client: Endpoint?, local: Endpoint?, tls: TLSFacts? = nil) -> [UInt8] {
        let addresses = Addresses(client, local)
        return version == 1 ? text(addresses) : binary(addresses, tls)
    }

    private enum Addresses {
        case unknown
        case ipv4(from: IPv4Address, UInt16, to: IPv4Address, UInt16)
        case ipv6(from: IPv6Address, UInt16, to: IPv6Address, UInt16)

        init(_ client: Endpoint?, _ local: Endpoint?) {
            switch (client, local) {
            case (.ipv4(let client, let from), .ipv4(let local, let to)):
                self = .ipv4(from: client, from, to: local, to)
            case (.ipv6(let client, let from), .ipv6(let local, let to)):
                self = .ipv6(from: client.withoutZone, from, to: local.withoutZone, to)
            default: self = .unknown
            }
        }
    }

    // MARK: Version 1

    private static func text(_ addresses: Addresses) -> [UInt8] {
        switch addresses {
        case .unknown: Array("PROXY UNKNOWN\r\n".utf8)
        case .ipv4(let client, let from, let local, let to):
            Array("PROXY TCP4 \(client) \(local) \(from) \(to)\r\n".utf8)
        case .ipv6(let client, let from, let local, let to):
            Array("PROXY TCP6 \(client) \(local) \(from) \(to)\r\n".utf8)
        }
    }

    // MARK: Version 2

    private static let signature: [UInt8] = [
        0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a,
    ]

    /// What follows the addresses: a type, a length, a value.
    private enum Kind: UInt8 {
        /// What the client and we agreed to speak (ALPN).
        case alpn = 0x01
        /// The server name the client sent.
        case authority = 0x02
        case tls = 0x20
        case tlsVersion = 0x21
        case tlsCipher = 0x23
    }

    private static func binary(_ addresses: Addresses, _ tls: TLSFacts?) -> [UInt8] {
        var rest: [UInt8] = []
        let family: UInt8
        switch addresses {
        case .unknown: family = 0x00
        case .ipv4(let client, let from, let local, let to):
            family = 0x11
            rest.append(bigEndian: client.bits)
            rest.append(bigEndian: local.bits)
            rest.append(bigEndian: from)
            rest.append(bigEndian: to)
        case .ipv6(let client, let from, let local, let to):
            family = 0x21
            for half in [client.high, client.low, local.high, local.low] { rest.append(bigEndian: half) }
            rest.append(bigEndian: from)
            rest.append(bigEndian: to)
        }
        if let tls { append(tls, to: &rest) }
        var header = signature
        // Version 2, "this is somebody else's connection".
        header.append(0x21)
        header.append(family)
        header.append(bigEndian: UInt16(truncatingIfNeeded: rest.count))
        return header + rest
    }

    private static func append(_ tls: TLSFacts, to bytes: inout [UInt8]) {
        if let alpn = tls.alpn { append(.alpn, alpn, to: &bytes) }
        if let name = tls.sni { append(.authority, name, to: &bytes) }
        let hasCertificate = tls.clientCertificate != nil
        // The client speaks TLS; it gave a certificate on this connection or in this session.
        var inside: [UInt8] = [hasCertificate ? 0x01 | 0x04 : 0x01]
        // 0 when a certificate was verified.
        inside.append(bigEndian: hasCertificate ? UInt32(0) : 1)
        append(.tlsVersion, tls.version, to: &inside)
        append(.tlsCipher, tls.cipher, to: &inside)
        append(.tls, inside, to: &bytes)
    }

    private static func append(_ kind: Kind, _ text: String, to bytes: inout [UInt8]) {
        append(kind, Array(text.cut(TLSFacts.nameBytesMax).utf8), to: &bytes)
    }

    private static func append(_ kind: Kind, _ value: [UInt8], to bytes: inout [UInt8]) {
        bytes.append(kind.rawValue)
        bytes.append(bigEndian: UInt16(truncatingIfNeeded: value.count))
        bytes += value
    }
}

extension IPv6Address {
    /// A zone means something on one machine alone.
    fileprivate var withoutZone: IPv6Address { IPv6Address(high: high, low: low) }
}

extension [UInt8] {
    fileprivate mutating func append(bigEndian number: some FixedWidthInteger & UnsignedInteger) {
        for index in stride(from: number.bitWidth &- 8, through: 0, by: -8) {
            append(UInt8(truncatingIfNeeded: number &>> index))
        }
    }
}
