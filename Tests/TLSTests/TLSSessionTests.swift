import Addressing
import CLinux
import COpenSSL
import Config
import Glibc
import Linux
import RouterProtocol
import SystemPackage
import Testing

@testable import TLS

/// Our session on one end of a socket pair, OpenSSL as it is on the other.
@Suite struct TLSSessionTests {
    @Test(
        "bytes pass whole, both ways at once, whatever the sizes and the sockets, and ends are told from cuts",
        arguments: 0..<12)
    func everySize(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let version = Bool.random(using: &random) ? TLS1_3_VERSION : TLS1_2_VERSION
        let isListener = Bool.random(using: &random)
        let cut = Int.random(in: 0..<3, using: &random) == 0
        var meeting = try Meeting.begin(isListener: isListener, version: version)
        try meeting.useSmallBuffers([0, 4608, 20_000].randomElement(using: &random) ?? 0)
        let shaken = meeting.shakeHands()
        #expect(shaken == .done)
        let largest = [50, 3000, 200_000].randomElement(using: &random) ?? 1
        let outcome = try meeting.converse(
            bytes: largest < 100 ? 20_000 : 1_500_000, largest: largest, cut: cut, &random)
        #expect(outcome.sentByUs == outcome.takenByPeer)
        #expect(outcome.sentByPeer == outcome.takenByUs)
        #expect(outcome.ending == (cut ? "cut" : "end"))
        #expect(outcome.peerSawEnd)
        // Whoever is idle keeps nothing.
        #expect(outcome.kept == 0)
    }

    @Test("what a peer has said before it went is read, though nothing can be written to it any more")
    func lastWords() throws {
        for version in [TLS1_3_VERSION, TLS1_2_VERSION] {
            var meeting = try Meeting.begin(isListener: false, version: version)
            let shaken = meeting.shakeHands()
            #expect(shaken == .done)
            meeting.peer.say([UInt8](repeating: 7, count: 1000))
            SSL_shutdown(meeting.peer.ssl)
            try meeting.toUs()
            meeting.leave()
            #expect(throws: TLSFailure("Broken pipe", errno: .brokenPipe)) { try meeting.write(100) }
            #expect(throws: TLSFailure("Broken pipe", errno: .brokenPipe)) { try meeting.write(100) }
            meeting.session.becameReadable()
            meeting.session.peerEnded()
            let first = try meeting.read(5000)
            #expect(first == .moved(1000))
            let second = try meeting.read(5000)
            #expect(second == .endOfStream)
        }
    }

    @Test("while a peer has said half a message we write nothing, neither bytes nor our end, and then all of it")
    func halfMessage() throws {
        for endsFirst in [false, true] {
            // The ticket has our certificate in it and does not fit into one record.
            var meeting = try Meeting.begin(isListener: false, version: TLS1_3_VERSION, longTicket: true)
            let shaken = meeting.shakeHands(holdingBackTickets: true)
            #expect(shaken == .done)
            let ticket = meeting.peer.takeOutgoing()
            try #require(ticket.count > 517 + 5, "a record of 512 bytes and then some: \(ticket.count)")
            try meeting.toUs(Array(ticket.prefix(600)))
            meeting.session.becameReadable()
            let nothing = try meeting.read(100)
            #expect(nothing == .wouldBlock)
            if endsFirst {
                meeting.session.endWriting()
                let isSettled = meeting.session.isSettled
                #expect(!isSettled)
            } else {
                let written = try meeting.write(100)
                let waits = meeting.session.waitsForInput
                #expect(written == .wouldBlock && waits)
            }
            try meeting.toUs(Array(ticket.dropFirst(600)))
            let goesOn = meeting.session.becameReadable()
            #expect(goesOn)
            if !endsFirst {
                let written = try meeting.write(100)
                #expect(written == .moved(100))
                meeting.session.endWriting()
            } else {
                let flushed = try meeting.session.flush()
                #expect(flushed)
            }
            let isSettled = meeting.session.isSettled
            #expect(isSettled)
            try meeting.toPeer()
            let heard = meeting.peer.hear()
            #expect(heard.bytes.count == (endsFirst ? 0 : 100) && heard.outcome == SSL_ERROR_ZERO_RETURN)
        }
    }

