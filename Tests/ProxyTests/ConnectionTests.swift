// A connection's phases, driven by hand: a socketpair for the client, a loopback listener for the remote, a list of events.

import Addressing
import Config
import Glibc
import Linux
import Reactor
import RouterProtocol
import SystemPackage
import Testing

@testable import Proxy

@Suite struct ConnectionTests {
    @Test("the first bytes are asked about, and further ones wait in the kernel while the question is open")
    func asksOnce() throws {
        let rig = try Rig()
        rig.clientSends("GET ")
        let asking = rig.handle(.ready(.client, .readable)).asking
        #expect(asking == .question)
        #expect(rig.questionBytes == "GET ")
        rig.clientSends("/ HTTP/1.0")
        let later = rig.handle(.ready(.client, .readable)).asking
        #expect(later == .nothing)
        #expect(rig.questionBytes == "GET ")
        let again = rig.handle(.verdict(.undecided(waitFor: nil))).asking
        #expect(again == .question)
        #expect(rig.questionBytes == "GET / HTTP/1.0")
    }

    @Test("a client that says nothing is never asked about and is closed at its deadline")
    func silentClient() throws {
        let rig = try Rig()
        let asking = rig.handle(.ready(.client, [])).asking
        #expect(asking == .nothing)
        rig.pass(milliseconds: 30_001)
        _ = rig.handle(.deadline(nil))
        #expect(rig.reason == .verdictTimeout)
        #expect(rig.clientReads() == "")
    }

    @Test("a client that leaves before its first byte is never asked about")
    func clientLeaves() throws {
        let rig = try Rig()
        rig.clientEnds()
        let asking = rig.handle(.ready(.client, [.readable, .peerEnded])).asking
        #expect(asking == .nothing)
        #expect(rig.closeReason == .clientLeft)
    }

    @Test("a verdict waits for as many bytes as it asked for")
    func waits() throws {
        let rig = try Rig()
        rig.clientSends("12")
        _ = rig.handle(.ready(.client, .readable))
        #expect(rig.handle(.verdict(.undecided(waitFor: 5))).asking == .nothing)
        rig.clientSends("34")
        #expect(rig.handle(.ready(.client, .readable)).asking == .nothing)
        rig.clientSends("5")
        #expect(rig.handle(.ready(.client, .readable)).asking == .question)
    }

    @Test("no more initial bytes are taken than allowed, and an undecided router then ends the connection")
    func initialBytesBounded() throws {
        let rig = try Rig { $0.maxInitialBytes = 8 }
        rig.clientSends("0123456789abcdef")
        #expect(rig.handle(.ready(.client, .readable)).asking == .question)
        #expect(rig.questionBytes == "01234567")
        _ = rig.handle(.verdict(.undecided(waitFor: nil)))
        #expect(rig.reason == .undecided)
    }

    @Test("an exchange tells the client, drops what was understood and asks again with the state")
    func exchange() throws {
        let rig = try Rig()
        rig.clientSends("hello world")
        _ = rig.handle(.ready(.client, .readable))
        let asking = rig.handle(
            .verdict(.exchange(Exchange(reply: Array("hi".utf8), consume: 6, state: Array("{\"n\":1}".utf8))))
        ).asking
        #expect(asking == .question)
        #expect(rig.questionBytes == "world")
        #expect(rig.questionState == "{\"n\":1}")
        #expect(rig.clientReads() == "hi")
    }

    @Test("a client that drips is asked about at a pace, not at every byte, and costs no wake-up in between")
    func drips() throws {
        let rig = try Rig()
        for _ in 0..<Limits.quickQuestionsMax {
            rig.clientSends("x")
            #expect(rig.handle(.ready(.client, .readable)).asking == .question)
            _ = rig.handle(.verdict(.undecided(waitFor: nil)))
        }
        rig.clientSends("x")
        #expect(rig.handle(.ready(.client, .readable)).asking == .nothing)
        rig.pass(milliseconds: Int64(Limits.slowQuestionMilliseconds))
        #expect(rig.handle(.deadline(nil)).asking == .question)
        _ = rig.handle(.verdict(.undecided(waitFor: nil)))
        rig.pass(milliseconds: Int64(Limits.slowQuestionMilliseconds))
        #expect(rig.handle(.deadline(nil)).asking == .nothing)
        #expect((rig.deadline ?? 0) > rig.now + 1000)
    }

