import RouterProtocol
import Testing

@Suite struct RouterMessageTests {
    @Test("an answer tells its question and where its result is")
    func answer() throws {
        let line = #"{"jsonrpc": "2.0", "id": 12, "result": {"close": true} }"#
        guard case .answer(let id, let result) = try parse(line) else {
            Issue.record("no answer")
            return
        }
        #expect(id == 12)
        #expect(String(decoding: Array(line.utf8)[result], as: UTF8.self) == #"{"close": true}"#)
    }

    @Test("members may come in any order, with any white space and a carriage return at the end")
    func order() throws {
        #expect(try parse("{\"result\":null,\t\"id\":0 ,\"jsonrpc\":\"2.0\"}\r") == .answer(id: 0, result: 10..<14))
        #expect(try parse(#"{"result":1,"id":3.0,"jsonrpc":"\u0032.0","x":[{}]}"#) == .answer(id: 3, result: 10..<11))
        #expect(try parse(#"{"\u0072esult":1,"id":3,"jsonrpc":"2.0"}"#) == .answer(id: 3, result: 15..<16))
    }

    @Test("an error answers too, also as version 1 of JSON-RPC writes it")
    func failure() throws {
        let expected = RouterMessage.failure(id: 4, code: -32000, message: "no\u{1} such é")
        #expect(
            try parse(#"{"jsonrpc":"2.0","id":4,"error":{"code":-32000,"message":"no\u0001 such é"}}"#) == expected)
        #expect(
            try parse(
                #"{"jsonrpc":"2.0","id":4,"result":null,"error":{"data":1,"code":-32000,"message":"no\u0001 such \u00e9"}}"#
            )
                == expected)
        #expect(try parse(#"{"jsonrpc":"2.0","id":4,"result":5,"error":null}"#) == .answer(id: 4, result: 33..<34))
    }

    @Test("an error's message is cut")
    func longFailure() throws {
        let text = String(repeating: "é", count: 1000)
        let line = #"{"jsonrpc":"2.0","id":4,"error":{"code":1,"message":""# + text + "\"}}"
        guard case .failure(4, 1, let message) = try parse(line) else {
            Issue.record("no failure")
            return
        }
        #expect(message == String(repeating: "é", count: 256))
    }

    @Test("progress moves a deadline by seconds, which may have a fraction")
    func progress() throws {
        #expect(
            try parse(#"{"jsonrpc":"2.0","method":"progress","params":{"id":7,"seconds":1.5,"new":0}}"#)
                == .progress(id: 7, milliseconds: 1500))
        for bad in [
            #"{}"#, #"{"id":7}"#, #"{"seconds":1}"#, #"{"id":-1,"seconds":1}"#, #"{"id":7,"seconds":0}"#,
            #"{"id":7,"seconds":-1}"#, #"{"id":7,"seconds":1e999}"#, #"{"id":7,"seconds":"1"}"#, "[7,1]", "null",
            #"{"id":7,"seconds":86401}"#, #"{"id":1e30,"seconds":1}"#,
        ] {
            #expect(lineFault(#"{"jsonrpc":"2.0","method":"progress","params":"# + bad + "}") == .badParameters)
        }
        #expect(lineFault(#"{"jsonrpc":"2.0","method":"progress"}"#) == .badParameters)
    }

