// The door for rewriters, on real sockets: who is let in, what is read, and what is left in the kernel.

import Config
import Glibc
import Linux
import Reactor
import Testing

@testable import Proxy

/// A door that is open, and what came to it.
private final class Entrance {
    private var door = StreamDoor()
    private let poller: Poller

    var name: String { door.name }
    var address: String { door.address }
    var waitingCount: Int { door.waitingCount }
    var nextDeadline: Int64? { door.nextDeadline }
    func hear(_ dialer: Token) -> StreamDoor.Said { door.hear(dialer) }
    func expire(now: Int64) -> Int { door.expire(now: now) }
    func dropExcess(expected: Int) -> Int { door.dropExcess(expected: expected) }
    /// The number, to be closed; nil when there is none.
    func take(_ dialer: Token) -> Int32? {
        guard let descriptor = door.take(dialer) else { return nil }
        return descriptor.release()
    }

    init() throws {
        poller = try Poller()
        try door.open(poller)
    }

    func dial() throws -> Descriptor { try AbstractSocket.connect(door.name) }

    func knock(now: Int64 = 0, isTrusted: Bool = true) throws -> StreamDoor.Knock {
        try door.accept(now: now) { user in
            #expect(user == geteuid())
            return isTrusted
        }
    }

    /// One who dials, let in as far as to say a token.
    func dialer(now: Int64 = 0) throws -> (socket: Int32, dialer: Token) {
        let socket = try dial().release()
        guard case .dialer(let dialer) = try knock(now: now) else { throw Unexpected() }
        return (socket, dialer)
    }
}

private struct Unexpected: Error {}

private func say(_ socket: Int32, _ text: String) {
    let bytes = Array(text.utf8)
    #expect(write(socket, bytes, bytes.count) == bytes.count)
}

/// What is to be read at once; nil at the end of the stream, or for a reset.
private func read(_ socket: Int32) -> String? {
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = recv(socket, &bytes, bytes.count, Int32(MSG_DONTWAIT))
    if count < 0, errno == EAGAIN { return "" }
    return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
}

@Suite struct StreamDoorTests {
    private let token = StreamToken()

    @Test("a token is read to its newline and not a byte further")
    func tokenAlone() throws {
        let entrance = try Entrance()
        let (socket, dialer) = try entrance.dialer()
        defer { close(socket) }
        #expect(entrance.hear(dialer) == .nothing)
        say(socket, "\(token)\nand the first bytes\n")
        #expect(entrance.hear(dialer) == .token(token))
        let taken = try #require(entrance.take(dialer))
        defer { close(taken) }
        #expect(read(taken) == "and the first bytes\n")
        #expect(entrance.waitingCount == 0)
        #expect(entrance.hear(dialer) == .nothing, "it is let in once")
        say(taken, "back")
        #expect(read(socket) == "back")
    }

    @Test("a token that comes byte by byte is the same")
    func pieces() throws {
        let entrance = try Entrance()
        let (socket, dialer) = try entrance.dialer()
        defer { close(socket) }
        for character in "\(token)" {
            say(socket, "\(character)")
            #expect(entrance.hear(dialer) == .nothing)
        }
        say(socket, "\n")
        #expect(entrance.hear(dialer) == .token(token))
        #expect(entrance.waitingCount == 1, "until it is taken")
    }

    @Test(
        "what is no token is closed as soon as that is known",
        arguments: [
            "\n", "GET / HTTP/1.1\r\n", "0123456789ABCDEF", "0123456789abcdef00000000000000ff\r\n",
            "0123456789abcdef00000000000000ff0", "0123456789abcdef\n", "\u{0}",
        ])
    func nonsense(_ text: String) throws {
        let entrance = try Entrance()
        let (socket, dialer) = try entrance.dialer()
        defer { close(socket) }
        say(socket, text)
        #expect(entrance.hear(dialer) == .nonsense)
        #expect(entrance.waitingCount == 0)
        #expect(read(socket) == nil, "it is closed")
    }

    @Test("whoever leaves before the token is whole is let go of")
    func left() throws {
        let entrance = try Entrance()
        let (socket, dialer) = try entrance.dialer()
        say(socket, "0123")
        #expect(entrance.hear(dialer) == .nothing)
        close(socket)
        // The bytes are still there, but that no more will come is not told by looking at them: time does.
        _ = entrance.hear(dialer)
        #expect(entrance.expire(now: Int64(Limits.streamTokenMilliseconds)) == 1)
        let (other, silent) = try entrance.dialer()
        close(other)
        #expect(entrance.hear(silent) == .nonsense)
    }