    @Test("our end, when the rest of that message is broken, is owed no more, and the next read says what was wrong")
    func brokenMessage() throws {
        var meeting = try Meeting.begin(isListener: false, version: TLS1_3_VERSION, longTicket: true)
        let shaken = meeting.shakeHands(holdingBackTickets: true)
        #expect(shaken == .done)
        var ticket = meeting.peer.takeOutgoing()
        try meeting.toUs(Array(ticket.prefix(600)))
        meeting.session.becameReadable()
        let nothing = try meeting.read(100)
        #expect(nothing == .wouldBlock)
        meeting.session.endWriting()
        ticket[ticket.count - 1] ^= 1
        try meeting.toUs(Array(ticket.dropFirst(600)))
        meeting.session.becameReadable()
        _ = try meeting.session.flush()
        let isSettled = meeting.session.isSettled
        #expect(isSettled)
        #expect(throws: TLSFailure("decryption failed or bad record mac")) { try meeting.read(100) }
    }

    @Test(
        "a peer that takes its leave during the handshake has done that, and nothing unknown", arguments: [true, false])
    func leavesEarly(isListener: Bool) throws {
        var meeting = try Meeting.begin(isListener: isListener, version: TLS1_2_VERSION)
        meeting.session.becameReadable()
        if isListener { SSL_do_handshake(meeting.peer.ssl) }
        var outcome = meeting.session.handshake()
        #expect(outcome == .waiting)
        try meeting.toUs()
        // close_notify, in the clear.
        try meeting.toUs([21, 3, 3, 0, 2, 1, 0])
        for _ in 0..<2 where outcome == .waiting {
            meeting.session.becameReadable()
            outcome = meeting.session.handshake()
        }
        let expected = TLSFailure("the peer said close_notify during the handshake", errno: .connectionReset)
        #expect(outcome == .failed(expected))
    }

    @Test("a peer that asks for answers and reads none is given up before they take much memory")
    func unreadAnswers() throws {
        var meeting = try Meeting.begin(isListener: true, version: TLS1_3_VERSION)
        let shaken = meeting.shakeHands()
        #expect(shaken == .done)
        var failure: TLSFailure?
        for _ in 0..<100 where failure == nil {
            for _ in 0..<500 {
                SSL_key_update(meeting.peer.ssl, SSL_KEY_UPDATE_REQUESTED)
                SSL_do_handshake(meeting.peer.ssl)
            }
            try meeting.toUs()
            meeting.session.becameReadable()
            do throws(TLSFailure) {
                while try meeting.read(100) == .moved(0) {}
            } catch {
                failure = error
            }
            let kept = meeting.session.keptBytes
            #expect(kept <= 2 * TLSWire.outgoingBytes)
        }
        #expect(failure == TLSFailure("the peer asks for answers and reads none"))
    }

    @Test("a flood of key updates, or of small records, does not keep a read")
    func floods() throws {
        var meeting = try Meeting.begin(isListener: true, version: TLS1_3_VERSION)
        let shaken = meeting.shakeHands()
        #expect(shaken == .done)
        for _ in 0..<2000 {
            SSL_key_update(meeting.peer.ssl, SSL_KEY_UPDATE_NOT_REQUESTED)
            #expect(SSL_do_handshake(meeting.peer.ssl) == 1)
        }
        meeting.peer.say([1, 2, 3])
        try meeting.toUs()
        meeting.session.becameReadable()
        var empty = 0
        while true {
            let result = try meeting.read(100)
            if result == .moved(3) { break }
            try #require(result == .moved(0))
            let mayHoldMore = meeting.session.mayHoldMore
            #expect(mayHoldMore)
            empty += 1
        }
        #expect(empty >= 2000 / 32)

        for _ in 0..<4000 { meeting.peer.say([9]) }
        try meeting.toUs()
        meeting.session.becameReadable()
        let first = try meeting.read(16_384)
        guard case .moved(let count) = first else {
            Issue.record("\(first)")
            return
        }
        // One look at the socket.
        #expect(count > 500 && count < 900)
        var all = count
        while all < 4000, case .moved(let more) = try meeting.read(16_384) { all += more }
        #expect(all == 4000)
    }

