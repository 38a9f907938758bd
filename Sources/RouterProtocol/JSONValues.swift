// From a value's place in the line to the value: text, bytes, numbers, keys. The value has been checked before, so what
// remains to be found out is whether it means something.

extension Span where Element == UInt8 {
    /// The text of a string; nil when an escape names half of a surrogate pair, which is no text.
    func text(of range: Range<Int>) -> String? {
        guard range.count >= 2 else { return nil }
        let inside = range.lowerBound &+ 1..<range.upperBound &- 1
        var bytes: [UInt8] = []
        var index = inside.lowerBound
        var runStart = index
        while index < inside.upperBound {
            guard self[index] == UInt8(ascii: "\\") else {
                index &+= 1
                continue
            }
            bytes.append(self, runStart..<index)
            guard let scalar = escapedScalar(&index, before: inside.upperBound) else { return nil }
            bytes.append(contentsOf: Character(scalar).utf8)
            runStart = index
        }
        if runStart == inside.lowerBound { return copiedText(of: inside) }
        bytes.append(self, runStart..<inside.upperBound)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The bytes as text, without looking for escapes.
    func copiedText(of range: Range<Int>) -> String {
        unsafe extracting(range).withUnsafeBufferPointer { unsafe String(decoding: $0, as: UTF8.self) }
    }

    /// Appends a byte string, one byte a character; false when a character is above U+00FF.
    func appendBytes(of range: Range<Int>, to bytes: inout [UInt8]) -> Bool {
        guard range.count >= 2 else { return false }
        let end = range.upperBound &- 1
        var index = range.lowerBound &+ 1
        while index < end {
            let runStart = index
            while index < end, self[index] < 0x80, self[index] != UInt8(ascii: "\\") { index &+= 1 }
            if index > runStart { bytes.append(self, runStart..<index) }
            guard index < end else { break }
            if self[index] == UInt8(ascii: "\\") {
                guard let scalar = escapedScalar(&index, before: end), let byte = UInt8(exactly: scalar.value)
                else { return false }
                bytes.append(byte)
            } else {
                // U+0080 to U+00FF are two bytes of UTF-8, the first of them 0xc2 or 0xc3.
                guard self[index] <= 0xc3, index &+ 1 < end else { return false }
                bytes.append(self[index] &<< 6 | self[index &+ 1] & 0x3f)
                index &+= 2
            }
        }
        return true
    }

    /// Reads the escape at `index` and passes it.
    private func escapedScalar(_ index: inout Int, before end: Int) -> Unicode.Scalar? {
        guard index &+ 1 < end else { return nil }
        let letter = self[index &+ 1]
        index &+= 2
        switch letter {
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"):
            guard let unit = hexUnit(at: index, before: end) else { return nil }
            index &+= 4
            guard (0xd800...0xdbff).contains(unit) else { return Unicode.Scalar(unit) }
            guard index &+ 1 < end, self[index] == UInt8(ascii: "\\"), self[index &+ 1] == UInt8(ascii: "u"),
                let low = hexUnit(at: index &+ 2, before: end), (0xdc00...0xdfff).contains(low)
            else { return nil }
            index &+= 6
            return Unicode.Scalar(0x10000 &+ (unit &- 0xd800) &<< 10 &+ (low &- 0xdc00))
        default: return Unicode.Scalar(letter)
        }
    }

    private func hexUnit(at start: Int, before end: Int) -> UInt32? {
        guard start &+ 4 <= end else { return nil }
        var unit: UInt32 = 0
        for index in start..<start &+ 4 {
            guard let digit = hexDigit(self[index]) else { return nil }
            unit = unit &<< 4 | digit
        }
        return unit
    }

    /// A whole number, also when it is written as 1.0 or 1e3; nil when it is none or does not fit.
    func integer(of range: Range<Int>) -> Int? {
        let isNegative = !range.isEmpty && self[range.lowerBound] == UInt8(ascii: "-")
        var value = 0
        for index in (isNegative ? range.lowerBound &+ 1 : range.lowerBound)..<range.upperBound {
            let digit = self[index] &- UInt8(ascii: "0")
            guard digit <= 9 else { return integerFromDouble(of: range) }
            let (tens, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = tens.subtractingReportingOverflow(Int(digit))
            guard !overflow, !carry else { return nil }
            value = sum
        }
        // It was built below zero, where there is room for one more.
        if isNegative { return value }
        return value == .min ? nil : 0 &- value
    }

    /// Beyond 2^53 a fraction may have been rounded away, so such a number is not taken for whole.
    private func integerFromDouble(of range: Range<Int>) -> Int? {
        guard let number = number(of: range), number.magnitude <= 0x1p53 else { return nil }
        return Int(exactly: number)
    }

    /// A finite number.
    func number(of range: Range<Int>) -> Double? {
        // Longer than any number that means something, and short enough to be copied without a thought.
        guard range.count <= 400, let number = Double(copiedText(of: range)), number.isFinite else { return nil }
        return number
    }

    /// Whether the boolean at `range` is `true`.
    func isTrue(_ range: Range<Int>) -> Bool { self[range.lowerBound] == UInt8(ascii: "t") }
}

extension [UInt8] {
    mutating func append(_ text: Span<UInt8>, _ range: Range<Int>) {
        unsafe text.extracting(range).withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
    }
}

/// The keys of one kind of object, looked up by their bytes.
protocol WireKey: Equatable, RawRepresentable, CaseIterable, Sendable where RawValue == String {
    static var table: [(name: [UInt8], key: Self)] { get }
}

extension WireKey {
    static func makeTable() -> [(name: [UInt8], key: Self)] { allCases.map { (Array($0.rawValue.utf8), $0) } }

    /// The key at `range` (quotes included) and its place in the table.
    static func find(_ range: Range<Int>, in text: Span<UInt8>) -> (index: Int, key: Self)? {
        guard range.count >= 2 else { return nil }
        let inside = range.lowerBound &+ 1..<range.upperBound &- 1
        search: for (index, entry) in table.enumerated() where entry.name.count == inside.count {
            for offset in 0..<inside.count where entry.name[offset] != text[inside.lowerBound &+ offset] {
                continue search
            }
            return (index, entry.key)
        }
        // Rarely a key is spelled with escapes.
        guard let name = text.text(of: range), let index = table.firstIndex(where: { $0.key.rawValue == name })
        else { return nil }
        return (index, table[index].key)
    }
}

/// Which keys an object has had, to refuse the second of a kind.
struct SeenKeys {
    private var bits: UInt64 = 0

    /// False when the key was there before.
    mutating func insert(_ index: Int) -> Bool {
        let bit: UInt64 = 1 &<< UInt64(truncatingIfNeeded: index)
        defer { bits |= bit }
        return bits & bit == 0
    }
}
