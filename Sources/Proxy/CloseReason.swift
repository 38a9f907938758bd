// Why a connection ended: the one cause recorded, from a closed set. docs/life-of-a-connection.md lists them.

/// The cause of a connection's end, as the access log names it.
enum CloseReason: String, CaseIterable, Sendable {
    /// Both sides ended theirs after a relay.
    case done
    /// The client's TLS handshake failed, or took too long.
    case clientTLS = "client_tls"
    /// The client ended before anything was decided.
    case clientLeft = "client_left"
    /// The client reset the connection or vanished.
    case clientReset = "client_reset"
    /// A client's TLS stream ended without close_notify: nobody knows whether it was whole.
    case clientTruncated = "client_truncated"
    /// The remote reset the connection or vanished.
    case remoteReset = "remote_reset"
    /// A remote's TLS stream ended without close_notify: nobody knows whether it was whole.
    case remoteTruncated = "remote_truncated"
    /// The router's verdict was to close, perhaps with bytes.
    case closed
    /// The router's verdict was to close with a reset.
    case closedByReset = "closed_by_reset"
    /// A router ended it while it lived.
    case ordered
    /// The file was sent.
    case fileSent = "file_sent"
    /// The file could not be opened or is no regular file.
    case fileFailed = "file_failed"
    /// The file became shorter while it was sent.
    case fileShrank = "file_shrank"
    /// No verdict though there are as many initial bytes as are allowed, or the client ended its side.
    case undecided
    /// No verdict within `--verdict-timeout`.
    case verdictTimeout = "verdict_timeout"
    /// The router did not answer within `--router-timeout`.
    case routerTimeout = "router_timeout"
    /// The router answered with an error.
    case routerError = "router_error"
    /// Routers die of what the client sent: twice its question was the only one open when one did.
    case poison
    /// There was no router to ask.
    case noRouter = "no_router"
    /// Too many questions were waiting.
    case overloaded
    /// The router's verdict was not one.
    case badVerdict = "bad_verdict"
    case connectRefused = "connect_refused"
    case connectTimeout = "connect_timeout"
    case connectFailed = "connect_failed"
    /// TLS with the remote failed: its certificate, the handshake, or what it sent.
    case remoteTLS = "remote_tls"
    /// The remote's name could not be resolved.
    case dns
    /// The remote is one of our own listeners.
    case loop
    /// No byte from the remote for the verdict's `inactivity_timeout`.
    case inactivityTimeout = "inactivity_timeout"
    /// A rewriter died, closed without `stream_end`, or did not dial back.
    case rewriteAborted = "rewrite_aborted"
    /// The client did not take the last bytes we had for it.
    case stalled
    /// The worker stopped.
    case stopped
}

extension CloseReason {
    /// Whether `--fallback` serves in place of the verdict that did not come. Never when the connection itself may be
    /// the cause: a bad verdict for it, or routers that died of it.
    var isForFallback: Bool {
        switch self {
        case .noRouter, .routerTimeout, .verdictTimeout, .overloaded, .routerError: true
        default: false
        }
    }
}
