// The scoreboard: shared memory in which every worker keeps its numbers, for the arbiter's watchdog and for whoever
// asks. Written without locks or messages: each field has one writer, and a 64-bit load or store cannot be torn.
//
//     header (one slot's size)   magic, layout version, slot size, slot count, the arbiter's counters
//     slot 0, slot 1, …          one 64-bit number per `Field`, then the latency buckets; padded to 128 bytes
//
// Readers check magic, version and sizes, so the layout may change with the version. A new field is one line.

import Config
public import Linux
public import Synchronization
public import SystemPackage

/// A number in a worker's slot. All are written by the worker but the first three.
@frozen
public enum Field: Int, CaseIterable, Sendable {
    // Who it is: written by the arbiter before the worker starts (the pid right after).
    /// The worker's serial; 0 when the slot is free.
    case serial
    case pid
    /// The generation of its router; raised by each reload.
    case generation

    /// When its loop last came around: CLOCK_MONOTONIC in nanoseconds. The arbiter sets it when it starts the worker.
    case heartbeat
    /// A `WorkerState`.
    case state

    // Gauges: what is there now.
    case connections
    /// Asked, and not answered yet.
    case openQuestions
    /// Held back because the router has as many as it takes.
    case waitingQuestions
    /// Verdicts that are kept for further connections.
    case cacheEntries
    /// Pipes in the hands of flows.
    case pipesLent

    // Counters: they only grow.
    case accepted
    case closed
    case bytesToRemote
    case bytesToClient
    /// Questions sent, replays included.
    case questions
    case answers
    /// Questions put to a replacement because their router had gone.
    case replays
    case routerRestarts
    /// Reloads after which an old router went on, because the new one did not come up or died at once.
    case reloadsFailed
    /// Answers to questions that were over.
    case lateAnswers
    /// Connections that went by a kept verdict, and look-ups in vain.
    case cacheHits
    case cacheMisses
    /// Verdicts refused for what they said.
    case badVerdicts
    /// JSON-RPC errors in place of a verdict.
    case routerErrors
    /// Questions that routers died of.
    case poisonousQuestions
    /// Questions for the canary, and those that the main router had to answer in its place.
    case canaryQuestions
    case canaryFailures
    /// Questions copied to the shadow; those it had no room for, those it did not answer, and answers that differed.
    case shadowQuestions
    case shadowsLeftOut
    case shadowFailures
    case shadowDifferences
    /// Streams that a router was told of, those that no rewriter came for or saw to their end, and dialers turned away.
    case streams
    case streamsFailed
    case streamsRefused
    /// Times accepting stopped for want of descriptors, connections or room for questions.
    case acceptPauses
}

/// A counter of the arbiter, in the header.
public enum ArbiterField: Int, CaseIterable, Sendable {
    /// HUPs after which the old certificates went on, because the new ones could not be used.
    case tlsReloadsFailed
}

/// What a worker is doing, as its slot says it.
@frozen
public enum WorkerState: UInt64, Sendable {
    /// It has been started; its router has not answered `hello` yet.
    case booting = 0
    case serving = 1
    /// It accepts no more and finishes what is open.
    case draining = 2
}

/// One worker's place on the scoreboard. Cheap enough for every event: a load and a store, no lock prefix.
///
/// It points into memory that is never unmapped.
@safe
@frozen
public struct WorkerSlot: @unchecked Sendable {
    @usableFromInline let fields: UnsafeMutablePointer<Atomic<UInt64>>

    init(fields: UnsafeMutablePointer<Atomic<UInt64>>) { unsafe self.fields = unsafe fields }

    /// Only the field's one writer may set it; anybody may read.
    @inlinable
    public subscript(_ field: Field) -> UInt64 {
        get { unsafe fields[field.rawValue].load(ordering: .relaxed) }
        nonmutating set { unsafe fields[field.rawValue].store(newValue, ordering: .relaxed) }
    }

    /// Adds to a counter or gauge.
    @inlinable
    public func add(_ field: Field, _ count: UInt64 = 1) { self[field] = self[field] &+ count }

    /// Takes from a gauge.
    @inlinable
    public func subtract(_ field: Field, _ count: UInt64 = 1) { self[field] = self[field] &- count }

    /// Tells the arbiter that the loop still comes around.
    @inlinable
    public func beat(at now: Instant) { self[.heartbeat] = now.nanoseconds }

    /// The state in words; nil when a newer version wrote one that this one does not know.
    public var state: WorkerState? {
        get { WorkerState(rawValue: self[.state]) }
        nonmutating set { self[.state] = (newValue ?? .booting).rawValue }
    }

    /// Counts one answered question by how long the router took.
    public func addRouterLatency(microseconds: UInt64) {
        let index = Scoreboard.firstBucket + Self.bucket(microseconds: microseconds)
        unsafe fields[index].store(fields[index].load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    }

    /// How many answers took less than 2^n microseconds and not less than half of it, for each bucket n; the last one
    /// holds everything longer.
    public var routerLatencies: [UInt64] {
        (0..<Scoreboard.bucketCount).map {
            unsafe fields[Scoreboard.firstBucket + $0].load(ordering: .relaxed)
        }
    }

    /// The bucket of a duration: 0 holds 0, 1 holds 1, 2 holds 2 and 3, n holds 2^(n-1) up to 2^n - 1.
    static func bucket(microseconds: UInt64) -> Int {
        min(UInt64.bitWidth - microseconds.leadingZeroBitCount, Scoreboard.bucketCount - 1)
    }
}

/// All workers' slots. Made by the arbiter, mapped by its workers from the descriptor they inherit.
@safe
public struct Scoreboard: @unchecked Sendable {
    /// "tproxysb" read as a little-endian number.
    static let magic: UInt64 = 0x6273_7978_6f72_7074
    /// Raised whenever the meaning or place of anything in the segment changes.
    static let layoutVersion: UInt64 = 1
    /// Power-of-two microseconds: the last one begins at half a minute.
    static let bucketCount = 26
    static let firstBucket = Field.allCases.count
    /// Slots do not share cache lines, nor the pairs of lines that processors fetch together.
    static let slotBytes = ((firstBucket + bucketCount) * 8 + 127) / 128 * 128
    /// Pages that nobody writes cost nothing, so there is room for old generations that drain for hours.
    public static let slotCount = 2 * Limits.workersMax