    @Test("a router that wants it is asked at connect, before any byte, and then about the bytes")
    func connectEvent() throws {
        let rig = try Rig(wanting: .connect)
        #expect(rig.handle(.ready(.client, [])).asking == .question)
        #expect(rig.questionEvent == .connect && rig.questionBytes == "")
        rig.clientSends("EHLO")
        #expect(rig.handle(.ready(.client, .readable)).asking == .nothing)
        #expect(rig.handle(.verdict(.undecided(waitFor: nil))).asking == .question)
        #expect(rig.questionEvent == .data && rig.questionBytes == "EHLO")
    }

    @Test("a client's silence is told once, and again only after more bytes")
    func silenceEvent() throws {
        let rig = try Rig(wanting: .silence)
        #expect(rig.handle(.ready(.client, [])).asking == .nothing)
        rig.pass(milliseconds: Int64(Limits.silenceMillisecondsDefault))
        #expect((rig.deadline ?? .max) <= rig.now)
        #expect(rig.handle(.deadline(nil)).asking == .question)
        #expect(rig.questionEvent == .silence)
        _ = rig.handle(.verdict(.undecided(waitFor: nil)))
        rig.pass(milliseconds: 5000)
        #expect(rig.handle(.deadline(nil)).asking == .nothing)
        #expect((rig.deadline ?? 0) > rig.now)
        rig.clientSends("x")
        #expect(rig.handle(.ready(.client, .readable)).asking == .question)
        #expect(rig.questionEvent == .data)
        _ = rig.handle(.verdict(.undecided(waitFor: nil)))
        rig.pass(milliseconds: Int64(Limits.silenceMillisecondsDefault))
        #expect(rig.handle(.deadline(nil)).asking == .question)
        #expect(rig.questionEvent == .silence && rig.questionBytes == "x")
    }

    @Test("an undecided client's end is told once to a router that wants it, then it ends")
    func eofEvent() throws {
        let rig = try Rig(wanting: .eof)
        rig.clientSends("x")
        rig.clientEnds()
        #expect(rig.handle(.ready(.client, [.readable, .peerEnded])).asking == .question)
        #expect(rig.questionEvent == .data)
        #expect(rig.handle(.verdict(.undecided(waitFor: nil))).asking == .question)
        #expect(rig.questionEvent == .eof && rig.questionBytes == "x")
        _ = rig.handle(.verdict(.undecided(waitFor: nil)))
        #expect(rig.closeReason == .undecided)
    }

    @Test("when time is up a router that wants it has one last question, and no longer than any other")
    func timeoutEvent() throws {
        let rig = try Rig(wanting: .timeout)
        _ = rig.handle(.ready(.client, []))
        rig.pass(milliseconds: Int64(Limits.verdictTimeoutMillisecondsDefault))
        #expect(rig.handle(.deadline(nil)).asking == .question)
        #expect(rig.questionEvent == .timeout)
        rig.pass(milliseconds: Int64(Limits.routerTimeoutMillisecondsDefault))
        #expect(rig.handle(.deadline(nil)).asking == .withdraw)
        #expect(rig.reason == .verdictTimeout)
    }

    @Test("the remote gets the initial bytes, the client the answer, and each the other's end")
    func relays() throws {
        let rig = try Rig()
        rig.clientSends("request")
        _ = rig.handle(.ready(.client, .readable))
        _ = rig.handle(.verdict(.remote(RemoteVerdict(remotes: [rig.remoteEndpoint]))))
        let remote = try rig.acceptRemote()
        #expect(rig.read(remote.raw) == "request")
        rig.write(remote.raw, "answer")
        _ = rig.handle(.ready(.remote, .readable))
        #expect(rig.clientReads() == "answer")
        rig.clientEnds()
        _ = rig.handle(.ready(.client, [.readable, .peerEnded]))
        #expect(rig.readsEnd(remote.raw))
        rig.write(remote.raw, "late")
        rig.end(remote.raw)
        _ = rig.handle(.ready(.remote, [.readable, .peerEnded]))
        #expect(rig.clientReads() == "late")
        #expect(rig.closeReason == .done)
        #expect(rig.facts.bytesToRemote == 7 && rig.facts.bytesToClient == 10)
    }

    @Test("data replaces the initial bytes, and a reply goes ahead of what the remote says")
    func dataAndReply() throws {
        let rig = try Rig()
        rig.clientSends("CONNECT")
        _ = rig.handle(.ready(.client, .readable))
        var verdict = RemoteVerdict(remotes: [rig.remoteEndpoint])
        verdict.data = Array("hello".utf8)
        verdict.reply = Array("ok ".utf8)
        _ = rig.handle(.verdict(.remote(verdict)))
        let remote = try rig.acceptRemote()
        #expect(rig.read(remote.raw) == "hello")
        rig.write(remote.raw, "first")
        _ = rig.handle(.ready(.remote, .readable))
        #expect(rig.clientReads() == "ok first")
    }

