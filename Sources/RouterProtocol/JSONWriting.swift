// What tproxy writes as JSON: text and byte strings, escaped a piece at a time, and plain numbers.

extension [UInt8] {
    mutating func append(_ json: StaticString) {
        unsafe append(contentsOf: UnsafeBufferPointer(start: json.utf8Start, count: json.utf8CodeUnitCount))
    }

    mutating func append(json text: String) {
        var text = text
        text.withUTF8 { unsafe append(escaping: $0, asBytes: false) }
    }

    mutating func append(json text: String?) {
        if let text { append(json: text) } else { append("null") }
    }

    /// Appends bytes as a string with one character per byte.
    mutating func append(json bytes: Span<UInt8>) {
        unsafe bytes.withUnsafeBufferPointer { unsafe append(escaping: $0, asBytes: true) }
    }

    /// How many bytes are escaped on the stack before they are appended in one go.
    private static let pieceBytes = 256

    /// `asBytes`: a byte from 0x80 on is a character of its own; otherwise it is a part of UTF-8 and is copied.
    private mutating func append(escaping bytes: UnsafeBufferPointer<UInt8>, asBytes: Bool) {
        append(UInt8(ascii: "\""))
        // No byte takes more than the six characters of \u0000.
        unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 6 * Self.pieceBytes) { piece in
            var index = 0
            while index < bytes.count {
                let end = Swift.min(index &+ Self.pieceBytes, bytes.count)
                var count = 0
                while index < end {
                    unsafe Self.escape(bytes[index], asBytes, into: piece, &count)
                    index &+= 1
                }
                unsafe append(contentsOf: UnsafeBufferPointer(rebasing: piece[..<count]))
            }
        }
        append(UInt8(ascii: "\""))
    }

    @inline(__always)
    private static func escape(
        _ byte: UInt8, _ asBytes: Bool, into piece: UnsafeMutableBufferPointer<UInt8>, _ count: inout Int
    ) {
        func put(_ character: UInt8) {
            unsafe piece[count] = character
            count &+= 1
        }
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"):
            put(UInt8(ascii: "\\"))
            put(byte)
        case 0x80...0xff where asBytes:
            put(0xc0 | byte &>> 6)
            put(0x80 | byte & 0x3f)
        case 0x20...0xff:
            put(byte)
        case 0x09, 0x0a, 0x0d:
            put(UInt8(ascii: "\\"))
            put(byte == 0x09 ? UInt8(ascii: "t") : byte == 0x0a ? UInt8(ascii: "n") : UInt8(ascii: "r"))
        default:
            for character in "\\u00".utf8 { put(character) }
            put(hexDigit(byte &>> 4))
            put(hexDigit(byte & 0xf))
        }
    }

    private static func hexDigit(_ nibble: UInt8) -> UInt8 {
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

extension String {
    /// At most so many bytes of UTF-8, cut between characters.
    func cut(_ bytesMax: Int) -> String {
        guard utf8.count > bytesMax else { return self }
        var bytes = 0
        let end = unicodeScalars.firstIndex {
            bytes &+= UTF8.width($0)
            return bytes > bytesMax
        }
        return String(self[..<(end ?? endIndex)])
    }
}
