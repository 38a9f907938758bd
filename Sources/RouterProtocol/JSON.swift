// JSON read where it lies: values are ranges of the line, checked against RFC 8259 as they are passed over, and decoded
// only when somebody asks. There is no tree, and nothing here allocates.

/// What kind of value begins with a given byte.
enum JSONKind {
    case object, array, string, number, boolean, null
}

/// Deepest nesting of objects and arrays that is read; the line's own object is the first level.
let jsonDepthMax = 64

extension Span where Element == UInt8 {
    /// The byte at a place, or 0, which begins nothing in JSON, when the text ends before it.
    private func byte(_ index: Int, before end: Int) -> UInt8 {
        index < end ? self[index] : 0
    }

    /// The first place from `index` on that is not white space.
    func afterSpace(_ index: Int, before end: Int) -> Int {
        var index = index
        while index < end {
            switch self[index] {
            case 0x20, 0x09, 0x0a, 0x0d: index &+= 1
            default: return index
            }
        }
        return index
    }

    /// The kind of the value at `range`, told by its first byte.
    func kind(of range: Range<Int>) -> JSONKind {
        switch byte(range.lowerBound, before: count) {
        case UInt8(ascii: "{"): .object
        case UInt8(ascii: "["): .array
        case UInt8(ascii: "\""): .string
        case UInt8(ascii: "t"), UInt8(ascii: "f"): .boolean
        case UInt8(ascii: "n"): .null
        default: .number
        }
    }

    /// Checks the value that begins at `start` with all that is in it, and returns where it ends.
    func endOfValue(from start: Int, before end: Int) throws(ProtocolError) -> Int {
        var index = start
        var depth = 0
        // One bit a level, the innermost lowest: set for an object, clear for an array.
        var objects: UInt64 = 0
        while true {
            switch byte(index, before: end) {
            case UInt8(ascii: "{"):
                index = afterSpace(index &+ 1, before: end)
                guard depth < jsonDepthMax else { throw .tooDeep }
                if byte(index, before: end) == UInt8(ascii: "}") {
                    index &+= 1
                } else {
                    depth &+= 1
                    objects = objects &<< 1 | 1
                    index = try endOfKey(from: index, before: end)
                    continue
                }
            case UInt8(ascii: "["):
                index = afterSpace(index &+ 1, before: end)
                guard depth < jsonDepthMax else { throw .tooDeep }
                if byte(index, before: end) == UInt8(ascii: "]") {
                    index &+= 1
                } else {
                    depth &+= 1
                    objects = objects &<< 1
                    continue
                }
            default:
                index = try endOfScalar(from: index, before: end)
            }
            // A value has ended at `index`: close what ends with it, or go on to its neighbour.
            closing: while true {
                if depth == 0 { return index }
                index = afterSpace(index, before: end)
                let isObject = objects & 1 == 1
                switch byte(index, before: end) {
                case UInt8(ascii: ","):
                    index = afterSpace(index &+ 1, before: end)
                    if isObject { index = try endOfKey(from: index, before: end) }
                    break closing
                case UInt8(ascii: "}") where isObject, UInt8(ascii: "]") where !isObject:
                    depth &-= 1
                    objects = objects &>> 1
                    index &+= 1
                default:
                    throw .notJSON(isObject ? "no comma and no } after a member" : "no comma and no ] after an element")
                }
            }
        }
    }

    /// Passes a key, its colon and the space around them.
    private func endOfKey(from start: Int, before end: Int) throws(ProtocolError) -> Int {
        let key = try endOfString(from: start, before: end)
        let colon = afterSpace(key, before: end)
        guard byte(colon, before: end) == UInt8(ascii: ":") else { throw .notJSON("no colon after a key") }
        return afterSpace(colon &+ 1, before: end)
    }

