// A configuration file is flat: no option is a table; and outside of quotes and comments it is ASCII, as TOML says. Both are
// seen to here, before the syntax is read elsewhere: the library for that aborts on some of what is neither (`[=]`, `a = [}`).

/// Looks for what no configuration file has, and TOML, or its library, cannot do with.
public enum FlatText {
    private enum Place {
        /// Where a key or a header may begin.
        case start
        /// In a key or a value.
        case inside
        case comment
        /// Ended by these bytes; a short one by its line's end, too, and then the library says what is wrong.
        case string(end: [UInt8])
    }

    /// What is wrong first, and in which line.
    public struct Fault: Equatable, Sendable, CustomStringConvertible {
        public let line: Int
        public let reason: String

        public var description: String { "line \(line): \(reason)" }
    }

    /// The first table or stray character outside of quotes and comments; nil when there is none.
    public static func fault(in text: String) -> Fault? {
        var rest = Array(text.utf8)[...]
        if rest.starts(with: byteOrderMark) { rest = rest.dropFirst(byteOrderMark.count) }
        var (place, depth, line) = (Place.start, 0, 1)
        var isDigit = false
        while let byte = rest.popFirst() {
            defer { isDigit = byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }
            let isEnd = byte == UInt8(ascii: "\n")
            if isEnd { line += 1 }
            switch place {
            case .start where byte == UInt8(ascii: "["): return Fault(line: line, reason: noTable)
            case .comment where !isEnd: break
            case .string(let end) where !isEnd || end.count > 1:
                if byte == end[0], rest.starts(with: end.dropFirst()) {
                    rest = rest.dropFirst(end.count - 1)
                    place = .inside
                } else if byte == UInt8(ascii: "\\"), end[0] == UInt8(ascii: "\""),
                    rest.popFirst() == UInt8(ascii: "\n")
                {
                    line += 1
                }
            case .start, .inside, .comment, .string:
                switch byte {
                case UInt8(ascii: "\n"): place = depth == 0 ? .start : .inside
                case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"): break
                case UInt8(ascii: "#"): place = .comment
                case UInt8(ascii: "{"), UInt8(ascii: "}"): return Fault(line: line, reason: noTable)
                case UInt8(ascii: "\""), UInt8(ascii: "'"):
                    let isLong = rest.starts(with: [byte, byte])
                    place = .string(end: isLong ? [byte, byte, byte] : [byte])
                    if isLong { rest = rest.dropFirst(2) }
                case UInt8(ascii: "["):
                    depth += 1
                    place = .inside
                case UInt8(ascii: "]"):
                    depth = max(0, depth - 1)
                    place = .inside
                case UInt8(ascii: ":"),
                    UInt8(ascii: "-") where isDigit:
                    return Fault(line: line, reason: noDate)
                case 0x21..<0x7f: place = .inside
                default: return Fault(line: line, reason: "outside of quotes there is plain ASCII alone")
                }
            }
        }
        return nil
    }

    private static let noDate = "no option has a date or a time, and texts are in quotes"
    private static let noTable = "no option has a table"
    private static let byteOrderMark: [UInt8] = [0xef, 0xbb, 0xbf]
}
