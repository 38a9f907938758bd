// How we talk to one peer: a non-blocking socket, what is known of its readiness, and TLS if it is spoken.

import Config
import Linux
import Reactor
import RouterProtocol
import SystemPackage
import TLS

/// One side of a connection.
///
/// Descriptors are watched edge-triggered and registered once: epoll says when something becomes possible, and
/// this remembers it until a read or a write shows that it is over. So most connections need one `epoll_ctl` a side.
@safe struct Transport: ~Copyable {
    private let descriptor: Descriptor
    /// Nothing is known to be missing: a read may bring bytes.
    private(set) var mayRead: Bool
    /// A write may be taken.
    private(set) var mayWrite: Bool
    /// The kernel has reported an end, a hang-up or an error: a short read is not the last word.
    private(set) var peerEnded = false
    /// The end of the peer's side has been read.
    private(set) var hasEnded = false
    /// A write has blocked, so writability is watched from then on.
    private(set) var hasBlocked = false
    /// What epoll watches now: nothing until the first `watch`.
    private var watched: Readiness = []
    /// Whether the kernel still has to say that the connection stands.
    private(set) var isConnecting: Bool
    /// Nil for a plain peer. Kernel TLS would be a third kind: bytes as TLS says, but spliced.
    private var tls: TLSSession?
    /// Our end is to follow what TLS still has to send.
    private var endsWhenSettled = false
    /// A rewriter's socket: out of a Unix socket copying costs less than splicing.
    private let isRewriter: Bool

    /// Takes over a connected socket (`isConnecting: false`) or one whose connect is under way.
    init(_ descriptor: consuming Descriptor, isConnecting: Bool = false, isRewriter: Bool = false) {
        self.descriptor = descriptor
        self.isRewriter = isRewriter
        self.isConnecting = isConnecting
        mayRead = !isConnecting
        // A write right after a connect is taken when the peer is near: the kernel says if not.
        mayWrite = true
        hasBlocked = isConnecting
    }

    /// The number, to register it; never kept.
    var raw: Int32 { descriptor.raw }

    /// What epoll is to watch.
    var interest: Readiness {
        hasBlocked
            ? [.readable, .writable, .peerEnded, .edgeTriggered] : [.readable, .peerEnded, .edgeTriggered]
    }

    /// Remembers what epoll reported.
    @inline(__always)
    mutating func note(_ readiness: Readiness) {
        if !readiness.isDisjoint(with: [.readable, .peerEnded, .hangUp, .error]) { mayRead = true }
        if !readiness.isDisjoint(with: [.writable, .hangUp, .error]) { mayWrite = true }
        if !readiness.isDisjoint(with: [.peerEnded, .hangUp, .error]) { peerEnded = true }
        if tls != nil { noteTLS() }
    }

    /// Has epoll watch for what is to be watched now; costs a call only when that has changed.
    @inline(__always)
    mutating func watch(_ poller: borrowing Poller, _ token: Token) throws(Errno) {
        let wanted = interest
        if wanted == watched { return }
        if watched.isEmpty { try poller.add(raw, wanted, token) } else { try poller.modify(raw, wanted, token) }
        watched = wanted
    }

    /// What came of a connect, once epoll has reported something: true when it stands, false when it goes on.
    mutating func finishConnecting() throws(Errno) -> Bool {
        if let error = Socket.pendingError(raw) { throw error }
        do throws(Errno) {
            _ = try Socket.peerAddress(raw)
        } catch {
            // The event was meant for an earlier attempt of this connection.
            if error == .socketNotConnected { return false }
            throw error
        }
        established()
        return true
    }

    /// Reads into `memory`. A short read is taken for the end of what has arrived, unless the peer has ended. `.moved(0)`: a
    /// TLS peer has said nothing for us, and may say more; the others come first.
    @inline(__always)
    mutating func read(into memory: UnsafeMutableRawPointer, count: Int) throws(Errno) -> Transfer {
        if tls != nil { return try unsafe readTLS(into: memory, count: count) }
        return try unsafe readPlain(into: memory, count: count)
    }

    @inline(__always)
    private mutating func readPlain(into memory: UnsafeMutableRawPointer, count: Int) throws(Errno) -> Transfer {
        let result = try unsafe Socket.receive(raw, into: memory, count: count)
        switch result {
        case .moved(let moved): if moved < count && !peerEnded { mayRead = false }
        case .wouldBlock: mayRead = false
        // The next phase may have to read it again, and the kernel does not report it twice.
        case .endOfStream: (peerEnded, hasEnded) = (true, true)
        }
        return result
    }

