// Ends and resets that come at an awkward moment: beside bytes, under back-pressure, before the reactor tells of them.

import Addressing
import Config
import Control
import Glibc
import Linux
import Reactor
import RouterProtocol
import SystemPackage
import Testing

@testable import Proxy

@Suite struct RelayEndsTests {
    /// Brings a connection to its relay; the remote's end comes back.
    private func relay(_ rig: Rig) throws -> Descriptor {
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        _ = rig.handle(.verdict(.remote(RemoteVerdict(remotes: [rig.remoteEndpoint]))))
        let remote = try rig.acceptRemote()
        #expect(rig.read(remote.raw) == "x")
        return remote
    }

    @Test("a client's end that was read before the verdict still reaches the remote")
    func endReadWhileRouting() throws {
        let rig = try Rig()
        rig.clientSends("request")
        rig.clientEnds()
        #expect(rig.handle(.ready(.client, [.readable, .peerEnded])).asking == .question)
        _ = rig.handle(.verdict(.remote(RemoteVerdict(remotes: [rig.remoteEndpoint]))))
        let remote = try rig.acceptRemote()
        #expect(rig.read(remote.raw) == "request")
        #expect(rig.readsEnd(remote.raw))
        rig.write(remote.raw, "answer")
        rig.end(remote.raw)
        _ = rig.handle(.ready(.remote, [.readable, .peerEnded]))
        #expect(rig.clientReads() == "answer")
        #expect(rig.closeReason == .done)
    }

    @Test("a connection that ends with bytes in a pipe gives the pipe's place back")
    func pipesComeBack() throws {
        let rig = try Rig(overTCP: true)
        let remote = try relay(rig)
        defer { withExtendedLifetime(remote.raw) {} }
        rig.clientFills()
        #expect(rig.pipesLent == 1)
        _ = rig.handle(.stop)
        rig.dropConnection()
        #expect(rig.pipesLent == 0)
    }

    @Test("a client's reset is noticed while the remote takes nothing")
    func resetUnderBackPressure() throws {
        let rig = try Rig(overTCP: true)
        let remote = try relay(rig)
        defer { withExtendedLifetime(remote.raw) {} }
        rig.clientFills()
        rig.clientResets()
        _ = rig.handle(.ready(.client, [.readable, .peerEnded, .hangUp, .error]))
        #expect(rig.closeReason == .clientReset)
    }

    @Test("a remote that has ended and then resets does not hold a silent client's connection")
    func resetAfterEnd() throws {
        let rig = try Rig()
        var remote: Descriptor? = try relay(rig)
        let raw = remote?.raw ?? -1
        rig.write(raw, "answer")
        rig.end(raw)
        _ = rig.handle(.ready(.remote, [.readable, .peerEnded]))
        Socket.resetOnClose(raw)
        remote = nil
        _ = rig.handle(.ready(.remote, [.readable, .writable, .peerEnded, .hangUp, .error]))
        #expect(rig.clientReads() == "answer")
        #expect(rig.reason == .done)
    }

    @Test("what a remote said before its reset reaches the client, also when a write found the reset first")
    func bytesBeforeReset() throws {
        let rig = try Rig(overTCP: true)
        var remote: Descriptor? = try relay(rig)
        let raw = remote?.raw ?? -1
        rig.write(raw, "half an ans")
        Socket.resetOnClose(raw)
        remote = nil
        rig.clientSends("more")
        _ = rig.handle(.ready(.client, .readable))
        _ = rig.handle(.ready(.remote, [.readable, .writable, .peerEnded, .hangUp]))
        #expect(rig.closeReason == .remoteReset)
        rig.dropConnection()
        #expect(rig.clientReads() == "half an ans")
        #expect(rig.clientError == .connectionReset)
    }

    @Test("failover in a circle does not make the question about it longer and longer")
    func attemptsBounded() throws {
        let rig = try Rig()
        let verdict = RemoteVerdict(remotes: Array(repeating: try Rig.deadEndpoint(), count: Limits.remotesMax))
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        _ = rig.handle(.verdict(.remote(verdict)))
        #expect(rig.attempts == Limits.remotesMax)
        _ = rig.handle(.errorAnswer(.remote(verdict)))
        #expect(rig.attempts == Limits.remotesMax)
    }

    @Test("a client that does not take a reply costs no wake-up, however often it was asked about")
    func blockedReply() throws {
        let rig = try Rig()
        for _ in 0..<Limits.quickQuestionsMax {
            rig.clientSends("x")
            _ = rig.handle(.ready(.client, .readable))
            _ = rig.handle(.verdict(.undecided(waitFor: nil)))
        }
        rig.clientSends("x")
        rig.pass(milliseconds: Int64(Limits.slowQuestionMilliseconds))
        _ = rig.handle(.ready(.client, .readable))
        let reply = [UInt8](repeating: 1, count: 4_194_304)
        _ = rig.handle(.verdict(.exchange(Exchange(reply: reply, consume: 0))))
        rig.pass(milliseconds: Int64(Limits.slowQuestionMilliseconds))
        _ = rig.handle(.deadline(nil))
        #expect((rig.deadline ?? 0) > rig.now + 1000)
    }
}

