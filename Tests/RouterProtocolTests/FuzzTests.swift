// Random input of many kinds. Whatever comes, the answer is a value or an error: nothing may trap.

import Addressing
import RouterProtocol
import Testing

@Suite struct FuzzTests {
    private static let valid = [
        #"{"jsonrpc":"2.0","id":1,"result":{"remote":"127.0.0.1:9","data":["a\u00ffé"],"reply":"x","tags":["t"]}}"#,
        #"{"jsonrpc":"2.0","id":1,"result":{"remotes":["[::1]:9",["a",1]],"bind":["10.0.0.1",0],"extra":{"a":[1,2]}}}"#,
        #"{"jsonrpc":"2.0","id":1,"result":{"close":"bye\r\n\"\\","reset":true,"note":"\ud83d\ude00"}}"#,
        #"{"jsonrpc":"2.0","id":1,"result":{"file":7,"attached":true,"offset":10,"nbytes":20}}"#,
        #"{"jsonrpc":"2.0","id":1,"result":{"reply":"x","consume":3,"state":{"n":[true,null,-1.5e3]},"wait":7}}"#,
        #"{"jsonrpc":"2.0","id":1,"result":{"protocol":1,"name":"r","methods":["proxy"],"events":["eof"],"max_in_flight":9}}"#,
        #"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"no","data":{}}}"#,
        #"{"jsonrpc":"2.0","method":"progress","params":{"id":2,"seconds":10.5}}"#,
        #"{"jsonrpc":"2.0","id":1,"result":{"remote":"a:1","cache":{"key":["sni","host"],"ttl":1.5}}}"#,
        #"{"jsonrpc":"2.0","id":1,"result":{"remote":"a:1","proxy_protocol":2,"ssl":true,"ssl_args":{"keyfile":"k","certfile":"c","ca_certs":"/a"}}}"#,
        #"{"jsonrpc":"2.0","id":1,"result":{"remote":"a:1","ssl":true,"ssl_args":{"cert_reqs":0,"ssl_version":5,"ciphers":"AES","server_hostname":"a.b","alpn":["h2","\u008a"],"server_side":null}}}"#,
        #"{"jsonrpc":"2.0","method":"invalidate","params":{"key":"client","value":"10.0.0.7"}}"#,
        #"{"jsonrpc":"2.0","method":"close","params":{"tag":"x","reset":true}}"#,
        #"{"jsonrpc":"2.0","id":null,"result":null}"#,
    ]
    /// Pieces that mean something, so that chance finds the deep places.
    private static let pieces: [[UInt8]] = [
        "{", "}", "[", "]", "\"", "\\", "\\u", "\\ud800", "\\u0000", ":", ",", "-", ".", "e", "E9", "1e999", "0", "01",
        "18446744073709551616", "-9223372036854775808", "null", "true", "false", "\"id\":", "\"result\":",
        "\"remote\":",
        "\"wait\":", "\"consume\":", "\"protocol\":", "é", "€", "😀", "\u{0}", "\n", "[[[[", "{\"a\":",
    ].map { Array($0.utf8) }

    /// Sends a line through everything that reads lines.
    private func swallow(_ line: [UInt8], _ generator: inout SeededGenerator) {
        let limits = VerdictLimits(dataBytes: 10, initialBytesMax: 100)
        if case .answer(_, let result)? = try? RouterMessage.parse(line.span) {
            read(line, result, limits)
        }
        // Any place of any line, though the worker never asks for one that was not found good.
        let start = Int.random(in: 0...line.count, using: &generator)
        read(line, start..<Int.random(in: start...line.count, using: &generator), limits)
    }

    private func read(_ line: [UInt8], _ result: Range<Int>, _ limits: VerdictLimits) {
        switch try? Verdict.decode(line.span, result, limits: limits) {
        case .exchange(let exchange): #expect((0...10).contains(exchange.consume))
        case .remote(let verdict): if let arguments = verdict.tls { expectSound(arguments) }
        default: break
        }
        _ = try? HelloAnswer.decode(line.span, result)
        _ = DescriptorClaim(line.span, result)
        _ = try? ProxyErrorAnswer.decode(line.span, result)
    }

    /// What OpenSSL and open(2) take as it is.
    private func expectSound(_ arguments: TLSArguments) {
        let texts = [arguments.keyFile, arguments.certificateFile, arguments.authoritiesFile, arguments.ciphers]
        for text in texts + [arguments.serverName] {
            #expect(text.map { !$0.isEmpty && !$0.utf8.contains(0) } ?? true)
        }
        #expect(arguments.keyFile == nil || arguments.certificateFile != nil)
        #expect(arguments.version.map { (2...5).contains($0) } ?? true)
        #expect(arguments.alpn.count <= TLSArguments.protocolsMax)
        #expect(arguments.alpn.allSatisfy { (1...255).contains($0.count) })
    }

