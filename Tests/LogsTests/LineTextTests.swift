import Addressing
import Testing

@testable import Logs

@Suite struct LineTextTests {
    private func escaped(_ bytes: [UInt8], most: Int = 1000) -> String {
        var text = LineText()
        text.append(escaping: bytes, most: most)
        return String(decoding: text.bytes, as: UTF8.self)
    }

    @Test("control characters, broken UTF-8 and what turns text around are escaped")
    func escaping() {
        #expect(escaped(Array("plain \"é\" 漢 🙂 \\".utf8)) == "plain \"é\" 漢 🙂 \\")
        #expect(escaped(Array("a\r\n\tb\u{1b}[31m\u{7f}\0".utf8)) == "a\\r\\n\\tb\\x1b[31m\\x7f\\x00")
        #expect(escaped([0xff, 0x41, 0xc3, 0x28, 0xe2, 0x82]) == "\\xffA\\xc3(\\xe2\\x82")
        // Overlong, a surrogate, beyond the last scalar.
        #expect(escaped([0xc0, 0xaf]) == "\\xc0\\xaf")
        #expect(escaped([0xed, 0xa0, 0x80]) == "\\xed\\xa0\\x80")
        #expect(escaped([0xf4, 0x90, 0x80, 0x80]) == "\\xf4\\x90\\x80\\x80")
        #expect(escaped(Array("\u{85}\u{202e}\u{2028}".utf8)) == "\\u{85}\\u{202e}\\u{2028}")
    }

    @Test("a value is one word, in quotes when it has to be")
    func values() {
        func value(_ string: String) -> String {
            var text = LineText()
            text.append(value: string.utf8, most: 100)
            return String(decoding: text.bytes, as: UTF8.self)
        }
        #expect(value("plain") == "plain")
        #expect(value("") == "\"\"")
        #expect(value("two words") == "\"two words\"")
        #expect(value("a=b") == "\"a=b\"")
        #expect(value("say \"hi\" \\ x") == "\"say \\\"hi\\\" \\\\ x\"")
        #expect(value("x\nreason=done") == "\"x\\nreason=done\"")
    }

    @Test("what is too long ends in an ellipsis at a character")
    func cutting() {
        #expect(escaped(Array(String(repeating: "a", count: 100).utf8), most: 100).utf8.count == 100)
        let cut = escaped(Array(String(repeating: "é", count: 100).utf8), most: 50)
        #expect(cut.hasSuffix("é…") && cut.utf8.count <= 53)
        var text = LineText()
        text.append("0123456789é")
        text.cut(to: 12)
        #expect(String(decoding: text.bytes, as: UTF8.self) == "0123456789é")
        text.append("é")
        text.cut(to: 12)
        #expect(String(decoding: text.bytes, as: UTF8.self) == "012345678…")
    }

    @Test("random bytes become one line of valid, printable text within its bound")
    func fuzz() {
        var random = SeededGenerator(seed: 6)
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0..<40, using: &random)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            var text = LineText()
            text.append(escaping: bytes, most: 60, as: Bool.random(using: &random) ? .quoted : .bare)
            #expect(text.bytes.count <= 63)
            #expect(String(validating: text.bytes, as: UTF8.self) != nil)
            #expect(!text.bytes.contains { $0 < 0x20 || $0 == 0x7f })
        }
    }

    @Test(
        "times are of the calendar",
        arguments: [
            (0, 0, "1970-01-01T00:00:00.000Z"), (1_795_428_000, 123_999_999, "2026-11-23T10:00:00.123Z"),
            (951_782_399, 0, "2000-02-28T23:59:59.000Z"), (951_868_799, 0, "2000-02-29T23:59:59.000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"), (-1, 0, "1969-12-31T23:59:59.000Z"),
        ])
    func times(seconds: Int, nanoseconds: Int, expected: String) {
        var text = LineText()
        text.append(time: Timestamp(seconds: seconds, nanoseconds: nanoseconds))
        #expect(String(decoding: text.bytes, as: UTF8.self) == expected)
    }

    @Test("the access line has every field in its order")
    func accessLine() {
        var text = LineText()
        var record = AccessRecord(
            id: "1.7", client: Endpoint("10.0.0.255:40000"), listener: "127.0.0.1:5000", verdict: "remote",
            remote: Endpoint("[::1]:9000"), attempts: 2, verdictMicroseconds: 449, connectMicroseconds: 1200,
            durationMicroseconds: 12_199, bytesToRemote: 78, bytesToClient: .max, reason: "done",
            note: "to \"b\"\nid=9")
        text.compose(record, at: Timestamp(seconds: 0, nanoseconds: 0))
        #expect(
            String(decoding: text.bytes, as: UTF8.self)
                == "1970-01-01T00:00:00.000Z id=1.7 client=10.0.0.255:40000 listener=127.0.0.1:5000 verdict=remote "
                + "remote=[::1]:9000 attempts=2 verdict_ms=0.4 connect_ms=1.2 duration_ms=12.1 to_remote=78 "
                + "to_client=18446744073709551615 reason=done note=\"to \\\"b\\\"\\nid=9\"\n")
        (record.client, record.remote, record.note) = (nil, nil, nil)
        (record.verdictMicroseconds, record.connectMicroseconds) = (nil, nil)
        text.clear()
        text.compose(record, at: Timestamp(seconds: 0, nanoseconds: 0))
        let line = String(decoding: text.bytes, as: UTF8.self)
        #expect(line.contains(" client=- ") && line.contains(" remote=- ") && line.contains(" verdict_ms=- "))
        #expect(line.hasSuffix(" reason=done\n"))
    }
}

@Suite struct LogPaceTests {
    @Test("a cause is told of once a second, with the count of what was left out")
    func pace() {
        var pace = LogPace()
        #expect(pace.permit(at: 5000) == 0)
        #expect(pace.permit(at: 5001) == nil)
        #expect(pace.permit(at: 5999) == nil)
        #expect(pace.permit(at: 6000) == 2)
        #expect(pace.permit(at: 6999) == nil)
        #expect(pace.overdue(at: 6999) == nil)
        #expect(pace.overdue(at: 7000) == 2)
        #expect(pace.overdue(at: 9000) == nil)
        #expect(pace.permit(at: 9000) == 0)
    }
}