    @Test("a refused remote is asked about, the next of several is tried first")
    func refused() throws {
        let rig = try Rig()
        let dead = try Rig.deadEndpoint()
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        _ = rig.handle(.verdict(.remote(RemoteVerdict(remotes: [dead, rig.remoteEndpoint]))))
        rig.settleRemote()
        let remote = try rig.acceptRemote()
        #expect(rig.read(remote.raw) == "x")
        #expect(rig.facts.attempts == 2)

        let other = try Rig()
        other.clientSends("x")
        _ = other.handle(.ready(.client, .readable))
        var effects = other.handle(.verdict(.remote(RemoteVerdict(remotes: [dead]))))
        if effects.asking == .nothing { effects = other.handle(.ready(.remote, [.writable, .error, .hangUp])) }
        #expect(effects.asking == .errorQuestion)
        #expect(other.failure == .connectRefused)
        _ = other.handle(.errorAnswer(.close(Array("502".utf8))))
        #expect(other.clientReads() == "502")
        #expect(other.reason == .connectRefused)
    }

    @Test(
        "the router's other remote gets the bytes that the refused one was to get; after bytes have reached one it does not"
    )
    func failover() throws {
        let rig = try Rig()
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        var effects = rig.handle(.verdict(.remote(RemoteVerdict(remotes: [try Rig.deadEndpoint()]))))
        if effects.asking == .nothing { effects = rig.handle(.ready(.remote, [.writable, .error, .hangUp])) }
        #expect(effects.asking == .errorQuestion)
        _ = rig.handle(.errorAnswer(.remote(RemoteVerdict(remotes: [rig.remoteEndpoint]))))
        var remote: Descriptor? = try rig.acceptRemote()
        #expect(rig.read(remote.number) == "x")
        #expect(rig.facts.attempts == 2)
        Socket.resetOnClose(remote.number)
        remote = nil
        #expect(rig.handle(.ready(.remote, [.readable, .peerEnded, .hangUp, .error])).asking == .errorQuestion)
        _ = rig.handle(.errorAnswer(.remote(RemoteVerdict(remotes: [rig.remoteEndpoint]))))
        #expect(rig.closeReason == .remoteReset)
    }

    @Test("a remote that is one of our own listeners is refused before it is connected")
    func loop() throws {
        let rig = try Rig(isOwn: true)
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        let effects = rig.handle(.verdict(.remote(RemoteVerdict(remotes: [rig.remoteEndpoint]))))
        #expect(effects.asking == .errorQuestion)
        #expect(rig.failure == .loop)
    }

    @Test("the remote's reset reaches the client as a reset, and the client's the remote")
    func resets() throws {
        let rig = try Rig(overTCP: true)
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        _ = rig.handle(.verdict(.remote(RemoteVerdict(remotes: [rig.remoteEndpoint]))))
        var remote: Descriptor? = try rig.acceptRemote()
        rig.write(remote.number, "half an ans")
        _ = rig.handle(.ready(.remote, .readable))
        Socket.resetOnClose(remote.number)
        remote = nil
        _ = rig.handle(.ready(.remote, [.readable, .peerEnded, .hangUp, .error]))
        #expect(rig.closeReason == .remoteReset)
        rig.dropConnection()
        #expect(rig.clientReads() == "half an ans")
        #expect(rig.clientError == .connectionReset)
    }

    @Test(
        "a silent remote is an error that is asked about, but not once the client has ended its side",
        arguments: [false, true])
    func inactivity(clientEnds: Bool) throws {
        let rig = try Rig()
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        var verdict = RemoteVerdict(remotes: [rig.remoteEndpoint])
        verdict.inactivityTimeoutMilliseconds = 700
        _ = rig.handle(.verdict(.remote(verdict)))
        let remote = try rig.acceptRemote()
        if clientEnds {
            rig.clientEnds()
            _ = rig.handle(.ready(.client, [.readable, .peerEnded]))
        }
        #expect((rig.deadline ?? 0) == rig.now + 700)
        rig.pass(milliseconds: 701)
        let asking = rig.handle(.deadline(nil)).asking
        #expect(asking == (clientEnds ? .nothing : .errorQuestion))
        #expect(rig.reason == .inactivityTimeout)
        #expect(rig.read(remote.raw) == "x")
    }