    @Test("invalidate drops all, or what has a part with a value")
    func invalidate() throws {
        func invalidation(_ params: String) throws(ProtocolError) -> RouterMessage {
            try parse(#"{"jsonrpc":"2.0","method":"invalidate","params":"# + params + "}")
        }
        #expect(try invalidation(#"{"all":true}"#) == .invalidate(.all))
        #expect(try invalidation(#"{"all":true,"key":null,"new":1}"#) == .invalidate(.all))
        #expect(
            try invalidation(#"{"value":"\u0041.é","key":"host"}"#) == .invalidate(.part(.host, value: bytes("A.é"))))
        #expect(
            try invalidation(#"{"value":"\u0000ÿ","key":"data"}"#) == .invalidate(.part(.data, value: [0, 255])))
        #expect(
            try invalidation(#"{"value":"10.0.0.7","key":"client"}"#)
                == .invalidate(.part(.client, value: bytes("10.0.0.7"))))
        let long = String(repeating: "a", count: 65537)
        for bad in [
            "{}", #"{"all":false}"#, #"{"key":"host"}"#, #"{"value":"host"}"#,
            #"{"all":true,"key":"host","value":"x"}"#,
            #"{"all":true,"key":"host"}"#, #"{"key":"path","value":"x"}"#, #"{"key":["host"],"value":"x"}"#,
            #"{"key":"host","value":["x"]}"#, #"{"key":"client","value":"10.0.0.7:1"}"#,
            #"{"key":"data","value":"€"}"#, #"{"key":"sni","value":"\ud800"}"#, #"{"key":"data","value":"\#(long)"}"#,
            #"{"key":"sni","value":"\#(long)"}"#,
        ] {
            #expect(
                lineFault(#"{"jsonrpc":"2.0","method":"invalidate","params":"# + bad + "}") == .badParameters,
                "\(bad.prefix(50))")
        }
    }

    @Test("close says what by, and how")
    func closeOrders() throws {
        func order(_ params: String) throws -> RouterMessage {
            try parse(#"{"jsonrpc":"2.0","method":"close","params":"# + params + "}")
        }
        #expect(try order(#"{"connection":"1.7"}"#) == .close(CloseOrder(which: .connection("1.7"), reset: false)))
        #expect(try order(#"{"tag":"x","reset":true}"#) == .close(CloseOrder(which: .tag("x"), reset: true)))
        #expect(try order(#"{"remote":"a:9","tag":null}"#) == .close(CloseOrder(which: .remote("a:9"), reset: false)))
    }

    @Test("what is said of a stream names it by its token, which is bounded")
    func streams() throws {
        func notice(_ method: String, _ params: String) throws -> RouterMessage {
            try parse(#"{"jsonrpc":"2.0","method":""# + method + #"","params":"# + params + "}")
        }
        #expect(try notice("stream_end", #"{"token":"t"}"#) == .streamEnd(token: "t"))
        #expect(try notice("detach", #"{"token":"t","later":1}"#) == .detach(token: "t"))
        let longest = String(repeating: "a", count: StreamDirection.tokenBytesMax)
        #expect(try notice("detach", #"{"token":""# + longest + #""}"#) == .detach(token: longest))
        #expect(throws: ProtocolError.self) { try notice("detach", #"{"token":"a"# + longest + #""}"#) }
    }

    @Test("notifications without what they need are refused")
    func incompleteNotices() throws {
        for (method, params) in [
            ("close", "{}"), ("close", #"{"connection":"1.7","tag":"x"}"#), ("close", #"{"connection":17}"#),
            ("stream_end", "{}"),
            ("detach", #"{"token":1}"#),
        ] {
            #expect(
                lineFault(#"{"jsonrpc":"2.0","method":""# + method + #"","params":"# + params + "}") == .badParameters,
                "\(method) \(params)")
        }
    }

    @Test("what is no message of ours and does no harm is told apart from what is wrong")
    func harmless() throws {
        #expect(try parse("hello world") == .stray)
        #expect(try parse("") == .stray)
        #expect(try parse(" {}") == .stray)
        #expect(try parse("[]") == .stray)
        #expect(try parse(#"{"jsonrpc":"2.0","id":null,"result":{}}"#) == .ignored(.nullID))
        #expect(try parse(#"{"jsonrpc":"2.0","id":null,"error":{}}"#) == .ignored(.nullID))
        #expect(try parse(#"{"jsonrpc":"2.0","method":"x\ny"}"#) == .ignored(.unknownMethod("x?y")))
    }

    @Test("a line that is no message has the fault that says why")
    func faults() {
        #expect(lineFault("{") == .notJSON)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":1,"result":1} x"#) == .notJSON)
        #expect(lineFault(#"{"id":1,"result":1}"#) == .notJSONRPC)
        #expect(lineFault(#"{"jsonrpc":"1.0","id":1,"result":1}"#) == .notJSONRPC)
        #expect(lineFault(#"{"jsonrpc":2.0,"id":1,"result":1}"#) == .notJSONRPC)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":"1","result":1}"#) == .badID)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":1.5,"result":1}"#) == .badID)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":-1,"result":1}"#) == .badID)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":99999999999999999999,"result":1}"#) == .badID)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":1}"#) == .notAMessage)
        #expect(lineFault(#"{"jsonrpc":"2.0"}"#) == .notAMessage)
        #expect(lineFault(#"{"jsonrpc":"2.0","result":1}"#) == .notAMessage)
        #expect(lineFault(#"{"jsonrpc":"2.0","method":5}"#) == .notAMessage)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}"#) == .notAMessage)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":1,"error":"no"}"#) == .notAMessage)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#) == .notAMessage)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}"#) == .notAMessage)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":1,"method":"hello"}"#) == .routerAsks)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":1,"id":2,"result":1}"#) == .duplicateKey)
        #expect(lineFault(#"{"jsonrpc":"2.0","id":1,"result":1,"r\u0065sult":2}"#) == .duplicateKey)
    }
}

@Suite struct JSONTests {
    /// Puts a value where it is only passed over.
    private func valueFault(_ value: String) -> Fault? { valueFault(Array(value.utf8)) }

    private func valueFault(_ value: [UInt8]) -> Fault? {
        lineFault(bytes(#"{"jsonrpc":"2.0","method":"unknown","params":"#) + value + bytes("}"))
    }

    @Test("values of RFC 8259 pass")
    func good() {
        for value in [
            "0", "-0", "10", "-1.5", "0.5e+10", "1E-3", "1e5", "true", "false", "null", "\"\"", "[]", "{}", "[ ]",
            "{ }",
            #"[1, [2,{"a":[]}], {"":{"b":0}} ]"#, #""\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00""#, "\"é€😀\u{7f}\"",
            "[\t1 ,\r2]",
            #""\ud800 alone is well-formed, if no text""#, "123456789012345678901234567890", "1e999999",
        ] {
            #expect(valueFault(value) == nil, "\(value)")
        }
    }

    @Test("what RFC 8259 does not allow is refused")
    func bad() {
        for value in [
            "", "01", "-", "+1", ".5", "1.", "1e", "1e+", "0x10", "NaN", "Infinity", "-Infinity", "tru", "trues",
            "True",
            "nul", "'a'", "\"", "\"a", #""\x""#, #""\u12g4""#, #""\u12""#, "\"\u{1}\"", "\"\t\"", "[1,]", "[,1]",
            "[1 2]",
            "[", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{a:1}", "{1:1}", "{\"a\":1 \"b\":2}", "[1}", "{\"a\":1]",
            "// no\n1", "1 2", "\u{feff}1", "\u{b}1", "\u{c}1", "[\u{a0}1]",
        ] {
            #expect(valueFault(value) == .notJSON, "\(value)")
        }
    }

    @Test("strings that are not UTF-8 are refused, as the standard's table of well-formed sequences has it")
    func utf8() {
        for sequence in [
            [0x80], [0xc3], [0xc0, 0x80], [0xc1, 0xbf], [0xe0, 0x80, 0x80], [0xe0, 0x9f, 0xbf], [0xed, 0xa0, 0x80],
            [0xe2, 0x82], [0xe2, 0x28, 0xa1], [0xf0, 0x8f, 0xbf, 0xbf], [0xf4, 0x90, 0x80, 0x80],
            [0xf5, 0x80, 0x80, 0x80],
            [0xf0, 0x9f, 0x98], [0xf0, 0x9f, 0x98, 0x28], [0xff], [0xc3, 0xc3], [0xbf],
        ] as [[UInt8]] {
            #expect(valueFault([0x22] + sequence + [0x22]) == .notJSON, "\(sequence)")
        }
    }

    @Test("two bytes and three bytes are well-formed exactly when Swift's own decoder says so")
    func utf8Exhaustive() {
        for first in 0x80...0xff as ClosedRange<UInt8> {
            for second in 0x20...0xff as ClosedRange<UInt8> where second != 0x22 && second != 0x5c {
                for tail in [[], [0x80], [0xbf, 0x80]] as [[UInt8]] {
                    let sequence = [first, second] + tail
                    let isGood = String(validating: sequence, as: UTF8.self) != nil
                    if (valueFault([0x22] + sequence + [0x22]) == nil) != isGood { Issue.record("\(sequence)") }
                }
            }
        }
    }

    @Test("sixty-four levels of nesting pass and sixty-five do not")
    func depth() {
        func nested(_ levels: Int, _ open: String, _ close: String) -> String {
            String(repeating: open, count: levels) + "1" + String(repeating: close, count: levels)
        }
        // The line's own object is the first level.
        #expect(valueFault(nested(63, "[", "]")) == nil)
        #expect(valueFault(nested(64, "[", "]")) == .tooDeep)
        #expect(valueFault(nested(63, "{\"a\":", "}")) == nil)
        #expect(valueFault(nested(64, "{\"a\":", "}")) == .tooDeep)
        #expect(valueFault(nested(31, "[{\"a\":", "}]")) == nil)
        #expect(valueFault(nested(62, "[", "]").replacing("1", with: "[]")) == nil)
        #expect(valueFault(nested(63, "[", "]").replacing("1", with: "[]")) == .tooDeep)
        #expect(valueFault(nested(63, "[", "]").replacing("1", with: "{}")) == .tooDeep)
        #expect(valueFault(String(repeating: "[", count: 1_000_000)) == .tooDeep)
        #expect(valueFault(nested(30, "[{\"a\":", "}]").replacing("}]}]", with: "]}]}")) == .notJSON)
    }
}
