// Clients that speak TLS and are slow: what they have not taken is ciphertext that waits in the session.

import Addressing
import Config
import Linux
import Reactor
import RouterProtocol
import SystemPackage
import Testing

@testable import Proxy

@Suite struct SlowTLSTests {
    /// Two writes of the session's, of which the last waits whole.
    private static let answer = String(repeating: "a", count: 262_144)
    private static let stall = Int64(Limits.stallMilliseconds)

    /// A client that has asked and is behind a remote.
    private func relay(_ rig: Rig, inactivityMilliseconds: Int? = nil) throws -> Descriptor {
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        var verdict = RemoteVerdict(remotes: [rig.remoteEndpoint])
        verdict.inactivityTimeoutMilliseconds = inactivityMilliseconds
        _ = rig.handle(.verdict(.remote(verdict)))
        let remote = try rig.acceptRemote()
        #expect(rig.read(remote.raw) == "x")
        return remote
    }

    /// As much of an answer as the session takes at once, so that nothing waits in front of it.
    private static let piece = 60_000

    private func answer(_ rig: Rig, from remote: Int32) {
        // Behind a message's worth more is read at a time.
        for count in [16_384, Self.piece] {
            readAll(rig)
            let before = rig.facts.bytesToClient
            rig.write(remote, String(repeating: "a", count: count))
            _ = rig.handle(.ready(.remote, .readable))
            #expect(rig.facts.bytesToClient == before + UInt64(count))
        }
    }

    /// Reads all that there is, as often as there is room for more.
    private func readAll(_ rig: Rig) {
        for _ in 0..<64 {
            _ = try? rig.clientLooks()
            _ = rig.handle(.ready(.client, [.writable]))
        }
    }

    /// Reads to the end, so little at a time that what is encrypted last takes longer than anybody's patience; whether
    /// close_notify was what ended it, and how much came.
    private func readSlowly(_ rig: Rig) -> (count: Int, isWhole: Bool) {
        var count = 0
        for _ in 0..<100 {
            rig.pass(milliseconds: Self.stall / 3)
            _ = rig.handle(.deadline(nil))
            switch try? rig.clientLooks(16_384) {
            case .moved(let moved): count += moved
            case .endOfStream: return (count, true)
            case .wouldBlock: break
            case nil: return (count, false)
            }
            _ = rig.handle(.ready(.client, [.writable]))
        }
        return (count, false)
    }

    @Test(
        "one whose handshake does not come to its end is closed at its time for it, however much it drips",
        arguments: [Limits.verdictTimeoutMillisecondsDefault, 4000])
    func slowHandshake(verdictTimeout: Int) throws {
        let rig = try Rig(overTLS: true, shakingHands: false) { $0.verdictTimeoutMilliseconds = verdictTimeout }
        let time = Int64(min(Limits.handshakeMilliseconds, verdictTimeout))
        #expect(rig.deadline == rig.now + time)
        // The beginning of a ClientHello of 508 bytes.
        rig.clientSendsBare("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{7c}\u{3}\u{3}")
        for _ in 0..<9 {
            rig.pass(milliseconds: time / 10)
            rig.clientSendsBare("x")
            _ = rig.handle(.ready(.client, .readable))
            _ = rig.handle(.deadline(nil))
            #expect(rig.closeReason == nil)
        }
        rig.pass(milliseconds: time - time / 10 * 9 - 1)
        _ = rig.handle(.deadline(nil))
        #expect(rig.closeReason == nil && rig.deadline == rig.now + 1)
        rig.pass(milliseconds: 1)
        #expect(rig.handle(.deadline(nil)).remark == "no TLS handshake within \(time) ms")
        #expect(rig.closeReason == .clientTLS)
    }

    @Test("one that takes an answer slowly gets all of it, though the last of it waits encrypted")
    func slowAnswer() throws {
        let rig = try Rig(overTLS: true)
        rig.clientSends("x")
        #expect(rig.handle(.ready(.client, .readable)).asking == .question)
        _ = rig.handle(.verdict(.close(CloseVerdict(bytes: Array(Self.answer.utf8)))))
        let (count, isWhole) = readSlowly(rig)
        #expect(count == Self.answer.utf8.count && isWhole)
    }

    @Test("one that takes nothing of an answer has stalled, and is not told that this was all")
    func stalled() throws {
        let rig = try Rig(overTLS: true)
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        _ = rig.handle(.verdict(.close(CloseVerdict(bytes: Array(Self.answer.utf8)))))
        rig.pass(milliseconds: Self.stall)
        _ = rig.handle(.deadline(nil))
        #expect(rig.closeReason == .stalled)
    }

    @Test("a plain one that has stalled does not take what it got for the whole either")
    func stalledPlain() throws {
        let rig = try Rig(overTCP: true)
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        _ = rig.handle(.verdict(.close(CloseVerdict(bytes: [UInt8](repeating: 1, count: 16 << 20)))))
        rig.pass(milliseconds: Self.stall)
        _ = rig.handle(.deadline(nil))
        #expect(rig.closeReason == .stalled)
        rig.dropConnection()
        _ = rig.clientReads()
        #expect(rig.clientError == .connectionReset)
    }

    @Test("a remote is not silent while a TLS client does not take what it has said")
    func busyRemote() throws {
        let rig = try Rig(overTLS: true)
        let remote = try relay(rig, inactivityMilliseconds: 1000)
        answer(rig, from: remote.raw)
        for _ in 0..<5 {
            rig.pass(milliseconds: 1000)
            _ = rig.handle(.deadline(nil))
        }
        #expect(rig.failure == nil && rig.closeReason == nil)
        // Once it has all, silence counts.
        readAll(rig)
        rig.pass(milliseconds: 1000)
        _ = rig.handle(.deadline(nil))
        #expect(rig.failure == .inactivityTimeout)
    }

    @Test("what a remote has said before its reset reaches a slow TLS client, and then the reset does")
    func slowBeforeReset() throws {
        let rig = try Rig(overTLS: true)
        var remote: Descriptor? = try relay(rig)
        let raw = remote?.raw ?? -1
        answer(rig, from: raw)
        Socket.resetOnClose(raw)
        remote = nil
        _ = rig.handle(.ready(.remote, [.readable, .writable, .peerEnded, .hangUp, .error]))
        #expect(rig.closeReason == nil)
        let (count, isWhole) = readSlowly(rig)
        #expect(count == Self.piece && !isWhole)
        #expect(rig.closeReason == .remoteReset)
    }

    @Test("when both sides have ended, a slow TLS client gets the rest")
    func slowRest() throws {
        let rig = try Rig(overTLS: true)
        let remote = try relay(rig)
        rig.write(remote.raw, Self.answer)
        rig.end(remote.raw)
        rig.clientEnds()
        var effects = rig.handle(.ready(.remote, [.readable, .peerEnded]))
        while effects.moreToDo { effects = rig.handle(.resume) }
        _ = rig.handle(.ready(.client, [.readable, .peerEnded]))
        #expect(rig.closeReason == nil)
        let (count, isWhole) = readSlowly(rig)
        #expect(count == Self.answer.utf8.count && isWhole)
        #expect(rig.closeReason == .done)
    }
}
