// A world in which everything happens: workers that boot, hang, die, refuse to leave; signals in bursts; time that runs
// or jumps. After every step the arbiter's promises are checked.

import Config
import Control
import Linux
import Testing

@testable import Supervisor

struct Seeded: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return (state ^ (state >> 29)) &* 0xbf58_476d_1ce4_e5b9
    }
    mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &self) < percent }
}

struct World {
    struct Process {
        var isReady = false
        /// Its loop turns: the heartbeat moves and commands are obeyed.
        var isHung = false
        var generation: UInt64
        /// How many HUPs had come when its router was started.
        var hups: Int
        var heartbeat: Instant
        /// Which certificates and ticket keys it was given last.
        var parcel: Parcel
        var inbox: [Command] = []
    }

    var core: ArbiterCore
    var random: Seeded
    var now: Int64 = 0
    var alive: [Serial: Process] = [:]
    /// Killed or exited, and not reaped yet.
    var dead: [Serial: ExitStatus] = [:]
    var spawned: Set<Serial> = []
    var exit: Int32?
    var isClosed = false
    /// A successor that runs or is to be reaped, and whether its upgrade is still open.
    var successor: (pid: Int32, isDead: Bool)?
    var lastPid: Int32 = 10_000
    var hasHandedOver = false
    var serialsGiven: Serial?
    /// What an action made happen at once.
    var pending: [ArbiterCore.Event] = []
    /// Our pid file is called `.oldbin`.
    var isRenamed = false
    var termAt: Int64?
    var wasEverReady = false
    /// Rounds of HUP that ended, in either way.
    var roundsEnded = 0
    var hasRoundFailed = false
    var hups = 0
    /// Counts what workers are given for TLS.
    struct Parcel: Equatable {
        var certificates = 0
        var ticketKeys = 0
    }
    var parcel = Parcel()
    var ticketKeysMade: [Int64] = []
    let hasTLS: Bool
    let wanted: Int
    let graceful: Int
    var trouble: Int

    init(seed: UInt64) {
        random = Seeded(state: seed)
        wanted = Int.random(in: 1...4, using: &random)
        graceful = [0, 100, 10_000].randomElement(using: &random) ?? 0
        trouble = [0, 5, 30].randomElement(using: &random) ?? 0
        hasTLS = random.chance(50)
        var settings = settings(workers: wanted, timeout: 4000, graceful: graceful)
        if hasTLS { settings.tls = TLSSettings(certificateFiles: ["x"]) }
        core = ArbiterCore(settings: settings)
    }

    mutating func happen(_ event: ArbiterCore.Event) {
        if case .signal(let signal) = event, signal == .terminate || signal == .interrupt { termAt = termAt ?? now }
        if case .report(_, .ready) = event { wasEverReady = true }
        let wasRunning = core.phase == .running
        if event == .signal(.hangUp), wasRunning { hups += 1 }
        for action in core.handle(event, at: at(now)) { perform(action, wasRunning: wasRunning) }
        while !pending.isEmpty { happen(pending.removeFirst()) }
        let counted = core.workers.filter { $0.stage != .leaving }.count
        #expect(counted <= core.wanted, "more workers than wanted")
        if core.phase == .running, !core.isReloading, !hasRoundFailed {
            for worker in core.workers where worker.stage != .leaving {
                #expect(alive[worker.serial].map { $0.hups == hups } ?? true, "a worker kept its old router")
            }
        }
        for worker in core.workers where worker.stage != .leaving {
            #expect(alive[worker.serial].map { $0.parcel == parcel } ?? true, "a worker has old certificates")
        }
        #expect(exit != nil || Set(core.workers.map(\.serial)) == Set(alive.keys).union(dead.keys), "a worker was lost")
    }