    @Test("random bytes never trap", arguments: 1...8 as ClosedRange<UInt64>)
    func noise(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            let length = Int.random(in: 0...60, using: &generator)
            swallow([UInt8(ascii: "{")] + (0..<length).map { _ in .random(in: 0...255, using: &generator) }, &generator)
        }
    }

    @Test("pieces of JSON in any order never trap", arguments: 1...8 as ClosedRange<UInt64>)
    func shuffled(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            var line = [UInt8(ascii: "{")]
            for _ in 0..<Int.random(in: 0...30, using: &generator) {
                line += Self.pieces.randomElement(using: &generator) ?? []
            }
            swallow(line, &generator)
        }
    }

    @Test("good lines with bytes changed, cut, doubled and put in never trap", arguments: 1...8 as ClosedRange<UInt64>)
    func mutated(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<3000 {
            var line = Array((Self.valid.randomElement(using: &generator) ?? "{").utf8)
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let place = Int.random(in: 0...line.count, using: &generator)
                let end = min(line.count, place + Int.random(in: 0...10, using: &generator))
                switch Int.random(in: 0...3, using: &generator) {
                case 0 where place < line.count: line[place] = .random(in: 0...255, using: &generator)
                case 1: line.removeSubrange(place..<end)
                case 2: line.insert(contentsOf: Array(line[place..<end]), at: place)
                default: line.insert(contentsOf: Self.pieces.randomElement(using: &generator) ?? [], at: place)
                }
            }
            swallow(line, &generator)
        }
    }

    @Test("a good line cut anywhere is no message")
    func truncated() {
        for line in Self.valid.map({ Array($0.utf8) }) {
            for length in 1..<line.count { #expect(lineFault(Array(line.prefix(length))) == .notJSON) }
            #expect(lineFault(line) == nil)
        }
    }

    @Test("any bytes written as a string are read back", arguments: 1...8 as ClosedRange<UInt64>)
    func roundTrip(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<300 {
            let length = Int.random(in: 0...200, using: &generator)
            let high: UInt8 = Bool.random(using: &generator) ? 255 : 126
            let data = (0..<length).map { _ in UInt8.random(in: 0...high, using: &generator) }
            let question = Question(
                id: generator.next(), connection: "1.1", event: .data, client: nil, local: nil, listener: "l",
                replay: 0,
                deadlineMilliseconds: 1, state: nil)
            var line: [UInt8] = []
            question.append(to: &line, data: data.span)
            // The question's own line, given back as the state and the reply of a verdict.
            let text = String(decoding: line.dropLast(), as: UTF8.self)
            #expect(try decode("{\"state\":\(text)}") == .exchange(Exchange(state: Array(text.utf8))))
            #expect(try decode("{\"reply\":\(dataString(of: line))}") == .exchange(Exchange(reply: data)))
        }
    }

    /// A byte string in every spelling JSON has, chosen at random: an independent writer for the reader to face.
    @Test("byte strings are read in any spelling", arguments: 1...8 as ClosedRange<UInt64>)
    func spellings(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let short: [UInt8: String] = [
            8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: "\\\"", 47: "\\/", 92: "\\\\",
        ]
        for _ in 0..<500 {
            var expected: [UInt8] = []
            var text = ""
            for _ in 0..<Int.random(in: 0...40, using: &generator) {
                let byte = UInt8.random(in: 0...255, using: &generator)
                expected.append(byte)
                let hex = String(byte, radix: 16, uppercase: Bool.random(using: &generator))
                let escape = "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
                let isPlain = byte >= 0x20 && byte != 34 && byte != 92
                switch Int.random(in: 0...2, using: &generator) {
                case 0 where isPlain: text.unicodeScalars.append(Unicode.Scalar(byte))
                case 1: text += short[byte] ?? escape
                default: text += escape
                }
            }
            #expect(try decode("{\"close\":\"\(text)\"}") == .close(CloseVerdict(bytes: expected)))
        }
    }

    /// Numbers as text, beside what Swift's own parsers say.
    @Test("whole numbers are read exactly or not at all", arguments: 1...4 as ClosedRange<UInt64>)
    func numbers(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<1000 {
            let magnitude = generator.next() >> UInt64.random(in: 0...63, using: &generator)
            let expected = Int(exactly: magnitude).map { UInt64($0) }
            let verdict = try? decode("{\"file\":\"x\",\"offset\":\(magnitude)}")
            var file = FileVerdict(source: .path("x"))
            file.offset = expected ?? 0
            #expect(verdict == expected.map { _ in .file(file) })
            // The same with a point: only where no digit can have been lost.
            let isExact = magnitude <= 1 << 53
            let pointed = try? decode("{\"file\":\"x\",\"offset\":\(magnitude).0}")
            #expect(pointed == (isExact ? .file(file) : nil))
        }
    }
}
