// TLS towards clients: certificates chosen by the name that a client asks for, session tickets, clients' certificates.
// The arbiter makes one of these to check what it has read, each worker one to use it.

import COpenSSL
public import Config
import Glibc

/// What listeners speak TLS with. To change anything but ticket keys, make a new one: sessions of the old one go on with
/// what they have.
public final class ListenerTLS {
    /// Sessions begin with the first certificate.
    private let first: TLSContext
    private let rules: HandshakeRules

    /// Checks and takes over certificates and keys. A failure names the file, and what is wrong in OpenSSL's own words.
    public init(_ material: TLSMaterial, _ settings: TLSSettings) throws(TLSFailure) {
        guard !material.certificates.isEmpty else { throw TLSFailure("there is no certificate") }
        rules = try HandshakeRules(material, settings)
        let clients = try ClientAuthorities(material, settings)
        var groups: [CertificateGroup] = []
        for certificate in material.certificates {
            let loaded = try LoadedCertificate(certificate)
            if let index = groups.firstIndex(where: { $0.takes(loaded) }) {
                groups[index].members.append(loaded)
            } else {
                groups.append(CertificateGroup(members: [loaded]))
            }
        }
        var contexts: [TLSContext] = []
        for group in groups { contexts.append(try Self.context(group, settings, rules, clients)) }
        first = contexts.removeFirst()
        for (other, group) in zip(contexts, groups.dropFirst()) {
            try other.attach(ListenerParts(rules: rules, responses: group.responses, table: nil))
        }
        // The table is kept by the first settings, which it does not hold itself: there is no cycle.
        let table = NameTable(groups.map(\.names), others: contexts)
        try first.attach(ListenerParts(rules: rules, responses: groups[0].responses, table: table))
        tp_SSL_CTX_set_tlsext_servername_callback(first.ctx, chooseByName, Unmanaged.passUnretained(table).toOpaque())
    }

    /// Seals and opens tickets with these keys from now on; certificates need not be read again for that. A failure
    /// changes nothing.
    public func renew(ticketKeys: [[UInt8]]) throws(TLSFailure) { try rules.renew(ticketKeys) }

    /// A session that waits for a client's ClientHello; the caller frees it. Nil: there is no memory.
    func makeSession() -> OpaquePointer? {
        guard let ssl = SSL_new(first.ctx) else { return nil }
        SSL_set_accept_state(ssl)
        return ssl
    }

    /// Good with clients of the last ten years: forward secrecy and authenticated encryption only. AES with 128 bits
    /// comes first: it is as good as with 256, and takes less time.
    static let ciphersDefault = """
        ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
        ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305
        """

    /// The same for TLS 1.3, of which these are all that clients speak.
    static let suitesDefault = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

    /// The settings for the certificates of one set of names.
    private static func context(
        _ group: CertificateGroup, _ settings: TLSSettings, _ rules: HandshakeRules, _ clients: ClientAuthorities
    ) throws(TLSFailure) -> TLSContext {
        let context = try TLSContext(TLS_server_method())
        let ctx = context.ctx
        // ChaCha20 comes first for those that prefer it: they have no instructions for AES.
        SSL_CTX_set_options(ctx, tp_SSL_OP_CIPHER_SERVER_PREFERENCE | tp_SSL_OP_PRIORITIZE_CHACHA)
        tp_SSL_CTX_set_session_cache_mode(ctx, Int(SSL_SESS_CACHE_OFF))
        let oldest = settings.versionMin == .tls13 ? TLS1_3_VERSION : TLS1_2_VERSION
        guard tp_SSL_CTX_set_min_proto_version(ctx, oldest) == 1,
            tp_SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") == 1,
            SSL_CTX_set_cipher_list(ctx, ciphersDefault) == 1, SSL_CTX_set_ciphersuites(ctx, suitesDefault) == 1
        else { throw .fromQueue("TLS cannot be set up") }
        if let ciphers = settings.ciphers {
            // Should they be of a kind that needs parameters.
            tp_SSL_CTX_set_dh_auto(ctx, 1)
            try context.setCiphers(
                ciphers, withCertificates: settings.clientCertificates != .none, option: "--ssl-ciphers")
        }
        for member in group.members { try context.use(member.chain, member.key, name: member.name) }
        try clients.apply(to: context)
        rules.apply(to: context)
        tp_SSL_CTX_set_tlsext_status_cb(ctx, staple)
        return context
    }
}

