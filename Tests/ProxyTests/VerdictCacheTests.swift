// The verdict cache, rule by rule. Nothing here waits: time is a number that is set.

import Addressing
import Linux
import RouterProtocol
import TLS
import Testing

@testable import Proxy

/// One connection as the cache sees it.
struct Asked {
    var listener = 0
    var client = SocketAddress.ipv4(IPv4Address(bits: 0x0a00_0007), port: 4000)
    var data: [UInt8] = []

    static func http(_ host: String, path: String = "/") -> Asked {
        Asked(data: Array("GET \(path) HTTP/1.1\r\nAccept: */*\r\nHost: \(host)\r\n\r\n".utf8))
    }

    /// A ClientHello with this name.
    static func tls(_ name: String) -> Asked {
        func long(_ bytes: [UInt8]) -> [UInt8] { [UInt8(bytes.count >> 8), UInt8(bytes.count & 255)] + bytes }
        let list = long(long([0] + long(Array(name.utf8))))
        let body = [3, 3] + [UInt8](repeating: 1, count: 32) + [0, 0, 2, 0x13, 1, 1, 0] + long([0, 0] + list)
        return Asked(data: [22, 3, 1] + long([1, 0] + long(body)))
    }

    func on(_ listener: Int) -> Asked {
        var other = self
        other.listener = listener
        return other
    }

    func from(_ client: String, port: UInt16 = 4000) -> Asked {
        var other = self
        other.client = Endpoint(host: client, port: port).flatMap { SocketAddress($0) } ?? .unnamed
        return other
    }

    var subject: CacheSubject {
        var reader = ClientHelloReader(bytesMax: 65536)
        _ = reader.read(data.span)
        return CacheSubject(listener: listener, client: client, hello: reader.hello)
    }
}

func remote(_ port: UInt16, _ key: CacheParts?, milliseconds: Int = 1000) -> Verdict {
    var verdict = RemoteVerdict(remotes: [.ipv4(.loopback, port: port)])
    verdict.cache = key.map { CacheRule(key: $0, milliseconds: milliseconds) }
    return .remote(verdict)
}

extension VerdictCache {
    static func of(entriesMax: Int = 100, bytesMax: Int = 1 << 20) -> VerdictCache {
        VerdictCache(listeners: ["127.0.0.1:1", "127.0.0.1:2"], entriesMax: entriesMax, bytesMax: bytesMax)
    }

    mutating func find(_ asked: Asked, now: Int64 = 0) -> Hit? { find(asked.subject, data: asked.data.span, now: now) }

    /// The port of the remote that was found, to have it short.
    mutating func port(_ asked: Asked, now: Int64 = 0) -> UInt16? {
        guard case .remote(let verdict)? = find(asked, now: now)?.verdict else { return nil }
        return verdict.remotes.first?.port
    }

    mutating func keep(_ verdict: Verdict, _ asked: Asked, now: Int64 = 0) -> CacheEntryID? {
        keep(verdict, asked.subject, data: asked.data.span, askedIn: epoch, now: now)
    }
}

@Suite struct VerdictCacheTests {
    @Test("a verdict is given again for an equal host, whatever its case and port and whoever asks, and for no other")
    func host() {
        var cache = VerdictCache.of()
        #expect(cache.keep(remote(80, .host), .http("A.example:8080")) != nil)
        #expect(cache.find(.http("a.EXAMPLE", path: "/other").from("10.9.9.9"))?.verdict == remote(80, nil))
        #expect(cache.port(.http("a.example").on(1)) == nil)
        #expect(cache.port(.http("b.example")) == nil)
        #expect(cache.port(.http("a.example.")) == nil)
        #expect(cache.port(Asked(data: Array("GET / HTTP/1.1\r\nHost: a.example\r\n".utf8))) == nil)
        #expect(cache.port(.tls("a.example")) == nil)
        #expect(cache.counters == VerdictCache.Counters(hits: 1, misses: 4, stored: 1))
    }

    @Test("a verdict is given again for an equal server name, in any case")
    func sni() {
        var cache = VerdictCache.of()
        #expect(cache.keep(remote(443, .sni), .tls("a.Example")) != nil)
        #expect(cache.port(.tls("A.example").from("::1")) == 443)
        #expect(cache.port(.tls("a.exampl")) == nil)
        #expect(cache.port(.http("a.example")) == nil)
        var cut = Asked.tls("a.example")
        cut.data.removeLast()
        #expect(cache.port(cut) == nil)
    }

