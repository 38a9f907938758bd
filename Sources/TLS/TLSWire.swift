// Where OpenSSL meets the socket. It reads and writes records one at a time, 5 bytes and then some; the kernel wants to be
// asked for a lot at once. Between the two is the worker's memory, and a BIO of our own that only copies.

import COpenSSL
import Glibc
import Linux
import SystemPackage

/// A worker's memory for ciphertext, which its sessions use one after the other. It must outlive them.
public struct TLSWire: ~Copyable {
    /// What one receive brings at most.
    static let incomingBytes = 262_144
    /// What one send takes at most: the records of `writeBytesMax` with what each of them adds, and a few alerts.
    static let outgoingBytes = 163_840
    /// Plaintext that is encrypted before the socket is asked: what a client that reads nothing makes us keep.
    static let writeBytesMax = 131_072

    struct Memory {
        let incoming: UnsafeMutableRawPointer
        let outgoing: UnsafeMutableRawPointer
        /// Bytes of `outgoing` that belong to the session at work.
        var outgoingCount = 0
    }

    let memory: UnsafeMutablePointer<Memory>

    /// Memory that the kernel backs when it is first used.
    public init() {
        memory = .allocate(capacity: 1)
        memory.initialize(
            to: Memory(
                incoming: .allocate(byteCount: Self.incomingBytes, alignment: 4096),
                outgoing: .allocate(byteCount: Self.outgoingBytes, alignment: 4096)))
    }

    deinit {
        memory.pointee.incoming.deallocate()
        memory.pointee.outgoing.deallocate()
        memory.deallocate()
    }
}

/// One session's end of the wire: its socket, and ciphertext that had to wait.
struct WireEnd {
    let socket: Int32
    let wire: UnsafeMutablePointer<TLSWire.Memory>
    /// What was received and OpenSSL has not taken: in the worker's memory during a call, in memory of its own between calls.
    private var input: UnsafeMutableRawPointer?
    private var inputStart = 0
    private var inputEnd = 0
    private var ownsInput = false
    /// What the socket has not taken.
    private var pending: UnsafeMutableRawPointer?
    private var pendingStart = 0
    private var pendingEnd = 0
    private var pendingCapacity = 0
    /// How much the one receive of this call asks for; 0 once it has been.
    var receiveBytes = 0
    /// The kernel has given all it had.
    var isDrained = true
    /// The kernel has reported an end or an error: a short receive is not the last word.
    var peerEnded = false
    /// The end of the stream has been read.
    private(set) var hasEnded = false
    private(set) var receiveError: Errno?
    /// The socket takes nothing any more. What came before can still be read.
    private(set) var sendError: Errno?
    /// Ciphertext that the socket has taken.
    private(set) var sentBytes: UInt64 = 0

    // What the session itself has to remember.
    var failure: TLSFailure?
    /// close_notify has been written.
    var hasSaidEnd = false
    /// close_notify is to be written as soon as OpenSSL can.
    var owesEnd = false
    /// OpenSSL writes nothing before it has read the rest of a message.
    var waitsForInput = false
    /// The handshake is done.
    var isSound = false

    init(socket: Int32, wire: UnsafeMutablePointer<TLSWire.Memory>) {
        self.socket = socket
        self.wire = wire
    }

    var holdsInput: Bool { inputStart < inputEnd }
    /// Whether the next read of this call may bring bytes or the end of the stream.
    var mayGive: Bool { holdsInput || hasEnded || receiveBytes > 0 && !isDrained && receiveError == nil }
    /// Memory of its own.
    var keptBytes: Int { (ownsInput ? inputEnd : 0) + pendingCapacity }
    /// How much ciphertext the socket has not taken yet.
    var pendingCount: Int { pendingEnd - pendingStart }

    func free() {
        if ownsInput { input?.deallocate() }
        pending?.deallocate()
    }

    // MARK: - From the socket

    enum Reading {
        case bytes(Int)
        case nothing, end
    }

    /// Gives OpenSSL what it asks for, from what is there or from the socket.
    mutating func read(into buffer: UnsafeMutableRawPointer, _ wanted: Int) -> Reading {
        if !holdsInput {
            dropInput()
            if hasEnded { return .end }
            guard mayGive else { return .nothing }
            receive()
            guard holdsInput, input != nil else { return hasEnded ? .end : .nothing }
        }
        guard let input else { return .nothing }
        let count = min(wanted, inputEnd - inputStart)
        buffer.copyMemory(from: input + inputStart, byteCount: count)
        inputStart += count
        return .bytes(count)
    }

    private mutating func receive() {
        let count = min(receiveBytes, TLSWire.incomingBytes)
        receiveBytes = 0
        let memory = wire.pointee.incoming
        do throws(Errno) {
            switch try Socket.receive(socket, into: memory, count: count) {
            case .moved(let moved):
                (input, inputStart, inputEnd, ownsInput) = (memory, 0, moved, false)
                if moved < count, !peerEnded { isDrained = true }
            case .wouldBlock: isDrained = true
            case .endOfStream: hasEnded = true
            }
        } catch {
            receiveError = error
        }
    }

