// Certificates for a test, made with the openssl command into a folder of the test's own: nothing of them is kept, and no
// key is in the repository.

import Foundation

/// What tests of TLS on either side begin with: an authority, and one certificate for who listens, tproxy and remotes.
struct LocalTLS: Sendable {
    let certificates: Certificates
    let leaf: Certificates.Pair

    init() throws {
        certificates = try Certificates()
        leaf = try certificates.leaf()
    }

    /// The options of a tproxy whose clients speak TLS.
    var listening: [String] { ["--ssl-certfile", leaf.certificate, "--ssl-keyfile", leaf.key] }
    /// The options of tls_peer.py for a client that verifies it.
    var trusting: [String] { ["--ca", certificates.authorityFile, "--name", "localhost"] }
    /// Members of a verdict whose remote speaks TLS and is verified.
    var verdict: String {
        #""ssl": true, "ssl_args": {"ca_certs": "\#(certificates.authorityFile)", "server_hostname": "localhost"}"#
    }

    /// A remote that takes these steps of tls_peer.py.
    func origin(_ steps: [String]) throws -> TLSOrigin { try TLSOrigin(leaf, in: certificates, steps) }
}

/// An authority of a test's own, and what it signs. All keys are EC P-256, made anew; making one takes some milliseconds.
final class Certificates: Sendable {
    /// A certificate and its key: paths of PEM files.
    struct Pair: Sendable {
        let certificate: String
        let key: String

        /// The certificate's fingerprint as `fingerprint(shownOn:)` gives it.
        func fingerprint() throws -> String {
            try Certificates.fingerprint(
                Certificates.openssl(["x509", "-in", certificate, "-noout", "-fingerprint", "-sha256"]))
        }
    }

    /// How long a certificate is good.
    enum Validity: Sendable {
        /// From yesterday on for ten years.
        case now
        /// It was good in 2020.
        case expired
        /// It will be in a year.
        case future
    }

    /// What a certificate may be used for.
    enum Use: String, Sendable {
        case client = "clientAuth"
        case listener = "serverAuth"
    }

    private let folder = Folder()
    /// The authority's own. Its certificate is what a verifying side is given (`-CAfile`, `--ssl-ca-certs`).
    let authority: Pair

    /// The authority's certificate.
    var authorityFile: String { authority.certificate }
    /// Where everything is; a test may write there, too.
    var path: String { folder.path }

    /// Makes an authority; another one is another stranger, whatever its name.
    init(authority name: String = "tproxy test authority") throws {
        authority = Pair(certificate: folder.path + "/authority.crt", key: folder.path + "/authority.key")
        _ = try folder.file("index.txt")
        // Two authorities of one name must not give out the same number.
        _ = try folder.file("serial", "10" + String(UInt64.random(in: 1 << 60 ... .max), radix: 16) + "\n")
        // Nothing of the system's configuration counts.
        let config = try folder.file(
            "openssl.cnf",
            """
            [req]
            distinguished_name = name
            x509_extensions = authority
            string_mask = utf8only
            [name]
            [authority]
            basicConstraints = critical, CA:true
            keyUsage = critical, keyCertSign, cRLSign
            subjectKeyIdentifier = hash
            [alone]
            basicConstraints = CA:false
            [ca]
            default_ca = test
            [test]
            database = \(folder.path)/index.txt
            serial = \(folder.path)/serial
            preserve = yes
            new_certs_dir = \(folder.path)
            default_md = sha256
            policy = any
            unique_subject = no
            [any]
            commonName = supplied
            organizationName = optional
            """ + "\n")
        try Self.openssl(
            ["req", "-x509", "-config", config, "-days", "3650", "-subj", "/CN=\(name)", "-out", authority.certificate]
                + Self.newKey(authority.key))
    }

