import RouterProtocol
import Testing

@Suite struct ExampleTests {
    private let schemas: Schemas
    private let examples: [Example]

    private static let files = Result { (try Schemas(), try Example.all()) }

    init() throws { (schemas, examples) = try Self.files.get() }

    private static let sentKinds: Set = [
        "Hello", "Question", "ErrorQuestion", "Cancel", "Shutdown", "Taken", "Closed", "RewriteRequest",
        "RewriteResponse",
    ]

    @Test("every folder of examples has its schema, and every schema good and bad examples")
    func complete() {
        #expect(Set(examples.map(\.kind)) == schemas.names)
        for kind in schemas.names {
            let ofKind = examples.filter { $0.kind == kind }
            #expect(ofKind.contains { $0.expectation == .ok }, "\(kind) has no good example")
            #expect(ofKind.contains { $0.expectation != .ok }, "\(kind) has no bad example")
        }
    }

    @Test("every example says what it is about in a sentence")
    func about() {
        for example in examples { #expect(example.about.hasSuffix("."), "\(example)") }
    }

    @Test("every fault but that of a long line has an example, and every key of a verdict a good and a bad one")
    func coverage() {
        let faults = Set(
            examples.compactMap { example in
                if case .error(let fault, _) = example.expectation { fault } else { nil }
            })
        #expect(faults == Set(Fault.allCases.map(\.rawValue)).subtracting([Fault.lineTooLong.rawValue]))
        let verdicts = examples.filter { $0.kind == "Verdict" }
        for key in VerdictKey.allCases {
            let named = "\"\(key.rawValue)\":"
            #expect(
                verdicts.contains { $0.expectation == .ok && String(decoding: $0.line, as: UTF8.self).contains(named) })
            #expect(
                verdicts.contains { example in
                    if case .error(_, key.rawValue) = example.expectation { true } else { false }
                }, "no bad example of \(key)")
        }
        for failure in ErrorQuestion.Failure.allCases {
            let named = "\"type\":\"\(failure.rawValue)\""
            #expect(
                examples.contains {
                    $0.kind == "ErrorQuestion" && String(decoding: $0.line, as: UTF8.self).contains(named)
                })
        }
        for event in Event.allCases {
            let named = "\"event\":\"\(event.rawValue)\""
            #expect(
                examples.contains { $0.kind == "Question" && String(decoding: $0.line, as: UTF8.self).contains(named) })
        }
    }

    @Test("every good example fits its schema, and a bad one does not unless it says that the schema cannot tell")
    func schema() throws {
        for example in examples where example.expectation != .stray {
            guard let value = try? JSONValue(example.line) else {
                #expect(example.expectation == .error(Fault.notJSON.rawValue, key: nil), "\(example) is no JSON")
                continue
            }
            #expect(example.expectation != .error(Fault.notJSON.rawValue, key: nil), "\(example) is JSON")
            let complaint = try schemas.complaint(example.kind, about: value)
            let isGood = example.expectation == .ok || example.expectation == .ignored
            if isGood || example.isBeyondSchema {
                #expect(complaint == nil, "\(example)")
                #expect(!isGood || !example.isBeyondSchema, "\(example) is not bad")
            } else {
                #expect(complaint != nil, "\(example) fits")
            }
        }
    }

    @Test("every message that tproxy sends is written from its values as the example has it")
    func written() throws {
        for example in examples where Self.sentKinds.contains(example.kind) {
            switch example.expectation {
            case .ok:
                let message = try JSONValue(example.line)
                let line = try #require(try Written.line(for: message), "\(example)")
                #expect(line.last == UInt8(ascii: "\n") && !line.dropLast().contains(UInt8(ascii: "\n")))
                #expect(try JSONValue(line) == message, "\(example)")
            case .never: break
            default: Issue.record("\(example) can only be ok or never")
            }
        }
    }

    @Test("every message of a router is taken as the example says")
    func taken() throws {
        for example in examples where !Self.sentKinds.contains(example.kind) {
            #expect(example.expectation != .never)
            let meaning: JSONValue?
            do throws(ProtocolError) {
                let message = try RouterMessage.parse(example.line.span)
                switch message {
                case .stray:
                    #expect(example.expectation == .stray, "\(example)")
                    continue
                case .ignored:
                    #expect(example.expectation == .ignored, "\(example)")
                    continue
                default:
                    meaning = try Self.meaning(of: message, example)
                }
            } catch {
                let got = Example.Expectation.error(error.fault.rawValue, key: error.key)
                #expect(got == example.expectation, "\(example): \(error)")
                continue
            }
            #expect(example.expectation == .ok, "\(example) was accepted")
            #expect(meaning == example.means, "\(example): \(meaning?.json ?? "?")")
        }
    }

    /// Reads an answer as the question of its folder; nil where there is nothing more to it than its kind.
    private static func meaning(of message: RouterMessage, _ example: Example) throws(ProtocolError) -> JSONValue? {
        switch message {
        case .answer(_, let result):
            switch example.kind {
            case "Verdict":
                let limits = VerdictLimits(dataBytes: example.dataBytes, initialBytesMax: example.initialBytesMax)
                let verdict = try Verdict.decode(example.line.span, result, limits: limits)
                return try? verdict.meaning()
            case "HelloAnswer": return try HelloAnswer.decode(example.line.span, result).meaning()
            case "ErrorQuestionAnswer": return try ProxyErrorAnswer.decode(example.line.span, result).meaning()
            default: return nil
            }
        case .failure(_, let code, let message):
            return .object(["code": .number(code), "message": .string(message)])
        case .progress(let id, let milliseconds):
            return .object(["id": .number(id), "ms": .number(milliseconds)])
        case .invalidate(let invalidation): return invalidation.meaning()
        case .close(let order):
            var members: [String: JSONValue] = order.reset ? ["reset": .boolean(true)] : [:]
            switch order.which {
            case .connection(let id): members["connection"] = .string(id)
            case .tag(let tag): members["tag"] = .string(tag)
            case .remote(let remote): members["remote"] = .string(remote)
            }
            return .object(members)
        case .streamEnd(let token), .detach(let token):
            return .object(["token": .string(token)])
        case .stray, .ignored:
            return nil
        }
    }
}
