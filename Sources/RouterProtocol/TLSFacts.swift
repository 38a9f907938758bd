// `tls` in a question: what was agreed with a client whose TLS ends here.

/// What was agreed with a client.
public struct TLSFacts: Equatable, Sendable {
    /// The client's certificate; it has been verified.
    public struct Certificate: Equatable, Sendable {
        /// Distinguished names as in RFC 2253.
        public var subject: String
        public var issuer: String
        /// Subject alternative names, as "DNS:a.example", "IP:192.0.2.1", "email:a@b.example", "URI:…".
        public var names: [String]
        /// SHA-256 of the certificate, in lower-case hexadecimal digits.
        public var fingerprint: String

        public init(subject: String, issuer: String, names: [String], fingerprint: String) {
            self.subject = subject
            self.issuer = issuer
            self.names = names
            self.fingerprint = fingerprint
        }
    }

    /// As OpenSSL says it: "TLSv1.3".
    public var version: String
    public var cipher: String
    public var sni: String?
    public var alpn: String?
    public var clientCertificate: Certificate?

    public init(version: String, cipher: String, sni: String?, alpn: String?, clientCertificate: Certificate?) {
        self.version = version
        self.cipher = cipher
        self.sni = sni
        self.alpn = alpn
        self.clientCertificate = clientCertificate
    }
    /// A server name or a protocol's name has no more bytes (RFC 6066, RFC 7301).
    public static let nameBytesMax = 255
    /// No version, cipher or fingerprint has more.
    public static let wordBytesMax = 64
    /// A longer distinguished name is cut and ends in "…", so that it equals no other one.
    public static let distinguishedNameBytesMax = 1024
    /// The first so many alternative names are told, and of them so many bytes: those that are whole.
    public static let alternativeNamesMax = 64
    public static let alternativeNameBytesMax = 2048

    func append(to line: inout [UInt8]) {
        line.append("{\"version\":")
        line.append(json: version.cut(Self.wordBytesMax))
        line.append(",\"cipher\":")
        line.append(json: cipher.cut(Self.wordBytesMax))
        line.append(",\"sni\":")
        line.append(json: sni?.cut(Self.nameBytesMax))
        line.append(",\"alpn\":")
        line.append(json: alpn?.cut(Self.nameBytesMax))
        line.append(",\"client_certificate\":")
        if let clientCertificate { clientCertificate.append(to: &line) } else { line.append("null") }
        line.append("}")
    }
}

extension TLSFacts.Certificate {
    fileprivate func append(to line: inout [UInt8]) {
        line.append("{\"subject\":")
        line.append(json: Self.whole(subject))
        line.append(",\"issuer\":")
        line.append(json: Self.whole(issuer))
        line.append(",\"names\":[")
        var room = TLSFacts.alternativeNameBytesMax
        for (index, name) in names.prefix(TLSFacts.alternativeNamesMax).enumerated() {
            room &-= name.utf8.count
            guard room >= 0 else { break }
            if index > 0 { line.append(",") }
            line.append(json: name)
        }
        line.append("],\"fingerprint\":")
        line.append(json: fingerprint.cut(TLSFacts.wordBytesMax))
        line.append("}")
    }

    private static func whole(_ name: String) -> String {
        let cut = name.cut(TLSFacts.distinguishedNameBytesMax)
        return cut.utf8.count == name.utf8.count ? name : cut + "…"
    }
}
