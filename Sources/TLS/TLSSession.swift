// TLS with one peer over one non-blocking socket: what comes of each call is a value.

import COpenSSL
public import Linux
import SystemPackage

/// One peer's TLS, from the handshake to close_notify.
///
/// Reading and writing follow `Socket.receive` and `Socket.send`, with one difference: what `write` has taken may wait here,
/// encrypted, until the socket takes it. Ask `holdsCiphertext`, and `flush` when the socket is writable.
public struct TLSSession: ~Copyable {
    /// What a handshake has come to.
    public enum Handshake: Equatable, Sendable {
        case done
        /// The peer has to say something.
        case waiting
        case failed(TLSFailure)
    }

    let ssl: OpaquePointer
    private let end: UnsafeMutablePointer<WireEnd>

    /// What ended it, once something has. It is kept with the rest, so that a session is two words to its owner.
    public private(set) var failure: TLSFailure? {
        get { end.pointee.failure }
        nonmutating set { end.pointee.failure = newValue }
    }

    /// Waits for a client's ClientHello on a connected socket, which stays the caller's. Nil: there is no memory.
    public init?(listener: ListenerTLS, socket: Int32, wire: borrowing TLSWire) {
        guard let ssl = listener.makeSession() else { return nil }
        self.init(ssl, socket, wire)
    }

    init?(_ ssl: OpaquePointer, _ socket: Int32, _ wire: borrowing TLSWire) {
        let end = UnsafeMutablePointer<WireEnd>.allocate(capacity: 1)
        end.initialize(to: WireEnd(socket: socket, wire: wire.memory))
        guard let bio = WireMethod.bio(end) else {
            end.deallocate()
            SSL_free(ssl)
            return nil
        }
        // One for both directions: it is freed once, with the session.
        SSL_set_bio(ssl, bio, bio)
        self.ssl = ssl
        self.end = end
    }

