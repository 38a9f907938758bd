import TLS
import Testing

@Suite struct ClientHelloTests {
    static let real: [(bytes: [UInt8], expected: Reading)] = [
        (
            Captured.openssl,
            Reading(
                state: .complete, name: "A.Example.org", protocols: ["h2", "http/1.1"],
                versions: [.tls13, .tls12, .tls11, .tls10])
        ),
        (
            Captured.opensslNoName,
            Reading(state: .complete, versions: [.tls13, .tls12, .tls11, .tls10])
        ),
        (Captured.openssl12, Reading(state: .complete, name: "b.example", versions: .tls12)),
        (
            Captured.curl,
            Reading(
                state: .complete, name: "curl.example", protocols: ["h2", "http/1.1"],
                versions: [.tls13, .tls12, .tls11, .tls10])
        ),
        (Captured.python, Reading(state: .complete, name: "python.example", versions: [.tls13, .tls12])),
        (
            Captured.node,
            Reading(state: .complete, name: "node.example", protocols: ["http/1.1"], versions: [.tls13, .tls12])
        ),
        (
            Captured.java,
            Reading(state: .complete, name: "java.example", protocols: ["h2"], versions: [.tls13, .tls12])
        ),
    ]

    private static let postQuantum = TLSTests.postQuantum(Captured.openssl)
    private static let postQuantumReading = Reading(
        state: .complete, name: "A.Example.org", protocols: ["jj", "h2", "http/1.1"],
        versions: [.tls13, .tls12, .tls11, .tls10])

    @Test("hellos of real clients are read, at once and cut at every byte", arguments: real.indices)
    func captured(index: Int) {
        let (bytes, expected) = Self.real[index]
        #expect(read(bytes) == expected)
        for place in 0..<bytes.count {
            let (first, all) = read(bytes, first: place)
            #expect(first == .needMore, "cut at \(place)")
            #expect(all == expected, "cut at \(place)")
        }
    }