    @Test("a remote that has ended in order is not silent, however long the client goes on")
    func noInactivityAfterTheEnd() throws {
        let rig = try Rig()
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        var verdict = RemoteVerdict(remotes: [rig.remoteEndpoint])
        verdict.inactivityTimeoutMilliseconds = 700
        _ = rig.handle(.verdict(.remote(verdict)))
        let remote = try rig.acceptRemote()
        rig.end(remote.raw)
        _ = rig.handle(.ready(.remote, [.readable, .peerEnded]))
        #expect(rig.deadline == nil)
        rig.clientSends("more")
        _ = rig.handle(.ready(.client, .readable))
        #expect(rig.read(remote.raw) == "xmore")
    }

    @Test("a file is sent from its offset, as many bytes as asked for, after the reply")
    func sendsFile() throws {
        let rig = try Rig()
        let path = try rig.makeFile("0123456789")
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        var verdict = FileVerdict(source: .path(path))
        verdict.reply = Array("head ".utf8)
        (verdict.offset, verdict.nbytes) = (3, 4)
        _ = rig.handle(.verdict(.file(verdict)))
        #expect(rig.clientReads() == "head 3456")
        rig.clientEnds()
        _ = rig.handle(.ready(.client, [.readable, .peerEnded]))
        #expect(rig.closeReason == .fileSent)
    }

    @Test("offsets and sizes past a file's end send what there is, and end", arguments: [(100, 5), (9, 1000), (0, 0)])
    func pastTheEnd(offset: Int, nbytes: Int) throws {
        let rig = try Rig()
        let path = try rig.makeFile("0123456789")
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        var verdict = FileVerdict(source: .path(path))
        (verdict.offset, verdict.nbytes) = (UInt64(offset), UInt64(nbytes))
        _ = rig.handle(.verdict(.file(verdict)))
        #expect(rig.clientReads() == String("0123456789".dropFirst(offset).prefix(nbytes)))
        #expect(rig.reason == .fileSent)
    }

    @Test("what is no regular file is refused", arguments: ["/", "/dev/zero", "/nowhere/at/all", "/proc/self/fd"])
    func refusesFiles(path: String) throws {
        let rig = try Rig()
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        let effects = rig.handle(.verdict(.file(FileVerdict(source: .path(path)))))
        #expect(effects.asking == .errorQuestion)
        #expect(rig.failure == .file)
        #expect(effects.remark?.contains(path) == true)
    }

    /// A client that has been answered and has not left.
    private func answered(overTCP: Bool = false) throws -> Rig {
        let rig = try Rig(overTCP: overTCP)
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        _ = rig.handle(.verdict(.close(CloseVerdict(bytes: Array("bye".utf8)))))
        #expect(rig.clientReads() == "bye")
        #expect(rig.closeReason == nil && rig.reason == .closed)
        return rig
    }

    @Test("a client that has been answered and does not leave is let go once it has been silent for long enough")
    func lingersInSilence() throws {
        let rig = try answered()
        for _ in 0..<3 {
            rig.pass(milliseconds: Int64(Limits.lingerMilliseconds) - 1)
            _ = rig.handle(.deadline(nil))
            #expect(rig.closeReason == nil && rig.deadline == rig.now + 1)
            rig.clientSends("and another thing")
            _ = rig.handle(.ready(.client, .readable))
        }
        rig.pass(milliseconds: Int64(Limits.lingerMilliseconds))
        _ = rig.handle(.deadline(nil))
        #expect(rig.closeReason == .closed)
    }

    @Test("a client that has been answered and ends is let go at once")
    func lingersToTheEnd() throws {
        let rig = try answered()
        rig.clientSends("oh")
        rig.clientEnds()
        _ = rig.handle(.ready(.client, [.readable, .peerEnded]))
        #expect(rig.closeReason == .closed)
    }

    @Test("a client that has been answered and never stops talking is not listened to for ever")
    func lingersInAll() throws {
        let rig = try answered()
        let begin = rig.now
        while rig.closeReason == nil, rig.now < begin + 10 * Int64(Limits.lingerTotalMilliseconds) {
            rig.pass(milliseconds: min(Int64(Limits.lingerMilliseconds) - 1, (rig.deadline ?? .max) - rig.now))
            rig.clientSends("and another thing")
            _ = rig.handle(.ready(.client, .readable))
            _ = rig.handle(.deadline(nil))
        }
        #expect(rig.closeReason == .closed)
        #expect(rig.now == begin + Int64(Limits.lingerTotalMilliseconds))
    }

