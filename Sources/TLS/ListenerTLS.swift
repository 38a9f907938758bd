// TLS towards clients: certificates chosen by the name that a client asks for, session tickets, clients' certificates.
// The arbiter makes one of these to check what it has read, each worker one to use it.

import COpenSSL
public import Config

/// What listeners speak TLS with. When that changes, sessions go on with what they have.
public final class ListenerTLS {
    private let settings: TLSSettings
    private let rules: HandshakeRules
    private var loaded = LoadedCertificates()

    /// Checks and takes over certificates and keys. A failure names the file, and what is wrong in OpenSSL's own words.
    public init(_ material: TLSMaterial, _ settings: TLSSettings) throws(TLSFailure) {
        self.settings = settings
        rules = try HandshakeRules(settings)
        try renew(material)
    }

    /// The table holds settings that hold the rules.
    deinit { rules.table = nil }

    /// New sessions get what is in here. What has not changed is not made again: a certificate costs nearly a millisecond
    /// and 20 KB. A failure changes nothing.
    public func renew(_ material: TLSMaterial) throws(TLSFailure) {
        guard !material.certificates.isEmpty else { throw TLSFailure("there is no certificate") }
        let tickets = material.ticketKeys.isEmpty ? nil : try TicketKeys(material.ticketKeys)
        let clients = try ClientAuthorities(material, settings)
        var renewed = LoadedCertificates()
        var groups: [CertificateGroup] = []
        for certificate in material.certificates {
            let print = try fingerprint(certificate.chain, certificate.key)
            let one: LoadedCertificate
            if let known = loaded.certificates[print] {
                one = known
            } else {
                one = try LoadedCertificate(certificate, print)
            }
            renewed.certificates[print] = one
            if let index = groups.firstIndex(where: { $0.takes(one) }) {
                groups[index].members.append(one)
            } else {
                groups.append(CertificateGroup(members: [one]))
            }
        }
        var contexts: [TLSContext] = []
        for group in groups {
            let origin = group.members.map(\.print) + [clients.print, [tickets == nil ? 0 : 1]]
            let context: TLSContext
            if let known = renewed.contexts[origin] ?? loaded.contexts[origin] {
                context = known
            } else {
                context = try Self.context(group, settings, clients)
                try rules.apply(to: context, withTickets: tickets != nil)
            }
            renewed.contexts[origin] = context
            contexts.append(context)
        }
        loaded = renewed
        rules.tickets = tickets
        rules.table = NameTable(groups.map(\.names), contexts)
    }

    /// A session that waits for a client's ClientHello; the caller frees it. Nil: there is no memory.
    func makeSession() -> OpaquePointer? {
        guard let first = rules.table?.first, let ssl = SSL_new(first.ctx) else { return nil }
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
        _ group: CertificateGroup, _ settings: TLSSettings, _ clients: ClientAuthorities
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
            try context.setCiphers(ciphers)
        }
        for member in group.members { try context.use(member.chain, member.key, name: member.name) }
        try clients.apply(to: context)
        return context
    }
}

/// What is in use, by what it was made of.
private struct LoadedCertificates {
    var certificates: [[UInt8]: LoadedCertificate] = [:]
    var contexts: [[[UInt8]]: TLSContext] = [:]
}

/// A SHA-256 of all of them.
private func fingerprint(_ parts: [UInt8]...) throws(TLSFailure) -> [UInt8] {
    ERR_clear_error()
    guard let digest = EVP_MD_CTX_new() else { throw .fromQueue("TLS cannot be set up") }
    defer { EVP_MD_CTX_free(digest) }
    var result = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
    var isGood = EVP_DigestInit_ex(digest, EVP_sha256(), nil) == 1
    for part in parts {
        // With its length, so that nothing moves from one to the next.
        var count = part.count
        isGood = isGood && EVP_DigestUpdate(digest, &count, MemoryLayout<Int>.size) == 1
        isGood = isGood && EVP_DigestUpdate(digest, part, part.count) == 1
    }
    guard isGood, EVP_DigestFinal_ex(digest, &result, nil) == 1 else { throw .fromQueue("TLS cannot be set up") }
    return result
}

// MARK: - Certificates by name

/// A certificate and its key, read.
private struct LoadedCertificate {
    /// Of all its bytes.
    let print: [UInt8]
    let name: String
    let chain: [Certificate]
    let key: PrivateKey
    let names: Set<String>
    /// RSA, elliptic curves …
    let keyKind: Int32