    @Test("an error that somebody has left in OpenSSL's queue is not taken for this session's")
    func foreignErrors() throws {
        var meeting = try Meeting.begin(isListener: true, version: TLS1_3_VERSION)
        let shaken = meeting.shakeHands()
        #expect(shaken == .done)
        let bio = BIO_new(BIO_s_mem())
        #expect(PEM_read_bio_X509(bio, nil, nil, nil) == nil && ERR_peek_error() != 0)
        BIO_free(bio)
        meeting.session.becameReadable()
        let nothing = try meeting.read(100)
        #expect(nothing == .wouldBlock)
    }

    @Test("a large write leaves in one piece")
    func largeWrites() throws {
        var meeting = try Meeting.begin(isListener: true, version: TLS1_3_VERSION, inPackets: true)
        let shaken = meeting.shakeHands()
        #expect(shaken == .done)
        let written = try meeting.write(100_000)
        #expect(written == .moved(100_000))
        let pieces = try meeting.pieces()
        #expect(pieces == [100_000 + 7 * 22])
    }

    @Test("a record that has been changed on its way is answered by an alert before the failure is known")
    func badRecord() throws {
        for version in [TLS1_3_VERSION, TLS1_2_VERSION] {
            var meeting = try Meeting.begin(isListener: true, version: version)
            let shaken = meeting.shakeHands()
            #expect(shaken == .done)
            meeting.peer.say([1, 2, 3])
            var bytes = meeting.peer.takeOutgoing()
            bytes[bytes.count - 1] ^= 1
            try meeting.toUs(bytes)
            meeting.session.becameReadable()
            #expect(throws: TLSFailure.self) { try meeting.read(100) }
            #expect(throws: TLSFailure.self) { try meeting.read(100) }
            #expect(throws: TLSFailure.self) { try meeting.write(100) }
            try meeting.toPeer()
            let heard = meeting.peer.hear()
            #expect(heard.outcome == SSL_ERROR_SSL)
            #expect(heard.words.contains("bad record mac"), "\(heard.words)")
        }
    }
}

// MARK: - The peer

/// OpenSSL on memory: a test carries the bytes.
private final class OpenSSLPeer {
    let ssl: OpaquePointer
    private let incoming: OpaquePointer
    private let outgoing: OpaquePointer

    init(_ ssl: OpaquePointer?) throws {
        self.ssl = try #require(ssl)
        incoming = try #require(BIO_new(BIO_s_mem()))
        outgoing = try #require(BIO_new(BIO_s_mem()))
        SSL_set_bio(self.ssl, incoming, outgoing)
    }

    deinit { SSL_free(ssl) }

    func give(_ bytes: [UInt8]) { BIO_write(incoming, bytes, Int32(bytes.count)) }

    func takeOutgoing(_ most: Int = 1 << 24) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: min(most, BIO_ctrl_pending(outgoing)))
        let count = bytes.isEmpty ? 0 : BIO_read(outgoing, &bytes, Int32(bytes.count))
        return Array(bytes.prefix(Int(max(0, count))))
    }

    var outgoingCount: Int { BIO_ctrl_pending(outgoing) }

    func say(_ bytes: [UInt8]) { SSL_write(ssl, bytes, Int32(bytes.count)) }

    /// All that there is to read, and why there is no more.
    func hear() -> (bytes: [UInt8], outcome: Int32, words: String) {
        var all: [UInt8] = []
        var bytes = [UInt8](repeating: 0, count: 16_384)
        while true {
            ERR_clear_error()
            let count = SSL_read(ssl, &bytes, Int32(bytes.count))
            if count > 0 {
                all += bytes.prefix(Int(count))
                continue
            }
            let outcome = SSL_get_error(ssl, count)
            return (all, outcome, outcome == SSL_ERROR_SSL ? TLSFailure.fromQueue().message : "")
        }
    }
}

