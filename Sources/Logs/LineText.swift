// One line of a log in the making: bytes in a buffer that is used again and again. Whatever comes from outside passes
// through `append(escaping:)`, so that no client can forge a line or drive a terminal.

import Addressing
import Glibc

/// A line being put together.
struct LineText: Sendable {
    private(set) var bytes: [UInt8] = []

    /// Starts anew and keeps the memory.
    mutating func clear() { bytes.removeAll(keepingCapacity: true) }

    /// Ends the line; nothing before it holds a line's end.
    mutating func end() { bytes.append(UInt8(ascii: "\n")) }

    /// Cuts the line to so many bytes, with an ellipsis, at a character.
    mutating func cut(to most: Int) {
        guard bytes.count > most else { return }
        var count = max(0, most - Self.ellipsis.count)
        while count > 0, bytes[count] & 0xc0 == 0x80 { count -= 1 }
        bytes.removeSubrange(count...)
        bytes += Self.ellipsis
    }

    private static let ellipsis: [UInt8] = [0xe2, 0x80, 0xa6]

    mutating func append(_ text: StaticString) {
        unsafe bytes.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func append(_ byte: Character) {
        bytes.append(byte.asciiValue ?? UInt8(ascii: "?"))
    }

    /// Trusted text: ours, and without control characters.
    mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    /// A whole number in decimal, with zeros in front up to `digits`.
    mutating func append(_ number: UInt64, digits: Int = 1) {
        let start = bytes.count
        var rest = number
        while rest > 0 || bytes.count - start < digits {
            bytes.append(UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: rest % 10))
            rest /= 10
        }
        bytes[start...].reverse()
    }

    /// Microseconds as milliseconds with one decimal, `0.4`; `-` for none.
    mutating func append(milliseconds microseconds: UInt64?) {
        guard let microseconds else {
            append("-")
            return
        }
        append(microseconds / 1000)
        append(".")
        append(microseconds / 100 % 10)
    }

    /// An address, or `-` for none. The common kind is written without making a string.
    mutating func append(_ endpoint: Endpoint?) {
        switch endpoint {
        case .ipv4(let address, let port)?:
            for shift: UInt32 in [24, 16, 8, 0] {
                append(UInt64(address.bits >> shift & 0xff))
                append(shift == 0 ? ":" : ".")
            }
            append(UInt64(port))
        case .some(let other): append(value: other.description.utf8, most: 128)
        case nil: append("-")
        }
    }

    // MARK: What comes from outside

    /// How bytes are escaped.
    enum Escaping {
        /// For people: `\n`, `\x1b`.
        case bare
        /// The same between double quotes.
        case quoted
        /// Inside a string of JSON (RFC 8259).
        case json
    }

    /// Adds bytes, control characters and broken UTF-8 escaped, at most `most` bytes of output and then an ellipsis.
    mutating func append(
        escaping source: some BidirectionalCollection<UInt8>, most: Int, as escaping: Escaping = .bare
    ) {
        let limit = bytes.count + most
        var index = source.startIndex
        while index != source.endIndex {
            let count = bytes.count
            let length = source[index] < 0x80 ? 1 : Self.scalarLength(source[index...])
            let end = source.index(index, offsetBy: length ?? 1)
            switch length {
            case 1?: append(escaping: source[index], as: escaping)
            case .some: append(scalar: source[index..<end], as: escaping)
            case nil where escaping == .json: append("\\ufffd")
            case nil: append(hex: source[index])
            }
            index = end
            guard bytes.count > limit else { continue }
            bytes.removeSubrange(count...)
            bytes += Self.ellipsis
            return
        }
    }

