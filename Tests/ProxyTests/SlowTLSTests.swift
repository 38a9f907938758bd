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
    /// More than a socket takes, and less than it and the session take together.
    private static let answer = String(repeating: "a", count: 300_000)
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

    /// Reads to the end, a little after each pause; whether close_notify was what ended it, and how much came.
    private func readSlowly(_ rig: Rig, pausing milliseconds: Int64) throws -> (count: Int, isWhole: Bool) {
        var count = 0
        for _ in 0..<100 {
            rig.pass(milliseconds: milliseconds)
            _ = rig.handle(.deadline)
            switch try rig.clientLooks() {
            case .moved(let moved): count += moved
            case .endOfStream: return (count, true)
            case .wouldBlock: break
            }
            _ = rig.handle(.ready(.client, [.writable]))
        }
        return (count, false)
    }

    @Test("one that takes an answer slowly gets all of it, though the last of it waits encrypted")
    func slowAnswer() throws {
        let rig = try Rig(overTLS: true)
        rig.clientSends("x")
        #expect(rig.handle(.ready(.client, .readable)).asking == .question)
        _ = rig.handle(.verdict(.close(CloseVerdict(bytes: Array(Self.answer.utf8)))))
        let (count, isWhole) = try readSlowly(rig, pausing: Self.stall - 1000)
        #expect(count == Self.answer.utf8.count && isWhole)
    }

    @Test("one that takes nothing of an answer has stalled, and is not told that this was all")
    func stalled() throws {
        let rig = try Rig(overTLS: true)
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        _ = rig.handle(.verdict(.close(CloseVerdict(bytes: Array(Self.answer.utf8)))))
        rig.pass(milliseconds: Self.stall)
        _ = rig.handle(.deadline)
        #expect(rig.closeReason == .stalled)
    }

    @Test("a remote is not silent while a TLS client does not take what it has said")
    func busyRemote() throws {
        let rig = try Rig(overTLS: true)
        let remote = try relay(rig, inactivityMilliseconds: 1000)
        // In pieces, so that the session takes all and nothing waits in front of it.
        for _ in 0..<3 {
            rig.write(remote.raw, String(repeating: "a", count: 90_000))
            var effects = rig.handle(.ready(.remote, .readable))
            while effects.moreToDo { effects = rig.handle(.resume) }
        }
        #expect(rig.facts.bytesToClient == 270_000)
        for _ in 0..<5 {
            rig.pass(milliseconds: 1000)
            _ = rig.handle(.deadline)
        }
        #expect(rig.failure == nil && rig.closeReason == nil)
        // Once it has all, silence counts.
        while case .moved = try rig.clientLooks() { _ = rig.handle(.ready(.client, [.writable])) }
        rig.pass(milliseconds: 1000)
        _ = rig.handle(.deadline)
        #expect(rig.failure == .inactivityTimeout)
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
        let (count, isWhole) = try readSlowly(rig, pausing: Self.stall - 1000)
        #expect(count == Self.answer.utf8.count && isWhole)
        #expect(rig.closeReason == .done)
    }
}