    @Test("a client is known by its address without port, IPv4 inside IPv6 as IPv4; on a Unix listener nobody is")
    func client() {
        var cache = VerdictCache.of()
        #expect(cache.keep(remote(1, .client), Asked().from("10.0.0.7")) != nil)
        #expect(cache.port(Asked(data: [1]).from("10.0.0.7", port: 9)) == 1)
        #expect(cache.port(Asked().from("::ffff:10.0.0.7")) == 1)
        #expect(cache.port(Asked().from("10.0.0.8")) == nil)
        #expect(cache.keep(remote(2, .client), Asked().from("2001:db8::1")) != nil)
        #expect(cache.port(Asked().from("2001:db8::1")) == 2)
        #expect(cache.port(Asked().from("2001:db8::2")) == nil)
        for client in [SocketAddress.unnamed, .unix("/x")] {
            #expect(cache.keep(remote(3, .client), Asked(client: client)) == nil)
            #expect(cache.port(Asked(client: client)) == nil)
        }
    }

    @Test("data is compared to the byte, and none is no key; a listener alone is a key for all of its clients")
    func dataAndListener() {
        var cache = VerdictCache.of()
        #expect(cache.keep(remote(1, .data), Asked(data: [1, 2])) != nil)
        #expect(cache.port(Asked(data: [1, 2])) == 1)
        #expect(cache.port(Asked(data: [1])) == nil)
        #expect(cache.port(Asked(data: [1, 2, 3])) == nil)
        #expect(cache.keep(remote(2, .data), Asked()) == nil)
        #expect(cache.keep(remote(3, .listener), Asked().on(1)) != nil)
        #expect(cache.port(Asked(client: .unnamed).on(1)) == 3)
        #expect(cache.port(.http("a").on(1)) == 3)
        #expect(cache.port(Asked()) == nil)
    }

    @Test("all parts of a key must be equal, and no part can pass for another")
    func several() {
        var cache = VerdictCache.of()
        #expect(cache.keep(remote(1, [.host, .client]), .http("a").from("10.0.0.7")) != nil)
        #expect(cache.port(.http("a").from("10.0.0.7")) == 1)
        #expect(cache.port(.http("a").from("10.0.0.8")) == nil)
        #expect(cache.port(.http("b").from("10.0.0.7")) == nil)
        #expect(cache.keep(remote(2, [.sni, .data]), .tls("a")) != nil)
        #expect(cache.port(.tls("a")) == 2)
        // The same bytes as host and as name are two things.
        #expect(cache.keep(remote(3, .host), .http("x")) != nil)
        #expect(cache.keep(remote(4, .sni), .tls("x")) != nil)
        #expect(cache.port(.http("x")) == 3)
        #expect(cache.port(.tls("x")) == 4)
    }

    @Test("the key of most parts goes first, and of equally many data before sni before host before client")
    func order() {
        let all = Asked.http("a")
        let kinds: [CacheParts] = [
            .listener, .client, .host, .data, [.host, .client], [.data, .client], [.data, .host],
            [.data, .host, .client],
        ]
        for count in kinds.indices {
            var cache = VerdictCache.of()
            for kind in kinds[...count].reversed() {
                #expect(cache.keep(remote(UInt16(kind.rawValue) + 1, kind), all) != nil)
            }
            #expect(cache.port(all) == UInt16(kinds[count].rawValue) + 1)
        }
        var cache = VerdictCache.of()
        #expect(cache.keep(remote(1, .client), .tls("a")) != nil)
        #expect(cache.keep(remote(2, .sni), .tls("a")) != nil)
        #expect(cache.port(.tls("a")) == 2)
        #expect(cache.port(.tls("b")) == 1)
    }

    @Test("a verdict is given until its time is over, and then asked for again")
    func time() {
        var cache = VerdictCache.of()
        #expect(cache.keep(remote(1, .host, milliseconds: 500), .http("a"), now: 1000) != nil)
        #expect(cache.port(.http("a"), now: 1499) == 1)
        #expect(cache.count == 1)
        #expect(cache.port(.http("a"), now: 1500) == nil)
        #expect(cache.count == 0 && cache.bytes == 0)
        #expect(cache.counters == VerdictCache.Counters(hits: 1, misses: 1, stored: 1))
        // Then the next best is asked.
        #expect(cache.keep(remote(1, .host, milliseconds: 500), .http("a"), now: 2000) != nil)
        #expect(cache.keep(remote(2, .listener), .http("a"), now: 2000) != nil)
        #expect(cache.port(.http("a"), now: 2500) == 2)
        #expect(cache.keep(remote(1, .host), .http("a"), now: .max - 1) != nil)
        #expect(cache.port(.http("a"), now: .max - 1) == 1)
    }

