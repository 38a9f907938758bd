import RouterProtocol
import Testing

/// One step of a transcript.
private struct Step {
    let isToRouter: Bool
    let line: JSONValue?
    let bytes: [UInt8]
    let expect: String?

    init(_ json: JSONValue) throws {
        guard let line = json["line"] ?? json["raw"] else { throw JSONValue.Invalid() }
        isToRouter = json["to"] == .string("router")
        expect = json["expect"]?.text
        self.line = json["line"]
        bytes = Array((json["raw"]?.text ?? line.json).utf8)
    }
}

private struct Transcript: CustomStringConvertible {
    let description: String
    let isForRouters: Bool
    /// What only a later tproxy writes is in it.
    let isLater: Bool
    let steps: [Step]

    init(_ file: ProtocolFiles.File) throws {
        var lines = try file.bytes.split(separator: UInt8(ascii: "\n")).map { try JSONValue($0) }[...]
        guard let head = lines.popFirst(), let about = head["about"]?.text, about.hasSuffix("."),
            let router = head["router"]?.text, router == "conformance" || router == "none"
        else { throw JSONValue.Invalid() }
        description = "\(file)"
        isForRouters = router == "conformance"
        isLater = head["later"]?.isTrue ?? false
        steps = try lines.map { try Step($0) }
    }
}

@Suite struct TranscriptTests {
    private let schemas: Schemas
    private let transcripts: [Transcript]

    init() throws {
        schemas = try Schemas()
        transcripts = try ProtocolFiles.list("transcripts", suffix: ".jsonl").map { try Transcript($0) }
    }

    private static let requestSchemas = ["hello": "Hello", "proxy": "Question", "proxy_error": "ErrorQuestion"]
    private static let noticeSchemas = [
        "cancel": "Cancel", "shutdown": "Shutdown", "taken": "Taken", "closed": "Closed",
        "rewrite_request": "RewriteRequest", "rewrite_response": "RewriteResponse",
    ]
    private static let answerSchemas = [
        "hello": "HelloAnswer", "proxy": "Verdict", "proxy_error": "ErrorQuestionAnswer",
    ]

    @Test("there are transcripts for routers and for tproxy, and raw lines only where no router has to write them")
    func kinds() {
        #expect(transcripts.count { $0.isForRouters } >= 12)
        #expect(transcripts.contains { !$0.isForRouters })
        for transcript in transcripts {
            #expect(!transcript.isForRouters || transcript.steps.allSatisfy { $0.line != nil }, "\(transcript)")
            #expect(transcript.steps.first?.line?["method"] == .string("hello"), "\(transcript)")
        }
    }

    @Test("what tproxy writes in a transcript fits its schema, is written so from its values, and stays in its bounds")
    func toRouters() throws {
        for transcript in transcripts {
            var ids: Set<Int> = []
            for step in transcript.steps where step.isToRouter {
                let message = try #require(step.line)
                let method = try #require(message["method"]?.text)
                if let id = message["id"]?.integer { #expect(ids.insert(id).inserted, "\(transcript): \(id) twice") }
                if let schema = Self.requestSchemas[method] ?? Self.noticeSchemas[method] {
                    #expect(try schemas.complaint(schema, about: message) == nil, "\(transcript): \(message.json)")
                } else {
                    #expect(transcript.isLater, "\(transcript): \(method)")
                }
                guard !transcript.isLater else { continue }
                let written = try #require(try Written.line(for: message), "\(transcript)")
                #expect(try JSONValue(written) == message, "\(transcript)")
                #expect(written.count <= 458_752)
            }
        }
    }

    @Test("what routers write in a transcript is read, through the framer, as the transcript says")
    func fromRouters() throws {
        for transcript in transcripts {
            var questions: [Int: JSONValue] = [:]
            for step in transcript.steps {
                if step.isToRouter {
                    if let message = step.line, let id = message["id"]?.integer { questions[id] = message }
                } else {
                    try check(step, questions, "\(transcript)")
                }
            }
        }
    }

    private func check(_ step: Step, _ questions: [Int: JSONValue], _ transcript: String) throws {
        // In two reads, as a socket may deliver it.
        var framer = LineFramer(lineBytesMax: 1 << 24)
        let bytes = step.bytes + [UInt8(ascii: "\n")]
        var got: (kind: String, id: UInt64?) = ("", nil)
        for piece in [bytes[..<(bytes.count / 2)], bytes[(bytes.count / 2)...]] {
            framer.withFreeSpace(atLeast: piece.count) { free, count in
                free.copyBytes(from: piece)
                count = piece.count
            }
            let next = framer.next { line in Self.kind(of: line, questions) }
            if case .line(let kind) = next { got = kind }
        }
        #expect(framer.heldBytes == 0)
        let expected = step.expect ?? (step.line?["error"] == nil ? "answer" : "failure")
        #expect(
            got.kind == expected, "\(transcript): \(step.line?.json ?? String(decoding: step.bytes, as: UTF8.self))")
        guard let line = step.line, let id = got.id, let method = questions[Int(id)]?["method"]?.text else { return }
        let schema = got.kind == "failure" ? "Failure" : Self.answerSchemas[method] ?? ""
        #expect(try schemas.complaint(schema, about: line) == nil, "\(transcript): \(line.json)")
    }