    private func endOfScalar(from start: Int, before end: Int) throws(ProtocolError) -> Int {
        switch byte(start, before: end) {
        case UInt8(ascii: "\""): try endOfString(from: start, before: end)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): try endOfNumber(from: start, before: end)
        case UInt8(ascii: "t"): try endOfWord("true", from: start, before: end)
        case UInt8(ascii: "f"): try endOfWord("false", from: start, before: end)
        case UInt8(ascii: "n"): try endOfWord("null", from: start, before: end)
        default: throw .notJSON(start < end ? "no value where one must be" : "it ends too early")
        }
    }

    private func endOfWord(_ word: String, from start: Int, before end: Int) throws(ProtocolError) -> Int {
        var index = start
        for expected in word.utf8 {
            guard byte(index, before: end) == expected else { throw .notJSON("no value where one must be") }
            index &+= 1
        }
        return index
    }

    private func endOfNumber(from start: Int, before end: Int) throws(ProtocolError) -> Int {
        var index = start
        if byte(index, before: end) == UInt8(ascii: "-") { index &+= 1 }
        if byte(index, before: end) == UInt8(ascii: "0") {
            index &+= 1
        } else {
            index = try endOfDigits(from: index, before: end)
        }
        if byte(index, before: end) == UInt8(ascii: ".") {
            index = try endOfDigits(from: index &+ 1, before: end)
        }
        if byte(index, before: end) | 0x20 == UInt8(ascii: "e") {
            index &+= 1
            let sign = byte(index, before: end)
            if sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") { index &+= 1 }
            index = try endOfDigits(from: index, before: end)
        }
        return index
    }

    private func endOfDigits(from start: Int, before end: Int) throws(ProtocolError) -> Int {
        var index = start
        while index < end, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(self[index]) { index &+= 1 }
        guard index > start else { throw .notJSON("a number without digits") }
        return index
    }

    /// Passes a string with its quotes: no raw control characters, known escapes only, correct UTF-8.
    func endOfString(from start: Int, before end: Int) throws(ProtocolError) -> Int {
        guard byte(start, before: end) == UInt8(ascii: "\"") else { throw .notJSON("no string where a key must be") }
        var index = start &+ 1
        while index < end {
            switch self[index] {
            case UInt8(ascii: "\""): return index &+ 1
            case UInt8(ascii: "\\"): index = try endOfEscape(from: index, before: end)
            case 0x20...0x7f: index &+= 1
            case 0x80...0xff: index = try endOfCharacter(from: index, before: end)
            default: throw .notJSON("a control character in a string")
            }
        }
        throw .notJSON("a string without end")
    }

    private func endOfEscape(from start: Int, before end: Int) throws(ProtocolError) -> Int {
        switch byte(start &+ 1, before: end) {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"),
            UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
            return start &+ 2
        case UInt8(ascii: "u"):
            for index in start &+ 2..<start &+ 6 where hexDigit(byte(index, before: end)) == nil {
                throw .notJSON("\\u without four hexadecimal digits")
            }
            return start &+ 6
        default: throw .notJSON("an escape that JSON does not have")
        }
    }

    /// Passes one character of several bytes: the table of well-formed UTF-8 in the Unicode standard (3-7).
    private func endOfCharacter(from start: Int, before end: Int) throws(ProtocolError) -> Int {
        let first = self[start]
        let (length, second): (Int, ClosedRange<UInt8>) =
            switch first {
            case 0xc2...0xdf: (2, 0x80...0xbf)
            case 0xe0: (3, 0xa0...0xbf)
            case 0xed: (3, 0x80...0x9f)
            case 0xe1...0xef: (3, 0x80...0xbf)
            case 0xf0: (4, 0x90...0xbf)
            case 0xf1...0xf3: (4, 0x80...0xbf)
            case 0xf4: (4, 0x80...0x8f)
            default: (0, 0x80...0xbf)
            }
        guard length > 0, second.contains(byte(start &+ 1, before: end)) else { throw .notJSON("not UTF-8") }
        var index = start &+ 2
        while index < start &+ length {
            guard byte(index, before: end) & 0xc0 == 0x80 else { throw .notJSON("not UTF-8") }
            index &+= 1
        }
        return index
    }
}

func hexDigit(_ byte: UInt8) -> UInt32? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte &- UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt32(byte &- UInt8(ascii: "a") &+ 10)
    case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt32(byte &- UInt8(ascii: "A") &+ 10)
    default: nil
    }
}

/// Goes through the members of one object or the elements of one array, by place: the text itself is lent to each step.
struct JSONCursor {
    private var index: Int
    private let end: Int
    private var isFirst = true

    /// `range` is that of the whole value, brackets included.
    init(_ range: Range<Int>) {
        index = range.lowerBound &+ 1
        end = range.upperBound
    }

    /// The next member of an object; the key's range includes its quotes.
    mutating func nextMember(
        in text: Span<UInt8>
    ) throws(ProtocolError) -> (key: Range<Int>, value: Range<Int>)? {
        guard try hasNext(in: text, closing: UInt8(ascii: "}")) else { return nil }
        let keyEnd = try text.endOfString(from: index, before: end)
        let key = index..<keyEnd
        let colon = text.afterSpace(keyEnd, before: end)
        guard colon < end, text[colon] == UInt8(ascii: ":") else { throw .notJSON("no colon after a key") }
        index = text.afterSpace(colon &+ 1, before: end)
        return (key, try takeValue(in: text))
    }

    /// The next element of an array.
    mutating func nextElement(in text: Span<UInt8>) throws(ProtocolError) -> Range<Int>? {
        guard try hasNext(in: text, closing: UInt8(ascii: "]")) else { return nil }
        return try takeValue(in: text)
    }

    private mutating func hasNext(in text: Span<UInt8>, closing: UInt8) throws(ProtocolError) -> Bool {
        index = text.afterSpace(index, before: end)
        guard index < end else { throw .notJSON("it ends too early") }
        if text[index] == closing { return false }
        if !isFirst {
            guard text[index] == UInt8(ascii: ",") else { throw .notJSON("no comma") }
            index = text.afterSpace(index &+ 1, before: end)
        }
        isFirst = false
        return true
    }

    private mutating func takeValue(in text: Span<UInt8>) throws(ProtocolError) -> Range<Int> {
        let start = index
        index = try text.endOfValue(from: start, before: end)
        return start..<index
    }
}

extension ProtocolError {
    static var tooDeep: ProtocolError { ProtocolError(.tooDeep, "nested deeper than \(jsonDepthMax) levels") }
    static func notJSON(_ reason: String) -> ProtocolError { ProtocolError(.notJSON, "not JSON: \(reason)") }
}
