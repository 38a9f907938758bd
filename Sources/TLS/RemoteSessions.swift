// Sessions with remotes that can be resumed: a connection to a remote that was there before costs no full handshake.

import Addressing
import COpenSSL
import Config
import Glibc

/// Sessions by remote, for one set of arguments. When there are too many, those of the remotes used least recently go.
final class RemoteSessions {
    private var shelves: [Endpoint: SessionShelf] = [:]
    private var uses: UInt64 = 0
    /// Sessions on all shelves.
    fileprivate(set) var count = 0
    /// Whether the remotes' certificates were verified, and have to be good still.
    fileprivate let areVerified: Bool

    init(verified: Bool) { areVerified = verified }

    /// Has new sessions put here, from all connections with these settings.
    func fill(from context: TLSContext) {
        // OpenSSL's own cache is for servers.
        tp_SSL_CTX_set_session_cache_mode(
            context.ctx, Int(SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL | SSL_SESS_CACHE_NO_AUTO_CLEAR))
        SSL_CTX_sess_set_new_cb(context.ctx) { ssl, session in
            guard let ssl, let session, let object = SSL_get_ex_data(ssl, SessionShelf.place) else { return 0 }
            let shelf = Unmanaged<SessionShelf>.fromOpaque(object).takeUnretainedValue()
            // 1: the reference is ours now.
            return shelf.put(session) ? 1 : 0
        }
    }

    /// Lets a new connection resume a session with its remote, if there is one, and leave its own for the next. False:
    /// there is no memory.
    func resume(_ ssl: OpaquePointer, with remote: Endpoint) -> Bool {
        let shelf = shelf(of: remote)
        let retained = Unmanaged.passRetained(shelf)
        guard SSL_set_ex_data(ssl, SessionShelf.place, retained.toOpaque()) == 1 else {
            retained.release()
            return false
        }
        if let session = shelf.take(at: time(nil)) {
            // Should it not go with the settings, there is a full handshake.
            SSL_set_session(ssl, session)
            SSL_SESSION_free(session)
            ERR_clear_error()
        }
        return true
    }

    private func shelf(of remote: Endpoint) -> SessionShelf {
        uses &+= 1
        let shelf: SessionShelf
        if let found = shelves[remote] {
            shelf = found
        } else {
            if shelves.count >= Limits.remoteSessionsMax { removeOldest() }
            shelf = SessionShelf(of: self)
            shelves[remote] = shelf
        }
        shelf.lastUse = uses
        return shelf
    }

    fileprivate func makeRoom() {
        while count > Limits.remoteSessionsMax, removeOldest() {}
    }

    @discardableResult
    private func removeOldest() -> Bool {
        guard let oldest = shelves.min(by: { $0.value.lastUse < $1.value.lastUse }) else { return false }
        oldest.value.close()
        shelves[oldest.key] = nil
        return true
    }
}

/// Sessions with one remote. Its connections keep it, too: what they bring after it was closed is not kept.
private final class SessionShelf {
    /// The newest last.
    private var sessions: [OpaquePointer] = []
    private weak var owner: RemoteSessions?
    var lastUse: UInt64 = 0

    /// Where a connection of OpenSSL's keeps its shelf.
    static let place = tp_SSL_get_ex_new_index(releaseObject)

    init(of owner: RemoteSessions) { self.owner = owner }

    deinit { for session in sessions { SSL_SESSION_free(session) } }

    /// Takes over a session; false when it stays the caller's.
    func put(_ session: OpaquePointer) -> Bool {
        guard let owner, SSL_SESSION_is_resumable(session) == 1 else { return false }
        sessions.append(session)
        if sessions.count > Limits.sessionsOfRemoteMax {
            SSL_SESSION_free(sessions.removeFirst())
        } else {
            owner.count &+= 1
            owner.makeRoom()
        }
        return true
    }

    /// The newest session that is still good; the caller frees it. Those of TLS 1.3 are for one use: an eavesdropper
    /// would see that two connections belong together (RFC 8446 C.4).
    func take(at now: Int) -> OpaquePointer? {
        while let session = sessions.last {
            let isGood =
                SSL_SESSION_is_resumable(session) == 1
                && now < SSL_SESSION_get_time(session) &+ SSL_SESSION_get_timeout(session)
                && hasValidCertificate(session)
            if isGood, SSL_SESSION_get_protocol_version(session) != TLS1_3_VERSION {
                SSL_SESSION_up_ref(session)
                return session
            }
            sessions.removeLast()
            owner?.count &-= 1
            if isGood { return session }
            SSL_SESSION_free(session)
        }
        return nil
    }

    /// Whoever resumes a session is not shown the certificate again, and each session of TLS 1.3 begets the next: without
    /// this a certificate would be good for as long as there is something to do.
    private func hasValidCertificate(_ session: OpaquePointer) -> Bool {
        guard owner?.areVerified == true, let certificate = SSL_SESSION_get0_peer(session) else { return true }
        return X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0
    }

    /// Keeps nothing any more.
    func close() {
        for session in sessions { SSL_SESSION_free(session) }
        owner?.count &-= sessions.count
        sessions = []
        owner = nil
    }
}
