// A plain JSON reader and writer, made of nothing that tproxy's own is made of: two that agree are more than one.

/// Any JSON value. Numbers stay as they were written.
indirect enum JSONValue: Sendable {
    case null
    case boolean(Bool)
    case number(String)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    struct Invalid: Error {}

    /// Reads a text that is one value and nothing else.
    init(_ text: some Sequence<UInt8>) throws {
        var reader = Reader(rest: ArraySlice(text))
        self = try reader.value()
        reader.skipSpace()
        guard reader.rest.isEmpty else { throw Invalid() }
    }

    /// Reads the values that stand one after the other in a text.
    static func all(in text: String) throws -> [JSONValue] {
        var reader = Reader(rest: ArraySlice(text.utf8))
        var values: [JSONValue] = []
        reader.skipSpace()
        while !reader.rest.isEmpty {
            values.append(try reader.value())
            reader.skipSpace()
        }
        return values
    }

    subscript(key: String) -> JSONValue? {
        if case .object(let members) = self { members[key] } else { nil }
    }

    var text: String? { if case .string(let text) = self { text } else { nil } }
    var elements: [JSONValue]? { if case .array(let elements) = self { elements } else { nil } }
    var members: [String: JSONValue]? { if case .object(let members) = self { members } else { nil } }
    var isNull: Bool { if case .null = self { true } else { false } }
    var isTrue: Bool { if case .boolean(true) = self { true } else { false } }
    var double: Double? { if case .number(let digits) = self { Double(digits) } else { nil } }

    var integer: Int? {
        guard case .number(let digits) = self else { return nil }
        return Int(digits) ?? double.flatMap { Int(exactly: $0) }
    }

    /// The bytes of a byte string.
    var bytes: [UInt8]? { text?.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) } }

    static func bytes(_ bytes: [UInt8]) -> JSONValue {
        var text = ""
        for byte in bytes { text.unicodeScalars.append(Unicode.Scalar(byte)) }
        return .string(text)
    }

    static func number(_ number: some BinaryInteger) -> JSONValue { .number("\(number)") }

    /// The value as text, with as little in it as can be.
    var json: String {
        switch self {
        case .null: return "null"
        case .boolean(let value): return value ? "true" : "false"
        case .number(let digits): return digits
        case .string(let text):
            let escaped = text.unicodeScalars.map { scalar in
                if scalar == "\"" || scalar == "\\" { return "\\" + String(scalar) }
                guard scalar.value < 0x20 else { return String(scalar) }
                let hex = String(scalar.value, radix: 16)
                return "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            }
            return "\"" + escaped.joined() + "\""
        case .array(let elements): return "[" + elements.map(\.json).joined(separator: ",") + "]"
        case .object(let members):
            let pairs = members.sorted { $0.key < $1.key }.map { JSONValue.string($0.key).json + ":" + $0.value.json }
            return "{" + pairs.joined(separator: ",") + "}"
        }
    }
}

extension JSONValue: Equatable {
    /// Whether two texts mean the same: `1`, `1.0` and `1e0` do.
    static func == (left: JSONValue, right: JSONValue) -> Bool {
        switch (left, right) {
        case (.null, .null): true
        case (.boolean(let left), .boolean(let right)): left == right
        case (.number(let left), .number(let right)): left == right || areEqual(left, right)
        // Not `==` of strings, which takes different spellings of a character for the same.
        case (.string(let left), .string(let right)): left.unicodeScalars.elementsEqual(right.unicodeScalars)
        case (.array(let left), .array(let right)): left == right
        case (.object(let left), .object(let right)): left == right
        default: false
        }
    }

    private static func areEqual(_ left: String, _ right: String) -> Bool {
        if let left = Int(left), let right = Int(right) { return left == right }
        return Double(left) == Double(right)
    }
}

private struct Reader {
    var rest: ArraySlice<UInt8>

    mutating func skipSpace() { rest = rest.drop { [0x20, 0x09, 0x0a, 0x0d].contains($0) } }

    private mutating func take(_ expected: String) throws {
        guard rest.starts(with: expected.utf8) else { throw JSONValue.Invalid() }
        rest = rest.dropFirst(expected.utf8.count)
    }

    private func isNext(_ character: Character) -> Bool { rest.first == character.asciiValue }

    mutating func value() throws -> JSONValue {
        skipSpace()
        switch rest.first.map({ Character(Unicode.Scalar($0)) }) {
        case "n":
            try take("null")
            return .null
        case "t":
            try take("true")
            return .boolean(true)
        case "f":
            try take("false")
            return .boolean(false)
        case "\"": return .string(try string())
        case "[": return .array(try array())
        case "{": return .object(try object())
        default: return .number(try number())
        }
    }

    private mutating func number() throws -> String {
        let allowed = Array("0123456789+-.eE".utf8)
        let digits = String(decoding: rest.prefix { allowed.contains($0) }, as: UTF8.self)
        let form = /-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/
        guard digits.wholeMatch(of: form) != nil else { throw JSONValue.Invalid() }
        rest = rest.dropFirst(digits.utf8.count)
        return digits
    }

    private mutating func array() throws -> [JSONValue] {
        try take("[")
        var elements: [JSONValue] = []
        skipSpace()
        while !isNext("]") {
            if !elements.isEmpty { try take(",") }
            elements.append(try value())
            skipSpace()
        }
        try take("]")
        return elements
    }

    private mutating func object() throws -> [String: JSONValue] {
        try take("{")
        var members: [String: JSONValue] = [:]
        var isFirst = true
        skipSpace()
        while !isNext("}") {
            if !isFirst { try take(",") }
            isFirst = false
            skipSpace()
            let key = try string()
            skipSpace()
            try take(":")
            members[key] = try value()
            skipSpace()
        }
        try take("}")
        return members
    }

    private mutating func string() throws -> String {
        try take("\"")
        var units: [UInt16] = []
        while let byte = rest.first, byte != UInt8(ascii: "\"") {
            if byte == UInt8(ascii: "\\") {
                units.append(try escape())
                continue
            }
            guard byte >= 0x20 else { throw JSONValue.Invalid() }
            let run = rest.prefix { $0 >= 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
            guard let text = String(validating: run, as: UTF8.self) else { throw JSONValue.Invalid() }
            units += text.utf16
            rest = rest.dropFirst(run.count)
        }
        try take("\"")
        // Half a surrogate pair becomes U+FFFD, which is no byte either.
        return String(decoding: units, as: UTF16.self)
    }

    private mutating func escape() throws -> UInt16 {
        let letters: [Character: Character] = [
            "\"": "\"", "\\": "\\", "/": "/", "b": "\u{8}", "f": "\u{c}", "n": "\n", "r": "\r", "t": "\t",
        ]
        guard let letter = rest.dropFirst().first.map({ Character(Unicode.Scalar($0)) }) else {
            throw JSONValue.Invalid()
        }
        rest = rest.dropFirst(2)
        if let unit = letters[letter]?.utf16.first { return unit }
        let digits = String(decoding: rest.prefix(4), as: UTF8.self)
        guard letter == "u", digits.wholeMatch(of: /[0-9a-fA-F]{4}/) != nil, let unit = UInt16(digits, radix: 16)
        else { throw JSONValue.Invalid() }
        rest = rest.dropFirst(4)
        return unit
    }
}