    init(_ certificate: TLSMaterial.Certificate, _ print: [UInt8]) throws(TLSFailure) {
        self.print = print
        name = certificate.name
        chain = try PEMReader(certificate.chain, name: name).certificates()
        key = try PEMReader(certificate.key, name: name).privateKey()
        names = Set(chain.first?.hostNames ?? [])
        keyKind = EVP_PKEY_get_base_id(key.evp)
    }
}

/// Certificates for the same names with keys of different kinds: OpenSSL takes the one that a client can verify.
private struct CertificateGroup {
    var members: [LoadedCertificate]

    var names: Set<String> { members.first?.names ?? [] }

    func takes(_ other: LoadedCertificate) -> Bool {
        !other.names.isEmpty && names == other.names && !members.contains { $0.keyKind == other.keyKind }
    }
}

/// Which certificates are for which name.
private final class NameTable {
    private var exact: [String: Int] = [:]
    /// What comes after the `*.`, which stands for one label (RFC 6125 6.4.3).
    private var wildcards: [String: Int] = [:]
    private let contexts: [TLSContext]

    /// `names`: those of each of the settings in order. For each name the first is taken.
    init(_ names: [Set<String>], _ contexts: [TLSContext]) {
        self.contexts = contexts
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

    /// What sessions begin with, and those go on with whose name nobody has.
    var first: TLSContext? { contexts.first }

    /// The settings for a name; nil when nobody has it.
    func context(for name: String) -> TLSContext? { (exact[name] ?? wildcard(name)).map { contexts[$0] } }

    private func wildcard(_ name: String) -> Int? {
        guard !wildcards.isEmpty, let dot = name.utf8.firstIndex(of: UInt8(ascii: ".")), dot > name.startIndex
        else { return nil }
        return wildcards[String(name[name.index(after: dot)...])]
    }
}

/// Called by OpenSSL when it has read a ClientHello: changes to the settings for the name in it. The argument is the rules.
private func chooseByName(
    _ ssl: OpaquePointer?, _ alert: UnsafeMutablePointer<Int32>?, _ rules: UnsafeMutableRawPointer?
) -> Int32 {
    guard let ssl, let rules, let name = serverName(of: ssl),
        let context = Unmanaged<HandshakeRules>.fromOpaque(rules).takeUnretainedValue().table?.context(for: name)
    else { return SSL_TLSEXT_ERR_OK }
    guard SSL_set_SSL_CTX(ssl, context.ctx) != nil else {
        alert?.pointee = SSL_AD_INTERNAL_ERROR
        return SSL_TLSEXT_ERR_ALERT_FATAL
    }
    return SSL_TLSEXT_ERR_OK
}

// MARK: - Clients' certificates

/// Who signs clients' certificates, and whether clients need one.
private struct ClientAuthorities {
    private let requirement: CertificateRequirement
    private let certificates: [Certificate]
    /// What sessions belong to: one that was made under other authorities, or when no certificate was asked for, is not
    /// resumed.
    let print: [UInt8]

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
        print = try fingerprint([UInt8(requirement.rawValue)], material.clientAuthorities ?? [])
    }

    func apply(to context: TLSContext) throws(TLSFailure) {
        let ctx = context.ctx
        SSL_CTX_set_session_id_context(ctx, print, UInt32(print.count))
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

/// What handshakes look up: who has which name, the protocols, the ticket keys. All settings share it, so that a change
/// counts for all.
final class HandshakeRules {
    fileprivate var table: NameTable?
    fileprivate var tickets: TicketKeys?
    /// In the form of the extension; callbacks hand out pointers into it.
    fileprivate let protocols: UnsafeMutableBufferPointer<UInt8>
    private let asksForCertificates: Bool

    fileprivate init(_ settings: TLSSettings) throws(TLSFailure) {
        asksForCertificates = settings.clientCertificates != .none
        let wire = try TLSContext.wire(settings.alpn.map { Array($0.utf8) })
        protocols = .allocate(capacity: wire.count)
        _ = protocols.initialize(from: wire)
    }

    deinit { protocols.deallocate() }

    fileprivate func apply(to context: TLSContext, withTickets: Bool) throws(TLSFailure) {
        try context.attach(self)
        let ctx = context.ctx
        let this = Unmanaged.passUnretained(self).toOpaque()
        tp_SSL_CTX_set_tlsext_servername_callback(ctx, chooseByName, this)
        if !protocols.isEmpty { SSL_CTX_set_alpn_select_cb(ctx, chooseProtocol, this) }
        SSL_CTX_set_timeout(ctx, Limits.tlsTicketSeconds)
        guard withTickets else {
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
        return TLSContext.attached(to: SSL_get_SSL_CTX(ssl), HandshakeRules.self)
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
