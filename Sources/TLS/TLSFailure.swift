// What went wrong with TLS, in OpenSSL's own words.

import COpenSSL
public import SystemPackage

/// Why TLS with somebody cannot be set up or cannot go on.
public struct TLSFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// OpenSSL's or the system's words: "certificate has expired", "wrong version number".
    public let message: String
    /// What it comes to for somebody who knows only sockets: EPROTO, or ECONNRESET for a stream that was cut.
    public let errno: Errno
    /// The stream ended without a close_notify: nobody knows whether it was whole (RFC 8446 6.1).
    public let isTruncation: Bool

    public init(_ message: String, errno: Errno = .protocolError) {
        self.message = message
        self.errno = errno
        isTruncation = false
    }

    private init(truncation message: String) {
        self.message = message
        errno = .connectionReset
        isTruncation = true
    }

    public var description: String { message }

    /// The stream was cut.
    static let truncated = TLSFailure(truncation: "the connection ended without close_notify")

    /// The oldest error that OpenSSL has in its queue, which is the cause of the others; the queue is empty afterwards.
    /// `what` comes first, if it says anything.
    static func fromQueue(_ what: String = "") -> TLSFailure {
        let first = ERR_get_error()
        ERR_clear_error()
        let reason =
            if first == 0 {
                "unknown error"
            } else if first & systemErrorFlag != 0 {
                Errno(rawValue: Int32(truncatingIfNeeded: first & ~systemErrorFlag)).description
            } else if let text = ERR_reason_error_string(first) {
                String(cString: text)
            } else {
                "error \(first)"
            }
        return TLSFailure(what.isEmpty ? reason : "\(what): \(reason)")
    }

    /// ERR_SYSTEM_FLAG of err.h: the rest is an errno.
    private static let systemErrorFlag: UInt = 0x8000_0000

    /// What has just failed in a session. For a certificate that was refused: why.
    static func ofSession(_ ssl: OpaquePointer) -> TLSFailure {
        guard tp_ERR_GET_REASON(ERR_peek_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED,
            let text = X509_verify_cert_error_string(SSL_get_verify_result(ssl))
        else { return .fromQueue() }
        ERR_clear_error()
        return TLSFailure(String(cString: text))
    }
}
