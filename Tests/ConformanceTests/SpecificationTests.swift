// protocol/README.md beside the code: the tables that say the same must say the same.

import RouterProtocol
import Testing

@Suite struct SpecificationTests {
    private let lines: [Substring]
    private let schemas: Schemas

    init() throws {
        lines = try ProtocolFiles.readme().split(separator: "\n", omittingEmptySubsequences: false)
        schemas = try Schemas()
    }

    /// The rows of the tables under a heading, up to the next one: cells without their backticks.
    private func rows(under heading: String) -> [[String]] {
        guard let start = lines.firstIndex(where: { $0 == heading }) else {
            Issue.record("no heading \(heading)")
            return []
        }
        return lines[(start + 1)...].prefix { !$0.hasPrefix("#") }.filter {
            $0.hasPrefix("| ") && !$0.hasPrefix("| ---")
        }
        .map { line in
            // A bar inside a cell is written \|.
            line.replacing("\\|", with: "¦").split(separator: "|").map { cell in
                cell.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed().map(String.init).joined()
                    .replacing("`", with: "")
            }
        }
    }

    private func firstCells(under heading: String) -> [String] { rows(under: heading).compactMap(\.first) }

    @Test("the keys of a verdict are those that the code knows")
    func verdictKeys() {
        let keys = firstCells(under: "### The keys of a verdict").filter {
            $0.allSatisfy { $0.isLowercase || $0 == "_" }
        }
        let listed = keys.filter { $0 != "key" && $0 != "form" }
        #expect(listed.count == Set(listed).count)
        #expect(Set(listed) == Set(VerdictKey.allCases.map(\.rawValue)))
    }

    @Test("the errors are those of the code, with their numbers")
    func errors() {
        let listed = rows(under: "## 15. Errors").dropFirst().map { [$0[0], $0[1]] }
        #expect(Array(listed) == Fault.allCases.sorted { $0.number < $1.number }.map { ["\($0.number)", $0.rawValue] })
    }

    @Test("the failures and events are those of the code")
    func names() {
        let failures = Set(ErrorQuestion.Failure.allCases.map(\.rawValue))
        #expect(failures.isSubset(of: Set(firstCells(under: "## 9. proxy_error"))))
        let types = rows(under: "## 9. proxy_error").drop { $0.first != "type" || $0.count != 2 }.dropFirst()
        #expect(Set(types.prefix { $0.first != "result" }.compactMap(\.first)) == failures)
        let events = rows(under: "## 7. proxy: the question").drop { $0.first != "event" || $0[1] != "when" }
            .dropFirst()
        #expect(events.compactMap(\.first) == Event.allCases.map { "\"\($0.rawValue)\"" })
    }

    @Test("the methods are those of the schemas and the code")
    func methods() {
        let listed = Set(
            firstCells(under: "## 5. Messages").flatMap { $0.split(separator: ",") }.map {
                String($0.replacing(" ", with: ""))
            }
        )
        #expect(
            listed.isSuperset(of: [
                "hello", "proxy", "proxy_error", "cancel", "shutdown", "taken", "progress", "invalidate",
                "stream_end", "detach",
            ]))
        #expect(listed.isSuperset(of: StreamDirection.allCases.map(\.method)))
    }

    @Test("the limits are those of the code")
    func limits() {
        let listed = Dictionary(rows(under: "## 16. Limits").dropFirst().map { ($0[0], $0[1]) }) { first, _ in first }
        #expect(listed["remotes"] == "\(VerdictLimits.remotesMax)")
        #expect(listed["state, extra"] == "\(VerdictLimits.stateBytesMax) bytes each")
        #expect(VerdictLimits.stateBytesMax == VerdictLimits.extraBytesMax)
        #expect(listed["tags"] == "\(VerdictLimits.tagsMax) of \(VerdictLimits.tagBytesMax) bytes")
        #expect(listed["note"] == "\(VerdictLimits.noteBytesMax) bytes")
        #expect(listed["a path in file or ssl_args"] == "\(VerdictLimits.pathBytesMax) bytes")
        #expect(listed["max_in_flight"] == "1 to \(HelloAnswer.inFlightMax), default \(HelloAnswer.inFlightStandard)")
        #expect(listed["attempts in proxy_error"] == "\(ErrorQuestion.attemptsMax)")
        let hello = (ClientHelloFacts.protocolsMax, ClientHelloFacts.protocolBytesMax)
        #expect(listed["names in alpn of client_hello"] == "\(hello.0), of \(hello.1) bytes together")
        #expect(listed["names in alpn of ssl_args"] == "\(TLSArguments.protocolsMax), of 255 bytes each")
        #expect(listed["ciphers in ssl_args"] == "\(TLSArguments.ciphersBytesMax) bytes")
        #expect(listed["a name in client_certificate"] == "\(TLSFacts.distinguishedNameBytesMax) bytes")
        #expect(
            listed["alternative names"]
                == "\(TLSFacts.alternativeNamesMax), of \(TLSFacts.alternativeNameBytesMax) bytes together")
        #expect(listed["message in proxy_error"] == "\(ErrorQuestion.messageBytesMax) bytes")
    }

    @Test("every message drawn in the specification is JSON and fits its schema")
    func drawn() throws {
        let schemaOfMethod = [
            "hello": "Hello", "proxy": "Question", "proxy_error": "ErrorQuestion", "cancel": "Cancel",
            "shutdown": "Shutdown", "taken": "Taken", "progress": "Progress", "invalidate": "Invalidate",
            "closed": "Closed", "close": "Close",
            "rewrite_request": "RewriteRequest", "rewrite_response": "RewriteResponse",
            "stream_end": "StreamEnd", "detach": "Detach",
        ]
        var count = 0
        var block: String?
        for line in lines {
            if line == "```json" {
                block = ""
            } else if line == "```", let text = block {
                block = nil
                for message in try JSONValue.all(in: text) {
                    let method = message["method"]?.text
                    let schema = try #require(method == nil ? "Line" : schemaOfMethod[method ?? ""], "\(message.json)")
                    #expect(try schemas.complaint(schema, about: message) == nil, "\(message.json)")
                    count += 1
                }
            } else {
                block?.append(line + "\n")
            }
        }
        #expect(count >= 12)
    }
}
