import Linux
import Testing

@testable import Control

@Suite("The scoreboard")
struct ScoreboardTests {
    @Test("what one mapping writes another reads")
    func shared() throws {
        let descriptor = try Scoreboard.create()
        let arbiter = try Scoreboard(mapping: descriptor)
        let worker = try Scoreboard(mapping: descriptor)
        arbiter.claim(3, serial: 12, generation: 2, at: Instant(nanoseconds: 99))
        let slot = try #require(worker.slot(3))
        #expect(slot[.serial] == 12)
        #expect(slot[.heartbeat] == 99)
        #expect(slot.state == .booting)
        slot.add(.accepted)
        slot.add(.accepted, 4)
        slot.add(.connections, 3)
        slot.subtract(.connections)
        slot.state = .serving
        let seen = try #require(arbiter.slot(3))
        #expect(seen[.accepted] == 5)
        #expect(seen[.connections] == 2)
        #expect(seen.state == .serving)
        #expect(arbiter.slot(2)?[.accepted] == 0)
        #expect(arbiter.slot(4)?[.accepted] == 0)
    }

    @Test("the arbiter's counters are in the header, and cost no slot")
    func arbiterCounters() throws {
        let descriptor = try Scoreboard.create()
        let board = try Scoreboard(mapping: descriptor)
        board.count(.tlsReloadsFailed)
        board.count(.tlsReloadsFailed)
        let reader = try Scoreboard(mapping: descriptor)
        #expect(reader[.tlsReloadsFailed] == 2)
        #expect(reader.slot(0)?[.serial] == 0)
    }

    @Test("a slot is free again, and empty, when its worker has ended")
    func slots() throws {
        let board = try Scoreboard(mapping: try Scoreboard.create())
        #expect(board.freeSlot() == 0)
        board.claim(0, serial: 1, generation: 1, at: .now())
        #expect(board.freeSlot() == 1)
        board.slot(0)?.add(.accepted, 9)
        board.slot(0)?.addRouterLatency(microseconds: 3)
        board.free(0)
        #expect(board.freeSlot() == 0)
        #expect(board.slot(0)?[.accepted] == 0)
        #expect(board.slot(0)?.routerLatencies.allSatisfy { $0 == 0 } == true)
        #expect(board.slot(-1) == nil)
        #expect(board.slot(Scoreboard.slotCount) == nil)
        #expect(board.slot(Scoreboard.slotCount - 1) != nil)
    }

    @Test("latencies fall into buckets of powers of two")
    func buckets() throws {
        #expect(WorkerSlot.bucket(microseconds: 0) == 0)
        #expect(WorkerSlot.bucket(microseconds: 1) == 1)
        #expect(WorkerSlot.bucket(microseconds: 2) == 2)
        #expect(WorkerSlot.bucket(microseconds: 3) == 2)
        #expect(WorkerSlot.bucket(microseconds: 4) == 3)
        #expect(WorkerSlot.bucket(microseconds: 1000) == 10)
        #expect(WorkerSlot.bucket(microseconds: .max) == Scoreboard.bucketCount - 1)
        let board = try Scoreboard(mapping: try Scoreboard.create())
        let slot = try #require(board.slot(0))
        slot.addRouterLatency(microseconds: 5)
        slot.addRouterLatency(microseconds: 6)
        #expect(slot.routerLatencies[3] == 2)
        #expect(slot.routerLatencies.reduce(0, +) == 2)
    }

    @Test("slots do not share cache lines, and the fields fit")
    func layout() {
        #expect(Scoreboard.slotBytes % 128 == 0)
        #expect(Scoreboard.slotBytes >= (Field.allCases.count + Scoreboard.bucketCount) * 8)
        #expect(Field.allCases.map(\.rawValue) == Array(0..<Field.allCases.count))
    }

    @Test("a segment that is no scoreboard is refused")
    func refused() throws {
        #expect(throws: Scoreboard.Failure.notAScoreboard) {
            try Scoreboard(mapping: try SharedMemory.create(name: "zeros", size: 65536))
        }
        #expect(throws: Scoreboard.Failure.notAScoreboard) {
            try Scoreboard(mapping: try SharedMemory.create(name: "small", size: 8))
        }
        let other = try Scoreboard.create()
        let memory = try SharedMemory(mapping: other.raw)
        memory.base.storeBytes(of: 2, toByteOffset: 8, as: UInt64.self)
        #expect(throws: Scoreboard.Failure.otherLayout(version: 2)) { try Scoreboard(mapping: other) }
        memory.base.storeBytes(of: 1, toByteOffset: 8, as: UInt64.self)
        memory.base.storeBytes(of: .max, toByteOffset: 24, as: UInt64.self)
        #expect(throws: Scoreboard.Failure.notAScoreboard) { try Scoreboard(mapping: other) }
    }
}
