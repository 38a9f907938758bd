// The canary's share, and what a shadow's answers are held to.

import Addressing
import Linux
import RouterProtocol
import Testing

@testable import Proxy

@Suite("Routers: beside the one that decides")
struct RoutersBesideTests {
    private func address(_ text: String) throws -> SocketAddress {
        try #require(Endpoint(text).flatMap { SocketAddress($0) })
    }

    @Test("the share of an address does not depend on its port, is the same for ever, and spreads neighbours evenly")
    func share() throws {
        #expect(try CanaryShare.of(address("10.0.0.1:1000")) == CanaryShare.of(address("10.0.0.1:2000")))
        #expect(try CanaryShare.of(address("[::ffff:10.0.0.1]:1")) == CanaryShare.of(address("10.0.0.1:1")))
        #expect(CanaryShare.of(.unnamed) == nil && CanaryShare.of(.unix("/x")) == nil)
        // Another number here sends clients of a running canary the other way.
        #expect(try CanaryShare.of(address("192.0.2.1:80")) == CanaryShare.of(address("192.0.2.1:81")))
        var counts = [Int](repeating: 0, count: 20)
        for host in UInt32(0)..<65_536 {
            let share = try #require(CanaryShare.of(.ipv4(IPv4Address(bits: 0x0a00_0000 + host), port: 1)))
            counts[share / 500] += 1
        }
        for count in counts { #expect((2900...3650).contains(count), "\(counts)") }
        var differing = Set<Int>()
        for host in UInt64(0)..<1000 {
            differing.insert(
                try #require(CanaryShare.of(.ipv6(IPv6Address(high: 1, low: host, zone: 0), port: 1))) / 100)
        }
        #expect(differing.count > 95)
    }

    @Test("two answers are compared once both are there, whichever comes first")
    func order() {
        var comparisons = ShadowComparisons()
        let remote = Outcome.verdict(.remote(RemoteVerdict(remotes: [.unix("/a")])))
        let other = Outcome.verdict(.remote(RemoteVerdict(remotes: [.unix("/b")])))
        let first = comparisons.begin(a(7), dataBytes: 3)
        let second = comparisons.begin(a(8), dataBytes: 4)
        #expect(comparisons[first]?.dataBytes == 3 && comparisons.count == 2)
        #expect(comparisons.decided(a(7), remote) == nil)
        #expect(comparisons.shadowed(second, other) == nil)
        #expect(comparisons.shadowed(first, remote)?.isSame == true)
        let comparison = comparisons.decided(a(8), remote)
        #expect(comparison?.isSame == false && comparison?.asker == a(8))
        #expect(comparisons.count == 0)
        #expect(comparisons.decided(a(8), remote) == nil)
    }

    @Test("what one of the two will not answer is forgotten, and the same connection may be asked about again")
    func forgotten() {
        var comparisons = ShadowComparisons()
        let first = comparisons.begin(a(7), dataBytes: 3)
        #expect(comparisons.undecided(a(7)) == nil)
        #expect(comparisons.count == 0)
        let second = comparisons.begin(a(7), dataBytes: 3)
        comparisons.failed(first)
        #expect(comparisons.count == 1)
        comparisons.failed(second)
        #expect(comparisons.count == 0)
        // Decided, but the shadow has not spoken yet, and the connection asks its next question.
        let third = comparisons.begin(a(7), dataBytes: 3)
        #expect(comparisons.decided(a(7), .refused) == nil)
        let fourth = comparisons.begin(a(7), dataBytes: 5)
        comparisons.failed(third)
        #expect(comparisons.decided(a(7), .refused) == nil)
        #expect(comparisons.shadowed(fourth, .refused)?.isSame == true)
    }

    @Test("verdicts are the same by their values; a descriptor's number and a cache rule do not count")
    func comparable() {
        func same(_ one: Verdict, _ other: Verdict) -> Bool {
            ShadowComparisons.Comparison(asker: a(1), decided: .verdict(one), shadowed: .verdict(other)).isSame
        }
        #expect(
            same(
                .file(FileVerdict(source: .descriptor(3, attached: false))),
                .file(FileVerdict(source: .descriptor(9, attached: true)))))
        #expect(
            !same(.file(FileVerdict(source: .path("a"))), .file(FileVerdict(source: .descriptor(9, attached: true)))))
        var labelled = CloseVerdict(bytes: [1])
        labelled.labels.note = "x"
        #expect(!same(.close(CloseVerdict(bytes: [1])), .close(labelled)))
        #expect(!same(.undecided(waitFor: nil), .undecided(waitFor: 3)))
        #expect(Outcome.verdict(.close(CloseVerdict(bytes: [1, 2]))).words == "close with 2 bytes")
    }

    @Test("a router whose questions are not replayed fails them at its death, and comes back")
    func notReplayed() {
        let desk = Desk {
            $0.mayBeAbsent = true
            $0.replays = false
        }
        desk.routers.start(now: desk.now)
        desk.routers.died(r(1), .exited(1), now: desk.now)
        #expect(desk.take() == [spawn(1), .ready, .release(r(1)), spawn(2)])
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        desk.ask(1)
        _ = desk.take()
        desk.routers.died(r(2), .exited(1), now: desk.now)
        #expect(desk.take() == [.release(r(2)), .fail(a(1), .noRouter)])
        desk.pass(100)
        #expect(desk.take() == [spawn(3)])
    }

    @Test("roles have ids and tokens of their own")
    func roles() {
        var canary = Routers(limits: RouterLimits(), role: .canary)
        canary.start(now: 0)
        guard case .spawn(let id, _, _) = canary.nextAction(now: 0) else {
            Issue.record("nothing is started")
            return
        }
        #expect(id.role == .canary && "\(id)" == "1 (canary)" && r(3).role == .main)
        guard case .accepted(let token) = canary.ask(a(1), .proxy, now: 0) else {
            Issue.record("refused")
            return
        }
        #expect(token.role == .canary)
    }
}
