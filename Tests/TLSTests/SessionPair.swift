// Two sessions of OpenSSL whose wires are joined in memory.

import COpenSSL
import Testing

@testable import TLS

/// A client and a server that talk to each other; both are freed with it.
final class SessionPair {
    let client: OpaquePointer
    let listener: OpaquePointer
    /// What each came to: OpenSSL's words for what went wrong, nil when the handshake is done.
    private(set) var clientError: String?
    private(set) var listenerError: String?

    /// Takes over both sessions and does the handshake as far as it goes.
    init(client: OpaquePointer?, listener: OpaquePointer?) throws {
        self.client = try #require(client)
        self.listener = try #require(listener)
        var (one, other): (OpaquePointer?, OpaquePointer?)
        try #require(BIO_new_bio_pair(&one, 65536, &other, 65536) == 1)
        SSL_set_bio(client, one, one)
        SSL_set_bio(listener, other, other)
        var goesOn = (client: true, listener: true)
        // A handshake has a few flights; what waits for more than these waits for ever.
        for _ in 0..<10 where goesOn.client || goesOn.listener {
            if goesOn.client { goesOn.client = Self.step(self.client, &clientError) }
            if goesOn.listener { goesOn.listener = Self.step(self.listener, &listenerError) }
        }
        // A client of TLS 1.3 is done before it knows whether its certificate is good, or has tickets.
        if clientError == nil { _ = Self.read(self.client, &clientError) }
    }

    deinit {
        // Otherwise OpenSSL takes the connection for cut and spoils the session.
        SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
        SSL_set_shutdown(listener, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
        SSL_free(client)
        SSL_free(listener)
    }

    /// Whether the handshake has to go on.
    private static func step(_ ssl: OpaquePointer, _ error: inout String?) -> Bool {
        ERR_clear_error()
        let result = SSL_do_handshake(ssl)
        guard result != 1 else { return false }
        switch SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: return true
        default:
            error = TLSFailure.ofSession(ssl).message
            return false
        }
    }

    private static func read(_ ssl: OpaquePointer, _ error: inout String?) -> Int32 {
        ERR_clear_error()
        var byte: UInt8 = 0
        let result = SSL_read(ssl, &byte, 1)
        if result <= 0, SSL_get_error(ssl, result) == SSL_ERROR_SSL { error = TLSFailure.fromQueue().message }
        return result
    }

    var isDone: Bool { clientError == nil && listenerError == nil && SSL_is_init_finished(listener) == 1 }
    var isResumed: Bool { SSL_session_reused(client) == 1 }

    /// The common name in the certificate that the client was shown, and nil without one.
    var shownName: String? {
        guard let x509 = SSL_get0_peer_certificate(client) else { return nil }
        var text = [CChar](repeating: 0, count: 256)
        guard X509_NAME_get_text_by_NID(X509_get_subject_name(x509), NID_commonName, &text, 256) >= 0
        else { return nil }
        return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    var protocolChosen: String? {
        var name: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        SSL_get0_alpn_selected(client, &name, &count)
        return name.map { String(decoding: UnsafeBufferPointer(start: $0, count: Int(count)), as: UTF8.self) }
    }
}

/// A client as a test wants it; it verifies nothing.
final class TestClient {
    let context: TLSContext
    var sessions: [OpaquePointer] = []

    init(
        certificate: TestCertificate? = nil, protocols: [String] = [], version: Int32? = nil,
        prepare: (OpaquePointer) -> Void = { _ in }
    ) throws {
        context = try TLSContext(TLS_client_method())
        if let certificate {
            try #require(SSL_CTX_use_certificate(context.ctx, certificate.x509) == 1)
            try #require(SSL_CTX_use_PrivateKey(context.ctx, certificate.key) == 1)
        }
        if !protocols.isEmpty {
            let wire = try TLSContext.wire(protocols.map { Array($0.utf8) })
            try #require(SSL_CTX_set_alpn_protos(context.ctx, wire, UInt32(wire.count)) == 0)
        }
        if let version {
            try #require(tp_SSL_CTX_set_min_proto_version(context.ctx, version) == 1)
            try #require(tp_SSL_CTX_set_max_proto_version(context.ctx, version) == 1)
        }
        prepare(context.ctx)
    }

    func session(_ name: String? = nil, resuming session: OpaquePointer? = nil) -> OpaquePointer? {
        guard let ssl = SSL_new(context.ctx) else { return nil }
        SSL_set_connect_state(ssl)
        if let name { tp_SSL_set_tlsext_host_name(ssl, name) }
        if let session { SSL_set_session(ssl, session) }
        return ssl
    }

    /// The handshake with a listener.
    func meet(_ listener: ListenerTLS, _ name: String? = nil, resuming session: OpaquePointer? = nil) throws
        -> SessionPair
    {
        try SessionPair(client: self.session(name, resuming: session), listener: listener.makeSession())
    }
}

/// A session that is freed in the end.
final class KeptSession {
    let pointer: OpaquePointer

    init(of pair: SessionPair) throws { pointer = try #require(SSL_get1_session(pair.client)) }

    deinit { SSL_SESSION_free(pointer) }
}
