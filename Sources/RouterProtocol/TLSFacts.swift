// TLS in questions and verdicts: what was agreed with a client, and how to speak to a remote.

/// What was agreed with a client whose TLS ends here: the question's `tls`.
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
}

/// How to speak TLS to a remote: a verdict's `ssl_args`, after Python's `ssl.wrap_socket`.
public struct TLSArguments: Hashable, Sendable {
    /// Paths of PEM files; without a key file the certificate's file holds the key.
    public var keyFile: String?
    public var certificateFile: String?
    /// `cert_reqs`: false is 0, the remote's certificate is not looked at. 1 and 2 verify it: a server always has one.
    public var verifies = true
    /// `ca_certs`: a PEM file; nil for the system's.
    public var authoritiesFile: String?
    /// `ssl_version`, Python's numbers: 2 is any, 3, 4 and 5 are exactly TLS 1.0, 1.1 and 1.2.
    public var version: Int?
    public var ciphers: String?
    /// The name to send and to verify instead of the remote's own.
    public var serverName: String?
    public var alpn: [String] = []

    public init() {}
}
