// What connections borrow while bytes are on their way: memory and kernel pipes. One of each per worker.

import Config
import Glibc
import Linux
import SystemPackage
import TLS

/// A block of memory that holds the bytes between `start` and `end`. Its owner frees it by dropping it;
/// giving it back to the pool is only faster.
@safe struct Buffer: ~Copyable {
    private(set) var base: UnsafeMutableRawPointer
    private(set) var capacity: Int
    private(set) var start = 0
    private(set) var end = 0

    init(capacity: Int) {
        unsafe base = .allocate(byteCount: max(capacity, 1), alignment: 16)
        self.capacity = max(capacity, 1)
    }

    /// Copies bytes into a block of their size.
    init(_ bytes: UnsafeRawBufferPointer) {
        self.init(capacity: bytes.count)
        unsafe append(bytes)
    }

    deinit { unsafe base.deallocate() }

    var count: Int { end - start }
    var isEmpty: Bool { start == end }
    var freeCount: Int { capacity - end }

    /// The bytes, for the time of a call.
    @inline(__always)
    var bytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(start: base + start, count: count) }

    /// Where the next bytes go.
    @inline(__always)
    var free: UnsafeMutableRawPointer { unsafe base + end }

    /// `count` bytes have been written to `free`.
    @inline(__always)
    mutating func filled(_ count: Int) {
        precondition(count <= freeCount, "no more than fits can have been written")
        end += count
    }

    /// The first `count` bytes are done with.
    @inline(__always)
    mutating func drop(_ count: Int) {
        precondition(count <= self.count, "no more than there is can be dropped")
        start += count
        if start == end { (start, end) = (0, 0) }
    }

    /// Adds bytes, growing when they do not fit: the caller bounds the total.
    mutating func append(_ more: UnsafeRawBufferPointer) {
        guard let source = more.baseAddress, more.count > 0 else { return }
        if more.count > freeCount {
            // Doubling, so that a client that sends byte by byte costs no more than one that does not.
            let wanted = max(count + more.count, min(2 * capacity, 1 << 20))
            let larger = UnsafeMutableRawPointer.allocate(byteCount: wanted, alignment: 16)
            unsafe larger.copyMemory(from: base + start, byteCount: count)
            unsafe base.deallocate()
            unsafe base = larger
            (end, start, capacity) = (count, 0, wanted)
        }
        unsafe (base + end).copyMemory(from: source, byteCount: more.count)
        end += more.count
    }
}

/// Scratch memory and pipes of one worker, lent only while they hold bytes.
@safe struct Pools: ~Copyable {
    /// One message's worth: what a first read takes. A read that fills it is the mark of a large flow.
    static let messageBytes = 16_384
    /// What a large flow reads when there is no pipe for it. A blocked target costs at most this.
    static let largeBytes = 65_536
    /// What a large flow reads when its bytes cannot be spliced, or should not: with TLS, what is encrypted in one go.
    static let copiedBytes = 131_072

    /// Memory for bytes that are looked at and copied on at once: never kept over an event.
    let scratch: UnsafeMutableRawBufferPointer
    /// Memory for ciphertext, backed by the kernel only where TLS is spoken.
    let wire = TLSWire()

    private var idlePipes: [(read: Int32, write: Int32)] = []
    private let lent = LentCount()
    /// Pipes that are lent now.
    var pipesLent: Int { lent.count }
    /// Pipes that exist, lent or idle.
    private var pipeCount: Int { lent.count + idlePipes.count }
    /// Set when the kernel gave a pipe too small to be worth it: flows copy from then on.
    private var pipesAreScarce = false
    private let pipesMax: Int

    /// `pipesMax` is the number of pipes this worker may ever hold (two descriptors each).
    init(pipesMax: Int) {
        self.pipesMax = pipesMax
        unsafe scratch = .allocate(byteCount: Limits.bufferBytes, alignment: 4096)
        idlePipes.reserveCapacity(pipesMax)
    }

    deinit {
        unsafe scratch.deallocate()
        for pipe in idlePipes {
            close(pipe.read)
            close(pipe.write)
        }
    }

    /// A pipe for one flow; nil when the reserve is lent out or the kernel gives none worth having: the flow copies.
    mutating func lendPipe() -> LentPipe? {
        if let pipe = idlePipes.popLast() { return LentPipe(read: pipe.read, write: pipe.write, lent) }
        guard pipeCount < pipesMax, !pipesAreScarce else { return nil }
        do throws(Errno) {
            let pipe = try Pipe(wantedSize: Limits.pipeBytes)
            guard pipe.size >= Limits.pipeBytesUseful else {
                pipesAreScarce = pipeCount == 0
                return nil
            }
            let ends = pipe.release()
            return LentPipe(read: ends.read, write: ends.write, lent)
        } catch {
            return nil
        }
    }

    /// Takes a pipe back. One that still holds bytes is closed: they belong to nobody now.
    mutating func giveBack(_ pipe: consuming LentPipe) {
        if pipe.count > 0 { return }
        idlePipes.append(pipe.release())
    }
}

/// How many pipes are lent: a connection drops its pipe without a word to the pools.
private final class LentCount {
    var count = 0
}

/// Counts for as long as it lives.
private struct Loan: ~Copyable {
    private let lent: LentCount
    init(_ lent: LentCount) {
        self.lent = lent
        lent.count += 1
    }
    deinit { lent.count -= 1 }
}

/// A pipe on loan, and how many bytes are in it.
struct LentPipe: ~Copyable {
    private let readEnd: Descriptor
    private let writeEnd: Descriptor
    private let loan: Loan
    var count = 0

    fileprivate init(read: Int32, write: Int32, _ lent: LentCount) {
        readEnd = Descriptor(owning: read)
        writeEnd = Descriptor(owning: write)
        loan = Loan(lent)
    }

    var read: Int32 { readEnd.raw }
    var write: Int32 { writeEnd.raw }

    consuming func release() -> (read: Int32, write: Int32) {
        (readEnd.release(), writeEnd.release())
    }
}

/// Bytes that may not be there at all: most connections never need the memory.
extension Optional where Wrapped == Buffer {
    var count: Int {
        switch self {
        case .some(let buffer): buffer.count
        case .none: 0
        }
    }

    /// The first byte, if there is one.
    var first: UInt8? {
        switch self {
        case .some(let buffer): unsafe buffer.bytes.first
        case .none: nil
        }
    }

    /// Adds another buffer's bytes, if there are any; an empty one becomes the other.
    mutating func append(_ more: consuming Buffer?) {
        guard let more else { return }
        if self.count == 0 {
            self = consume more
        } else {
            unsafe append(more.bytes)
        }
    }

    /// Adds bytes, if there are any.
    mutating func append(_ more: UnsafeRawBufferPointer) {
        guard more.count > 0 else { return }
        if var buffer = self.take() {
            unsafe buffer.append(more)
            self = consume buffer
        } else {
            self = unsafe Buffer(more)
        }
    }

    /// The same for an array.
    mutating func append(_ bytes: [UInt8]) {
        unsafe bytes.withUnsafeBytes { unsafe append($0) }
    }
}