// MARK: - Certificates by name

/// A certificate and its key, read.
private struct LoadedCertificate {
    let name: String
    let chain: [Certificate]
    let key: PrivateKey
    let names: Set<String>
    /// RSA, elliptic curves …
    let keyKind: Int32
    /// One that cannot be used is left out: whoever has read it has said so.
    let response: OCSPResponse?

    init(_ certificate: TLSMaterial.Certificate) throws(TLSFailure) {
        name = certificate.name
        chain = try PEMReader(certificate.chain, name: name).certificates()
        key = try PEMReader(certificate.key, name: name).privateKey()
        let leaf = chain[0]
        names = Set(leaf.hostNames)
        keyKind = EVP_PKEY_get_base_id(key.evp)
        response = certificate.ocspResponse.flatMap { try? OCSPResponse($0, of: leaf, name: certificate.name) }
    }
}

/// Certificates for the same names with keys of different kinds: OpenSSL takes the one that a client can verify.
private struct CertificateGroup {
    var members: [LoadedCertificate]

    var names: Set<String> { members.first?.names ?? [] }

    /// By their certificates, of which OpenSSL keeps the very same ones.
    var responses: [OpaquePointer: OCSPResponse] {
        var responses: [OpaquePointer: OCSPResponse] = [:]
        for member in members { responses[member.chain[0].x509] = member.response }
        return responses
    }

    func takes(_ other: LoadedCertificate) -> Bool {
        !other.names.isEmpty && names == other.names && !members.contains { $0.keyKind == other.keyKind }
    }
}

/// Which certificates are for which name. It is kept by the first settings and holds the others.
private final class NameTable {
    private var exact: [String: Int] = [:]
    /// What comes after the `*.`, which stands for one label (RFC 6125 6.4.3).
    private var wildcards: [String: Int] = [:]
    private let others: [TLSContext]

    /// `names`: those of the first settings, and of each of the others in order. For each name the first is taken.
    init(_ names: [Set<String>], others: [TLSContext]) {
        self.others = others
        for (index, names) in names.enumerated() {
            for name in names {
                if name.hasPrefix("*.") {
                    let rest = String(name.dropFirst(2))
                    wildcards[rest] = wildcards[rest] ?? index
                } else {
                    exact[name] = exact[name] ?? index
                }
            }
        }
    }

    /// The settings for a name; nil for the first ones, which are there for all other names, too.
    func context(for name: String) -> TLSContext? {
        guard let index = exact[name] ?? wildcard(name), index > 0 else { return nil }
        return others[index &- 1]
    }

    private func wildcard(_ name: String) -> Int? {
        guard !wildcards.isEmpty, let dot = name.utf8.firstIndex(of: UInt8(ascii: ".")), dot > name.startIndex
        else { return nil }
        return wildcards[String(name[name.index(after: dot)...])]
    }
}

/// Called by OpenSSL when it has read a ClientHello: changes to the settings for the name in it. The argument is the
/// table.
private func chooseByName(
    _ ssl: OpaquePointer?, _ alert: UnsafeMutablePointer<Int32>?, _ table: UnsafeMutableRawPointer?
) -> Int32 {
    guard let ssl, let table, let name = serverName(of: ssl),
        let context = Unmanaged<NameTable>.fromOpaque(table).takeUnretainedValue().context(for: name)
    else { return SSL_TLSEXT_ERR_OK }
    guard SSL_set_SSL_CTX(ssl, context.ctx) != nil else {
        alert?.pointee = SSL_AD_INTERNAL_ERROR
        return SSL_TLSEXT_ERR_ALERT_FATAL
    }
    return SSL_TLSEXT_ERR_OK
}