@Suite struct OwnAddressTests {
    @Test(
        "our own listener is known by every address that leads to it",
        arguments: [
            ("127.0.0.1:5000", true), ("0.0.0.0:5000", true), ("[::ffff:127.0.0.1]:5000", true),
            ("[::ffff:0.0.0.0]:5000", true), ("127.0.0.1:5001", false), ("127.0.0.2:5000", false),
        ])
    func loops(remote: String, isOurs: Bool) throws {
        let endpoint = try #require(Endpoint(remote))
        let address = try #require(SocketAddress(endpoint))
        #expect(Dialer.isOurs(address, [.ipv4(.loopback, port: 5000)]) == isOurs)
    }

    @Test("a Unix listener is known by every path that leads to it, and by no other")
    func unixPaths() throws {
        var template = Array("/tmp/tproxy-test-XXXXXX".utf8CString)
        mkdtemp(&template)
        let folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { for path in ["/a", "/b", "/link", ""] { remove(folder + path) } }
        for name in ["/a", "/b"] {
            try Socket.bind(try Socket.open(family: AF_UNIX), to: .unix(folder + name))
        }
        symlink("a", folder + "/link")
        let own = [SocketAddress.unix(folder + "/a")]
        for same in ["/a", "//a", "/./a", "/link"] { #expect(Dialer.isOurs(.unix(folder + same), own), "\(same)") }
        for other in ["/b", "/c", ""] { #expect(!Dialer.isOurs(.unix(folder + other), own), "\(other)") }
        // What is not there is nobody's.
        #expect(!Dialer.isOurs(.unix(folder + "/c"), [.unix(folder + "/d")]))
    }

    @Test("a listener for IPv6 is ours by its IPv4 addresses only if it takes IPv4, too", arguments: [false, true])
    func dualStack(isDual: Bool) throws {
        let socket = try Socket.open(family: AF_INET6)
        if !isDual { try Socket.onlyIPv6(socket.raw) }
        try Socket.bind(socket, to: .ipv6(.any, port: 0))
        try Socket.listen(socket, backlog: 1)
        guard case .ipv6(_, let port) = try Socket.localAddress(socket.raw) else { throw Errno.invalidArgument }
        let listener = try WorkerListener(
            InheritedListener(descriptor: socket.raw, bind: .descriptor(socket.raw)))
        #expect(Dialer.isOurs(.ipv6(.loopback, port: port), listener.reached))
        #expect(Dialer.isOurs(.ipv4(.loopback, port: port), listener.reached) == isDual)
        #expect(!Dialer.isOurs(.ipv4(.loopback, port: port ^ 1), listener.reached))
    }

    @Test("the port of an address to connect from is chosen when the socket connects", arguments: [AF_INET, AF_INET6])
    func sourcePort(family: Int32) throws {
        let listener = try Socket.open(family: family)
        try Socket.bind(listener, to: family == AF_INET ? .ipv4(.loopback, port: 0) : .ipv6(.loopback, port: 0))
        try Socket.listen(listener, backlog: 1)
        let socket = try Socket.open(family: family)
        try Socket.bindSource(
            socket, to: family == AF_INET ? .ipv4(.loopback, port: 0) : .ipv6(.loopback, port: 0))
        #expect(try Socket.localAddress(socket.raw).endpoint?.port == 0)
        _ = try Socket.connect(socket, to: try Socket.localAddress(listener.raw))
        #expect(try Socket.localAddress(socket.raw).endpoint?.port != 0)
    }
}

@Suite struct AcceptorTests {
    @Test("a closed acceptor wants no wake-up, though its pause was not over")
    func closedWhilePaused() throws {
        // Bound and not listening: accept fails for good.
        let socket = try Socket.open(family: AF_INET)
        try Socket.bind(socket, to: .ipv4(.loopback, port: 0))
        let listener = try WorkerListener(
            InheritedListener(descriptor: socket.release(), bind: .ipv4(.loopback, port: 1)))
        var acceptor = Acceptor([listener], workers: 1)
        let poller = try Poller()
        switch acceptor.take(0, now: 1000) {
        case .failed: break
        default: Issue.record("accepted")
        }
        #expect(acceptor.deadline != nil)
        acceptor.close(poller)
        #expect(acceptor.deadline == nil)
    }

    @Test("a client that pours on after its answer is drained a turn's share at a time")
    func lingering() throws {
        let rig = try Rig(overTCP: true)
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        _ = rig.handle(.verdict(.close(CloseVerdict(bytes: Array("bye".utf8)))))
        let chunk = String(repeating: "z", count: 262_144)
        var turns = 0
        var rounds = 0
        while turns < 2, rounds < 64 {
            rounds += 1
            for _ in 0..<16 { rig.clientSends(chunk) }
            // Before the share there was no end to a turn but the client's.
            if rig.handle(.ready(.client, .readable)).moreToDo { turns += 1 }
        }
        #expect(turns == 2, "\(rounds)")
        #expect(rig.closeReason == nil)
    }
}