    /// Writes from `memory`; less than `count` means that the socket is full.
    @inline(__always)
    mutating func write(from memory: UnsafeRawPointer, count: Int) throws(Errno) -> Transfer {
        if tls != nil { return try unsafe writeTLS(from: memory, count: count) }
        let result = try unsafe Socket.send(raw, from: memory, count: count)
        switch result {
        case .moved(let moved):
            if isConnecting { established() }
            if moved < count { blocked() }
        case .wouldBlock, .endOfStream: blocked()
        }
        return result
    }

    /// Writes what a buffer holds, as far as the socket takes it.
    mutating func write(_ buffer: inout Buffer) throws(Errno) -> Transfer {
        let result = try unsafe write(
            from: buffer.bytes.baseAddress ?? UnsafeRawPointer(buffer.free), count: buffer.count)
        if case .moved(let moved) = result { buffer.drop(moved) }
        return result
    }

    /// The same for bytes that may not be there; what has been taken whole is gone.
    mutating func write(_ bytes: inout Buffer?) throws(Errno) -> Transfer {
        guard var buffer = bytes.take() else { return .wouldBlock }
        let result: Transfer
        do throws(Errno) {
            result = try write(&buffer)
        } catch {
            // Another remote may still want them.
            bytes = consume buffer
            throw error
        }
        if !buffer.isEmpty { bytes = consume buffer }
        return result
    }

    /// Moves what has arrived into an empty pipe; for plain peers only.
    mutating func splice(into pipe: inout LentPipe, count: Int) throws(Errno) -> Transfer {
        let result = try Splice.move(from: raw, to: pipe.write, count: count)
        switch result {
        case .moved(let moved): pipe.count += moved
        case .wouldBlock: mayRead = false
        case .endOfStream: (peerEnded, hasEnded) = (true, true)
        }
        return result
    }

    /// Moves what a pipe holds into the socket; for plain peers only.
    mutating func splice(from pipe: inout LentPipe) throws(Errno) -> Transfer {
        let result = try Splice.move(from: pipe.read, to: raw, count: pipe.count)
        switch result {
        case .moved(let moved): pipe.count = max(0, pipe.count - moved)
        case .wouldBlock, .endOfStream: blocked()
        }
        return result
    }

    /// Sends a part of a file; `.endOfStream` means that the file is shorter than it was.
    mutating func send(
        _ file: borrowing RegularFile, offset: inout UInt64, count: Int, _ pools: borrowing Pools
    ) throws(Errno) -> Transfer {
        if tls != nil { return try sendTLS(file, offset: &offset, count: count, pools) }
        let result = try Splice.sendFile(file.descriptor, to: raw, offset: &offset, count: count)
        if case .wouldBlock = result { blocked() }
        return result
    }

    /// Reads and throws away; what TLS makes of it is of no interest any more.
    mutating func discard(_ pools: borrowing Pools) throws(Errno) -> Transfer {
        guard let base = unsafe pools.scratch.baseAddress else { return .wouldBlock }
        return try unsafe readPlain(into: base, count: pools.scratch.count)
    }

    /// Ends our side, once TLS has sent what it has. What an already broken connection says to that comes back from the
    /// next read.
    mutating func endWriting() {
        if tls != nil {
            tls!.endWriting()
            endsWhenSettled = true
            return wroteTLS()
        }
        try? Socket.endWriting(raw)
    }

    /// Makes the coming close a reset: what the peer has not read yet is lost, and it knows.
    mutating func resetOnClose() { Socket.resetOnClose(raw) }

    /// Whether the kernel holds an error that ends this connection. Reading it takes it away.
    mutating func takeError() -> Errno? { Socket.pendingError(raw) }

    private mutating func established() {
        // What has arrived by now was reported, or will be when the socket is first watched: no read to find out.
        isConnecting = false
        // Connected before it was ever watched: then only a write that blocks makes writability of interest.
        if watched.isEmpty { hasBlocked = false }
    }

    private mutating func blocked() {
        mayWrite = false
        hasBlocked = true
    }
}

// MARK: - TLS

/// The same reads and writes, with records in between. What has been encrypted and not sent waits in the session and leaves when
/// the socket is writable again, whatever phase the connection is in by then.
extension Transport {
    /// Whether bytes go as they are, so that the kernel can move them.
    var isPlain: Bool {
        switch tls {
        case .none: true
        case .some: false
        }
    }