    deinit {
        // However the connection ends, a session ticket stays good: OpenSSL spoils those of connections it thinks cut.
        if failure == nil { SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN) }
        SSL_free(ssl)
        end.pointee.free()
        end.deallocate()
    }

    // MARK: - Readiness

    /// The socket may have something to read again. To be said before the first call, too, when that is so. True: what could
    /// not be written before, because the peer had said half a message, may be tried again.
    @discardableResult
    public mutating func becameReadable() -> Bool {
        end.pointee.isDrained = false
        defer { end.pointee.waitsForInput = false }
        return end.pointee.waitsForInput
    }

    /// The kernel has reported an end or an error.
    public mutating func peerEnded() { end.pointee.peerEnded = true }

    /// Whether the socket has not taken all that was written.
    public var holdsCiphertext: Bool { end.pointee.pendingCount > 0 }

    /// How much ciphertext the socket has taken: whether a peer that is slow takes anything at all.
    public var sentBytes: UInt64 { end.pointee.sentBytes }

    /// Whether all that was written, our end too if it was said, is in the kernel's hands.
    public var isSettled: Bool { !holdsCiphertext && !end.pointee.owesEnd }

    /// Memory that it holds beside OpenSSL's for bytes that somebody has not taken.
    var keptBytes: Int { end.pointee.keptBytes }

    /// Gives the socket what has waited; true when nothing waits any more.
    public mutating func flush() throws(TLSFailure) -> Bool {
        let isDone = end.pointee.sendPending()
        try checkSending()
        if isDone, end.pointee.owesEnd { endWriting() }
        return isDone
    }

    // MARK: - The four things to do

    /// Goes on with the handshake.
    public mutating func handshake() -> Handshake {
        if let failure { return .failed(failure) }
        beginCall(receiving: Self.handshakeBytes)
        let result = SSL_do_handshake(ssl)
        let outcome = result == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl, result)
        finishCall()
        switch outcome {
        case SSL_ERROR_NONE:
            end.pointee.isSound = true
            return .done
        case SSL_ERROR_WANT_READ where end.pointee.receiveError == nil: return .waiting
        // OpenSSL puts no error beside it.
        case SSL_ERROR_ZERO_RETURN:
            let failure = TLSFailure("the peer said close_notify during the handshake", errno: .connectionReset)
            self.failure = failure
            return .failed(failure)
        default:
            let failure = fail(outcome)
            return .failed(
                failure.isTruncation
                    ? TLSFailure("the connection ended during the handshake", errno: failure.errno) : failure)
        }
    }

    /// Reads decrypted bytes, with one look at the socket. `.endOfStream` is the peer's close_notify; a stream that is cut
    /// throws. `.moved(0)`: nothing yet, but there is more to look at (`mayHoldMore`). So a peer that sends records
    /// without end, or key updates, cannot keep us here.
    public mutating func read(into memory: UnsafeMutableRawPointer, count: Int) throws(TLSFailure) -> Transfer {
        if let failure { throw failure }
        // Enough that records come whole, and no more than is wanted: what is left over has to be kept.
        beginCall(receiving: max(count, Self.recordBytesMax))
        var taken = 0
        var messages = 0
        var outcome = SSL_ERROR_NONE
        while taken < count {
            var read = 0
            let result = SSL_read_ex(ssl, memory + taken, count - taken, &read)
            if result == 1 {
                taken += read
                // Nothing is left anywhere: OpenSSL need not find that out.
                if end.pointee.isDrained, !end.pointee.holdsInput, SSL_pending(ssl) == 0 { break }
            } else {
                outcome = SSL_get_error(ssl, result)
                guard outcome == SSL_ERROR_WANT_READ, end.pointee.mayGive else { break }
                // A message that is no data: a ticket, a key update.
                outcome = SSL_ERROR_NONE
                messages += 1
                if messages == Self.messagesMax { break }
            }
        }
        finishCall()
        switch outcome {
        case SSL_ERROR_NONE: return .moved(taken)
        case SSL_ERROR_WANT_READ where end.pointee.receiveError == nil:
            return taken > 0 || !end.pointee.isDrained ? .moved(taken) : .wouldBlock
        // The next call meets it again.
        case SSL_ERROR_ZERO_RETURN: return taken > 0 ? .moved(taken) : .endOfStream
        default:
            let failure = fail(outcome)
            if taken > 0 { return .moved(taken) }
            throw failure
        }
    }

    /// Whether a read may bring something without the socket having become readable.
    public var mayHoldMore: Bool {
        !end.pointee.isDrained || end.pointee.holdsInput || SSL_pending(ssl) > 0 || failure != nil
            || SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN != 0
    }

    /// Encrypts and sends. Less than `count`, or `.wouldBlock`: the socket is full, or the peer has said half a message
    /// (`waitsForInput`). One that takes nothing any more throws; what it said before can still be read.
    public mutating func write(from memory: UnsafeRawPointer, count: Int) throws(TLSFailure) -> Transfer {
        if let failure { throw failure }
        guard try flush() else { return .wouldBlock }
        var taken = 0
        while taken < count, !holdsCiphertext {
            var written = 0
            beginCall(receiving: Self.recordBytesMax)
            let result = SSL_write_ex(ssl, memory + taken, min(count - taken, TLSWire.writeBytesMax), &written)
            let outcome = result == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl, result)
            finishCall()
            if result == 1 {
                taken += written
            } else if outcome == SSL_ERROR_WANT_READ, end.pointee.receiveError == nil {
                if awaitInput() { break }
            } else {
                throw fail(outcome)
            }
        }
        try checkSending()
        return taken > 0 || count == 0 ? .moved(taken) : .wouldBlock
    }

    /// Whether a write has to wait until the peer has said the rest of a message.
    public var waitsForInput: Bool { end.pointee.waitsForInput }

    /// Says that nothing more will be written (close_notify). The peer may go on.
    public mutating func endWriting() {
        guard end.pointee.isSound, failure == nil, !end.pointee.hasSaidEnd else { return }
        while SSL_in_init(ssl) != 0 {
            // Half a message of the peer's stands between: OpenSSL says nothing before it has the rest.
            beginCall(receiving: Self.recordBytesMax)
            let result = SSL_do_handshake(ssl)
            let outcome = result == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl, result)
            finishCall()
            guard outcome != SSL_ERROR_NONE else { continue }
            guard outcome == SSL_ERROR_WANT_READ, end.pointee.receiveError == nil else {
                // It comes back from the next read, and our end is not to be waited for.
                end.pointee.owesEnd = false
                _ = fail(outcome)
                return
            }
            if awaitInput() {
                end.pointee.owesEnd = true
                return
            }
        }
        end.pointee.hasSaidEnd = true
        end.pointee.owesEnd = false
        beginCall(receiving: 0)
        SSL_shutdown(ssl)
        finishCall()
    }

    /// Whether there is nothing to do until the socket brings more: then the caller is told when to try again.
    private mutating func awaitInput() -> Bool {
        guard end.pointee.isDrained else { return false }
        end.pointee.waitsForInput = true
        return true
    }

    // MARK: - Around each call of OpenSSL's

    private mutating func beginCall(receiving count: Int) {
        // Errors are kept by thread: one that somebody has left there would be taken for this session's.
        if ERR_peek_error() != 0 { ERR_clear_error() }
        end.pointee.receiveBytes = count
    }

    private mutating func finishCall() {
        end.pointee.send()
        end.pointee.keepInput()
    }

    private mutating func checkSending() throws(TLSFailure) {
        guard let error = end.pointee.sendError else { return }
        throw TLSFailure(error.description, errno: error)
    }

    private mutating func fail(_ outcome: Int32) -> TLSFailure {
        let failure: TLSFailure
        if let error = end.pointee.receiveError {
            failure = TLSFailure(error.description, errno: error)
            ERR_clear_error()
        } else if end.pointee.hasEnded, !end.pointee.holdsInput, isCut(outcome) {
            failure = .truncated
            ERR_clear_error()
        } else if !end.pointee.hasRoom {
            failure = TLSFailure("the peer asks for answers and reads none")
            ERR_clear_error()
        } else {
            failure = .ofSession(ssl)
        }
        self.failure = failure
        return failure
    }

    /// Whether OpenSSL's complaint is the missing close_notify.
    private func isCut(_ outcome: Int32) -> Bool {
        outcome == SSL_ERROR_SYSCALL || outcome == SSL_ERROR_ZERO_RETURN
            || tp_ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING
    }

    /// One record with all that belongs to it (RFC 8446 5.2).
    private static let recordBytesMax = 5 + 16_384 + 256
    /// A flight of the peer's: larger ones take several calls.
    private static let handshakeBytes = 16_384
    /// Messages that are no data in one read: each key update takes as long as a hundred small records.
    private static let messagesMax = 32
}
