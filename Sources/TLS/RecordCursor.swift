// Reading a handshake message that lies in several records as if it lay in one piece, without copying it.

/// A place in the payload of TLS records, all of which have been found whole before. Passing from one record to the next
/// skips the header in between (RFC 8446 5.1).
struct RecordCursor: Equatable, Sendable {
    static let headerBytes = 5

    /// Where the next byte is, if its record has one left.
    private var index: Int
    private var recordEnd: Int

    /// The first byte of the first record.
    static let start = RecordCursor(index: 0, recordEnd: 0)

    /// The next byte; nil at the end of what is there.
    @inline(__always)
    mutating func next(in bytes: Span<UInt8>) -> UInt8? {
        if index == recordEnd, !enterRecord(in: bytes) { return nil }
        guard index < bytes.count else { return nil }
        defer { index &+= 1 }
        return bytes[index]
    }

    /// Passes so many bytes; false when there are fewer.
    mutating func skip(_ count: Int, in bytes: Span<UInt8>) -> Bool {
        var left = count
        while left > recordEnd &- index {
            left &-= recordEnd &- index
            index = recordEnd
            guard enterRecord(in: bytes) else { return false }
        }
        index &+= left
        return true
    }

    private mutating func enterRecord(in bytes: Span<UInt8>) -> Bool {
        guard let length = bytes.recordLength(at: recordEnd) else { return false }
        index = recordEnd &+ Self.headerBytes
        recordEnd = index &+ length
        return true
    }
}

extension Span where Element == UInt8 {
    /// The length in the record header at a place; nil when the header is not all there.
    @inline(__always)
    func recordLength(at place: Int) -> Int? {
        guard place &+ RecordCursor.headerBytes <= count else { return nil }
        return Int(self[place &+ 3]) &<< 8 | Int(self[place &+ 4])
    }
}

/// A piece of the message with a known length: a vector, in the words of RFC 8446 3.4.
struct Piece: Equatable, Sendable {
    private var cursor: RecordCursor
    private(set) var count: Int

    init(_ cursor: RecordCursor, count: Int) {
        self.cursor = cursor
        self.count = count
    }

    /// Takes the next byte; nil at the end.
    @inline(__always)
    mutating func takeByte(in bytes: Span<UInt8>) -> UInt8? {
        guard count > 0 else { return nil }
        count &-= 1
        return cursor.next(in: bytes)
    }

    /// Takes a number of two bytes.
    @inline(__always)
    mutating func takeNumber(in bytes: Span<UInt8>) -> Int? {
        guard let high = takeByte(in: bytes), let low = takeByte(in: bytes) else { return nil }
        return Int(high) &<< 8 | Int(low)
    }

    /// Takes so many bytes as a piece of their own.
    mutating func take(_ length: Int, in bytes: Span<UInt8>) -> Piece? {
        guard length <= count else { return nil }
        let piece = Piece(cursor, count: length)
        guard cursor.skip(length, in: bytes) else { return nil }
        count &-= length
        return piece
    }

    /// Takes a vector whose length is written before it in one byte.
    mutating func takeShort(in bytes: Span<UInt8>) -> Piece? {
        guard let length = takeByte(in: bytes) else { return nil }
        return take(Int(length), in: bytes)
    }

    /// Takes a vector whose length is written before it in two bytes.
    mutating func takeLong(in bytes: Span<UInt8>) -> Piece? {
        guard let length = takeNumber(in: bytes) else { return nil }
        return take(length, in: bytes)
    }

    /// Appends all of it.
    func append(to text: inout [UInt8], in bytes: Span<UInt8>) {
        var rest = self
        while let byte = rest.takeByte(in: bytes) { text.append(byte) }
    }
}
