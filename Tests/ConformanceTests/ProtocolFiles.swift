// Finds and reads the files of protocol/, from where this file lies.

import Foundation

enum ProtocolFiles {
    struct File: CustomStringConvertible, Sendable {
        let folder: String
        let name: String
        let bytes: [UInt8]

        var description: String { "\(folder)/\(name)" }
    }

    private static let root = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().appending(path: "protocol")

    static func readme() throws -> String { try String(contentsOf: root.appending(path: "README.md"), encoding: .utf8) }

    /// The files of a folder whose names end so, in order.
    static func list(_ folder: String, suffix: String) throws -> [File] {
        let path = root.appending(path: folder)
        return try FileManager.default.contentsOfDirectory(atPath: path.path).filter { $0.hasSuffix(suffix) }.sorted()
            .map { File(folder: folder, name: $0, bytes: Array(try Data(contentsOf: path.appending(path: $0)))) }
    }

    static func folders(_ folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: root.appending(path: folder).path).sorted()
    }
}

/// One file of protocol/examples.
struct Example: CustomStringConvertible, Sendable {
    enum Expectation: Equatable {
        case ok, never, stray, ignored
        case error(String, key: String?)
    }

    let kind: String
    let description: String
    let about: String
    /// The line as it goes over the socket, without its newline.
    let line: [UInt8]
    let expectation: Expectation
    let dataBytes: Int
    let initialBytesMax: Int
    let means: JSONValue?
    /// It is bad in a way that the schema cannot tell.
    let isBeyondSchema: Bool

    struct Malformed: Error {
        let file: String
    }

    init(_ file: ProtocolFiles.File, kind: String) throws {
        let malformed = Malformed(file: "\(file)")
        guard let members = try JSONValue(file.bytes).members, let about = members["about"]?.text,
            let expect = members["expect"], (members["line"] == nil) != (members["raw"] == nil),
            Set(members.keys).isSubset(of: ["about", "line", "raw", "limits", "expect", "means", "schema"])
        else { throw malformed }
        self.kind = kind
        self.about = about
        description = "\(kind)/\(file.name)"
        line = Array((members["raw"]?.text ?? members["line"]?.json ?? "").utf8)
        switch expect {
        case .string("ok"): expectation = .ok
        case .string("never"): expectation = .never
        case .string("stray"): expectation = .stray
        case .string("ignored"): expectation = .ignored
        default:
            guard let error = expect["error"]?.text else { throw malformed }
            expectation = .error(error, key: expect["key"]?.text)
        }
        dataBytes = members["limits"]?["data_bytes"]?.integer ?? 100
        initialBytesMax = members["limits"]?["initial_bytes_max"]?.integer ?? 65536
        means = members["means"]
        isBeyondSchema = members["schema"] == .string("accepts")
    }

    static func all() throws -> [Example] {
        try ProtocolFiles.folders("examples").flatMap { kind in
            try ProtocolFiles.list("examples/\(kind)", suffix: ".json").map { try Example($0, kind: kind) }
        }
    }
}
