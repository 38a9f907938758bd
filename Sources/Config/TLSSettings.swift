// TLS towards clients as options, and what they name once it has been read: certificates, keys, ticket keys.

import Glibc

/// What is asked of clients' certificates (`--ssl-cert-reqs`): Python's numbers, as in the classic.
public enum CertificateRequirement: Int, Sendable, Equatable, Hashable, CaseIterable {
    /// None is asked for.
    case none = 0
    /// One is asked for and checked if there is one.
    case optional = 1
    /// Without a good one there is no connection.
    case required = 2
}

/// The oldest version of TLS that is spoken with clients (`--ssl-min-version`).
public enum TLSVersion: String, Sendable, Equatable, CaseIterable {
    case tls12 = "1.2"
    case tls13 = "1.3"
}

/// The `--ssl-*` options.
public struct TLSSettings: Sendable, Equatable {
    /// PEM files with a certificate and its chain, or folders of them (`--ssl-certfile`). Never empty.
    public var certificateFiles: [String]
    /// PEM files with the keys, in the same order (`--ssl-keyfile`); none where the certificate's file holds the key.
    public var keyFiles: [String] = []
    /// A PEM file of those who sign clients' certificates (`--ssl-ca-certs`).
    public var clientAuthoritiesFile: String?
    public var clientCertificates = CertificateRequirement.none
    /// OpenSSL's words for ciphers (`--ssl-ciphers`), nil for those that are good today.
    public var ciphers: String?
    public var versionMin = TLSVersion.tls12
    /// Protocols that are agreed on, the best first (`--ssl-alpn`).
    public var alpn: [String] = []

    public init(certificateFiles: [String]) { self.certificateFiles = certificateFiles }
}

/// What the `--ssl-*` options name, read: it goes from the arbiter, who may read keys, to the workers, who may not.
public struct TLSMaterial: Sendable, Equatable {
    /// A certificate with its chain and its key, both PEM.
    public struct Certificate: Sendable, Equatable {
        /// The file it came from, for messages.
        public var name: String
        public var chain: [UInt8]
        public var key: [UInt8]
        /// What its authority says of it (DER), for clients that ask.
        public var ocspResponse: [UInt8]?

        public init(name: String, chain: [UInt8], key: [UInt8], ocspResponse: [UInt8]? = nil) {
            self.name = name
            self.chain = chain
            self.key = key
            self.ocspResponse = ocspResponse
        }
    }

    /// How long a ticket key is: 16 bytes of name, 32 for the HMAC, 32 for the cipher.
    public static let ticketKeyBytes = 80

    /// The first one serves clients that name no host, or one that no certificate has.
    public var certificates: [Certificate]
    /// PEM, nil when no client's certificate is checked.
    public var clientAuthorities: [UInt8]?
    /// What session tickets are sealed with: the first makes new ones, the others still open theirs.
    public var ticketKeys: [[UInt8]]

    public init(certificates: [Certificate], clientAuthorities: [UInt8]? = nil, ticketKeys: [[UInt8]] = []) {
        self.certificates = certificates
        self.clientAuthorities = clientAuthorities
        self.ticketKeys = ticketKeys
    }
}

extension TLSMaterial {
    /// Clears the keys in memory, for whoever has no more use for them. A copy that somebody else has stays.
    public mutating func wipe() {
        for index in certificates.indices {
            // A file may hold both.
            certificates[index].chain.wipe()
            certificates[index].key.wipe()
        }
        for index in ticketKeys.indices { ticketKeys[index].wipe() }
        certificates = []
        ticketKeys = []
    }
}

extension [UInt8] {
    /// Overwrites what is in it with zeros, in a way that no compiler leaves out. The C function is `explicit_bzero`.
    public mutating func wipe() {
        unsafe withUnsafeMutableBytes { bytes in
            guard let start = bytes.baseAddress else { return }
            unsafe explicit_bzero(start, bytes.count)
        }
    }
}