/// Called by OpenSSL for a client that asks what a certificate's authority says of it, once that certificate is chosen.
private func staple(_ ssl: OpaquePointer?, _: UnsafeMutableRawPointer?) -> Int32 {
    guard let ssl, let certificate = SSL_get_certificate(ssl),
        let response = TLSContext.attached(to: SSL_get_SSL_CTX(ssl), ListenerParts.self)?.responses[certificate],
        response.isCurrent(at: time(nil)),
        tp_SSL_set_tlsext_status_ocsp_resp(ssl, response.bytes, response.bytes.count) == 1
    else { return SSL_TLSEXT_ERR_NOACK }
    return SSL_TLSEXT_ERR_OK
}

// MARK: - Clients' certificates

/// Who signs clients' certificates, and whether clients need one.
private struct ClientAuthorities {
    private let requirement: CertificateRequirement
    private let certificates: [Certificate]
    /// What sessions belong to: one that was made under other authorities, or when no certificate was asked for, is not
    /// resumed.
    private let sessionContext: [UInt8]

    /// How long the names of authorities in a request for a certificate are in all at most (RFC 8446 4.2.4).
    private static let namesBytesMax = 65_535

    init(_ material: TLSMaterial, _ settings: TLSSettings) throws(TLSFailure) {
        requirement = settings.clientCertificates
        let file = settings.clientAuthoritiesFile ?? "authorities of clients"
        certificates =
            if let bytes = material.clientAuthorities {
                try PEMReader(bytes, name: file).certificates()
            } else {
                []
            }
        guard requirement == .none || !certificates.isEmpty
        else { throw TLSFailure("clients' certificates cannot be verified: nobody is named who signs them") }
        let identity = [UInt8(requirement.rawValue)] + (material.clientAuthorities ?? [])
        var digest = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
        guard EVP_Digest(identity, identity.count, &digest, nil, EVP_sha256(), nil) == 1
        else { throw .fromQueue("TLS cannot be set up") }
        sessionContext = digest
    }

    func apply(to context: TLSContext) throws(TLSFailure) {
        let ctx = context.ctx
        SSL_CTX_set_session_id_context(ctx, sessionContext, UInt32(sessionContext.count))
        let mode =
            switch requirement {
            case .none: SSL_VERIFY_NONE
            case .optional: SSL_VERIFY_PEER
            case .required: SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
            }
        SSL_CTX_set_verify(ctx, mode, nil)
        guard requirement != .none, let store = SSL_CTX_get_cert_store(ctx) else { return }
        for certificate in certificates {
            guard X509_STORE_add_cert(store, certificate.x509) == 1 else { throw .fromQueue("authorities of clients") }
        }
        // Clients choose among their certificates by these names. So many that they do not fit are left out.
        let bytes = certificates.reduce(0) { sum, certificate in
            sum &+ 2 &+ Int(max(0, i2d_X509_NAME(X509_get_subject_name(certificate.x509), nil)))
        }
        guard bytes <= Self.namesBytesMax else { return }
        for certificate in certificates {
            guard SSL_CTX_add_client_CA(ctx, certificate.x509) == 1 else { throw .fromQueue("authorities of clients") }
        }
    }
}

// MARK: - What handshakes need beside certificates

/// What is attached to the settings.
private final class ListenerParts {
    let rules: HandshakeRules
    let responses: [OpaquePointer: OCSPResponse]
    /// With the first settings only.
    let table: NameTable?

    init(rules: HandshakeRules, responses: [OpaquePointer: OCSPResponse], table: NameTable?) {
        self.rules = rules
        self.responses = responses
        self.table = table
    }
}

/// Protocols and ticket keys.
final class HandshakeRules {
    /// In the form of the extension; callbacks hand out pointers into it.
    fileprivate let protocols: UnsafeMutableBufferPointer<UInt8>
    private var tickets: TicketKeys?
    private let asksForCertificates: Bool

    fileprivate init(_ material: TLSMaterial, _ settings: TLSSettings) throws(TLSFailure) {
        tickets = material.ticketKeys.isEmpty ? nil : try TicketKeys(material.ticketKeys)
        asksForCertificates = settings.clientCertificates != .none
        let wire = try TLSContext.wire(settings.alpn.map { Array($0.utf8) })
        protocols = .allocate(capacity: wire.count)
        _ = protocols.initialize(from: wire)
    }

