import Control
import Linux
import Testing

/// A generator that gives the same numbers every time.
struct Seeded: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return (state ^ (state >> 29)) &* 0xbf58_476d_1ce4_e5b9
    }
}

@Suite("Control messages")
struct CommandTests {
    static let commands: [Command] = [
        .drain, .drainLast, .stop, .reload(generation: 7), .reopenLogs, .shareListeners, .renewTLS, .renewTicketKeys,
        .told(#"{"a": "b  c"}"#),
    ]
    static let reports: [Report] = [
        .ready, .bootFailed("no such file"), .reloaded, .reloadFailed("two\nlines  of it"), .logsReopened, .draining,
        .tlsRenewed, .tlsNotRenewed("a.pem: no start line"), .logRefused("the log x cannot be opened"),
    ]

    @Test("every command survives the wire", arguments: commands)
    func command(_ command: Command) throws {
        let numbered = Numbered(number: 17, message: command)
        #expect(try ControlCodec.decode(ControlCodec.encode(numbered)) == numbered)
    }

    @Test("every report survives the wire", arguments: reports)
    func report(_ report: Report) throws {
        let numbered = Numbered(number: 0, message: report)
        #expect(try ControlCodec.decode(ControlCodec.encode(numbered)) == numbered)
    }

    @Test("a command reads as text")
    func text() {
        let bytes = ControlCodec.encode(Numbered(number: 17, message: Command.reload(generation: 4)))
        #expect(String(decoding: bytes, as: UTF8.self) == "1 17 reload 4")
    }

    @Test("a reason that is too long is cut, not refused")
    func longReason() throws {
        let bytes = ControlCodec.encode(
            Numbered(number: 1, message: Report.bootFailed(String(repeating: "é", count: 100_000))))
        #expect(bytes.count == ControlCodec.bytesMax)
        let decoded: Numbered<Report> = try ControlCodec.decode(bytes)
        guard case .bootFailed(let reason) = decoded.message else {
            Issue.record("not a boot failure")
            return
        }
        #expect(reason.hasPrefix("ééé"))
    }

    @Test("another version is named in the error")
    func otherVersion() {
        #expect(throws: ControlError.otherVersion("2")) {
            try ControlCodec.decode("2 1 drain ".utf8, as: Command.self)
        }
    }

    @Test(
        "what is no message is an error value",
        arguments: [
            "", " ", "1", "1 1", "1 1 drain", "x 1 drain ", "1 x drain ", "1 1 unknown ", "1 1 reload x", "1 -1 drain ",
            "1 99999999999 drain ",
        ])
    func garbage(_ text: String) {
        #expect(throws: ControlError.self) { try ControlCodec.decode(text.utf8, as: Command.self) }
    }

    @Test("a packet that is too long is an error value")
    func tooLong() {
        #expect(throws: ControlError.tooLong) {
            try ControlCodec.decode([UInt8](repeating: 49, count: 9000), as: Command.self)
        }
    }

    @Test("random bytes never trap")
    func fuzz() {
        var random = Seeded(state: 1)
        let seed = Array("1 17 reload 4".utf8)
        for _ in 0..<5000 {
            var bytes = seed
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let at = Int.random(in: 0..<bytes.count, using: &random)
                if Bool.random(using: &random) {
                    bytes[at] = .random(in: 0...255, using: &random)
                } else {
                    bytes.insert(.random(in: 0...255, using: &random), at: at)
                }
            }
            _ = try? ControlCodec.decode(bytes, as: Command.self)
            _ = try? ControlCodec.decode(bytes, as: Report.self)
        }
    }
}

@Suite("The control channel")
struct ControlChannelTests {
    /// Both ends of a channel.
    struct Ends: ~Copyable {
        let arbiter: ArbiterChannel
        let worker: WorkerChannel

        static func make() throws -> Ends {
            let raw = try Socket.packetPair().release()
            let arbiter = try ArbiterChannel(Descriptor(owning: raw.0))
            return Ends(arbiter: arbiter, worker: try WorkerChannel(Descriptor(owning: raw.1)))
        }

        consuming func worker(alone: Void) -> WorkerChannel { worker }
    }

    @Test("messages arrive whole and in order")
    func order() throws {
        let ends = try Ends.make()
        #expect(ends.worker.receive() == .wouldBlock)
        #expect(ends.arbiter.send(.reload(generation: 2), number: 5) == .sent)
        #expect(ends.arbiter.send(.drain, number: 6) == .sent)
        #expect(ends.worker.receive() == .message(Numbered(number: 5, message: .reload(generation: 2))))
        #expect(ends.worker.receive() == .message(Numbered(number: 6, message: .drain)))
        #expect(ends.worker.receive() == .wouldBlock)
        #expect(ends.worker.send(.reloadFailed("no"), number: 5) == .sent)
        #expect(ends.arbiter.receive() == .message(Numbered(number: 5, message: .reloadFailed("no"))))
    }

    @Test("a message that is not understood does not end the channel")
    func notUnderstood() throws {
        let ends = try Ends.make()
        _ = try Socket.sendPacket(ends.arbiter.raw, Array("1 1 someday x".utf8))
        _ = try Socket.sendPacket(ends.arbiter.raw, [UInt8](repeating: 65, count: 20_000))
        ends.arbiter.send(.stop)
        #expect(ends.worker.receive() == .notUnderstood(.unreadable("1 1 someday x")))
        #expect(ends.worker.receive() == .notUnderstood(.tooLong))
        #expect(ends.worker.receive() == .message(Numbered(number: 0, message: .stop)))
    }

    @Test("the end of the arbiter shows as the end of the channel, after what it has sent")
    func closed() throws {
        let ends = try Ends.make()
        ends.arbiter.send(.drain)
        let worker = ends.worker(alone: ())
        #expect(worker.receive() == .message(Numbered(number: 0, message: .drain)))
        #expect(worker.receive() == .closed)
        #expect(worker.send(.draining) == .closed)
    }

    @Test("a worker that does not read makes the channel full, not the arbiter wait")
    func full() throws {
        let ends = try Ends.make()
        var sent = 0
        while ends.arbiter.send(.reopenLogs) == .sent, sent < 100_000 { sent += 1 }
        #expect(ends.arbiter.send(.reopenLogs) == .full)
        #expect(sent >= 64)
    }
}
