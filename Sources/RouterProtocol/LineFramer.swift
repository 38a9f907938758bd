// Cuts what a router writes into lines. The socket reads straight into the framer's memory, and a line is lent from there.

/// The lines of one router's socket.
///
/// Every byte is looked at once, however it is cut into reads: the work is proportional to what arrives. Memory grows
/// by doubling while a long line is under way and goes back when all is consumed. After `overflow` nothing more comes: the
/// socket has lost its framing and the router has to be replaced. Where lines are for people, `cutsLongLines` lends the beginning of one
/// that is too long instead.
@safe
public struct LineFramer: ~Copyable {
    /// What there is at the moment.
    public enum Next<Value> {
        case line(Value)
        /// No whole line: read more.
        case incomplete
        /// A line is longer than allowed.
        case overflow
    }

    /// Memory kept while nothing is held: one read's worth, so that a steady flow of short lines never allocates.
    private static let keptBytesMax = 65536

    /// Longest line, without its newline.
    public let lineBytesMax: Int
    private var storage = unsafe UnsafeMutableRawBufferPointer(start: nil, count: 0)
    /// Bytes before `start` are consumed; those from `end` on are free; up to `scanned` there is no newline.
    private var start = 0
    private var scanned = 0
    private var end = 0
    private var hasOverflowed = false
    private let cutsLongLines: Bool
    /// The rest of a line that was cut is under way.
    private var isInRest = false

    public init(lineBytesMax: Int, cutsLongLines: Bool = false) {
        self.lineBytesMax = lineBytesMax
        self.cutsLongLines = cutsLongLines
    }

    deinit { unsafe storage.deallocate() }

    /// Bytes that came and belong to no whole line yet: more than none at the end of the stream is a cut line.
    public var heldBytes: Int { end &- start }

    /// Memory in use, for tests and gauges.
    public private(set) var capacity = 0

    /// Lends free memory to a read. `body` says in its second argument how many bytes it has put there.
    ///
    /// Take all lines before the next read, otherwise memory grows with what is left untaken.
    public mutating func withFreeSpace<Result, Failure: Error>(
        atLeast bytes: Int, _ body: (UnsafeMutableRawBufferPointer, inout Int) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        makeRoom(for: max(bytes, 1))
        let free = unsafe UnsafeMutableRawBufferPointer(rebasing: storage[end...])
        var count = 0
        defer { end &+= min(max(count, 0), capacity &- end) }
        return try unsafe body(free, &count)
    }

    /// Lends the next whole line, without its newline.
    public mutating func next<Value, Failure: Error>(
        _ body: (Span<UInt8>) throws(Failure) -> Value
    ) throws(Failure) -> Next<Value> {
        guard !hasOverflowed else { return .overflow }
        if isInRest { skipRest() }
        findNewline()
        guard scanned &- start <= lineBytesMax else {
            if cutsLongLines {
                let beginning = start..<start &+ lineBytesMax
                start = scanned
                isInRest = true
                return .line(try lend(beginning, body))
            }
            hasOverflowed = true
            release()
            return .overflow
        }
        guard scanned < end else {
            if start == end { empty() }
            return .incomplete
        }
        let line = start..<scanned
        scanned &+= 1
        start = scanned
        return .line(try lend(line, body))
    }

    private mutating func findNewline() {
        while scanned < end, unsafe storage[scanned] != UInt8(ascii: "\n") { scanned &+= 1 }
    }

    private mutating func skipRest() {
        findNewline()
        if scanned < end {
            scanned &+= 1
            isInRest = false
        }
        start = scanned
    }

    private func lend<Value, Failure: Error>(
        _ range: Range<Int>, _ body: (Span<UInt8>) throws(Failure) -> Value
    ) throws(Failure) -> Value {
        let bytes = unsafe UnsafeRawBufferPointer(rebasing: storage[range])
        return try body(unsafe bytes.bytes._unsafeView(as: UInt8.self))
    }

    /// Everything is consumed: begin at the front again, and give big memory back.
    private mutating func empty() {
        if capacity > Self.keptBytesMax {
            release()
        } else {
            (start, scanned, end) = (0, 0, 0)
        }
    }

    private mutating func release() {
        unsafe storage.deallocate()
        unsafe storage = UnsafeMutableRawBufferPointer(start: nil, count: 0)
        capacity = 0
        (start, scanned, end) = (0, 0, 0)
    }

    private mutating func makeRoom(for bytes: Int) {
        guard capacity &- end < bytes else { return }
        let held = heldBytes
        let needed = held &+ bytes
        // Moving costs as much as there is to move: it is paid for by what was consumed, or by doubling.
        if held <= start, needed <= capacity, capacity <= max(4 &* needed, Self.keptBytesMax) {
            if held > 0 {
                unsafe storage.copyMemory(from: UnsafeRawBufferPointer(rebasing: storage[start..<end]))
            }
        } else {
            let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: max(needed, 2 &* held), alignment: 16)
            if held > 0 {
                unsafe larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: storage[start..<end]))
            }
            unsafe storage.deallocate()
            unsafe storage = larger
            capacity = max(needed, 2 &* held)
        }
        scanned &-= start
        end = held
        start = 0
    }
}
