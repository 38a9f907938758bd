// What TLS towards clients and towards remotes have in common: an SSL_CTX with its owner, and its settings as values.

import COpenSSL

/// The settings of sessions, an SSL_CTX. OpenSSL counts its references: a session keeps those it was made with, however
/// soon this is gone.
final class TLSContext {
    let ctx: OpaquePointer

    /// The C function is `SSL_CTX_new`.
    init(_ method: OpaquePointer?) throws(TLSFailure) {
        ERR_clear_error()
        guard let ctx = SSL_CTX_new(method) else { throw .fromQueue("TLS cannot be set up") }
        self.ctx = ctx
        // RELEASE_BUFFERS: an idle session has none. MOVING_WRITE_BUFFER: a write that could not go on is taken up again
        // like one of a socket. NO_AUTO_CHAIN: the chain is that of the file; otherwise OpenSSL would look for one in
        // every handshake. Without AUTO_RETRY a read says when it has met a message that is no data.
        tp_SSL_CTX_set_mode(
            ctx,
            UInt32(SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN))
        tp_SSL_CTX_clear_mode(ctx, UInt32(SSL_MODE_AUTO_RETRY))
        SSL_CTX_set_options(ctx, tp_SSL_OP_NO_COMPRESSION | tp_SSL_OP_NO_RENEGOTIATION)
    }

    deinit { SSL_CTX_free(ctx) }

    /// Restricts ciphers to OpenSSL's words for them, separated by colons, commas or spaces: names that begin with
    /// `TLS_` are suites of TLS 1.3, the rest is for the versions before. Where there is none of a sort, those from
    /// before stay. `withCertificates`: none that does without them, for it would leave nothing to verify, nor one that
    /// encrypts nothing. `ALL` and `eNULL` name them, and at security level 0 they are there. `option`: what the words
    /// were given by, for messages.
    func setCiphers(_ words: String, withCertificates: Bool, option: String) throws(TLSFailure) {
        guard !words.utf8.contains(0) else { throw TLSFailure("\(option): there is a NUL among them") }
        let words = words.split { ":, ".contains($0) }
        let suites = words.filter { $0.hasPrefix("TLS_") }
        let others = words.filter { !$0.hasPrefix("TLS_") }
        ERR_clear_error()
        if !others.isEmpty || suites.isEmpty {
            let list = others.joined(separator: ":")
            let allowed = withCertificates ? "\(list):!aNULL:!eNULL" : list
            guard SSL_CTX_set_cipher_list(ctx, allowed) == 1 else { throw .fromQueue("\(option): \(list)") }
        }
        guard !suites.isEmpty else { return }
        let list = suites.joined(separator: ":")
        guard SSL_CTX_set_ciphersuites(ctx, list) == 1 else { throw .fromQueue("\(option): \(list)") }
        // OpenSSL passes over suites that it does not know.
        let known = cipherNames
        for suite in suites where !known.contains(String(suite)) {
            throw TLSFailure("\(option): \(suite): no cipher match")
        }
    }

    /// All that can be agreed on.
    var cipherNames: [String] {
        guard let stack = SSL_CTX_get_ciphers(ctx) else { return [] }
        return (0..<max(0, tp_ciphers_count(stack))).compactMap { index in
            SSL_CIPHER_get_name(tp_cipher(stack, index)).map { String(cString: $0) }
        }
    }

    /// Takes a certificate with its chain and the key that belongs to it, beside those of other kinds of keys.
    /// `name`: the file, for messages.
    func use(_ certificates: [Certificate], _ key: PrivateKey, name: String) throws(TLSFailure) {
        guard let leaf = certificates.first else { throw TLSFailure("\(name): there is no certificate in it (PEM)") }
        ERR_clear_error()
        guard SSL_CTX_use_certificate(ctx, leaf.x509) == 1 else { throw .fromQueue(name) }
        for certificate in certificates.dropFirst() {
            guard tp_SSL_CTX_add1_chain_cert(ctx, certificate.x509) == 1 else { throw .fromQueue(name) }
        }
        guard X509_check_private_key(leaf.x509, key.evp) == 1 else {
            throw .fromQueue("\(name): the key does not belong to the certificate")
        }
        guard SSL_CTX_use_PrivateKey(ctx, key.evp) == 1, SSL_CTX_check_private_key(ctx) == 1
        else { throw .fromQueue(name) }
    }

    /// Protocol names as they go over the wire, a length before each (RFC 7301 3.1).
    static func wire(_ protocols: [[UInt8]]) throws(TLSFailure) -> [UInt8] {
        var wire: [UInt8] = []
        for name in protocols {
            guard let length = UInt8(exactly: name.count), length > 0
            else { throw TLSFailure("ALPN: a protocol's name has 1 to 255 bytes") }
            wire.append(length)
            wire.append(contentsOf: name)
        }
        guard wire.count <= 65_533 else { throw TLSFailure("ALPN: there are too many protocols") }
        return wire
    }

    // MARK: - What Swift objects its callbacks need

    /// Keeps an object as long as there is a session with these settings. To be called once.
    func attach(_ object: AnyObject) throws(TLSFailure) {
        let retained = Unmanaged.passRetained(object)
        guard SSL_CTX_set_ex_data(ctx, Self.place, retained.toOpaque()) == 1 else {
            retained.release()
            throw .fromQueue("TLS cannot be set up")
        }
    }

    /// Where OpenSSL keeps the object.
    private static let place = tp_SSL_CTX_get_ex_new_index(releaseObject)

    /// What `attach` has kept; it is of that type.
    static func attached<Object: AnyObject>(to ctx: OpaquePointer?, _ type: Object.Type) -> Object? {
        guard let ctx, let object = SSL_CTX_get_ex_data(ctx, place) else { return nil }
        return Unmanaged<Object>.fromOpaque(object).takeUnretainedValue()
    }
}

/// Lets go of an object that OpenSSL has kept for us.
func releaseObject(
    _: UnsafeMutableRawPointer?, _ object: UnsafeMutableRawPointer?, _: UnsafeMutablePointer<CRYPTO_EX_DATA>?, _: Int32,
    _: Int, _: UnsafeMutableRawPointer?
) {
    if let object { Unmanaged<AnyObject>.fromOpaque(object).release() }
}
