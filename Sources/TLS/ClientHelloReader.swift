// Finds the ClientHello in the bytes of a client, however they arrive: over segments, and over several records, as the
// hellos of post-quantum key exchange do.

/// Reads the beginning of a connection. Give it all initial bytes again whenever there are more: it goes on where it was, so
/// that a client which sends byte by byte costs no more than its bytes.
public struct ClientHelloReader: Sendable {
    public enum State: String, CaseIterable, Sendable {
        /// So far it may become a ClientHello.
        case needMore = "need_more"
        case complete
        /// Another protocol, told by the first byte or the first two.
        case notTLS = "not_tls"
        /// It began as TLS and is no ClientHello.
        case malformed
        /// It would not fit into the bytes that are gathered before a verdict.
        case tooLarge = "too_large"
    }

    /// The first byte of a record that carries a handshake (RFC 8446 5.1): with another one there is nothing to read.
    public static let firstByte: UInt8 = 22

    public private(set) var state = State.needMore
    /// There when the state is complete.
    public private(set) var hello: ClientHello?

    private let bytesMax: Int
    /// Where the header of the first record is that has not come whole.
    private var recordStart = 0
    /// Bytes of the message in the records before that one.
    private var gathered = 0
    /// The length of the message with its own header; 0 until that has come.
    private var messageBytes = 0

    /// Longest payload of a record that is not encrypted (RFC 8446 5.1).
    private static let payloadBytesMax = 1 << 14
    /// A type and a length of three bytes (RFC 8446 4).
    private static let messageHeaderBytes = 4

    /// `bytesMax`: how many bytes can be gathered at most.
    public init(bytesMax: Int) { self.bytesMax = bytesMax }

    /// Reads on. `bytes` are those of the last time and perhaps more.
    public mutating func read(_ bytes: Span<UInt8>) -> State {
        while state == .needMore, readRecord(bytes) {}
        if state == .needMore, bytes.count >= bytesMax { state = .tooLarge }
        return state
    }

    /// Reads the record at `recordStart`; true when it was whole and the next one is to be looked at.
    private mutating func readRecord(_ bytes: Span<UInt8>) -> Bool {
        let wrong = recordStart == 0 ? State.notTLS : .malformed
        guard recordStart < bytes.count else { return false }
        guard bytes[recordStart] == Self.firstByte else { return fail(wrong) }
        guard recordStart &+ 1 < bytes.count else { return false }
        // The minor number says nothing (RFC 8446 5.1), the major one is that of SSL 3 and all of TLS.
        guard bytes[recordStart &+ 1] == 3 else { return fail(wrong) }
        guard let length = bytes.recordLength(at: recordStart) else { return false }
        guard (1...Self.payloadBytesMax).contains(length) else { return fail(.malformed) }
        let payload = recordStart &+ RecordCursor.headerBytes
        let here = min(length, bytes.count &- payload)
        guard readMessageHeader(bytes, count: gathered &+ here) else { return fail(.malformed) }
        if messageBytes > 0 {
            guard gathered &+ here < messageBytes else {
                finish(bytes)
                return false
            }
            // At the least, if no further header comes in between.
            guard payload &+ messageBytes &- gathered <= bytesMax else { return fail(.tooLarge) }
        }
        guard here == length else { return false }
        recordStart = payload &+ length
        gathered &+= length
        return true
    }

    private mutating func fail(_ state: State) -> Bool {
        self.state = state
        return false
    }

    /// Learns the message's length once that has come. `count`: bytes of the message that are there. False when it is
    /// not a ClientHello.
    private mutating func readMessageHeader(_ bytes: Span<UInt8>, count: Int) -> Bool {
        guard messageBytes == 0, count > 0 else { return true }
        var header = Piece(.start, count: min(count, Self.messageHeaderBytes))
        guard header.takeByte(in: bytes) == 1 else { return false }
        guard header.count == Self.messageHeaderBytes - 1, let high = header.takeByte(in: bytes),
            let low = header.takeNumber(in: bytes)
        else { return true }
        messageBytes = (Int(high) &<< 16 | low) &+ Self.messageHeaderBytes
        return true
    }

    private mutating func finish(_ bytes: Span<UInt8>) {
        var message = Piece(.start, count: messageBytes)
        _ = message.take(Self.messageHeaderBytes, in: bytes)
        hello = ClientHello(message, in: bytes)
        state = hello == nil ? .malformed : .complete
    }
}