    private let base: UnsafeMutableRawPointer
    public let count: Int

    /// Why a segment is not a scoreboard of ours.
    public enum Failure: Error, Equatable, CustomStringConvertible {
        case system(Errno)
        case notAScoreboard
        case otherLayout(version: UInt64)

        public var description: String {
            switch self {
            case .system(let error): "the scoreboard cannot be mapped: \(error)"
            case .notAScoreboard: "the inherited descriptor is no scoreboard"
            case .otherLayout(let version): "the scoreboard has layout \(version), not \(Scoreboard.layoutVersion)"
            }
        }
    }

    /// A segment for a new scoreboard, which `init(mapping:)` then reads.
    public static func create() throws(Failure) -> Descriptor {
        do throws(Errno) {
            let descriptor = try SharedMemory.create(name: "tproxy-scoreboard", size: slotBytes * (slotCount + 1))
            let memory = try SharedMemory(mapping: descriptor.raw)
            let header = unsafe memory.base.bindMemory(to: Atomic<UInt64>.self, capacity: 4)
            unsafe header[1].store(layoutVersion, ordering: .relaxed)
            unsafe header[2].store(UInt64(slotBytes), ordering: .relaxed)
            unsafe header[3].store(UInt64(slotCount), ordering: .relaxed)
            unsafe header[0].store(magic, ordering: .releasing)
            return descriptor
        } catch {
            throw .system(error)
        }
    }

    /// Maps a scoreboard for the rest of the process's life.
    public init(mapping descriptor: borrowing Descriptor) throws(Failure) {
        let memory: SharedMemory
        do throws(Errno) {
            memory = try SharedMemory(mapping: descriptor.raw)
        } catch {
            throw .system(error)
        }
        guard memory.size >= Self.slotBytes else { throw .notAScoreboard }
        let header = unsafe memory.base.bindMemory(to: Atomic<UInt64>.self, capacity: 4)
        guard unsafe header[0].load(ordering: .acquiring) == Self.magic else { throw .notAScoreboard }
        let version = unsafe header[1].load(ordering: .relaxed)
        guard version == Self.layoutVersion else { throw .otherLayout(version: version) }
        let count = unsafe header[3].load(ordering: .relaxed)
        guard unsafe header[2].load(ordering: .relaxed) == UInt64(Self.slotBytes),
            count <= UInt64(memory.size / Self.slotBytes - 1)
        else { throw .notAScoreboard }
        unsafe base = memory.base
        self.count = Int(count)
    }

    /// A counter of the arbiter, which alone adds to it.
    public subscript(_ field: ArbiterField) -> UInt64 {
        unsafe arbiterFields[field.rawValue].load(ordering: .relaxed)
    }

    /// Adds one to a counter. For the arbiter.
    public func count(_ field: ArbiterField) {
        unsafe arbiterFields[field.rawValue].store(self[field] &+ 1, ordering: .relaxed)
    }

    /// Behind the four numbers that say what this is; a slot's size is more than enough for all.
    private var arbiterFields: UnsafeMutablePointer<Atomic<UInt64>> {
        let address = unsafe base + 4 * MemoryLayout<UInt64>.size
        return unsafe address.bindMemory(to: Atomic<UInt64>.self, capacity: ArbiterField.allCases.count)
    }

    /// The slot of a number, nil when there is none of that number.
    public func slot(_ index: Int) -> WorkerSlot? {
        guard index >= 0, index < count else { return nil }
        let address = unsafe base + (index + 1) * Self.slotBytes
        let fields = unsafe address.bindMemory(
            to: Atomic<UInt64>.self, capacity: Self.firstBucket + Self.bucketCount)
        return unsafe WorkerSlot(fields: fields)
    }

    /// The first slot without a worker, nil when all are taken. For the arbiter.
    public func freeSlot() -> Int? {
        (0..<count).first { slot($0)?[.serial] == 0 }
    }

    /// Gives a free slot to a worker that is about to be started. For the arbiter.
    public func claim(_ index: Int, serial: UInt64, generation: UInt64, at now: Instant) {
        guard let slot = slot(index) else { return }
        slot.clear()
        slot[.generation] = generation
        slot.beat(at: now)
        slot[.serial] = serial
    }

    /// Frees the slot of a worker that has ended. For the arbiter.
    public func free(_ index: Int) {
        slot(index)?.clear()
    }
}

extension WorkerSlot {
    fileprivate func clear() {
        self[.serial] = 0
        for index in 0..<(Scoreboard.firstBucket + Scoreboard.bucketCount) {
            unsafe fields[index].store(0, ordering: .relaxed)
        }
    }
}
