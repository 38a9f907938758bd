// `ssl_args` in a verdict: how to speak TLS to a remote, after Python's `ssl.wrap_socket`.

internal import Addressing

/// How to speak TLS to a remote.
public struct TLSArguments: Hashable, Sendable {
    /// Paths of PEM files, never empty and without NUL; without a key file the certificate's file holds the key.
    /// There is no key file without a certificate's.
    public var keyFile: String?
    public var certificateFile: String?
    /// `cert_reqs`: false is 0, the remote's certificate is not looked at. 1 and 2 verify it: a server always has one.
    public var verifies = true
    /// `ca_certs`: a PEM file; nil for the system's.
    public var authoritiesFile: String?
    /// `ssl_version`, Python's numbers: nil and 2 are TLS 1.2 and newer, 3, 4 and 5 exactly TLS 1.0, 1.1 and 1.2.
    public var version: Int?
    /// In OpenSSL's words, without NUL.
    public var ciphers: String?
    /// The name to send and to verify instead of the remote's own, or an IP address, which is verified and not sent.
    public var serverName: String?
    /// Names of the protocols to offer (ALPN), the best first, 1 to 255 bytes each. They need not be text.
    public var alpn: [[UInt8]] = []

    /// More protocols than anybody offers.
    public static let protocolsMax = 32
    /// Longer than the names of all ciphers there are.
    public static let ciphersBytesMax = 4096

    public init() {}
}

/// What was found in `ssl_args`.
struct TLSArgumentsReading {
    var arguments = TLSArguments()
    /// Names that mean nothing here.
    var ignored: [String] = []
}

private enum TLSArgumentsKey: String, WireKey {
    case keyfile, certfile
    case certReqs = "cert_reqs"
    case caCerts = "ca_certs"
    case sslVersion = "ssl_version"
    case ciphers
    case serverHostname = "server_hostname"
    case alpn
    // Arguments of `ssl.wrap_socket` that are about its own socket.
    case serverSide = "server_side"
    case doHandshakeOnConnect = "do_handshake_on_connect"
    case suppressRaggedEOFs = "suppress_ragged_eofs"

    static let table = makeTable()
}

extension Field {
    func tlsArguments(in line: Span<UInt8>) throws(ProtocolError) -> TLSArgumentsReading {
        guard line.kind(of: value) == .object else { throw wrongType("must be an object") }
        var reading = TLSArgumentsReading()
        var seen = SeenKeys()
        var members = JSONCursor(value)
        while let (name, place) = try members.nextMember(in: line) {
            guard let (index, member) = TLSArgumentsKey.find(name, in: line) else {
                let unknown = ProtocolError.quoted(line.text(of: name) ?? "?")
                throw ProtocolError(.unknownKey, key: "\(key).\(unknown)", "no such argument")
            }
            let field = Field("\(key).\(member.rawValue)", place)
            guard seen.insert(index) else { throw .duplicate(field.key) }
            if line.kind(of: place) == .null { continue }
            switch member {
            case .keyfile: reading.arguments.keyFile = try field.path(in: line)
            case .certfile: reading.arguments.certificateFile = try field.path(in: line)
            case .certReqs: reading.arguments.verifies = try field.integer(in: line, from: 0, to: 2) != 0
            case .caCerts: reading.arguments.authoritiesFile = try field.path(in: line)
            case .sslVersion: reading.arguments.version = try field.integer(in: line, from: 2, to: 5)
            case .ciphers: reading.arguments.ciphers = try field.ciphers(in: line)
            case .serverHostname: reading.arguments.serverName = try field.serverName(in: line)
            case .alpn: reading.arguments.alpn = try field.protocols(in: line)
            case .serverSide, .doHandshakeOnConnect, .suppressRaggedEOFs: reading.ignored.append(member.rawValue)
            }
        }
        if reading.arguments.keyFile != nil, reading.arguments.certificateFile == nil {
            throw ProtocolError(.wrongValue, key: "\(key).keyfile", "needs a certfile")
        }
        return reading
    }

    private func ciphers(in line: Span<UInt8>) throws(ProtocolError) -> String {
        let ciphers = try text(in: line, bytesMax: TLSArguments.ciphersBytesMax)
        guard !ciphers.isEmpty, !ciphers.utf8.contains(0) else {
            throw wrongValue("must be a list of ciphers in OpenSSL's words, not empty and without NUL")
        }
        return ciphers
    }

    private func serverName(in line: Span<UInt8>) throws(ProtocolError) -> String {
        let name = try text(in: line, bytesMax: 255)
        // OpenSSL takes a name that begins with a dot for every name that ends so: nobody means that here.
        guard let host = Endpoint(host: name, port: 1)?.host, !host.hasPrefix(".") else {
            throw wrongValue("must be a host's name or an IP address, without a port")
        }
        return host
    }

    private func protocols(in line: Span<UInt8>) throws(ProtocolError) -> [[UInt8]] {
        guard line.kind(of: value) == .array else { throw wrongType("must be a list of byte strings") }
        var names: [[UInt8]] = []
        var elements = JSONCursor(value)
        while let element = try elements.nextElement(in: line) {
            guard line.kind(of: element) == .string else { throw wrongType("must be a list of byte strings") }
            let name = try Field(key, element).bytes(in: line)
            guard (1...255).contains(name.count), names.count < TLSArguments.protocolsMax else {
                throw wrongValue("must list at most \(TLSArguments.protocolsMax) names of 1 to 255 bytes")
            }
            names.append(name)
        }
        return names
    }
}