    @Test("a stranger is closed at once")
    func stranger() throws {
        let entrance = try Entrance()
        let socket = try entrance.dial()
        #expect(try entrance.knock(isTrusted: false) == .stranger(user: geteuid()))
        #expect(read(socket.raw) == nil)
        #expect(try entrance.knock() == .none)
    }

    @Test("who says nothing is closed when its time is up, and not before")
    func silence() throws {
        let entrance = try Entrance()
        #expect(entrance.nextDeadline == nil)
        let (early, _) = try entrance.dialer(now: 1000)
        let (late, lateDialer) = try entrance.dialer(now: 1500)
        defer {
            close(early)
            close(late)
        }
        let deadline = 1000 + Int64(Limits.streamTokenMilliseconds)
        #expect(entrance.nextDeadline == deadline)
        #expect(entrance.expire(now: deadline - 1) == 0)
        #expect(entrance.expire(now: deadline) == 1)
        #expect(read(early) == nil)
        #expect(read(late) == "")
        say(late, "\(token)\n")
        #expect(entrance.hear(lateDialer) == .token(token))
    }

    @Test("of more who say nothing than are expected the oldest is closed")
    func tooMany() throws {
        let entrance = try Entrance()
        var sockets: [Int32] = []
        defer { for socket in sockets { close(socket) } }
        for index in 0..<Limits.streamDialersMax {
            sockets.append(try entrance.dialer(now: Int64(index)).socket)
        }
        #expect(entrance.waitingCount == Limits.streamDialersMax)
        let (socket, dialer) = try entrance.dialer(now: 1000)
        defer { close(socket) }
        // Routers that were told of many streams at once dial for all of them before they say a word.
        #expect(entrance.dropExcess(expected: 1) == 0)
        #expect(read(sockets[0]) == "")
        #expect(entrance.dropExcess(expected: 0) == 1)
        #expect(entrance.waitingCount == Limits.streamDialersMax)
        #expect(read(sockets[0]) == nil)
        #expect(read(sockets[1]) == "")
        say(socket, "\(token)\n")
        #expect(entrance.hear(dialer) == .token(token))
    }

    @Test("two doors have two names, and one that is gone leaves its name free")
    func names() throws {
        let name: String
        do {
            let entrance = try Entrance()
            let other = try Entrance()
            name = entrance.name
            #expect(name != other.name)
            #expect(name.utf8.count == AbstractSocket.nameBytesMax)
            #expect(entrance.address == "unix:@\(name)")
            _ = try entrance.dial()
        }
        #expect(throws: (any Error).self) { _ = try AbstractSocket.connect(name) }
    }

    @Test("garbage in pieces lets nobody in, and never blocks who has a token", arguments: 1...20)
    func garbage(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let entrance = try Entrance()
        var open: [(socket: Int32, dialer: Token)] = []
        defer { for (socket, _) in open { close(socket) } }
        for _ in 0..<200 {
            switch Int.random(in: 0..<4, using: &random) {
            case 0: open.append(try entrance.dialer())
            case 1:
                guard let (socket, dialer) = open.randomElement(using: &random) else { break }
                let alphabet: [UInt8] = Bool.random(using: &random) ? Array("0123456789abcdef".utf8) : Array(0...255)
                let bytes = (0..<Int.random(in: 1...12, using: &random)).map { _ in
                    alphabet.randomElement(using: &random)!
                }
                _ = send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL))
                if case .token = entrance.hear(dialer) { Issue.record("that was no token") }
            case 2:
                guard let place = open.indices.randomElement(using: &random) else { break }
                let (socket, dialer) = open.remove(at: place)
                close(socket)
                _ = entrance.hear(dialer)
            default: _ = try entrance.knock()
            }
            _ = entrance.dropExcess(expected: 0)
            #expect(entrance.waitingCount <= Limits.streamDialersMax)
        }
        let (socket, dialer) = try entrance.dialer()
        defer { close(socket) }
        say(socket, "\(token)\n")
        #expect(entrance.hear(dialer) == .token(token))
    }
}
