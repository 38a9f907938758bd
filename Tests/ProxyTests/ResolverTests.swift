// Names beside the loop. What is looked up for real is in every machine's hosts file; where threads have to hang, they
// hang at a gate of the test's own.

import Addressing
import Foundation
import Glibc
import Linux
import Testing

@testable import Proxy

/// Holds up every look-up that comes to it until it is opened, and counts them.
final class Gate: @unchecked Sendable {
    private let condition = NSCondition()
    private var isOpen = false
    private var names: [String] = []

    /// What a resolver would do: wait at the gate, then answer with the address that the name is made of.
    func pass(_ name: String) -> Result<[SocketAddress], LookupFailure.Reason> {
        condition.lock()
        defer { condition.unlock() }
        names.append(name)
        condition.broadcast()
        while !isOpen { condition.wait() }
        return IPv4Address(name).map { .success([.ipv4($0, port: 0)]) } ?? .failure(.noAddress)
    }

    func open() {
        condition.lock()
        isOpen = true
        condition.broadcast()
        condition.unlock()
    }

    /// Waits until so many look-ups have come, and returns their names in the order in which they came.
    func arrived(_ count: Int) -> [String] {
        condition.lock()
        defer { condition.unlock() }
        let deadline = Date(timeIntervalSinceNow: 20)
        while names.count < count, condition.wait(until: deadline) {}
        return names
    }
}

extension Resolver {
    /// As the loop does it: wait for the descriptor, collect, until there are so many answers.
    func answers(_ count: Int) -> [UInt64: Result<[SocketAddress], LookupFailure>] {
        var answers: [UInt64: Result<[SocketAddress], LookupFailure>] = [:]
        while answers.count < count {
            var watched = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
            guard poll(&watched, 1, 20_000) == 1 else { break }
            for (requester, result) in collect() { answers[requester] = result }
        }
        return answers
    }

    var isReadable: Bool {
        var watched = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
        return poll(&watched, 1, 0) == 1
    }
}

private func address(_ text: String) -> SocketAddress {
    IPv4Address(text).map { .ipv4($0, port: 0) } ?? .ipv6(IPv6Address(text) ?? .any, port: 0)
}

@Suite("Resolver", .timeLimit(.minutes(1)))
struct ResolverTests {
    @Test("localhost is found in the hosts file, by its own thread, and the descriptor says when")
    func localhost() throws {
        let resolver = try Resolver()
        #expect(resolver.start("localhost", requester: 7) == .accepted)
        let addresses = try #require(resolver.answers(1)[7]).get()
        #expect(addresses.contains(address("127.0.0.1")) || addresses.contains(address("::1")))
        #expect(addresses.allSatisfy { $0.endpoint == nil || $0.endpoint?.port == 0 })
        let isReadable = resolver.isReadable
        #expect(!isReadable)
        #expect(resolver.collect().isEmpty)
    }

    @Test("numbers need no resolver, but have their answer")
    func numeric() throws {
        let resolver = try Resolver()
        for (requester, text) in ["192.0.2.1", "2001:db8::1", "::1"].enumerated() {
            #expect(resolver.start(text, requester: UInt64(requester)) == .accepted)
        }
        let answers = resolver.answers(3)
        #expect(answers[0] == .success([address("192.0.2.1")]))
        #expect(answers[1] == .success([address("2001:db8::1")]))
        #expect(answers[2] == .success([address("::1")]))
    }

    @Test("what is no name has the resolver's own reason, with the name in the message")
    func invalid() throws {
        let resolver = try Resolver()
        let names = ["", "no spaces allowed", String(repeating: "a", count: 300), "a..b"]
        for (requester, name) in names.enumerated() {
            #expect(resolver.start(name, requester: UInt64(requester)) == .accepted)
        }
        let answers = resolver.answers(names.count)
        for (requester, name) in names.enumerated() {
            guard case .failure(let failure) = answers[UInt64(requester)] else {
                Issue.record("\(name) has no failure: \(String(describing: answers[UInt64(requester)]))")
                continue
            }
            #expect(failure.name == name)
            #expect("\(failure)".hasPrefix("\(name): "))
        }
        let unknown = LookupFailure(name: "x.example", reason: .resolver(code: EAI_NONAME))
        #expect("\(unknown)" == "x.example: Name or service not known")
    }

    @Test("equal names that are being looked up share one look-up, and none is remembered afterwards")
    func sharing() throws {
        let gate = Gate()
        let resolver = try Resolver(lookup: gate.pass)
        for requester in UInt64(1)...20 {
            #expect(resolver.start("192.0.2.1", requester: requester) == .accepted)
        }
        #expect(gate.arrived(1) == ["192.0.2.1"])
        gate.open()
        let answers = resolver.answers(20)
        #expect(answers.count == 20)
        #expect(answers.values.allSatisfy { $0 == .success([address("192.0.2.1")]) })
        #expect(resolver.start("192.0.2.1", requester: 21) == .accepted)
        #expect(resolver.answers(1).count == 1)
        #expect(gate.arrived(2).count == 2)
    }