    /// Makes `NAME.crt` and `NAME.key`, signed by the authority. The common name is `name`; names and addresses are what
    /// it is good for.
    func leaf(
        _ name: String = "localhost", names: [String] = ["localhost"], addresses: [String] = ["127.0.0.1", "::1"],
        organization: String? = nil, use: Use = .listener, validity: Validity = .now
    ) throws -> Pair {
        let pair = Pair(certificate: "\(path)/\(name).crt", key: "\(path)/\(name).key")
        let request = "\(path)/\(name).csr"
        let subject = (organization.map { "/O=\($0)" } ?? "") + "/CN=\(name)"
        try Self.openssl(
            ["req", "-new", "-config", path + "/openssl.cnf", "-subj", subject, "-out", request]
                + Self.newKey(pair.key))
        let alternatives = names.map { "DNS:\($0)" } + addresses.map { "IP:\($0)" }
        var extensions = """
            basicConstraints = CA:false
            keyUsage = critical, digitalSignature
            extendedKeyUsage = \(use.rawValue)
            authorityKeyIdentifier = keyid
            """
        if !alternatives.isEmpty { extensions += "\nsubjectAltName = \(alternatives.joined(separator: ", "))" }
        let file = try folder.file("\(name).ext", extensions + "\n")
        let (from, until) = Self.dates(validity)
        try Self.openssl([
            "ca", "-batch", "-notext", "-config", path + "/openssl.cnf", "-cert", authority.certificate, "-keyfile",
            authority.key, "-in", request, "-out", pair.certificate, "-extfile", file, "-startdate",
            from, "-enddate", until,
        ])
        return pair
    }

    /// A certificate for a client, with its name as the common name.
    func client(_ name: String = "client", validity: Validity = .now) throws -> Pair {
        try leaf(name, names: [], addresses: [], organization: "Tests", use: .client, validity: validity)
    }

    /// A certificate that nobody else has signed.
    func selfSigned(_ name: String = "lonely", names: [String] = ["localhost"]) throws -> Pair {
        let pair = Pair(certificate: "\(path)/\(name).crt", key: "\(path)/\(name).key")
        try Self.openssl(
            [
                "req", "-x509", "-config", path + "/openssl.cnf", "-extensions", "alone", "-days", "3650", "-subj",
                "/CN=\(name)", "-addext", "subjectAltName=\(names.map { "DNS:\($0)" }.joined(separator: ","))", "-out",
                pair.certificate,
            ] + Self.newKey(pair.key))
        return pair
    }

    /// One PEM file of these, in this order: a chain, or a certificate with its key.
    func joined(_ name: String, _ files: [String]) throws -> String {
        try folder.file(name, files.map { try String(contentsOfFile: $0, encoding: .utf8) }.joined())
    }

    /// Runs openssl to its end; what it wrote. A failure has its words.
    @discardableResult
    static func openssl(_ arguments: [String]) throws -> String {
        let (status, text) = try Subprocess.run(["openssl"] + arguments)
        guard status == 0 else { throw Failure("openssl \(arguments.joined(separator: " ")):\n\(text)") }
        return text
    }

    /// The SHA-256 of the certificate that is shown on a port of 127.0.0.1, as hex with colons.
    static func fingerprint(shownOn port: UInt16, name: String? = nil) throws -> String {
        let which = name.map { "-servername '\($0)'" } ?? "-noservername"
        let (_, text) = try Subprocess.run([
            "sh", "-c",
            "openssl s_client -connect 127.0.0.1:\(port) \(which) </dev/null 2>/dev/null"
                + " | openssl x509 -noout -fingerprint -sha256",
        ])
        return try fingerprint(text)
    }

    private static func fingerprint(_ text: String) throws -> String {
        guard let match = text.firstMatch(of: /[Ff]ingerprint=([0-9A-F:]+)/) else {
            throw Failure("no fingerprint: \(text)")
        }
        return String(match.1)
    }

    private static func newKey(_ path: String) -> [String] {
        ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path]
    }

    private static func dates(_ validity: Validity) -> (String, String) {
        func date(_ days: Double) -> String {
            let format = DateFormatter()
            format.locale = Locale(identifier: "en_US_POSIX")
            format.timeZone = TimeZone(identifier: "UTC")
            format.dateFormat = "yyyyMMddHHmmss'Z'"
            return format.string(from: Date(timeIntervalSinceNow: days * 86_400))
        }
        return switch validity {
        case .now: (date(-1), date(3650))
        case .expired: ("20200101000000Z", "20210101000000Z")
        case .future: (date(365), date(730))
        }
    }
}
