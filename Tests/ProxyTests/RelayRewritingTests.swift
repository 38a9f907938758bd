// Rewriters that have done enough before their source has: what it still says costs nothing but its reading.

import Config
import Glibc
import Linux
import Reactor
import RouterProtocol
import SystemPackage
import Testing

@testable import Proxy

@Suite struct RelayRewritingTests {
    /// Brings a connection over TCP to its relay, with one direction rewritten.
    private func relay(
        _ rig: Rig, _ direction: StreamDirection, _ change: (inout RemoteVerdict) -> Void = { _ in }
    ) throws -> Descriptor {
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        rig.isRewritten(StreamDirections(direction))
        var verdict = RemoteVerdict(remotes: [rig.remoteEndpoint])
        change(&verdict)
        _ = rig.handle(.verdict(.remote(verdict)))
        let remote = try rig.acceptRemote()
        rig.settleRemote()
        return remote
    }

    /// The rewriter ends its direction; what the worker is to do about it.
    private func end(_ rig: Rig, _ direction: StreamDirection, _ rewriter: consuming Descriptor) -> Effects {
        _ = rig.handle(.streamEnded(direction))
        rig.end(rewriter.raw)
        return rig.handle(.ready(.rewriter(direction), [.readable, .peerEnded]))
    }

    @Test("a remote that nobody reads is not silent: before its rewriter has dialled back, and while that detaches")
    func held() throws {
        let rig = try Rig(overTCP: true)
        let remote = try relay(rig, .toClient) { $0.inactivityTimeoutMilliseconds = 700 }
        rig.write(remote.raw, "the answer")
        _ = rig.handle(.ready(.remote, .readable))
        rig.pass(milliseconds: 701)
        _ = rig.handle(.deadline(nil))
        #expect(rig.reason == nil && (rig.deadline ?? 0) == rig.now + 700)
        let rewriter = try rig.rewriterDials(.toClient)
        #expect(rig.read(rewriter.raw) == "the answer")
        // It is read now, and its silence is seen.
        #expect((rig.deadline ?? 0) == rig.now + 700)
        _ = rig.handle(.streamDetached(.toClient))
        rig.pass(milliseconds: 701)
        _ = rig.handle(.deadline(nil))
        #expect(rig.reason == nil && (rig.deadline ?? 0) == rig.now + 700)
        _ = end(rig, .toClient, rewriter)
        rig.pass(milliseconds: 701)
        #expect(rig.handle(.deadline(nil)).asking == .errorQuestion)
        #expect(rig.reason == .inactivityTimeout)
    }

    /// Lets happen again what is to come to this: loopback delivers at once, on a busy machine a moment later.
    private func until(_ isSo: () -> Bool) {
        for _ in 0..<1000 {
            if isSo() { return }
            _ = poll(nil, 0, 1)
        }
        Issue.record("it does not come to that")
    }

    /// What a client sends until one turn cannot drop it all.
    private func pour(_ rig: Rig) {
        let chunk = String(repeating: "z", count: 262_144)
        for _ in 0..<64 {
            for _ in 0..<16 { rig.clientSends(chunk) }
            if rig.handle(.ready(.client, .readable)).moreToDo { return }
        }
        Issue.record("one turn drops whatever comes")
    }

    @Test("what comes after an early end is dropped a turn's share at a time, and then there is nothing more to do")
    func drops() throws {
        let rig = try Rig(overTCP: true)
        let remote = try relay(rig, .toRemote)
        let rewriter = try rig.rewriterDials(.toRemote)
        #expect(rig.read(rewriter.raw) == "x")
        rig.write(rewriter.raw, "enough")
        #expect(end(rig, .toRemote, rewriter).streamsOver == .toRemote)
        #expect(rig.read(remote.raw) == "enough")
        #expect(rig.readsEnd(remote.raw))
        pour(rig)
        var turns = 0
        while rig.handle(.resume).moreToDo, turns < 64 { turns += 1 }
        #expect(turns < 64)
        rig.clientSends("z")
        #expect(!rig.handle(.ready(.client, .readable)).moreToDo)
        rig.write(remote.raw, "the answer")
        #expect(!rig.handle(.ready(.remote, .readable)).moreToDo)
        #expect(rig.clientReads() == "the answer")
        rig.end(remote.raw)
        rig.clientEnds()
        until {
            _ = rig.handle(.ready(.client, [.readable, .peerEnded]))
            _ = rig.handle(.ready(.remote, [.readable, .peerEnded]))
            return rig.closeReason == .done
        }
    }

    @Test("a remote that is gone leaves nothing to drop for, while the client does not take what it has said")
    func remoteGone() throws {
        let rig = try Rig(overTCP: true)
        var remote: Descriptor? = try relay(rig, .toRemote)
        let raw = remote?.raw ?? -1
        let rewriter = try rig.rewriterDials(.toRemote)
        _ = end(rig, .toRemote, rewriter)
        // As much as the client's socket takes, and more.
        var room = pollfd(fd: raw, events: Int16(POLLOUT), revents: 0)
        repeat {
            rig.write(raw, String(repeating: "a", count: 262_144))
            while rig.handle(.ready(.remote, .readable)).moreToDo {}
        } while poll(&room, 1, 50) > 0
        pour(rig)
        Socket.resetOnClose(raw)
        remote = nil
        until { !rig.handle(.ready(.remote, [.readable, .writable, .peerEnded, .hangUp, .error])).moreToDo }
        #expect(rig.closeReason == nil)
        rig.clientSends("z")
        #expect(!rig.handle(.ready(.client, .readable)).moreToDo)
    }

    @Test("a rewriter that reads no more holds its source up, without a turn, and its own bytes arrive")
    func deafRewriter() throws {
        let rig = try Rig(overTCP: true)
        let remote = try relay(rig, .toRemote)
        let rewriter = try rig.rewriterDials(.toRemote)
        #expect(rig.read(rewriter.raw) == "x")
        shutdown(rewriter.raw, Int32(SHUT_RD))
        for _ in 0..<3 {
            rig.clientSends("more")
            #expect(!rig.handle(.ready(.client, .readable)).moreToDo)
        }
        #expect(rig.closeReason == nil)
        rig.write(rewriter.raw, "enough")
        #expect(!rig.handle(.ready(.rewriter(.toRemote), .readable)).moreToDo)
        #expect(rig.read(remote.raw) == "enough")
        #expect(end(rig, .toRemote, rewriter).streamsOver == .toRemote)
        #expect(rig.readsEnd(remote.raw))
    }

    @Test("what a remote says when its client has had its end is dropped, to its end")
    func dropsAnswer() throws {
        let rig = try Rig()
        let remote = try relay(rig, .toClient)
        let rewriter = try rig.rewriterDials(.toClient)
        #expect(rig.read(remote.raw) == "x")
        rig.write(rewriter.raw, "sorry")
        #expect(end(rig, .toClient, rewriter).streamsOver == .toClient)
        #expect(rig.clientReads() == "sorry")
        for _ in 0..<3 {
            rig.write(remote.raw, "answer")
            #expect(!rig.handle(.ready(.remote, .readable)).moreToDo)
        }
        #expect(rig.clientReads() == "")
        rig.end(remote.raw)
        #expect(!rig.handle(.ready(.remote, [.readable, .peerEnded])).moreToDo)
        #expect(rig.closeReason == nil)
        rig.clientEnds()
        _ = rig.handle(.ready(.client, [.readable, .peerEnded]))
        #expect(rig.closeReason == .done)
    }
}