    @Test("without a verdict to be found there is nothing to look at or to count")
    func unused() {
        var cache = VerdictCache.of()
        #expect(cache.keep(remote(1, nil), .http("a")) == nil)
        #expect(cache.port(.http("a")) == nil)
        #expect(cache.counters == VerdictCache.Counters())
        #expect(cache.keep(remote(1, .host), .http("a").on(1)) != nil)
        #expect(cache.port(.http("a")) == nil)
        #expect(cache.port(.http("a").on(2)) == nil)
        #expect(cache.port(.http("a").on(-1)) == nil)
        #expect(cache.keep(remote(1, .host), .http("a").on(2)) == nil)
        #expect(cache.counters == VerdictCache.Counters(stored: 1))
    }

    @Test("what is for one client, or is no verdict, is not kept")
    func forOneClient() {
        var cache = VerdictCache.of()
        let rule = CacheRule(key: .listener, milliseconds: 1000)
        func remote(_ change: (inout RemoteVerdict) -> Void) -> Verdict {
            var verdict = RemoteVerdict(remotes: [.ipv4(.loopback, port: 1)])
            verdict.cache = rule
            change(&verdict)
            return .remote(verdict)
        }
        func file(_ source: FileVerdict.Source, reply: [UInt8] = []) -> Verdict {
            var verdict = FileVerdict(source: source)
            verdict.cache = rule
            verdict.reply = reply
            return .file(verdict)
        }
        for verdict in [
            remote { $0.data = [] }, remote { $0.reply = [1] }, remote { $0.consume = 1 },
            file(.descriptor(7, attached: false)), file(.path("/a"), reply: [1]), .undecided(waitFor: nil),
            .exchange(Exchange(reply: [1])),
        ] {
            #expect(cache.keep(verdict, Asked()) == nil)
        }
        var close = CloseVerdict(bytes: [7])
        close.labels.tags = ["t"]
        var cached = close
        cached.cache = rule
        #expect(cache.keep(.close(cached), Asked()) != nil)
        #expect(cache.find(Asked())?.verdict == .close(close))
        #expect(cache.keep(file(.path("/a")), Asked()) != nil)
        #expect(cache.find(Asked())?.verdict == .file(FileVerdict(source: .path("/a"))))
        #expect(cache.count == 1)
    }