    @Test("a real hello in two records, or in records of one byte, is the same hello", arguments: real.indices)
    func records(index: Int) {
        let (bytes, expected) = Self.real[index]
        for place in 1..<bytes.count - 5 {
            #expect(read(split(bytes, at: [place])) == expected, "records end at \(place)")
        }
        let tiny = split(bytes, at: Array(1..<bytes.count - 5))
        #expect(tiny.count == 6 * (bytes.count - 5))
        #expect(read(tiny) == expected)
        for place in 0..<tiny.count { #expect(read(tiny, first: place) == (.needMore, expected)) }
    }

    @Test("a post-quantum hello with GREASE is read, cut at every byte, and in two records that end at every byte")
    func large() {
        let bytes = Self.postQuantum
        #expect((1750...1850).contains(bytes.count))
        #expect(read(bytes) == Self.postQuantumReading)
        for place in 0..<bytes.count {
            #expect(read(bytes, first: place) == (.needMore, Self.postQuantumReading), "cut at \(place)")
        }
        for place in 1..<bytes.count - 5 {
            let two = split(bytes, at: [place])
            #expect(read(two) == Self.postQuantumReading, "records end at \(place)")
            #expect(read(two, first: place + 7) == (.needMore, Self.postQuantumReading))
        }
    }

    @Test("a hello that comes byte by byte costs no more than its bytes")
    func drip() {
        let bytes = split(Self.postQuantum, at: Array(stride(from: 1, to: 1500, by: 1)))
        var reader = ClientHelloReader(bytesMax: 65536)
        // Reading from the beginning every time would look at 50 million bytes here.
        for count in 1..<bytes.count { #expect(reader.read(bytes, first: count) == .needMore) }
        #expect(reader.read(bytes, first: bytes.count) == .complete)
        #expect(reader.reading(bytes) == Self.postQuantumReading)
    }

    @Test("what follows the hello does not matter, in its record or after it")
    func following() {
        let payload = Captured.curl.dropFirst(5) + [20, 0, 0, 12]
        #expect(read(Captured.curl + [0xff, 0, 1]) == ClientHelloTests.real[3].expected)
        #expect(read(record(Array(payload))) == ClientHelloTests.real[3].expected)
    }

    @Test("another protocol is told by its first bytes")
    func otherProtocols() {
        // SSLv2's hello has the first bit set, as its length does.
        let sslv2: [UInt8] = [0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10]
        for bytes in [
            Array("GET / HTTP/1.1\r\n".utf8), sslv2, [0], [0xff], [21, 3, 1], [22, 2, 0], [22, 0xfe, 0xfd, 0], [22, 0],
        ] {
            #expect(read(bytes).state == .notTLS, "\(bytes)")
        }
        #expect(read([]).state == .needMore)
        #expect(read([22]).state == .needMore)
        #expect(read([22, 3]).state == .needMore)
        #expect(read([22, 3, 9]).state == .needMore)
    }

    @Test("a name that is not to be relied on is no name, and the hello is complete all the same")
    func unusableNames() {
        let fine = Array("a.example".utf8)
        let long255 = [UInt8](repeating: 0x61, count: 255)
        func hello(_ list: [UInt8]) -> [UInt8] {
            var draft = Draft()
            draft.extensions = [(0, long(list)), (16, long(short(Array("h2".utf8))))]
            return split(draft.bytes, at: [16384, 32768, 49152])
        }
        func complete(_ name: String?, unusable: Bool) -> Reading {
            Reading(state: .complete, name: name, protocols: ["h2"], versions: .tls12, hasUnusableName: unusable)
        }
        #expect(read(hello(serverName(fine))) == complete("a.example", unusable: false))
        #expect(
            read(hello(serverName(long255)))
                == complete(String(repeating: "a", count: 255), unusable: false))
        for (why, list) in [
            ("256 bytes", serverName(long255 + [0x61])),
            ("60000 bytes", serverName(.init(repeating: 0x61, count: 60000))),
            ("empty", serverName([])),
            ("NUL at the end", serverName(fine + [0])), ("NUL inside", serverName([0x61, 0] + fine)),
            ("a newline", serverName(fine + [10])), ("a space", serverName(fine + [0x20])),
            ("not ASCII", serverName(Array("é.example".utf8))), ("no UTF-8", serverName([0xff, 0xfe])),
            ("the same twice", serverName(fine) + serverName(fine)),
            ("two names", serverName(fine) + serverName([0x62])),
            ("an unknown kind", serverName(fine, kind: 1)), ("an unknown kind before", [1, 0xff] + serverName(fine)),
            ("something after it", serverName(fine) + [5]),
        ] {
            #expect(read(hello(list)) == complete(nil, unusable: true), "\(why)")
        }
    }

    @Test("the least hello has no extensions, or none that say anything")
    func least() {
        var draft = Draft()
        #expect(read(draft.bytes) == Reading(state: .complete, versions: .tls12))
        draft.hasExtensions = false
        draft.sessionID = []
        draft.version = [3, 1]
        draft.suites = [0, 10]
        #expect(read(draft.bytes) == Reading(state: .complete, versions: .tls10))
        draft.version = [3, 0]
        #expect(read(draft.bytes) == Reading(state: .complete))
    }

    @Test("what is not formed like a hello is malformed")
    func malformed() {
        func with(_ change: (inout Draft) -> Void) -> [UInt8] {
            var draft = Draft.named("a.example")
            change(&draft)
            return draft.bytes
        }
        func extended(_ type: Int, _ value: [UInt8]) -> [UInt8] { with { $0.extensions = [(type, value)] } }
        let good = Draft.named("a.example")
        #expect(read(good.bytes).state == .complete)
        for (why, bytes) in [
            ("another version", with { $0.version = [2, 0] }),
            ("a long session id", with { $0.sessionID = .init(repeating: 0, count: 33) }),
            ("no suites", with { $0.suites = [] }), ("half a suite", with { $0.suites = [1, 2, 3] }),
            ("no compression", with { $0.compressions = [] }),
            ("bytes after the extensions", record(message(good.body + [0]))),
            ("half a length", record(message(Array(good.body.prefix(75)) + [0]))),
            ("another message", record(message(good.body, type: 2))), ("an empty message", record(message([]))),
            ("an extension too long", record(message(Draft().body.dropLast(2) + [0, 5, 0, 0, 0, 2, 0]))),
            ("the name twice", with { $0.extensions += $0.extensions }),
            ("versions twice", with { $0.extensions = [(43, [2, 3, 4]), (43, [2, 3, 3])] }),
            ("protocols twice", with { $0.extensions = [(16, [0, 2, 1, 97]), (16, [0, 2, 1, 98])] }),
            ("an empty server_name, as in an answer", extended(0, [])), ("no names", extended(0, [0, 0])),
            ("a list too long", extended(0, [0, 9, 0, 0, 1, 97])),
            ("a list too short", extended(0, [0, 4, 0, 0, 1, 97, 98])),
            ("a name too long", extended(0, [0, 4, 0, 0, 2, 97])), ("half a name", extended(0, [0, 2, 0, 0])),
            ("no protocols", extended(16, [0, 0])), ("an empty protocol", extended(16, [0, 1, 0])),
            ("a protocol too long", extended(16, [0, 2, 2, 97])), ("half a version", extended(43, [1, 3])),
            ("no versions", extended(43, [0])), ("three bytes of versions", extended(43, [3, 3, 4, 3])),
            ("a list of versions that lies", extended(43, [4, 3, 4])),
            ("an empty record", [22, 3, 1, 0, 0]), ("a record too long", [22, 3, 1, 0x40, 1]),
            ("another kind of record between", [22, 3, 1, 0, 1, 1] + [21, 3, 1, 0, 1, 0]),
            ("another version between", [22, 3, 1, 0, 1, 1] + [22, 2]),
            ("an empty record between", [22, 3, 1, 0, 1, 1] + [22, 3, 1, 0, 0]),
            ("an answer", [22, 3, 3, 0, 1, 2]), ("garbage", [22, 3, 3, 1, 0, 0xaa]),
        ] {
            #expect(read(bytes).state == .malformed, "\(why)")
        }
    }

    @Test("a hello cut short by its own lengths is malformed at every byte")
    func cutInside() {
        let body = Array(Captured.openssl.dropFirst(9))
        for count in 0..<body.count {
            let state = read(record(message(Array(body.prefix(count))))).state
            // Without any extension it is a hello of old times.
            let isWhole = count == 2 + 32 + 33 + 2 + 62 + 2
            #expect(state == (isWhole ? .complete : .malformed), "\(count)")
        }
    }

    @Test("a hello that cannot fit is too large as soon as it says so, and no hello is waited for beyond the bound")
    func tooLarge() {
        let bytes = Self.postQuantum
        #expect(read(bytes, bytesMax: bytes.count) == Self.postQuantumReading)
        #expect(read(bytes, bytesMax: bytes.count - 1).state == .complete)
        #expect(read(Array(bytes.prefix(9)), bytesMax: bytes.count).state == .needMore)
        #expect(read(Array(bytes.prefix(9)), bytesMax: bytes.count - 1).state == .tooLarge)
        #expect(read(Array(bytes.prefix(8)), bytesMax: bytes.count - 1).state == .needMore)
        // Headers that are yet to come are not foreseen: 6 bytes for one of the message.
        let tiny = split(bytes, at: Array(1..<bytes.count - 5))
        let foreseen = read(Array(tiny.prefix(100)), bytesMax: bytes.count + 100)
        #expect(foreseen.state == .needMore)
        #expect(read(Array(tiny.prefix(200)), bytesMax: bytes.count + 100).state == .tooLarge)
        #expect(read([22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]).state == .tooLarge)
        #expect(read([22, 3, 1], bytesMax: 3).state == .tooLarge)
        #expect(read([22, 3, 1], bytesMax: 0).state == .tooLarge)
    }

    @Test("the list of protocols is given up to its bounds")
    func protocolBounds() {
        let names = (0..<50).map { [UInt8](repeating: 0x70, count: $0 + 1) }
        var draft = Draft()
        draft.extensions = [(16, long(names.flatMap { short($0) }))]
        let bytes = draft.bytes
        var reader = ClientHelloReader(bytesMax: 65536)
        #expect(reader.read(bytes, first: bytes.count) == .complete)
        func listed(_ countMax: Int, _ bytesMax: Int) -> [[UInt8]]? {
            reader.hello?.protocolNames(in: bytes.span, countMax: countMax, bytesMax: bytesMax)
        }
        #expect(listed(32, 10000) == Array(names.prefix(32)))
        #expect(listed(32, 15) == Array(names.prefix(5)))
        #expect(listed(32, 14) == Array(names.prefix(4)))
        #expect(listed(0, 14) == [])
    }

    @Test("a reader that has told goes on telling the same")
    func final() {
        var reader = ClientHelloReader(bytesMax: 65536)
        #expect(reader.read(Array("GET".utf8), first: 3) == .notTLS)
        #expect(reader.read(Captured.curl, first: 517) == .notTLS)
        #expect(reader.hello == nil)
    }
}