/// Both, and the socket pair between them.
private struct Meeting: ~Copyable {
    var session: TLSSession
    let peer: OpenSSLPeer
    private let sockets: Sockets
    private var memory = [UInt8](repeating: 0, count: 300_000)
    private var ourNumber: Int32 { sockets.ours }
    private var theirNumber: Int32 { sockets.theirs }

    private init(_ session: consuming TLSSession, _ peer: OpenSSLPeer, _ sockets: Sockets) {
        self.session = session
        self.peer = peer
        self.sockets = sockets
    }

    /// We are the listener or the client. `longTicket`: one that does not fit into a record.
    static func begin(
        isListener: Bool, version: Int32, longTicket: Bool = false, inPackets: Bool = false
    ) throws -> Meeting {
        let sockets = try Sockets(inPackets: inPackets)
        let authority = try Authority()
        let certificate = try authority.sign(["DNS:a.example"])
        if isListener {
            let client = try TestClient(version: version)
            let peer = try OpenSSLPeer(client.session("a.example"))
            let ours = try listener(certificate)
            guard let session = TLSSession(listener: ours, socket: sockets.ours, wire: sockets.wire)
            else { throw TLSFailure("there is no memory") }
            return Meeting(session, peer, sockets)
        }
        let context = try TLSContext(TLS_server_method())
        try #require(SSL_CTX_use_certificate(context.ctx, certificate.x509) == 1)
        try #require(SSL_CTX_use_PrivateKey(context.ctx, certificate.key) == 1)
        try #require(tp_SSL_CTX_set_max_proto_version(context.ctx, version) == 1)
        SSL_CTX_set_session_id_context(context.ctx, [1], 1)
        if longTicket {
            SSL_CTX_set_verify(context.ctx, SSL_VERIFY_PEER) { _, _ in 1 }
            SSL_CTX_set_num_tickets(context.ctx, 1)
        }
        let ssl = SSL_new(context.ctx)
        SSL_set_accept_state(ssl)
        if longTicket { SSL_ctrl(ssl, SSL_CTRL_SET_MAX_SEND_FRAGMENT, 512, nil) }
        let peer = try OpenSSLPeer(ssl)
        let own = try authority.sign((0..<40).map { "DNS:name-\($0).example" }, commonName: "us")
        let file = try MemoryFile(own.pem + own.keyPEM)
        let remote = try remote(authority.arguments { if longTicket { $0.certificateFile = file.path } })
        let session = try TLSSession(
            remote: remote, host: .name("a.example", port: 443), socket: sockets.ours, wire: sockets.wire)
        return Meeting(session, peer, sockets)
    }

    /// The pair, and the memory that our session works in.
    private final class Sockets {
        let ours: Int32
        private(set) var theirs: Int32
        let wire = TLSWire()

        init(inPackets: Bool) throws {
            var raw: [Int32] = [-1, -1]
            let kind = inPackets ? SOCK_SEQPACKET : SOCK_STREAM
            // A program that another test starts must not hold an end open.
            let flags = SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue
            try #require(socketpair(AF_UNIX, Int32(kind.rawValue | flags), 0, &raw) == 0)
            (ours, theirs) = (raw[0], raw[1])
        }

        deinit {
            close(ours)
            closeTheirs()
        }

        func closeTheirs() {
            if theirs >= 0 { close(theirs) }
            theirs = -1
        }
    }

    func useSmallBuffers(_ bytes: Int) throws {
        guard bytes > 0 else { return }
        for raw in [ourNumber, theirNumber] {
            var size = Int32(bytes)
            setsockopt(raw, SOL_SOCKET, SO_SNDBUF, &size, 4)
        }
    }