    /// What a line is to tproxy, and which question it answers.
    private static func kind(of line: Span<UInt8>, _ questions: [Int: JSONValue]) -> (kind: String, id: UInt64?) {
        do throws(ProtocolError) {
            switch try RouterMessage.parse(line) {
            case .answer(let id, let result):
                let question = questions[Int(id)]
                switch question?["method"]?.text {
                case "hello": _ = try HelloAnswer.decode(line, result)
                case "proxy":
                    let count = question?["params"]?["data"]?.bytes?.count ?? 0
                    _ = try Verdict.decode(
                        line, result, limits: VerdictLimits(dataBytes: count, initialBytesMax: 65536))
                case "proxy_error": _ = try ProxyErrorAnswer.decode(line, result)
                default: return ("unasked", id)
                }
                return ("answer", id)
            case .failure(let id, _, _): return ("failure", id)
            case .progress: return ("progress", nil)
            case .invalidate: return ("invalidate", nil)
            case .close: return ("close", nil)
            case .streamEnd: return ("stream_end", nil)
            case .detach: return ("detach", nil)
            case .stray: return ("stray", nil)
            case .ignored: return ("ignored", nil)
            }
        } catch {
            return (error.fault.rawValue, nil)
        }
    }

    @Test("every question of a transcript for routers is answered once, by the rules of the conformance router")
    func rules() throws {
        for transcript in transcripts where transcript.isForRouters {
            var open: [Int: JSONValue] = [:]
            for step in transcript.steps {
                let message = try #require(step.line)
                guard let id = message["id"]?.integer else { continue }
                if step.isToRouter {
                    open[id] = message
                    continue
                }
                let question = try #require(open[id], "\(transcript): \(id) is not open")
                open[id] = nil
                switch try ConformanceRouter.answer(to: question) {
                case .error: #expect(message["error"]?["code"] == .number(-32000), "\(transcript)")
                case .result(let result): #expect(message["result"] == result, "\(transcript): \(message.json)")
                }
            }
            #expect(open.isEmpty, "\(transcript): unanswered questions")
        }
    }
}

/// The rules of protocol/README.md, written down once more.
private enum ConformanceRouter {
    enum Answer {
        case result(JSONValue)
        case error
    }

    static func answer(to question: JSONValue) throws -> Answer {
        let params = question["params"] ?? .null
        switch question["method"]?.text {
        case "hello":
            return .result(
                .object([
                    "protocol": .number(1), "name": .string("conformance"), "max_in_flight": .number(64),
                    "methods": .array(["proxy", "proxy_error", "cancel", "shutdown"].map { .string($0) }),
                ]))
        case "proxy_error":
            return .result(.object(["close": .string("502 " + (params["type"]?.text ?? "") + "\n")]))
        default:
            return decide(params["data"]?.bytes ?? [], state: params["state"])
        }
    }

    private static func decide(_ data: [UInt8], state: JSONValue?) -> Answer {
        func close(_ bytes: [UInt8]) -> Answer { .result(.object(["close": .bytes(bytes)])) }
        if state == .object(["n": .number(1)]) { return close(Array("n=1 ".utf8) + data) }
        guard let end = data.firstIndex(of: 10) else { return .result(.null) }
        func rest(_ word: String) -> [UInt8]? {
            data[..<end].starts(with: word.utf8) ? Array(data[word.utf8.count..<end]) : nil
        }
        if rest("close") == [] { return .result(.object(["close": .boolean(true)])) }
        if rest("error") == [] { return .error }
        if rest("state") == [] {
            return .result(
                .object([
                    "reply": .string("more\n"), "consume": .number(6), "state": .object(["n": .number(1)]),
                ]))
        }
        if let remote = rest("remote ") { return .result(.object(["remote": .bytes(remote)])) }
        if let path = rest("file ") {
            return .result(.object(["file": .string(String(decoding: path, as: UTF8.self))]))
        }
        if let text = rest("bye ") { return close(text + [10]) }
        if let digits = rest("wait "), let count = Int(String(decoding: digits, as: UTF8.self)) {
            return data.count < count ? .result(.object(["wait": .number(count)])) : close(data)
        }
        return close(Array("?\n".utf8))
    }
}