    @Test("a verdict to a question from before an invalidate or a reload is not kept")
    func epochs() {
        var cache = VerdictCache.of()
        let asked = Asked.http("a")
        for change in [{ $0.reload() }, { $0.invalidate(.part(.host, value: [1])) }] as [(inout VerdictCache) -> Void] {
            let epoch = cache.epoch
            change(&cache)
            #expect(
                cache.keep(remote(1, .host), asked.subject, data: asked.data.span, askedIn: epoch, now: 0) == nil)
            #expect(cache.keep(remote(1, .host), asked) != nil)
        }
    }

    @Test("the one not used for longest goes when there are too many")
    func eviction() {
        var cache = VerdictCache.of(entriesMax: 3)
        for port in 1...3 as ClosedRange<UInt16> { #expect(cache.keep(remote(port, .host), .http("h\(port)")) != nil) }
        #expect(cache.port(.http("h1")) == 1)
        #expect(cache.keep(remote(4, .host), .http("h4")) != nil)
        #expect(cache.port(.http("h2")) == nil)
        #expect([1, 3, 4].map { cache.port(.http("h\($0)")) } == [1, 3, 4])
        #expect(cache.counters.evicted == 1 && cache.count == 3)
        // Keeping it again is using it.
        #expect(cache.keep(remote(5, .host), .http("h1")) != nil)
        #expect(cache.keep(remote(6, .host), .http("h6")) != nil)
        #expect(cache.port(.http("h3")) == nil)
        #expect(cache.port(.http("h1")) == 5)
        var none = VerdictCache.of(entriesMax: 0)
        #expect(none.keep(remote(1, .host), .http("a")) == nil)
    }

    @Test("memory is bounded: many go for a long one, and a very long one is not kept")
    func memory() {
        var cache = VerdictCache.of(entriesMax: 1000, bytesMax: 100_000)
        var long = CloseVerdict(bytes: .init(repeating: 1, count: 50000))
        long.cache = CacheRule(key: .host, milliseconds: 1000)
        for index in 0..<300 {
            #expect(cache.keep(remote(1, .host), .http("h\(index)")) != nil)
            #expect(cache.bytes <= 100_000)
        }
        #expect(cache.count < 200)
        #expect(cache.keep(.close(long), .http("long")) != nil)
        #expect(cache.bytes <= 100_000 && cache.count < 100)
        long.bytes = .init(repeating: 1, count: 66000)
        #expect(cache.keep(.close(long), .http("longer")) == nil)
        #expect(cache.find(.http("long")) != nil)
        #expect(cache.keep(remote(1, .data), Asked(data: .init(repeating: 1, count: 66000))) == nil)
        cache.invalidate(.all)
        #expect(cache.count == 0 && cache.bytes == 0)
    }

    @Test("invalidate drops all, or all with a part of this value, whatever else is in their keys")
    func invalidate() {
        func filled() -> VerdictCache {
            var cache = VerdictCache.of()
            #expect(cache.keep(remote(1, .host), .http("a")) != nil)
            #expect(cache.keep(remote(2, [.host, .client]), .http("a").from("10.0.0.1")) != nil)
            #expect(cache.keep(remote(3, .sni), .tls("a")) != nil)
            #expect(cache.keep(remote(4, .client), Asked().from("::1")) != nil)
            #expect(cache.keep(remote(5, [.client, .data]), Asked(data: [7]).from("10.0.0.1")) != nil)
            #expect(cache.keep(remote(6, .host), .http("b").on(1)) != nil)
            #expect(cache.keep(remote(7, .listener), Asked().on(1)) != nil)
            #expect(cache.keep(remote(8, [.host, .sni, .client, .data]), .http("c")) == nil)
            return cache
        }
        func left(_ invalidation: Invalidation) -> [UInt16] {
            var cache = filled()
            cache.invalidate(invalidation)
            let found = [
                cache.port(.http("a").from("10.5.5.5")), cache.port(.http("a").from("10.0.0.1")), cache.port(.tls("a")),
                cache.port(Asked().from("::1")), cache.port(Asked(data: [7]).from("10.0.0.1")),
                cache.port(.http("b").on(1)), cache.port(Asked().on(1)),
            ]
            return found.compactMap { $0 }
        }
        func part(_ part: CachePart, _ value: String) -> [UInt16] { left(.part(part, value: Array(value.utf8))) }
        #expect(left(.all) == [])
        #expect(part(.host, "A") == [3, 4, 5, 6, 7])
        // Without its own, the second one is given what goes for its listener.
        #expect(part(.host, "b") == [1, 2, 3, 4, 5, 7, 7])
        #expect(part(.host, "") == [1, 2, 3, 4, 5, 6, 7])
        #expect(part(.sni, "a") == [1, 2, 4, 5, 6, 7])
        #expect(part(.client, "10.0.0.1") == [1, 1, 3, 4, 6, 7])
        #expect(part(.client, "0:0::1") == [1, 2, 3, 5, 6, 7])
        #expect(part(.client, "a") == [1, 2, 3, 4, 5, 6, 7])
        #expect(left(.part(.data, value: [7])) == [1, 2, 3, 4, 6, 7])
        #expect(part(.listener, "127.0.0.1:2") == [1, 2, 3, 4, 5])
        #expect(part(.listener, "127.0.0.1:1") == [6, 7])
    }

    @Test("a verdict that could not be carried out is dropped, and none that came to its place")
    func drop() {
        var cache = VerdictCache.of()
        func drop(_ entry: CacheEntryID?) { if let entry { cache.drop(entry) } }
        let first = cache.keep(remote(1, .host), .http("a"))
        #expect(first != nil && cache.find(.http("a"))?.entry == first)
        drop(first)
        #expect(cache.find(.http("a")) == nil)
        drop(first)
        let second = cache.keep(remote(2, .host), .http("b"))
        #expect(second != first)
        drop(first)
        #expect(cache.port(.http("b")) == 2)
        let third = cache.keep(remote(3, .host), .http("b"))
        drop(second)
        #expect(cache.port(.http("b")) == 3)
        drop(third)
        #expect(cache.count == 0)
    }
}

/// The same, as simply as it can be written.
private struct Model {
    struct Entry {
        let key: String
        let parts: [CachePart: [UInt8]]
        let kind: CacheParts
        let port: UInt16
        let expiresAt: Int64
    }

    /// The one used last at the end.
    var entries: [Entry] = []
    let entriesMax: Int