    @Test("a client that has been answered and pours is let go with what has come by then", arguments: [false, true])
    func lingersThroughBytes(overTCP: Bool) throws {
        let rig = try answered(overTCP: overTCP)
        let chunk = String(repeating: "z", count: 65_536)
        var sent = 0
        while rig.closeReason == nil, sent < 4 * Limits.lingerBytesMax {
            rig.clientSends(chunk)
            sent += chunk.utf8.count
            var effects = rig.handle(.ready(.client, .readable))
            while effects.moreToDo { effects = rig.handle(.resume) }
        }
        #expect(rig.closeReason == .closed)
        #expect(sent > Limits.lingerBytesMax && sent <= Limits.lingerBytesMax + 4 * chunk.utf8.count, "\(sent)")
    }

    @Test("the addresses of a name have what looking it up has left of the time for connecting")
    func lookUpSharesTime() throws {
        let listener = try Socket.open(family: AF_INET)
        try Socket.bind(listener, to: .ipv4(.loopback, port: 0))
        try Socket.listen(listener, backlog: 0)
        let address = try Socket.localAddress(listener.raw)
        // Its queue takes one more than its length; whoever comes then waits.
        let first = try Socket.open(family: AF_INET)
        let second = try Socket.open(family: AF_INET)
        _ = try Socket.connect(first, to: address)
        _ = try Socket.connect(second, to: address)
        let rig = try Rig()
        rig.clientSends("x")
        _ = rig.handle(.ready(.client, .readable))
        var verdict = RemoteVerdict(remotes: [.name("slow.example", port: 80)])
        verdict.connectTimeoutMilliseconds = 1000
        #expect(rig.handle(.verdict(.remote(verdict))).lookUp == "slow.example")
        #expect(rig.deadline == rig.now + 1000)
        rig.pass(milliseconds: 700)
        _ = rig.handle(.names([address]))
        #expect(rig.closeReason == nil && rig.deadline == rig.now + 300)
        rig.pass(milliseconds: 300)
        #expect(rig.handle(.deadline(nil)).asking == .errorQuestion)
        #expect(rig.failure == .connectTimeout)
    }

    @Test("the fallback serves where no verdict came, and not where the verdict was bad")
    func fallback() throws {
        for (reason, serves) in [
            (CloseReason.routerError, true), (.noRouter, true), (.badVerdict, false), (.poison, false),
        ] {
            let rig = try Rig(fallback: true)
            rig.clientSends("x")
            _ = rig.handle(.ready(.client, .readable))
            _ = rig.handle(.routerFailed(reason))
            #expect((rig.reason == nil) == serves)
            guard serves else { continue }
            let remote = try rig.acceptRemote()
            #expect(rig.read(remote.raw) == "x")
        }
    }

    @Test("random events in any order never trap, and a closed connection stays closed")
    func fuzz() throws {
        var random = SeededGenerator(seed: 11)
        for round in 0..<400 {
            let rig = try Rig()
            var isClosed = false
            for _ in 0..<30 {
                switch Int.random(in: 0..<14, using: &random) {
                case 0, 1, 2:
                    rig.clientSends(String(repeating: "y", count: Int.random(in: 1...40_000, using: &random)))
                    _ = rig.handle(.ready(.client, .readable))
                case 3: _ = rig.handle(.verdict(.undecided(waitFor: Int.random(in: 0...70_000, using: &random))))
                case 4:
                    _ = rig.handle(
                        .verdict(.exchange(Exchange(reply: [1, 2], consume: Int.random(in: 0...9, using: &random)))))
                case 5: _ = rig.handle(.verdict(.remote(RemoteVerdict(remotes: [rig.remoteEndpoint]))))
                case 6: _ = rig.handle(.routerFailed(.routerError))
                case 7: _ = rig.handle(.errorAnswer(.close([3])))
                case 8: _ = rig.handle(.deadline(nil))
                case 9: rig.pass(milliseconds: Int64.random(in: 0...20_000, using: &random))
                case 10: _ = rig.handle(.ready(.remote, [.readable, .writable]))
                case 11: _ = rig.handle(.names([]))
                case 12: _ = rig.handle(.resume)
                default: _ = rig.handle(.verdict(.close(CloseVerdict(bytes: [9, 9]))))
                }
                let reason = rig.closeReason
                if isClosed { #expect(reason != nil, "round \(round)") }
                isClosed = reason != nil
            }
        }
    }
}

extension Optional where Wrapped == Descriptor {
    /// The number, -1 when it is closed.
    var number: Int32 {
        switch self {
        case .some(let descriptor): descriptor.raw
        case .none: -1
        }
    }
}