    mutating func perform(_ action: ArbiterCore.Action, wasRunning: Bool) {
        #expect(exit == nil, "something was done after the exit")
        switch action {
        case .spawn(let serial, let generation):
            #expect(wasRunning && !isClosed, "a worker was started while stopping")
            #expect(spawned.insert(serial).inserted, "a serial was used twice")
            if let serialsGiven {
                #expect(serial.number > serialsGiven.number + 1000, "a serial was used that is a successor's")
            }
            alive[serial] = Process(generation: generation, hups: hups, heartbeat: at(now), parcel: parcel)
        case .tell(let serial, let command):
            #expect(alive[serial] != nil || dead[serial] != nil, "a stranger was told something")
            alive[serial]?.inbox.append(command)
            if command == .renewTLS { alive[serial]?.parcel = parcel }
            if command == .renewTicketKeys { alive[serial]?.parcel.ticketKeys = parcel.ticketKeys }
        case .kill(let serial):
            #expect(alive[serial] != nil || dead[serial] != nil, "a stranger was killed")
            if alive.removeValue(forKey: serial) != nil { dead[serial] = .signaled(9, coreDumped: false) }
        case .closeListeners:
            #expect(!isClosed, "the listeners were closed twice")
            isClosed = true
        case .say(.reloading): hasRoundFailed = false
        case .say(.reloaded): roundsEnded += 1
        case .say(.reloadFailed):
            roundsEnded += 1
            hasRoundFailed = true
        case .spawnSuccessor(_, let lastSerial):
            #expect(!isClosed && !isRenamed && core.phase == .running, "an upgrade while one was open")
            #expect(spawned.allSatisfy { $0 <= lastSerial }, "a successor was given a serial that is ours")
            serialsGiven = lastSerial
            if random.chance(20) {
                pending.append(.successorFailed("no such file"))
            } else {
                lastPid += 1
                successor = (lastPid, false)
                pending.append(.successorSpawned(pid: lastPid))
            }
            isRenamed = true
        case .takeBack:
            #expect(isRenamed && !hasHandedOver, "a name was taken back that was not given")
            isRenamed = false
        case .passOn(let line, let speaker):
            #expect(speaker != .origin && line == "order", "something is passed on that nobody said")
        case .handOver:
            #expect(isRenamed && !isClosed && !hasHandedOver, "handed over what was not given")
            hasHandedOver = true
        case .reloadTLS:
            #expect(hasTLS, "certificates without TLS")
            switch Int.random(in: 0..<3, using: &random) {
            case 0: pending.append(.tlsReloadFailed("x"))
            case 1:
                parcel.certificates += 1
                pending.append(.tlsReloaded)
            default: break
            }
        case .renewTicketKey:
            #expect(hasTLS, "a ticket key without TLS")
            if let last = ticketKeysMade.last {
                #expect(now - last >= Int64(Limits.ticketKeyMilliseconds), "ticket keys come too often")
            }
            ticketKeysMade.append(now)
            parcel.ticketKeys += 1
            pending.append(.ticketKeyRenewed)
        case .reopenLogs, .say: break
        case .exit(let status):
            exit = status
            #expect(isClosed)
            if case .killing = core.phase {
            } else if !alive.isEmpty, let termAt {
                #expect(now >= termAt + Int64(graceful) + 4000, "a worker was left behind")
            }
            #expect(status == 0 || (status == 3 && !wasEverReady), "a wrong exit status")
        }
    }

    /// One random worker does something.
    mutating func workerActs() {
        guard let serial = alive.keys.sorted().randomElement(using: &random), var process = alive[serial] else {
            return
        }
        guard !process.isHung else { return }
        process.heartbeat = at(now)
        var events: [ArbiterCore.Event] = []
        if random.chance(trouble) {
            switch Int.random(in: 0..<4, using: &random) {
            case 0: process.isHung = true
            case 1:
                alive[serial] = nil
                dead[serial] = .signaled(11, coreDumped: false)
                return
            case 2 where process.isReady: events.append(.report(serial, .draining))
            default: break
            }
        } else if let command = process.inbox.first {
            process.inbox.removeFirst()
            switch command {
            case .drain where random.chance(30), .drainLast where random.chance(30):
                // It has a connection that takes its time.
                process.inbox.insert(command, at: 0)
            case .drain, .drainLast, .stop:
                alive[serial] = nil
                dead[serial] = .exited(0)
                return
            case .reload(let generation):
                if random.chance(trouble) {
                    events.append(.report(serial, .reloadFailed("x")))
                } else {
                    process.generation = generation
                    process.hups = hups
                    events.append(.report(serial, .reloaded))
                }
            case .reopenLogs: events.append(.report(serial, .logsReopened))
            case .renewTLS, .renewTicketKeys:
                events.append(.report(serial, random.chance(trouble) ? .tlsNotRenewed("x") : .tlsRenewed))
            case .shareListeners, .told: break
            }
        } else if !process.isReady {
            if random.chance(trouble) {
                alive[serial] = nil
                dead[serial] = .exited(3)
                happen(.report(serial, .bootFailed("x")))
                return
            }
            process.isReady = true
            events.append(.report(serial, .ready))
        }
        alive[serial] = process
        for event in events { happen(event) }
    }

