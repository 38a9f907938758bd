import Foundation
import Testing

@testable import Proxy

@Suite struct CloseReasonTests {
    @Test("docs/life-of-a-connection.md lists every close reason, and no other")
    func documented() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: root.appending(path: "docs/life-of-a-connection.md"), encoding: .utf8)
        let section = try #require(
            text.components(separatedBy: "## Close reasons").last?.components(separatedBy: "\n## ").first)
        let listed = section.split(separator: "\n").compactMap { line -> String? in
            line.hasPrefix("| `") ? line.split(separator: "`").dropFirst().first.map(String.init) : nil
        }
        #expect(listed.sorted() == CloseReason.allCases.map(\.rawValue).sorted())
    }
}
