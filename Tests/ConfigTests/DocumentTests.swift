import Config
import Foundation
import Testing

/// A file of the repository.
private func document(_ name: String) throws -> String {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    return try String(contentsOf: root.appending(path: name), encoding: .utf8)
}

@Suite struct DocumentTests {
    @Test("the README has each option with its default and its sentence", arguments: OptionName.allCases)
    func options(option: OptionName) throws {
        let letter = option.letter.map { "`-\($0)`, " } ?? ""
        let standard = option.standard.map { option == .name ? $0 : "`\($0)`" } ?? ""
        let value = option.isFlag ? "" : " " + option.placeholder.uppercased()
        let row = "| \(letter)`--\(option.rawValue)\(value)` | \(standard) | \(option.about) |"
        let readme = try document("README.md")
        #expect(readme.contains(row.replacing("|  |", with: "| |") + "\n"), "\(row)")
    }

    @Test("the newest heading of the changes is this version")
    func version() throws {
        let heading = try document("CHANGELOG.md").split(separator: "\n").first { $0.hasPrefix("## ") }
        #expect(heading?.hasPrefix("## \(Product.version)") == true)
    }
}