    /// The worker's memory is another session's next: what OpenSSL has not taken moves out of it. That is rare, since as
    /// much is received as is wanted, and OpenSSL keeps the record it has begun.
    mutating func keepInput() {
        guard holdsInput, let input else { return dropInput() }
        guard !ownsInput else { return }
        let count = inputEnd - inputStart
        let own = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 16)
        own.copyMemory(from: input + inputStart, byteCount: count)
        (self.input, inputStart, inputEnd, ownsInput) = (own, 0, count, true)
    }

    private mutating func dropInput() {
        if ownsInput { input?.deallocate() }
        (input, inputStart, inputEnd, ownsInput) = (nil, 0, 0, false)
    }

    // MARK: - To the socket

    /// Takes a record from OpenSSL. A socket that takes nothing any more is no reason not to read on.
    mutating func write(_ bytes: UnsafeRawPointer, _ count: Int) {
        guard sendError == nil else { return }
        if wire.pointee.outgoingCount + count > TLSWire.outgoingBytes { send() }
        guard count <= TLSWire.outgoingBytes else { return keep(bytes, count) }
        (wire.pointee.outgoing + wire.pointee.outgoingCount).copyMemory(from: bytes, byteCount: count)
        wire.pointee.outgoingCount += count
    }

    /// Whether OpenSSL may write more: a peer that asks for answers and reads none is not served for ever.
    var hasRoom: Bool { pendingCount + wire.pointee.outgoingCount < TLSWire.outgoingBytes }

    /// Sends what OpenSSL has written in this call, after what waits already. What the socket does not take is kept: it has
    /// always been asked, and says when it takes more.
    mutating func send() {
        let count = wire.pointee.outgoingCount
        guard count > 0 else { return }
        wire.pointee.outgoingCount = 0
        let sent = sendPending() ? send(wire.pointee.outgoing, count) : 0
        if sent < count, sendError == nil { keep(wire.pointee.outgoing + sent, count - sent) }
    }

    /// Sends what was kept. True when nothing of it is left.
    mutating func sendPending() -> Bool {
        guard pendingCount > 0, let pending else { return true }
        pendingStart += send(pending + pendingStart, pendingCount)
        guard pendingCount == 0 || sendError != nil else { return false }
        pending.deallocate()
        (self.pending, pendingStart, pendingEnd, pendingCapacity) = (nil, 0, 0, 0)
        return true
    }

    private mutating func send(_ bytes: UnsafeRawPointer, _ count: Int) -> Int {
        guard sendError == nil else { return 0 }
        do throws(Errno) {
            if case .moved(let moved) = try Socket.send(socket, from: bytes, count: count) {
                sentBytes &+= UInt64(moved)
                return moved
            }
        } catch {
            sendError = error
        }
        return 0
    }

    private mutating func keep(_ bytes: UnsafeRawPointer, _ count: Int) {
        if pendingEnd + count > pendingCapacity {
            // Doubling what waits, so that many small answers cost no more than a large one.
            let needed = pendingCount + count
            let capacity = pendingCount == 0 ? needed : max(needed, min(2 * pendingCount, TLSWire.outgoingBytes))
            let larger = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 16)
            if let pending {
                larger.copyMemory(from: pending + pendingStart, byteCount: pendingCount)
                pending.deallocate()
            }
            (pendingStart, pendingEnd) = (0, pendingCount)
            pendingCapacity = capacity
            pending = larger
        }
        guard let pending else { return }
        (pending + pendingEnd).copyMemory(from: bytes, byteCount: count)
        pendingEnd += count
    }
}

/// The BIO that makes OpenSSL use a `WireEnd` (BIO_meth_new(3)).
enum WireMethod {
    /// Nil only when there is no memory at program start. Never changed after it is made.
    nonisolated(unsafe) static let method: OpaquePointer? = make()

    private static func make() -> OpaquePointer? {
        guard let method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire") else { return nil }
        BIO_meth_set_read(method) { bio, buffer, count in
            guard let bio, let buffer, let end = WireMethod.end(bio) else { return -1 }
            tp_BIO_clear_retry(bio)
            switch end.pointee.read(into: buffer, Int(count)) {
            case .bytes(let moved): return Int32(truncatingIfNeeded: moved)
            case .nothing:
                if end.pointee.receiveError == nil { tp_BIO_set_retry_read(bio) }
                return -1
            case .end: return 0
            }
        }
        BIO_meth_set_write(method) { bio, buffer, count in
            guard let bio, let buffer, let end = WireMethod.end(bio), count > 0 else { return -1 }
            tp_BIO_clear_retry(bio)
            guard end.pointee.hasRoom else { return -1 }
            end.pointee.write(buffer, Int(count))
            return count
        }
        BIO_meth_set_ctrl(method) { bio, command, _, _ in
            switch command {
            case BIO_CTRL_FLUSH: return 1
            case BIO_CTRL_EOF:
                guard let bio, let end = WireMethod.end(bio) else { return 1 }
                return end.pointee.hasEnded && !end.pointee.holdsInput ? 1 : 0
            default: return 0
            }
        }
        return method
    }

    private static func end(_ bio: OpaquePointer) -> UnsafeMutablePointer<WireEnd>? {
        BIO_get_data(bio)?.assumingMemoryBound(to: WireEnd.self)
    }

    /// A BIO for a session, which frees it; `end` must outlive it.
    static func bio(_ end: UnsafeMutablePointer<WireEnd>) -> OpaquePointer? {
        guard let method, let bio = BIO_new(method) else { return nil }
        BIO_set_data(bio, end)
        BIO_set_init(bio, 1)
        return bio
    }
}