    /// The successor does something, or somebody to it.
    mutating func successorActs() {
        guard let (pid, isDead) = successor else { return }
        if isDead {
            successor = nil
            happen(.successorEnded(pid: pid, [.exited(0), .exited(3), .signaled(9, coreDumped: false)][Int(now) % 3]))
            return
        }
        switch Int.random(in: 0..<8, using: &random) {
        case 0..<3: happen(.successorReport(pid: pid, .ready))
        case 3: happen(.successorReport(pid: pid, .draining))
        case 4: happen(.successorReport(pid: pid, .bootFailed("x")))
        case 6: happen(.successorReport(pid: pid, .tellOthers("order")))
        case 5: successor = (pid, true)
        default: break
        }
    }

    mutating func reap() {
        guard let (serial, status) = dead.min(by: { $0.key < $1.key }) else { return }
        dead[serial] = nil
        happen(.ended(serial, status))
    }

    /// Lets time pass until the arbiter or a worker has something to do.
    mutating func wait() {
        let step = Int64.random(in: 1...200, using: &random)
        let due = core.nextDeadline.map { max($0.milliseconds(since: at(0)), now) }
        now = min(now + step, due ?? .max)
        for serial in alive.keys where alive[serial]?.isHung == false { alive[serial]?.heartbeat = at(now) }
        if core.wantsHeartbeats(at: at(now)) {
            happen(.heartbeats(alive.mapValues(\.heartbeat)))
        } else if due == now {
            happen(.tick)
        }
    }

    mutating func step() {
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<4: workerActs()
        case 4..<6: reap()
        case 6: successorActs()
        default: wait()
        }
    }
}

@Suite("A simulated arbiter")
struct ArbiterSimulation {
    @Test("keeps its promises whatever happens", arguments: 0..<200 as Range<UInt64>)
    func promises(_ seed: UInt64) {
        var world = World(seed: seed)
        world.happen(.start)
        let signals: [Signal] = [.hangUp, .user1, .user2, .windowChanged, .terminalInput, .terminalOutput]
        for _ in 0..<600 where world.exit == nil {
            if world.random.chance(4) {
                for _ in 0..<Int.random(in: 1...5, using: &world.random) {
                    world.happen(.signal(signals.randomElement(using: &world.random) ?? .hangUp))
                }
            }
            if world.random.chance(1), world.random.chance(10) { world.happen(.signal(.quit)) }
            // A jump: the machine was asleep, the workers with it.
            if world.random.chance(1) { world.now += 3_600_000 }
            world.step()
        }
        guard world.exit == nil else { return }

        // When all is calm again, the workers are all there and the last HUP has had its round.
        if world.core.phase == .running {
            world.trouble = 0
            for serial in world.alive.keys where world.alive[serial]?.isHung == true {
                world.alive[serial] = nil
                world.dead[serial] = .signaled(9, coreDumped: false)
            }
            for _ in 0..<2000 where world.exit == nil { world.step() }
            let ended = world.roundsEnded
            world.happen(.signal(.hangUp))
            for _ in 0..<1000 where world.exit == nil { world.step() }
            guard world.exit == nil else { return }
            #expect(
                world.core.workers.count { if case .serving = $0.stage { true } else { false } } == world.core.wanted)
            #expect(world.core.wanted >= 1, "it rests after HUP")
            #expect(world.roundsEnded > ended, "HUP was lost")
            let generation = world.core.generation
            for worker in world.core.workers where worker.stage != .leaving {
                #expect(world.alive[worker.serial]?.generation == generation, "a worker kept its old router")
            }
        }

        // TERM ends everything in time, even when nobody obeys.
        world.trouble = world.random.chance(50) ? 0 : 90
        world.happen(.signal(.terminate))
        let since = world.termAt ?? world.now
        // Each step takes a while on average; an arbiter that turns on the spot would take for ever.
        for _ in 0..<20_000 where world.exit == nil && world.now <= since + 60_000 { world.step() }
        #expect(world.exit == 0)
        #expect(world.now <= since + Int64(world.graceful) + 2 * ArbiterCore.killAfterMilliseconds, "it took too long")
    }

    @Test("an arbiter to which nobody answers ends after TERM all the same")
    func deaf() {
        var core = ArbiterCoreTests.serving(4)
        var now: Int64 = 0
        var exits: [ArbiterCore.Action] = []
        _ = core.handle(.signal(.terminate), at: at(now))
        for _ in 0..<10 {
            guard let next = core.nextDeadline, exits.isEmpty else { break }
            now = next.milliseconds(since: at(0))
            exits = core.handle(.tick, at: next).filter { if case .exit = $0 { true } else { false } }
        }
        #expect(exits == [.exit(0)])
        #expect(now == 14_000)
    }
}
