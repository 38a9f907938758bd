// Where rewriters knock: the worker's listening socket for streams, and those who have not said their token yet.

import Config
import Linux
import Reactor
import SystemPackage

/// Somebody who has connected, until it is known what for.
struct StreamDialer: ~Copyable {
    let descriptor: Descriptor
    let deadline: Int64
}

/// Accepts whoever dials back and reads the one line that names a stream. Not a byte after that line is read: they belong to
/// the stream, and stay in the kernel.
struct StreamDoor: ~Copyable {
    /// What came of looking for a new one.
    enum Knock: Equatable {
        /// Nobody is there.
        case none
        case dialer(Token)
        /// Of a user whom nobody has trusted with streams: closed.
        case stranger(user: UInt32)
    }

    /// What a dialer has said.
    enum Said: Equatable {
        /// Not all of it has come.
        case nothing
        /// `take` has the socket.
        case token(StreamToken)
        /// No token and a newline, or an end before it: closed.
        case nonsense
    }

    /// The abstract name of the socket. It is no secret, but nobody can have taken it before us. It is as long as a name can be:
    /// some languages (Node.js 20, for one) fill shorter ones up with zeros, which makes another name of them.
    let name = StreamDoor.newName()
    private var listener: Descriptor?
    private var dialers = Slab<StreamDialer>()
    /// Those in the slab, who has waited longest first.
    private var waiting: [Token] = []

    private static func newName() -> String {
        let start = "tproxy-\(StreamToken())"
        return start + String(repeating: "-", count: AbstractSocket.nameBytesMax - start.utf8.count)
    }

    /// As `hello` tells it.
    var address: String { "unix:@\(name)" }
    var isOpen: Bool { listener != nil }
    var waitingCount: Int { waiting.count }

    /// Begins to listen, and has epoll watch for it.
    mutating func open(_ poller: borrowing Poller) throws(Errno) {
        guard !isOpen else { return }
        let opened = try AbstractSocket.listen(name, backlog: Int32(clamping: Limits.streamBacklog))
        try poller.add(opened.raw, .readable, Token(slot: 0, generation: 0, kind: TokenKind.streamDoor))
        listener = consume opened
    }

    /// Listens no more for a while, or again: accept(2) ran out of descriptors.
    mutating func watch(_ watched: Bool, _ poller: borrowing Poller) {
        guard let raw = listenerNumber else { return }
        poller.remove(raw)
        if watched { try? poller.add(raw, .readable, Token(slot: 0, generation: 0, kind: TokenKind.streamDoor)) }
    }

    private var listenerNumber: Int32? {
        switch listener {
        case .some(let listener): listener.raw
        case .none: nil
        }
    }

    /// Accepts one.
    mutating func accept(now: Int64, isTrusted: (_ user: UInt32) -> Bool) throws(Errno) -> Knock {
        guard let raw = listenerNumber, let accepted = try Socket.accept(raw) else { return .none }
        let user = try RouterSocket.peerUser(accepted.descriptor.raw)
        guard isTrusted(user) else { return .stranger(user: user) }
        var dialer: StreamDialer? = StreamDialer(
            descriptor: accepted.take(), deadline: now + Int64(Limits.streamTokenMilliseconds))
        let slot = dialers.insert { _, _ in
            guard let dialer = dialer.take() else { preconditionFailure("insert calls its body once") }
            return dialer
        }
        let token = Token(slot: slot, generation: dialers.generation(slot), kind: TokenKind.streamDialer)
        waiting.append(token)
        return .dialer(token)
    }

    /// When more say nothing than are expected, whoever has done so for longest is closed: it is nobody's rewriter. How many.
    mutating func dropExcess(expected: Int) -> Int {
        var count = 0
        while waiting.count > Limits.streamDialersMax + expected, let oldest = waiting.first {
            drop(oldest)
            count += 1
        }
        return count
    }

    /// Reads what a dialer has said; nothing for one that is gone. A line that is all there is taken out of the socket.
    mutating func hear(_ dialer: Token) -> Said {
        guard dialers.holds(dialer.slot, generation: dialer.generation) else { return .nothing }
        let said = Self.peek(dialers[dialer.slot].descriptor.raw)
        if said == .nonsense { drop(dialer) }
        return said
    }

    /// Looks at the line, and reads it once it is whole.
    private static func peek(_ raw: Int32) -> Said {
        let length = StreamToken.textBytes + 1
        var line = [UInt8](repeating: 0, count: length)
        let count = look(raw, &line, isRead: false)
        guard count >= 0 else { return .nothing }
        // An end, or something else before the line is whole.
        guard count > 0, line[..<min(count, length - 1)].allSatisfy(isDigit) else { return .nonsense }
        guard count == length else { return .nothing }
        guard line[length - 1] == UInt8(ascii: "\n"), let token = StreamToken(line[..<(length - 1)]),
            look(raw, &line, isRead: true) == length
        else { return .nonsense }
        return .token(token)
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"): true
        default: false
        }
    }

    /// How many bytes are there: -1 when none is yet, 0 when none will be.
    private static func look(_ raw: Int32, _ line: inout [UInt8], isRead: Bool) -> Int {
        let found = unsafe line.withUnsafeMutableBytes { buffer -> Transfer in
            guard let base = buffer.baseAddress else { return .endOfStream }
            let found =
                unsafe isRead
                ? try? Socket.receive(raw, into: base, count: buffer.count)
                : try? Socket.peek(raw, into: base, count: buffer.count)
            return found ?? .endOfStream
        }
        switch found {
        case .moved(let count): return count
        case .wouldBlock: return -1
        case .endOfStream: return 0
        }
    }

    /// The number of a dialer that is waited for, to have it watched.
    func number(_ dialer: Token) -> Int32? {
        dialers.holds(dialer.slot, generation: dialer.generation) ? dialers[dialer.slot].descriptor.raw : nil
    }

    /// Gives away the socket of a dialer that has said its token.
    mutating func take(_ dialer: Token) -> Descriptor? {
        guard dialers.holds(dialer.slot, generation: dialer.generation) else { return nil }
        waiting.removeAll { $0 == dialer }
        let taken = dialers.remove(dialer.slot)
        return taken.descriptor
    }

    private mutating func drop(_ dialer: Token) { _ = take(dialer) }

    /// When `expire` has something to do.
    var nextDeadline: Int64? { waiting.first.map { dialers[$0.slot].deadline } }

    /// Closes those whose time is up; how many.
    mutating func expire(now: Int64) -> Int {
        var count = 0
        while let first = waiting.first, dialers[first.slot].deadline <= now {
            drop(first)
            count += 1
        }
        return count
    }
}