    static func parts(_ kind: CacheParts, _ asked: AskedAbout) -> [CachePart: [UInt8]]? {
        var parts: [CachePart: [UInt8]] = [.listener: Array("127.0.0.1:\(asked.listener + 1)".utf8)]
        if kind.contains(.client) { parts[.client] = Array("10.0.0.\(asked.client)".utf8) }
        if kind.contains(.host) {
            guard !asked.isTLS else { return nil }
            parts[.host] = Array(asked.name.utf8)
        }
        if kind.contains(.sni) {
            guard asked.isTLS else { return nil }
            parts[.sni] = Array(asked.name.utf8)
        }
        if kind.contains(.data) { parts[.data] = asked.asked.data }
        return parts
    }

    static func key(_ kind: CacheParts, _ parts: [CachePart: [UInt8]]) -> String {
        "\(kind.rawValue) " + CachePart.allCases.map { "\(parts[$0] ?? [])" }.joined(separator: " ")
    }

    mutating func find(_ asked: AskedAbout, now: Int64) -> UInt16? {
        let kinds = (0..<UInt8(16)).sorted { ($0.nonzeroBitCount, $0) > ($1.nonzeroBitCount, $1) }
        for kind in kinds.map({ CacheParts(rawValue: $0) }) {
            guard let parts = Self.parts(kind, asked) else { continue }
            let key = Self.key(kind, parts)
            guard let index = entries.firstIndex(where: { $0.key == key }) else { continue }
            let entry = entries.remove(at: index)
            guard now < entry.expiresAt else { continue }
            entries.append(entry)
            return entry.port
        }
        return nil
    }

    mutating func keep(_ port: UInt16, _ kind: CacheParts, _ asked: AskedAbout, until: Int64) {
        guard let parts = Self.parts(kind, asked) else { return }
        let key = Self.key(kind, parts)
        entries.removeAll { $0.key == key }
        if entries.count == entriesMax { entries.removeFirst() }
        entries.append(Entry(key: key, parts: parts, kind: kind, port: port, expiresAt: until))
    }
}

private struct AskedAbout {
    let listener: Int
    let client: Int
    let name: String
    let isTLS: Bool

    var asked: Asked {
        (isTLS ? Asked.tls(name) : Asked.http(name)).on(listener).from("10.0.0.\(client)")
    }

    static func random(_ generator: inout Dice) -> AskedAbout {
        AskedAbout(
            listener: .random(in: 0...1, using: &generator), client: .random(in: 1...4, using: &generator),
            name: "n\(Int.random(in: 1...4, using: &generator))", isTLS: .random(using: &generator))
    }
}

@Suite struct VerdictCacheSimulation {
    @Test("thousands of random steps find what a list would have found", arguments: 1...8 as ClosedRange<UInt64>)
    func steps(seed: UInt64) {
        var generator = Dice(seed: seed)
        var cache = VerdictCache.of(entriesMax: 12)
        var model = Model(entriesMax: 12)
        var now: Int64 = 0
        var held: [(CacheEntryID, String)] = []
        for step in 0..<3000 {
            now += .random(in: 0...3, using: &generator)
            let about = AskedAbout.random(&generator)
            switch Int.random(in: 0...19, using: &generator) {
            case 0...11: #expect(cache.port(about.asked, now: now) == model.find(about, now: now), "step \(step)")
            case 12...17:
                // Keys of one part are invalidated in another way while there are no others.
                let alone = ([0, 1, 2, 4, 8] as [UInt8]).randomElement(using: &generator) ?? 0
                let kind = CacheParts(rawValue: seed % 2 == 0 ? alone : .random(in: 0...15, using: &generator))
                let milliseconds = Int.random(in: 1...60, using: &generator)
                let port = UInt16(truncatingIfNeeded: step + 1)
                let id = cache.keep(remote(port, kind, milliseconds: milliseconds), about.asked, now: now)
                model.keep(port, kind, about, until: now + Int64(milliseconds))
                #expect((id == nil) == (Model.parts(kind, about) == nil))
                if let id, let key = model.entries.last?.key { held.append((id, "\(key) \(port)")) }
            case 18:
                guard let (id, name) = held.randomElement(using: &generator) else { continue }
                cache.drop(id)
                model.entries.removeAll { "\($0.key) \($0.port)" == name }
            default:
                let part = CachePart.allCases.randomElement(using: &generator) ?? .sni
                guard let value = Model.parts([.client, about.isTLS ? .sni : .host, .data], about)?[part] else {
                    continue
                }
                cache.invalidate(.part(part, value: value))
                model.entries.removeAll { $0.parts[part] == value }
            }
            #expect(cache.count == model.entries.count)
        }
        cache.reload()
        #expect(cache.count == 0 && cache.bytes == 0)
    }
}