    deinit { protocols.deallocate() }

    fileprivate func renew(_ ticketKeys: [[UInt8]]) throws(TLSFailure) { tickets = try TicketKeys(ticketKeys) }

    fileprivate func apply(to context: TLSContext) {
        let ctx = context.ctx
        if !protocols.isEmpty {
            SSL_CTX_set_alpn_select_cb(ctx, chooseProtocol, Unmanaged.passUnretained(self).toOpaque())
        }
        SSL_CTX_set_timeout(ctx, Limits.tlsTicketSeconds)
        guard tickets != nil else {
            SSL_CTX_set_options(ctx, tp_SSL_OP_NO_TICKET)
            // With that option those of TLS 1.3 would become numbers in a cache, of which there is none.
            SSL_CTX_set_num_tickets(ctx, 0)
            return
        }
        // OpenSSL would make two of each handshake. A connection that resumes is given the next.
        SSL_CTX_set_num_tickets(ctx, 1)
        SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx) { ssl, name, iv, cipher, mac, seals in
            guard let rules = HandshakeRules.of(ssl), let tickets = rules.tickets,
                let name, let iv, let cipher, let mac
            else { return -1 }
            guard seals != 1 else { return tickets.seal(name, iv, cipher, mac) }
            return tickets.open(name, iv, cipher, mac, isForOneUse: SSL_version(ssl) == TLS1_3_VERSION)
        }
        guard asksForCertificates else { return }
        SSL_CTX_set_session_ticket_cb(ctx, nil, usesTicket, nil)
    }

    /// Those of a session's settings, whichever it has changed to.
    private static func of(_ ssl: OpaquePointer?) -> HandshakeRules? {
        guard let ssl else { return nil }
        return TLSContext.attached(to: SSL_get_SSL_CTX(ssl), ListenerParts.self)?.rules
    }
}

/// Called by OpenSSL with the protocols a client offers: takes the first of ours that is among them. When there is none
/// the client is told so (RFC 7301 3.2): it would speak something that is not understood. The argument is the rules.
private func chooseProtocol(
    _: OpaquePointer?, _ chosen: UnsafeMutablePointer<UnsafePointer<UInt8>?>?, _ length: UnsafeMutablePointer<UInt8>?,
    _ offered: UnsafePointer<UInt8>?, _ offeredCount: UInt32, _ rules: UnsafeMutableRawPointer?
) -> Int32 {
    guard let chosen, let length, let offered, let rules else { return SSL_TLSEXT_ERR_ALERT_FATAL }
    let protocols = Unmanaged<HandshakeRules>.fromOpaque(rules).takeUnretainedValue().protocols
    var name: UnsafeMutablePointer<UInt8>?
    let result = SSL_select_next_proto(
        &name, length, protocols.baseAddress, UInt32(clamping: protocols.count), offered, offeredCount)
    guard result == OPENSSL_NPN_NEGOTIATED else { return SSL_TLSEXT_ERR_ALERT_FATAL }
    chosen.pointee = UnsafePointer(name)
    return SSL_TLSEXT_ERR_OK
}

/// Called by OpenSSL when it has tried to open a ticket. A client's certificate is verified once, while its session can
/// be resumed again and again: it must not outlive the certificate.
private func usesTicket(
    _: OpaquePointer?, _ session: OpaquePointer?, _: UnsafePointer<UInt8>?, _: Int, _ status: SSL_TICKET_STATUS,
    _: UnsafeMutableRawPointer?
) -> SSL_TICKET_RETURN {
    let isGood = status == SSL_TICKET_SUCCESS || status == SSL_TICKET_SUCCESS_RENEW
    guard isGood, let session else { return SSL_TICKET_RETURN_IGNORE_RENEW }
    if let certificate = SSL_SESSION_get0_peer(session), X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0 {
        return SSL_TICKET_RETURN_IGNORE_RENEW
    }
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW
}