    /// The peer is gone, whatever it has not read.
    func leave() { sockets.closeTheirs() }

    /// Goes on until both are done; what the peer says after that is carried, too, unless held back.
    mutating func shakeHands(holdingBackTickets: Bool = false) -> TLSSession.Handshake {
        var outcome = TLSSession.Handshake.waiting
        for _ in 0..<10_000 {
            session.becameReadable()
            _ = try? session.flush()
            if outcome == .waiting { outcome = session.handshake() }
            _ = try? toPeer()
            let isDone = SSL_do_handshake(peer.ssl) == 1
            ERR_clear_error()
            if isDone, outcome == .done { break }
            _ = try? toUs()
        }
        if !holdingBackTickets { _ = try? toUs() }
        return outcome
    }

    // MARK: - Carrying

    /// What the peer has to say, as far as the socket takes it.
    mutating func toUs() throws {
        while peer.outgoingCount > 0 {
            if unsent.isEmpty { unsent = peer.takeOutgoing(60_000) }
            guard try sendUnsent() else { return }
        }
        _ = try sendUnsent()
    }

    private var unsent: [UInt8] = []

    private mutating func sendUnsent() throws -> Bool {
        guard !unsent.isEmpty, theirNumber >= 0 else { return true }
        switch try Socket.send(theirNumber, from: unsent, count: unsent.count) {
        case .moved(let count): unsent.removeFirst(count)
        case .wouldBlock, .endOfStream: return false
        }
        return unsent.isEmpty
    }

    mutating func toUs(_ bytes: [UInt8]) throws {
        guard theirNumber >= 0 else { return }
        let sent = try Socket.send(theirNumber, from: bytes, count: bytes.count)
        #expect(sent == .moved(bytes.count))
    }

    /// What has arrived at the peer's socket; true when there was something.
    @discardableResult
    mutating func toPeer(_ most: Int = 300_000) throws -> Bool {
        guard theirNumber >= 0 else { return false }
        switch try Socket.receive(theirNumber, into: &memory, count: min(most, memory.count)) {
        case .moved(let count): peer.give(Array(memory.prefix(count)))
        case .endOfStream: transportEnded = true
        case .wouldBlock: return false
        }
        return !transportEnded
    }

    private var transportEnded = false

    /// The sizes of the packets that we have sent.
    mutating func pieces() throws -> [Int] {
        var sizes: [Int] = []
        while case .moved(let count) = try Socket.receive(theirNumber, into: &memory, count: memory.count) {
            sizes.append(count)
        }
        return sizes
    }

    // MARK: - Our side

    mutating func read(_ count: Int) throws(TLSFailure) -> Transfer {
        try session.read(into: &memory, count: min(count, memory.count))
    }

    mutating func write(_ count: Int) throws(TLSFailure) -> Transfer {
        let bytes = [UInt8](repeating: 5, count: count)
        return try session.write(from: bytes, count: count)
    }

    // MARK: - A conversation

    struct Outcome {
        var sentByUs = Sum()
        var takenByPeer = Sum()
        var sentByPeer = Sum()
        var takenByUs = Sum()
        var ending = ""
        var peerSawEnd = false
        var kept = 0
    }

    /// How many bytes, and which (FNV).
    struct Sum: Equatable {
        private(set) var count = 0
        private var hash: UInt64 = 0xcbf2_9ce4_8422_2325

        mutating func add(_ bytes: some Sequence<UInt8>) {
            for byte in bytes {
                hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3
                count += 1
            }
        }
    }

