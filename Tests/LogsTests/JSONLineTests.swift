import Addressing
import Config
import Foundation
import Logging
import Testing

@testable import Logs

/// A line's members as Foundation reads them.
private func members(_ line: [UInt8]) throws -> [String: Any] {
    try #require(line.last == 10 && !line.dropLast().contains(10))
    return try #require(try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any])
}

@Suite("Lines for machines") struct JSONLineTests {
    private let noon = Timestamp(seconds: 1_795_428_000, nanoseconds: 0)

    private func compose(_ message: String, _ values: [LogLine.Member] = [], component: String? = "router") -> [UInt8] {
        var text = LineText()
        let line = LogLine(level: .warning, component: component, message: message, values: values)
        text.composeJSON(line, pid: 812, at: noon)
        return text.bytes
    }

    @Test("a message is one object with the fields of the text")
    func message() throws {
        let line = compose("the client\nsaid \"x\\\u{1b}\"", [("connection", .text("1.7")), ("lost", .number(-3))])
        #expect(
            String(decoding: line, as: UTF8.self)
                == #"{"time":"2026-11-23T10:00:00.000Z","component":"router","pid":812,"level":"warning","#
                + #""message":"the client\nsaid \"x\\\u001b\"","connection":"1.7","lost":-3}"# + "\n")
        let read = try members(line)
        #expect(read["message"] as? String == "the client\nsaid \"x\\\u{1b}\"")
        #expect(try members(compose("x", component: nil))["component"] == nil)
    }

    @Test("no name comes twice, and what is too much is left out and counted")
    func bounds() throws {
        let read = try members(compose("m", [("pid", .text("x")), ("left_out", .number(1)), ("time", .text("y"))]))
        #expect(read["pid"] as? Int == 812 && read["pid_"] as? String == "x" && read["time_"] as? String == "y")
        let long = String(repeating: "\u{1}", count: 9000)
        let values: [LogLine.Member] = (0..<20).map { ("key\($0)", .text(long)) }
        let line = compose(long, values)
        let much = try members(line)
        #expect(line.count <= Limits.logLineBytesMax)
        #expect((much["left_out"] as? Int ?? 0) > 10 && (much["message"] as? String)?.hasSuffix("\u{1}…") == true)
    }

    @Test("an access line has the fields of the text, with numbers as numbers and null for none")
    func access() throws {
        var text = LineText()
        var record = AccessRecord(
            id: "1.7", client: Endpoint("127.0.0.1:40000"), listener: "unix:/x\"y", verdict: "remote",
            remote: Endpoint("[::1]:80"), attempts: 2, verdictMicroseconds: 400, connectMicroseconds: nil,
            durationMicroseconds: 12_345, bytesToRemote: .max, bytesToClient: 0, reason: "done", note: "a\tb")
        text.composeJSON(record, at: noon)
        #expect(
            String(decoding: text.bytes, as: UTF8.self)
                == #"{"time":"2026-11-23T10:00:00.000Z","component":"access","id":"1.7","client":"127.0.0.1:40000","#
                + #""listener":"unix:/x\"y","verdict":"remote","remote":"[::1]:80","attempts":2,"verdict_ms":0.4,"#
                + #""connect_ms":null,"duration_ms":12.3,"to_remote":18446744073709551615,"to_client":0,"#
                + #""reason":"done","note":"a\tb"}"# + "\n")
        record.client = nil
        record.remote = nil
        record.note = nil
        text.clear()
        text.composeJSON(record, at: noon)
        let read = try members(text.bytes)
        #expect(read["client"] is NSNull && read["remote"] is NSNull && read["note"] == nil)
        // The same names as for people.
        var plain = LineText()
        plain.compose(record, at: noon)
        let names = String(decoding: plain.bytes, as: UTF8.self).matches(of: /\ (\w+)=/).map { String($0.1) }
        #expect(Set(names + ["time", "component"]) == Set(read.keys))
    }

    @Test("whatever a text holds, its line is an object that says it")
    func fuzz() throws {
        var random = SeededGenerator(seed: 9)
        let scalars: [Unicode.Scalar] = ["\0", "\n", "\"", "\\", "\u{7f}", "\u{85}", "\u{202e}", "é", "漢", "🙂", "a"]
        for _ in 0..<5000 {
            var text = ""
            for _ in 0..<Int.random(in: 0..<20, using: &random) {
                text.unicodeScalars.append(scalars.randomElement(using: &random) ?? "a")
            }
            let line = compose(text, [("k" + text, .text(text))])
            let read = try members(line)
            #expect(read["message"] as? String == text && read["k" + text] as? String == text)
            // Nothing in it drives a terminal.
            #expect(line.dropLast().allSatisfy { $0 >= 0x20 && $0 != 0x7f })
        }
        // Bytes that are no UTF-8 cannot come as a string; if they did, the line would still be one.
        var broken = LineText()
        broken.append(escaping: [0xff, 0xc0, 0x41] as [UInt8], most: 100, as: .json)
        #expect(String(decoding: broken.bytes, as: UTF8.self) == "\\ufffd\\ufffdA")
    }
}

@Suite("Lines for people") struct ColourTests {
    private func compose(isColoured: Bool) -> String {
        var text = LineText()
        let line = LogLine(level: .error, component: "worker", message: "no\u{1b}[0m", values: [("k", .text("v"))])
        text.compose(line, pid: 1, isColoured: isColoured, at: Timestamp(seconds: 0, nanoseconds: 0))
        return String(decoding: text.bytes, as: UTF8.self)
    }

    @Test("the level has a colour on a terminal, and the text is the same")
    func colour() {
        let plain = "1970-01-01T00:00:00.000Z [1] [error] [worker] no\\x1b[0m k=v\n"
        #expect(compose(isColoured: false) == plain)
        let coloured = compose(isColoured: true)
        #expect(coloured.contains("\u{1b}[31m[error]\u{1b}[0m "))
        #expect(coloured.replacing(/\u{1b}\[[0-9;]*m/, with: "") == plain)
    }

    @Test("NO_COLOR and a terminal that cannot are respected")
    func wishes() {
        #expect(Colour.isWanted { ["TERM": "xterm"][$0] })
        #expect(Colour.isWanted { ["TERM": "xterm", "NO_COLOR": ""][$0] })
        #expect(!Colour.isWanted { ["TERM": "xterm", "NO_COLOR": "1"][$0] })
        #expect(!Colour.isWanted { ["TERM": "dumb"][$0] })
        #expect(!Colour.isWanted { _ in nil })
    }
}
