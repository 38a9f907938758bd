// One message of the log, and how it looks: for people, perhaps with colour, and for machines.

import Config
import Glibc
import Logging

/// A message with what belongs to it.
struct LogLine {
    typealias Member = (key: String, value: Value)

    /// A value of metadata.
    enum Value {
        case text(String)
        case number(Int)

        init(_ value: Logger.MetadataValue) {
            if case .stringConvertible(let number as Int) = value {
                self = .number(number)
            } else {
                self = .text("\(value)")
            }
        }

        var text: String {
            switch self {
            case .text(let text): text
            case .number(let number): String(number)
            }
        }
    }

    var level: Logger.Level
    var component: String?
    var message: String
    var values: [Member]
}

extension LineText {
    mutating func compose(_ line: LogLine, pid: Int32, isColoured: Bool, at time: Timestamp) {
        if isColoured { append(Colour.faint) }
        append(time: time)
        append(" [")
        append(UInt64(clamping: pid))
        append("] ")
        if isColoured {
            append(Colour.plain)
            append(Colour.of(line.level))
        }
        append("[")
        append(line.level.rawValue)
        append("]")
        if isColoured { append(Colour.plain) }
        append(" ")
        if let component = line.component {
            append("[")
            append(escaping: component.utf8, most: 64)
            append("] ")
        }
        append(escaping: line.message.utf8, most: Limits.logLineBytesMax)
        for (key, value) in line.values {
            append(" ")
            append(escaping: key.utf8, most: Limits.logValueBytesMax)
            append("=")
            append(value: value.text.utf8, most: Limits.logValueBytesMax)
        }
        // What is cut off is never a colour's end: those are all in front.
        cut(to: Limits.logLineBytesMax)
        end()
    }

    mutating func composeJSON(_ line: LogLine, pid: Int32, at time: Timestamp) {
        beginObject(at: time, line.component)
        member("pid", UInt64(clamping: pid))
        member("level", line.level.rawValue, most: 64)
        // Room for what is in front and behind; the object itself is never cut.
        member("message", line.message, most: Limits.logLineBytesMax - Limits.logValueBytesMax)
        var leftOut: UInt64 = 0
        for (key, value) in line.values {
            let name = Self.ours.contains(key) ? key + "_" : key
            switch value {
            // An upper bound: six bytes for one, and the name with its quotes.
            case .text(let text):
                guard bytes.count + min(6 * text.utf8.count, Limits.logValueBytesMax) + 160 < Limits.logLineBytesMax
                else {
                    leftOut += 1
                    continue
                }
                member(name, text, most: Limits.logValueBytesMax)
            case .number(let number):
                member(name, number)
            }
        }
        if leftOut > 0 { member("left_out", leftOut) }
        endObject()
    }

    /// Names that metadata cannot have.
    private static let ours: Set<String> = ["time", "component", "pid", "level", "message", "left_out"]
}

/// Colours of a terminal (ECMA-48, SGR).
enum Colour {
    static let plain: StaticString = "\u{1b}[0m"
    static let faint: StaticString = "\u{1b}[2m"

    /// Whether the user lets us: no NO_COLOR (no-color.org), and a terminal that can.
    static func isWanted(by variable: (String) -> String?) -> Bool {
        let terminal = variable("TERM") ?? ""
        return (variable("NO_COLOR") ?? "").isEmpty && !terminal.isEmpty && terminal != "dumb"
    }

    static var isWanted: Bool {
        isWanted { name in unsafe getenv(name).map { unsafe String(cString: $0) } }
    }

    static func of(_ level: Logger.Level) -> StaticString {
        switch level {
        case .trace, .debug: "\u{1b}[2m"
        case .info, .notice: "\u{1b}[32m"
        case .warning: "\u{1b}[33m"
        case .error: "\u{1b}[31m"
        case .critical: "\u{1b}[1;31m"
        }
    }
}
