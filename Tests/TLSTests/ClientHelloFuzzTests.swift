// Random hellos. Whatever comes, in whatever pieces, there is a state and nothing traps; and pieces change nothing.

import TLS
import Testing

@Suite struct ClientHelloFuzzTests {
    /// Reads in random pieces and at once: both must come to the same.
    private func swallow(_ bytes: [UInt8], _ generator: inout SeededGenerator) {
        let bytesMax = Bool.random(using: &generator) ? 65536 : .random(in: 0...bytes.count + 10, using: &generator)
        var reader = ClientHelloReader(bytesMax: bytesMax)
        var count = 0
        _ = reader.read([], first: 0)
        while count < bytes.count {
            count += .random(in: 1...max(1, bytes.count - count), using: &generator)
            _ = reader.read(bytes, first: count)
        }
        let atOnce = read(bytes, bytesMax: bytesMax)
        let inPieces = reader.reading(bytes)
        // The bound can end it between two pieces; read at once, a whole hello is seen first.
        #expect(
            inPieces == atOnce || inPieces.state == .tooLarge && bytes.count >= bytesMax,
            "\(bytes) \(bytesMax) \(inPieces.state) \(atOnce.state)")
        if let name = atOnce.name {
            #expect((1...255).contains(name.utf8.count) && name.utf8.allSatisfy { (0x21...0x7e).contains($0) })
            #expect(!atOnce.hasUnusableName)
        }
        #expect(atOnce.state == .complete || atOnce == Reading(state: atOnce.state))
    }

    @Test("random bytes never trap", arguments: 1...8 as ClosedRange<UInt64>)
    func noise(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            let length = Int.random(in: 0...80, using: &generator)
            let start: [UInt8] =
                [[], [22], [22, 3], [22, 3, 1, 0], [22, 3, 1, 0, 60, 1, 0, 0]]
                .randomElement(using: &generator) ?? []
            swallow(start + (0..<length).map { _ in .random(in: 0...255, using: &generator) }, &generator)
        }
    }

    @Test("good hellos with bytes changed, cut, doubled and put in never trap", arguments: 1...8 as ClosedRange<UInt64>)
    func mutated(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<1500 {
            var bytes = ClientHelloTests.real.randomElement(using: &generator)?.bytes ?? []
            if Bool.random(using: &generator) {
                let places = (0..<Int.random(in: 1...6, using: &generator)).map { _ in
                    Int.random(in: 1..<bytes.count - 5, using: &generator)
                }
                bytes = split(bytes, at: places.sorted())
            }
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let place = Int.random(in: 0...bytes.count, using: &generator)
                let end = min(bytes.count, place + Int.random(in: 0...10, using: &generator))
                switch Int.random(in: 0...4, using: &generator) {
                case 0 where place < bytes.count: bytes[place] = .random(in: 0...255, using: &generator)
                case 1: bytes.removeSubrange(place..<end)
                case 2: bytes.insert(contentsOf: Array(bytes[place..<end]), at: place)
                case 3 where place < bytes.count: bytes[place] ^= 1 << UInt8.random(in: 0...7, using: &generator)
                default: bytes.insert(.random(in: 0...255, using: &generator), at: place)
                }
            }
            swallow(bytes, &generator)
        }
    }

    @Test(
        "a well-formed hello of random parts, in random records and pieces, is read as it was built",
        arguments: 1...8 as ClosedRange<UInt64>)
    func built(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            var draft = Draft()
            var expected = Reading(state: .complete, versions: .tls12)
            draft.sessionID = .init(repeating: 1, count: .random(in: 0...32, using: &generator))
            draft.suites = .init(repeating: 2, count: 2 * .random(in: 1...40, using: &generator))
            if Bool.random(using: &generator) {
                let name = (0..<Int.random(in: 1...255, using: &generator)).map { _ in
                    UInt8.random(in: 0x21...0x7e, using: &generator)
                }
                expected.name = String(decoding: name, as: UTF8.self)
                draft.extensions.append((0, long(serverName(name))))
            }
            if Bool.random(using: &generator) {
                expected.protocols = ["h2", "x"]
                draft.extensions.append((16, [0, 5, 2, 0x68, 0x32, 1, 0x78]))
            }
            if Bool.random(using: &generator) {
                expected.versions = .tls13
                draft.extensions.append((43, [4, 0xfa, 0xfa, 3, 4]))
            }
            for _ in 0..<Int.random(in: 0...5, using: &generator) {
                let value = [UInt8](repeating: 5, count: .random(in: 0...400, using: &generator))
                draft.extensions.append((.random(in: 100...65535, using: &generator), value))
            }
            draft.extensions.shuffle(using: &generator)
            let whole = draft.bytes
            let places = (0..<Int.random(in: 0...8, using: &generator)).map { _ in
                Int.random(in: 1..<whole.count - 5, using: &generator)
            }
            let bytes = split(whole, at: places.sorted())
            #expect(read(bytes) == expected)
            swallow(bytes, &generator)
        }
    }
}
