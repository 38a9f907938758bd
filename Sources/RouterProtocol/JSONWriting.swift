// What tproxy writes as JSON: text and byte strings escaped in runs, and plain numbers.

extension [UInt8] {
    mutating func append(_ json: StaticString) {
        unsafe append(contentsOf: UnsafeBufferPointer(start: json.utf8Start, count: json.utf8CodeUnitCount))
    }

    mutating func append(json text: String) {
        var text = text
        unsafe text.withUTF8 { unsafe append(escaping: $0, asBytes: false) }
    }

    /// Appends bytes as a string with one character per byte.
    mutating func append(json bytes: Span<UInt8>) {
        unsafe bytes.withUnsafeBufferPointer { unsafe append(escaping: $0, asBytes: true) }
    }

    /// `asBytes`: a byte from 0x80 on is a character of its own; otherwise it is a part of UTF-8 and is copied.
    private mutating func append(escaping bytes: UnsafeBufferPointer<UInt8>, asBytes: Bool) {
        append(UInt8(ascii: "\""))
        var index = 0
        while index < bytes.count {
            let runStart = index
            while index < bytes.count, unsafe Self.isPlain(bytes[index], asBytes) { index &+= 1 }
            if index > runStart {
                unsafe append(contentsOf: UnsafeBufferPointer(rebasing: bytes[runStart..<index]))
            }
            guard index < bytes.count else { break }
            let byte = unsafe bytes[index]
            index &+= 1
            switch byte {
            case UInt8(ascii: "\""): append("\\\"")
            case UInt8(ascii: "\\"): append("\\\\")
            case UInt8(ascii: "\n"): append("\\n")
            case UInt8(ascii: "\r"): append("\\r")
            case UInt8(ascii: "\t"): append("\\t")
            case 0x80...0xff:
                append(0xc0 | byte &>> 6)
                append(0x80 | byte & 0x3f)
            default:
                append("\\u00")
                append(Self.hexDigits(byte &>> 4))
                append(Self.hexDigits(byte & 0xf))
            }
        }
        append(UInt8(ascii: "\""))
    }

    private static func isPlain(_ byte: UInt8, _ asBytes: Bool) -> Bool {
        byte >= 0x20 && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\") && !(asBytes && byte >= 0x80)
    }

    private static func hexDigits(_ nibble: UInt8) -> UInt8 {
        nibble < 10 ? UInt8(ascii: "0") &+ nibble : UInt8(ascii: "a") &+ nibble &- 10
    }

    mutating func append(json number: some BinaryInteger) {
        guard let small = Int(exactly: number), small >= 0 else {
            append(contentsOf: String(number).utf8)
            return
        }
        var divisor = 1
        while small / divisor >= 10 { divisor &*= 10 }
        while divisor > 0 {
            append(UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: small / divisor % 10))
            divisor /= 10
        }
    }
}