    /// Whether the kernel can best move what it says.
    var givesBySplice: Bool { isPlain && !isRewriter }

    /// Whether all that was written is in the kernel's hands.
    var isSettled: Bool {
        switch tls {
        case .none: true
        case .some(let session): session.isSettled
        }
    }

    /// How much ciphertext the kernel has taken of what was written to a TLS peer; nil for a plain one, which holds nothing back.
    var sentCiphertext: UInt64? {
        switch tls {
        case .none: nil
        case .some(let session): session.sentBytes
        }
    }

    /// Whether nothing is written before the peer has said the rest of a message.
    private var waitsForInput: Bool {
        switch tls {
        case .none: false
        case .some(let session): session.waitsForInput
        }
    }

    /// Whether a read may bring something that the socket has given already.
    private var holdsMore: Bool {
        switch tls {
        case .none: false
        case .some(let session): session.mayHoldMore
        }
    }

    /// Why TLS ended, if it did: more than an errno says.
    var failure: TLSFailure? {
        switch tls {
        case .none: nil
        case .some(let session): session.failure
        }
    }

    /// Why a client that fails ends its connection, with a line for the log when TLS was broken: of resets there are many.
    func lossReason(_ around: inout Surroundings) -> CloseReason {
        guard let failure else { return .clientReset }
        if failure.isTruncation { return .clientTruncated }
        if failure.errno == .protocolError { around.effects.remark = "TLS: \(failure)" }
        return .clientReset
    }

    /// What was agreed with the peer, nil for a plain one.
    var tlsFacts: TLSFacts? {
        switch tls {
        case .none: nil
        case .some(let session): session.facts()
        }
    }

    /// The name a TLS client has asked for.
    var serverName: String? {
        switch tls {
        case .none: nil
        case .some(let session): session.serverName
        }
    }

    /// Speaks TLS from now on; the handshake comes first.
    mutating func speak(_ session: consuming TLSSession) {
        tls = consume session
        noteTLS()
    }

    /// Goes on with the handshake of a TLS peer.
    mutating func handshake() -> TLSSession.Handshake {
        guard tls != nil else { return .done }
        let result = tls!.handshake()
        mayRead = holdsMore
        wroteTLS()
        return result
    }

    /// The kernel has reported something about a TLS peer's socket.
    private mutating func noteTLS() {
        if mayRead, tls!.becameReadable() { mayWrite = true }
        if peerEnded { tls!.peerEnded() }
        guard mayWrite, !isSettled || endsWhenSettled else { return }
        // What is wrong comes back from the next write.
        _ = try? tls!.flush()
        wroteTLS()
    }

    private mutating func readTLS(into memory: UnsafeMutableRawPointer, count: Int) throws(Errno) -> Transfer {
        let result: Transfer
        do throws(TLSFailure) {
            result = try unsafe tls!.read(into: memory, count: count)
        } catch {
            throw error.errno
        }
        switch result {
        case .moved: mayRead = holdsMore
        case .wouldBlock: mayRead = false
        case .endOfStream: (peerEnded, hasEnded) = (true, true)
        }
        // Reading may have made TLS answer.
        wroteTLS()
        return result
    }

    private mutating func writeTLS(from memory: UnsafeRawPointer, count: Int) throws(Errno) -> Transfer {
        do throws(TLSFailure) {
            let result = try unsafe tls!.write(from: memory, count: count)
            wroteTLS()
            return result
        } catch {
            throw error.errno
        }
    }

    /// A part of a file, read and encrypted: sendfile's twin. `.endOfStream` means that the file is shorter than it was.
    private mutating func sendTLS(
        _ file: borrowing RegularFile, offset: inout UInt64, count: Int, _ pools: borrowing Pools
    ) throws(Errno) -> Transfer {
        guard let memory = unsafe pools.scratch.baseAddress, mayWrite else { return .wouldBlock }
        let wanted = unsafe min(count, pools.scratch.count)
        switch try unsafe file.read(into: memory, count: wanted, at: offset) {
        case .moved(let read):
            let result = try unsafe writeTLS(from: memory, count: read)
            if case .moved(let taken) = result { offset &+= UInt64(taken) }
            return result
        case .wouldBlock, .endOfStream: return .endOfStream
        }
    }

    /// Something may have been written: the rest waits for the socket, and our end for the rest.
    private mutating func wroteTLS() {
        if waitsForInput { mayWrite = false }
        if !isSettled {
            blocked()
        } else if endsWhenSettled {
            endsWhenSettled = false
            try? Socket.endWriting(raw)
        }
    }
}