    /// A value of `key=value`: as it is when it is one plain word, else in double quotes.
    mutating func append(value: some BidirectionalCollection<UInt8>, most: Int) {
        let isPlain =
            !value.isEmpty
            && value.allSatisfy { $0 > 0x20 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "=") && $0 != 0x7f }
        if !isPlain { append("\"") }
        append(escaping: value, most: most, as: isPlain ? .bare : .quoted)
        if !isPlain { append("\"") }
    }

    private mutating func append(escaping byte: UInt8, as escaping: Escaping) {
        switch byte {
        case UInt8(ascii: "\n"): append("\\n")
        case UInt8(ascii: "\r"): append("\\r")
        case UInt8(ascii: "\t"): append("\\t")
        case UInt8(ascii: "\\") where escaping != .bare: append("\\\\")
        case UInt8(ascii: "\"") where escaping != .bare: append("\\\"")
        case 0x20..<0x7f: bytes.append(byte)
        default:
            // No control character is a character of JSON's own.
            if escaping == .json { append(unicode: UInt32(byte)) } else { append(hex: byte) }
        }
    }

    private mutating func append(hex byte: UInt8) {
        append("\\x")
        bytes += [Self.digit(UInt32(byte >> 4)), Self.digit(UInt32(byte))]
    }

    /// `\u001b`, for what fits into four digits.
    private mutating func append(unicode value: UInt32) {
        append("\\u")
        for shift: UInt32 in [12, 8, 4, 0] { bytes.append(Self.digit(value >> shift)) }
    }

    private static func digit(_ value: UInt32) -> UInt8 {
        let low = UInt8(truncatingIfNeeded: value & 15)
        return low < 10 ? UInt8(ascii: "0") + low : UInt8(ascii: "a") + low - 10
    }

    /// A scalar beyond ASCII, valid. The second set of control characters, line separators and what turns the direction
    /// of writing around are escaped.
    private mutating func append(scalar encoded: some Sequence<UInt8>, as escaping: Escaping) {
        guard let scalar = String(decoding: Array(encoded), as: UTF8.self).unicodeScalars.first else { return }
        switch scalar.value {
        case 0x80..<0xa0, 0x200b...0x200f, 0x2028...0x202e, 0x2066...0x2069, 0xfeff:
            guard escaping != .json else {
                append(unicode: scalar.value)
                return
            }
            append("\\u{")
            append(String(scalar.value, radix: 16))
            append("}")
        default: bytes.append(contentsOf: encoded)
        }
    }

    /// How many bytes the first scalar beyond ASCII takes; nil when they are not UTF-8 (Unicode, table 3-7).
    private static func scalarLength(_ source: some Collection<UInt8>) -> Int? {
        var rest = source.makeIterator()
        guard let first = rest.next(), let second = rest.next() else { return nil }
        let length: Int
        let allowed: ClosedRange<UInt8>
        switch first {
        case 0xc2...0xdf: (length, allowed) = (2, 0x80...0xbf)
        case 0xe0: (length, allowed) = (3, 0xa0...0xbf)
        case 0xed: (length, allowed) = (3, 0x80...0x9f)
        case 0xe1...0xef: (length, allowed) = (3, 0x80...0xbf)
        case 0xf0: (length, allowed) = (4, 0x90...0xbf)
        case 0xf1...0xf3: (length, allowed) = (4, 0x80...0xbf)
        case 0xf4: (length, allowed) = (4, 0x80...0x8f)
        default: return nil
        }
        guard allowed.contains(second) else { return nil }
        for _ in 2..<length {
            guard let next = rest.next(), (0x80...0xbf).contains(next) else { return nil }
        }
        return length
    }

    // MARK: The time

    /// `2026-11-23T10:00:00.123Z`.
    mutating func append(time: Timestamp) {
        append(UInt64(clamping: time.year), digits: 4)
        append("-")
        append(UInt64(time.month), digits: 2)
        append("-")
        append(UInt64(time.day), digits: 2)
        append("T")
        append(UInt64(time.secondOfDay / 3600), digits: 2)
        append(":")
        append(UInt64(time.secondOfDay / 60 % 60), digits: 2)
        append(":")
        append(UInt64(time.secondOfDay % 60), digits: 2)
        append(".")
        append(UInt64(time.millisecond), digits: 3)
        append("Z")
    }
}

/// A moment of the calendar in UTC.
struct Timestamp: Equatable {
    var year: Int
    var month: Int
    var day: Int
    var secondOfDay: Int
    var millisecond: Int

    /// From the time since 1970 (the calendar after Howard Hinnant, "chrono-compatible low-level date algorithms").
    init(seconds: Int, nanoseconds: Int) {
        let (days, rest) = seconds.flooredDivision(by: 86_400)
        secondOfDay = rest
        millisecond = nanoseconds / 1_000_000
        let (era, dayOfEra) = (days + 719_468).flooredDivision(by: 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    }

    /// Now. The C function is `clock_gettime(CLOCK_REALTIME)`.
    static var now: Timestamp {
        var time = timespec()
        _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(seconds: time.tv_sec, nanoseconds: time.tv_nsec)
    }
}

extension Int {
    fileprivate func flooredDivision(by divisor: Int) -> (quotient: Int, remainder: Int) {
        let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
    }
}
