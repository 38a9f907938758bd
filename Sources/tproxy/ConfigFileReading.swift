// The two files of the command line: read here, understood by Config. TOML's syntax is a library's.

import Config
import Glibc
import SystemPackage
import TOMLKit

/// Reads small text files whole.
enum TextFile {
    /// The text of the file that an option names.
    static func contents(_ given: SettingsReader.Given) throws(OptionError) -> String {
        // May be a pipe, as `<(…)` of a shell is, and is then waited for: nothing serves yet.
        let raw = open(given.text, O_RDONLY | O_CLOEXEC | O_NOCTTY)
        guard raw >= 0 else { throw given.refused("it cannot be opened: \(Errno(rawValue: errno))") }
        defer { close(raw) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(raw, &chunk, chunk.count)
            if count == 0 { break }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw given.refused("it cannot be read: \(Errno(rawValue: errno))") }
            bytes += chunk[..<count]
            guard bytes.count <= Limits.configFileBytesMax else {
                throw given.refused("it has more than \(Limits.configFileBytesMax) bytes")
            }
        }
        guard let text = String(validating: bytes, as: UTF8.self), !bytes.contains(0) else {
            throw given.refused("it is no text in UTF-8")
        }
        return text
    }
}

extension ConfigFile {
    /// Reads the file of `--config`.
    init(reading given: SettingsReader.Given) throws(OptionError) {
        let name = given.text.lowercased()
        guard !name.hasSuffix(".yaml"), !name.hasSuffix(".yml"), !name.hasSuffix(".json") else {
            throw given.refused("expected a TOML file")
        }
        let text = try TextFile.contents(given)
        // The library hands strings on as C does: they would end there.
        guard !text.contains("\\u0000"), !text.contains("\\U00000000") else { throw given.refused("it has a NUL") }
        if let fault = FlatText.fault(in: text) { throw given.refused("\(fault)") }
        let table: TOMLTable
        do {
            table = try TOMLTable(string: text)
        } catch let error as TOMLParseError {
            throw given.refused("line \(error.source.begin.line): \(error.description)")
        } catch {
            throw given.refused("\(error)")
        }
        let entries = table.keys.map { Entry(key: $0, texts: table[$0]?.texts) }
        try self.init(path: given.text, entries: entries)
    }
}

extension TOMLValueConvertible {
    /// The value as the command line would have it, a list as several.
    fileprivate var texts: [String]? {
        guard let array else { return text.map { [$0] } }
        var texts: [String] = []
        for index in 0..<array.count {
            guard let text = array[index].text else { return nil }
            texts.append(text)
        }
        return texts
    }

    private var text: String? {
        switch type {
        case .string: string
        case .int: int.map { String($0) }
        case .double: double.map { String($0) }
        case .bool: bool.map { String($0) }
        case .table, .array, .date, .time, .dateTime: nil
        }
    }
}