    @Test(
        "with every thread hanging further names wait, beyond the bound they fail at once, and in the end all is answered"
    )
    func bounded() throws {
        let gate = Gate()
        let resolver = try Resolver(threadsMax: 4, waitingMax: 3, lookup: gate.pass)
        func name(_ number: UInt64) -> String { "192.0.2.\(number)" }
        for requester in UInt64(1)...4 { #expect(resolver.start(name(requester), requester: requester) == .accepted) }
        #expect(Set(gate.arrived(4)) == Set((1...4).map(name)))
        for requester in UInt64(5)...7 { #expect(resolver.start(name(requester), requester: requester) == .accepted) }
        let refusal = LookupFailure(name: name(8), reason: .overloaded)
        #expect(resolver.start(name(8), requester: 8) == .refused(refusal))
        #expect("\(refusal)" == "192.0.2.8: too many look-ups are waiting")
        // A name that waits already takes no further place.
        #expect(resolver.start(name(7), requester: 9) == .accepted)
        let isReadable = resolver.isReadable
        #expect(!isReadable)
        gate.open()
        let answers = resolver.answers(8)
        for requester in UInt64(1)...7 { #expect(answers[requester] == .success([address(name(requester))])) }
        #expect(answers[9] == .success([address(name(7))]))
        #expect(resolver.start(name(8), requester: 8) == .accepted)
        #expect(resolver.answers(1).count == 1)
    }

    @Test("a name that hangs for ever cannot take the places of all others")
    func fairShare() throws {
        let gate = Gate()
        let resolver = try Resolver(threadsMax: 2, waitingMax: 10, requestsMax: 8) { name in
            name == "hangs" ? gate.pass(name) : .success([])
        }
        for requester in UInt64(1)...4 { #expect(resolver.start("hangs", requester: requester) == .accepted) }
        let refused = Resolver.Started.refused(LookupFailure(name: "hangs", reason: .overloaded))
        #expect(resolver.start("hangs", requester: 5) == refused)
        #expect(resolver.start("works", requester: 6) == .accepted)
        #expect(resolver.answers(1)[6] == .success([]))
        gate.open()
        #expect(resolver.answers(4).count == 4)
    }

    @Test("a name whose requesters have all lost patience is not looked up any more")
    func patience() throws {
        let gate = Gate()
        let resolver = try Resolver(threadsMax: 1, lookup: gate.pass)
        #expect(resolver.start("192.0.2.1", requester: 1) == .accepted)
        _ = gate.arrived(1)
        let now = Instant.now().milliseconds
        #expect(resolver.start("192.0.2.2", requester: 2, deadline: now - 1) == .accepted)
        #expect(resolver.start("192.0.2.3", requester: 3, deadline: now - 1) == .accepted)
        #expect(resolver.start("192.0.2.3", requester: 4, deadline: now + 60_000) == .accepted)
        gate.open()
        let answers = resolver.answers(4)
        #expect(answers[2] == .failure(LookupFailure(name: "192.0.2.2", reason: .tooLate)))
        #expect(answers[3] == .success([address("192.0.2.3")]))
        #expect(answers[4] == .success([address("192.0.2.3")]))
        #expect(gate.arrived(2) == ["192.0.2.1", "192.0.2.3"])
    }

    @Test("threads are started as they are needed, never more than allowed")
    func threads() throws {
        let gate = Gate()
        let resolver = try Resolver(threadsMax: 2, lookup: gate.pass)
        for requester in UInt64(1)...6 {
            #expect(resolver.start("192.0.2.\(requester)", requester: requester) == .accepted)
        }
        #expect(Set(gate.arrived(2)) == ["192.0.2.1", "192.0.2.2"])
        gate.open()
        #expect(resolver.answers(6).count == 6)
    }

    @Test("a resolver that is dropped while a look-up hangs leaves nothing that could crash")
    func dropped() throws {
        let gate = Gate()
        do {
            let resolver = try Resolver(threadsMax: 1, lookup: gate.pass)
            #expect(resolver.start("192.0.2.1", requester: 1) == .accepted)
            #expect(resolver.start("192.0.2.2", requester: 2) == .accepted)
            _ = gate.arrived(1)
        }
        gate.open()
        // The thread finds out that nobody is there, and takes up nothing more.
        let next = try Resolver(lookup: gate.pass)
        #expect(next.start("192.0.2.3", requester: 3) == .accepted)
        #expect(next.answers(1).count == 1)
        #expect(!gate.arrived(2).contains("192.0.2.2"))
    }

    @Test("many names from one thread and many answers at once: none is lost, none comes twice")
    func many() throws {
        let resolver = try Resolver(waitingMax: 10_000) { name in
            IPv4Address(name).map { .success([.ipv4($0, port: 0)]) } ?? .failure(.noAddress)
        }
        var seen: Set<UInt64> = []
        var wrong = 0
        for round in UInt64(0)..<20 {
            for number in 0..<250 {
                let requester = round * 250 + UInt64(number)
                #expect(resolver.start("10.0.\(round).\(number % 200)", requester: requester) == .accepted)
            }
            for (requester, result) in resolver.collect() {
                let expected = address("10.0.\(requester / 250).\(requester % 250 % 200)")
                if !seen.insert(requester).inserted || result != .success([expected]) { wrong += 1 }
            }
        }
        for requester in resolver.answers(5000 - seen.count).keys {
            if !seen.insert(requester).inserted { wrong += 1 }
        }
        #expect(seen.count == 5000)
        #expect(wrong == 0)
    }

    @Test("the families take turns, beginning with the preferred one")
    func alternating() {
        let (a1, a2, b1, b2, b3) = (
            address("192.0.2.1"), address("192.0.2.2"), address("2001:db8::1"), address("2001:db8::2"),
            address("2001:db8::3")
        )
        #expect(SystemLookup.alternating([b1, b2, b3, a1, a2]) == [b1, a1, b2, a2, b3])
        #expect(SystemLookup.alternating([a1, b1, b2]) == [a1, b1, b2])
        #expect(SystemLookup.alternating([a1, a2]) == [a1, a2])
        #expect(SystemLookup.alternating([]) == [])
        let many = (1...40).map { address("192.0.2.\($0)") }
        #expect(SystemLookup.alternating(many) == Array(many.prefix(16)))
    }
}