    /// Both say about so many bytes, in pieces of at most `largest`, and end; the peer perhaps without saying so. Our side
    /// does only what an edge-triggered poll tells it to.
    mutating func converse(
        bytes: Int, largest: Int, cut: Bool, _ random: inout SeededGenerator
    ) throws -> Outcome {
        var outcome = Outcome()
        let poll = try Epoll()
        try poll.add(ourNumber, [.readable, .writable, .peerEnded, .edgeTriggered], token: 0)
        let events = UnsafeMutableBufferPointer<epoll_event>.allocate(capacity: 1)
        defer { events.deallocate() }
        var mayRead = true
        var mayWrite = true
        var weEnd = false
        var peerEnd = false
        var weHaveEnded = false
        var piece: [UInt8] = []
        session.becameReadable()
        for round in 0..<1_000_000 {
            // The peer: a bit of everything.
            if outcome.sentByPeer.count < bytes, peer.outgoingCount + unsent.count < 300_000 {
                let said = Self.bytes(Int.random(in: 1...largest, using: &random), &random)
                peer.say(said)
                outcome.sentByPeer.add(said)
            }
            if outcome.sentByPeer.count >= bytes, !peerEnd {
                peerEnd = true
                if !cut { SSL_shutdown(peer.ssl) }
            }
            try toUs()
            if peerEnd, peer.outgoingCount + unsent.count == 0 { shutdown(theirNumber, Int32(SHUT_WR)) }
            if Bool.random(using: &random) { try toPeer(Int.random(in: 1...200_000, using: &random)) }
            let heard = peer.hear()
            outcome.takenByPeer.add(heard.bytes)
            if heard.outcome == SSL_ERROR_ZERO_RETURN { outcome.peerSawEnd = true }
            // We: what the poll tells.
            if try poll.wait(into: events, timeoutMilliseconds: 0) == 1 {
                let readiness = Readiness(rawValue: events[0].events)
                if !readiness.isDisjoint(with: [.readable, .peerEnded, .hangUp]) { mayRead = true }
                if !readiness.isDisjoint(with: [.writable, .hangUp]) { mayWrite = true }
                if readiness.contains(.peerEnded) { session.peerEnded() }
                if mayRead { session.becameReadable() }
                if mayWrite, try !session.flush() { mayWrite = false }
            }
            if mayRead, outcome.ending.isEmpty, Bool.random(using: &random) {
                do throws(TLSFailure) {
                    switch try read(Int.random(in: 1...largest, using: &random)) {
                    case .moved(let count):
                        outcome.takenByUs.add(memory.prefix(count))
                        mayRead = session.mayHoldMore
                    case .wouldBlock: mayRead = false
                    case .endOfStream: outcome.ending = "end"
                    }
                } catch {
                    outcome.ending = error.isTruncation ? "cut" : error.message
                }
                // Reading may have made TLS answer.
                if session.holdsCiphertext { mayWrite = false }
            }
            // One that was cut takes no more: the connection is over.
            if outcome.ending == "cut" { break }
            if mayWrite, !weEnd {
                if piece.isEmpty { piece = Self.bytes(Int.random(in: 1...largest, using: &random), &random) }
                if case .moved(let count) = try session.write(from: piece, count: piece.count) {
                    outcome.sentByUs.add(piece.prefix(count))
                    piece.removeFirst(count)
                }
                if session.holdsCiphertext { mayWrite = false }
                weEnd = outcome.sentByUs.count >= bytes
            }
            if weEnd, !weHaveEnded {
                weHaveEnded = true
                session.endWriting()
                if session.holdsCiphertext { mayWrite = false }
            }
            if weHaveEnded, !outcome.ending.isEmpty, outcome.peerSawEnd { break }
            try #require(round < 999_999, "it has stopped: \(outcome)")
        }
        if cut {
            // What it had been told is not of interest; that it was told no end is.
            outcome.takenByPeer = outcome.sentByUs
            outcome.peerSawEnd = true
        }
        outcome.kept = session.holdsCiphertext ? 0 : session.keptBytes
        return outcome
    }

    private static func bytes(_ count: Int, _ random: inout SeededGenerator) -> [UInt8] {
        let first = UInt8.random(in: 0...255, using: &random)
        return (0..<count).map { first &+ UInt8(truncatingIfNeeded: $0 &* 7) }
    }
}
