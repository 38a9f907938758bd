import Config
import Control
import Linux
import Testing

@testable public import Supervisor

/// Settings of an arbiter with so many workers.
func settings(workers: Int, timeout: Int = 30_000, graceful: Int = 10_000) -> Settings {
    var settings = Settings(name: "x", router: RouterSpec(arguments: ["true"], text: "true"))
    settings.workers = workers
    settings.workerTimeoutMilliseconds = timeout
    settings.gracefulTimeoutMilliseconds = graceful
    return settings
}

typealias ExitStatus = Linux.ExitStatus

extension Serial: ExpressibleByIntegerLiteral {
    public init(integerLiteral number: UInt64) { self.init(number) }
}

/// A moment so many milliseconds after an arbitrary one.
func at(_ milliseconds: Int64) -> Instant { Instant(milliseconds: 1_000_000 + milliseconds) }

func name(_ serial: Serial) -> WorkerName { WorkerName(serial: serial, pid: Int32(serial.number) + 100) }

extension [ArbiterCore.Action] {
    /// Without what is only said.
    var deeds: [ArbiterCore.Action] {
        filter { if case .say = $0 { false } else { true } }
    }
    var notes: [Note] {
        compactMap { if case .say(let note) = $0 { note } else { nil } }
    }
}

@Suite("What the arbiter decides")
struct ArbiterCoreTests {
    /// An arbiter whose workers 1…n serve since 0.
    static func serving(_ workers: Int, timeout: Int = 30_000, graceful: Int = 10_000) -> ArbiterCore {
        var core = ArbiterCore(settings: settings(workers: workers, timeout: timeout, graceful: graceful))
        _ = core.handle(.start, at: at(0))
        for serial in 1...UInt64(workers) {
            _ = core.handle(.spawned(Serial(serial), pid: Int32(serial) + 100), at: at(0))
            _ = core.handle(.report(Serial(serial), .ready), at: at(0))
        }
        return core
    }

    @Test("at the start all workers are spawned")
    func start() {
        var core = ArbiterCore(settings: settings(workers: 3))
        #expect(
            core.handle(.start, at: at(0)) == [
                .spawn(1, generation: 1), .spawn(2, generation: 1), .spawn(3, generation: 1),
            ])
    }

    @Test("the first worker that is ready makes the arbiter ready")
    func ready() {
        var core = ArbiterCore(settings: settings(workers: 2))
        _ = core.handle(.start, at: at(0))
        _ = core.handle(.spawned(1, pid: 101), at: at(0))
        _ = core.handle(.spawned(2, pid: 102), at: at(0))
        #expect(core.handle(.report(2, .ready), at: at(1)) == [.say(.ready(workers: 2))])
        #expect(core.handle(.report(1, .ready), at: at(2)) == [.say(.workerReady(name(1)))])
    }

    @Test("a worker that dies is replaced at once")
    func replaced() {
        var core = Self.serving(2)
        let status = ExitStatus.signaled(9, coreDumped: false)
        #expect(
            core.handle(.ended(1, status), at: at(6000)) == [
                .say(.died(name(1), status, next: 3, retryMilliseconds: 0)), .spawn(3, generation: 1),
            ])
        #expect(
            Note.died(name(1), status, next: 3, retryMilliseconds: 0).text(router: "true")
                == "worker 1 (pid 101) died of SIGKILL; starting worker 3")
    }

    @Test("workers that keep dying young are replaced later and later, up to five seconds")
    func backoff() {
        var core = Self.serving(1, timeout: 0)
        var now: Int64 = 0
        var serial: UInt64 = 1
        var pauses: [Int64] = []
        for _ in 0..<9 {
            _ = core.handle(.report(Serial(serial), .ready), at: at(now))
            let actions = core.handle(.ended(Serial(serial), .exited(1)), at: at(now))
            guard case .died(_, _, _, let pause)? = actions.notes.first else {
                Issue.record("nothing was said of the death")
                return
            }
            pauses.append(pause)
            now += pause
            serial += 1
            #expect(pause == 0 || core.nextDeadline == at(now))
            let spawned = pause == 0 ? actions.deeds : core.handle(.tick, at: at(now))
            #expect(spawned == [.spawn(Serial(serial), generation: 1)])
        }
        #expect(pauses == [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000])
        // One that has served for a while ends the series.
        _ = core.handle(.report(Serial(serial), .ready), at: at(now))
        let actions = core.handle(.ended(Serial(serial), .exited(1)), at: at(now + 5000))
        #expect(actions.deeds == [.spawn(Serial(serial + 1), generation: 1)])
    }

    @Test("when no worker has ever been ready, one that cannot boot ends the arbiter with status 3")
    func bootFailure() {
        var core = ArbiterCore(settings: settings(workers: 2))
        _ = core.handle(.start, at: at(0))
        #expect(core.handle(.report(1, .bootFailed("no such file")), at: at(5)) == [])
        #expect(
            core.handle(.ended(1, .exited(3)), at: at(6)) == [
                .closeListeners, .say(.cannotBoot("no such file")), .tell(2, .stop),
            ])
        #expect(core.handle(.ended(2, .exited(0)), at: at(7)) == [.exit(3)])
        #expect(core.handle(.tick, at: at(8)) == [])
    }

    @Test("a worker that dies before it is ready, or cannot be started at all, is a boot failure, too")
    func earlyDeath() {
        var core = ArbiterCore(settings: settings(workers: 1))
        _ = core.handle(.start, at: at(0))
        #expect(
            core.handle(.ended(1, .signaled(4, coreDumped: false)), at: at(6)) == [
                .closeListeners, .say(.cannotBoot("worker 1 died of SIGILL before it was ready")), .exit(3),
            ])
        var other = ArbiterCore(settings: settings(workers: 1))
        _ = other.handle(.start, at: at(0))
        #expect(other.handle(.spawnFailed(1, "EAGAIN"), at: at(1)).deeds == [.closeListeners, .exit(3)])
    }

    @Test("later a worker that cannot boot is tried again after a pause")
    func laterBootFailure() {
        var core = Self.serving(1, timeout: 0)
        _ = core.handle(.ended(1, .exited(1)), at: at(9000))
        _ = core.handle(.spawned(2, pid: 102), at: at(9000))
        _ = core.handle(.report(2, .bootFailed("syntax")), at: at(9100))
        #expect(
            core.handle(.ended(2, .exited(3)), at: at(9100))
                == [.say(.bootFailed(name(2), "syntax", retryMilliseconds: 100))])
        #expect(core.handle(.tick, at: at(9199)) == [])
        #expect(core.handle(.tick, at: at(9200)) == [.spawn(3, generation: 1)])
        #expect(core.handle(.spawnFailed(3, "EMFILE"), at: at(9200)).deeds == [])
        #expect(core.nextDeadline == at(9400))
    }

    @Test("QUIT drains, without a deadline")
    func quit() {
        var core = Self.serving(2, timeout: 0)
        #expect(
            core.handle(.signal(.quit), at: at(0)) == [
                .say(.stopping(.quit, withinMilliseconds: nil)), .closeListeners, .tell(1, .drainLast),
                .tell(2, .drainLast),
            ])
        #expect(core.nextDeadline == nil)
        #expect(core.handle(.signal(.quit), at: at(1)) == [])
        #expect(core.handle(.tick, at: at(86_400_000)) == [])
        #expect(core.handle(.ended(2, .exited(0)), at: at(86_400_001)) == [])
        #expect(core.handle(.ended(1, .exited(0)), at: at(86_400_002)) == [.exit(0)])
    }

    @Test(
        "TERM and INT drain, stop at the deadline, kill soon after, and end in any case",
        arguments: [.terminate, .interrupt] as [Signal])
    func terminate(_ signal: Signal) {
        var core = Self.serving(2)
        #expect(
            core.handle(.signal(signal), at: at(0)).deeds
                == [.closeListeners, .tell(1, .drainLast), .tell(2, .drainLast)])
        #expect(core.nextDeadline == at(10_000))
        #expect(core.handle(.ended(1, .exited(0)), at: at(500)) == [])
        #expect(core.handle(.tick, at: at(9_999)) == [])
        #expect(core.handle(.tick, at: at(10_000)).deeds == [.tell(2, .stop)])
        #expect(core.nextDeadline == at(12_000))
        #expect(core.handle(.tick, at: at(12_000)).deeds == [.kill(2)])
        #expect(core.nextDeadline == at(14_000))
        #expect(core.handle(.tick, at: at(14_000)) == [.exit(0)])
        #expect(core.nextDeadline == nil)
    }

    @Test("a second TERM or INT stops at once, the first after QUIT does not")
    func secondSignal() {
        var core = Self.serving(1)
        _ = core.handle(.signal(.quit), at: at(0))
        #expect(core.handle(.signal(.interrupt), at: at(1)).deeds == [])
        #expect(core.nextDeadline == at(10_001))
        #expect(
            core.handle(.signal(.terminate), at: at(2)) == [.say(.secondSignal(.terminate)), .tell(1, .stop)])
        #expect(core.handle(.signal(.terminate), at: at(3)) == [])
        #expect(core.handle(.ended(1, .exited(0)), at: at(4)) == [.exit(0)])
    }

    @Test("with a graceful timeout of 0 TERM stops at once")
    func noGrace() {
        var core = Self.serving(1, graceful: 0)
        #expect(
            core.handle(.signal(.terminate), at: at(0)).deeds == [
                .closeListeners, .tell(1, .drainLast), .tell(1, .stop),
            ])
    }

    @Test("a worker that still boots has nothing to finish and is stopped")
    func stopBooting() {
        var core = ArbiterCore(settings: settings(workers: 1))
        _ = core.handle(.start, at: at(0))
        #expect(core.handle(.signal(.quit), at: at(1)).deeds == [.closeListeners, .tell(1, .stop)])
        #expect(core.handle(.report(1, .ready), at: at(2)) == [])
        #expect(core.handle(.ended(1, .exited(0)), at: at(3)) == [.exit(0)])
    }

    @Test("a signal before any worker is there ends the arbiter")
    func signalFirst() {
        var core = ArbiterCore(settings: settings(workers: 1))
        #expect(core.handle(.signal(.terminate), at: at(0)).deeds == [.closeListeners, .exit(0)])
    }

    @Test("a worker that drains by itself is replaced while it does")
    func drainsByItself() {
        var core = Self.serving(1)
        #expect(
            core.handle(.report(1, .draining), at: at(9000)) == [
                .say(.drainsByItself(name(1))), .spawn(2, generation: 1),
            ])
        #expect(core.handle(.ended(1, .exited(0)), at: at(9001)) == [])
    }

    @Test("a worker whose heartbeat stands still is killed")
    func silent() {
        var core = Self.serving(2, timeout: 4000)
        var now: Int64 = 0
        var killed: [ArbiterCore.Action] = []
        while killed.isEmpty, now < 20_000 {
            #expect(core.wantsHeartbeats(at: at(now)))
            killed = core.handle(.heartbeats([1: at(0), 2: at(now)]), at: at(now))
            guard let next = core.nextDeadline else { break }
            now = next.milliseconds(since: at(0))
        }
        #expect(killed == [.say(.silent(name(1), milliseconds: 4000)), .kill(1)])
        #expect((4000...6000).contains(now))
        #expect(core.handle(.heartbeats([1: at(0), 2: at(now)]), at: at(now)) == [])
        #expect(
            core.handle(.ended(1, .signaled(9, coreDumped: false)), at: at(now)).deeds == [.spawn(3, generation: 1)])
    }

    @Test("an arbiter that was stopped for an hour does not blame its workers")
    func stoppedArbiter() {
        var core = Self.serving(1, timeout: 4000)
        _ = core.handle(.heartbeats([1: at(0)]), at: at(0))
        _ = core.handle(.heartbeats([1: at(1000)]), at: at(1000))
        #expect(core.handle(.heartbeats([1: at(1000)]), at: at(3_600_000)) == [])
        #expect(core.handle(.heartbeats([1: at(3_600_500)]), at: at(3_601_000)) == [])
    }

    @Test("with a timeout of 0 there is no watchdog")
    func noWatchdog() {
        var core = Self.serving(1, timeout: 0)
        #expect(!core.wantsHeartbeats(at: at(1_000_000)))
        #expect(core.handle(.heartbeats([1: at(0)]), at: at(1_000_000)) == [])
    }

    @Test("what a router says to all workers is told to all others, draining ones too, and not to its own")
    func toldToOthers() {
        var core = Self.serving(4)
        _ = core.handle(.report(3, .draining), at: at(1))
        let line = #"{"jsonrpc":"2.0","method":"invalidate","params":{"all":true}}"#
        #expect(
            core.handle(.report(2, .tellOthers(line)), at: at(2))
                == [
                    .tell(1, .told(line)), .tell(3, .told(line)), .tell(4, .told(line)), .tell(5, .told(line)),
                    .passOn(line, from: .worker(2)),
                ])
        #expect(core.handle(.report(9, .tellOthers(line)), at: at(3)) == [])
        var alone = Self.serving(1)
        #expect(alone.handle(.report(1, .tellOthers(line)), at: at(1)) == [.passOn(line, from: .worker(1))])
    }

    @Test("what another arbiter of a chain of upgrades passes on goes to all workers, and on to the others")
    func toldByArbiters() {
        var core = Self.serving(2)
        let line = #"{"jsonrpc":"2.0","method":"close","params":{"tag":"x"}}"#
        let told: [ArbiterCore.Action] = [.tell(1, .told(line)), .tell(2, .told(line))]
        #expect(core.handle(.originTells(line), at: at(1)) == told + [.passOn(line, from: .origin)])
        // Its upgrade may be over: it still has connections.
        #expect(
            core.handle(.successorReport(pid: 7, .tellOthers(line)), at: at(2))
                == told + [.passOn(line, from: .successor(pid: 7))])
        // We may be on our way out ourselves.
        _ = core.handle(.signal(.quit), at: at(3))
        #expect(core.handle(.originTells(line), at: at(4)) == told + [.passOn(line, from: .origin)])
    }

    @Test("USR1 opens the logs again everywhere, in whatever phase")
    func logs() {
        var core = Self.serving(2)
        _ = core.handle(.ended(2, .exited(1)), at: at(9000))
        #expect(
            core.handle(.signal(.user1), at: at(9001)) == [
                .say(.reopeningLogs), .reopenLogs, .tell(1, .reopenLogs), .tell(3, .reopenLogs),
            ])
        _ = core.handle(.signal(.quit), at: at(9002))
        #expect(core.handle(.signal(.user1), at: at(9003)).deeds.first == .reopenLogs)
    }
}

@Suite("More workers and fewer")
struct WorkerCountTests {
    @Test("TTIN adds a worker, of the present generation; one that was alone learns to share")
    func more() {
        var core = ArbiterCoreTests.serving(1)
        _ = core.handle(.signal(.hangUp), at: at(0))
        #expect(
            core.handle(.signal(.terminalInput), at: at(1)) == [
                .say(.workersWanted(2)), .tell(1, .shareListeners), .spawn(2, generation: 2),
            ])
        #expect(core.handle(.signal(.terminalInput), at: at(2)).deeds == [.spawn(3, generation: 2)])
        #expect(core.wanted == 3)
    }

    @Test("TTOU lets the oldest one go, and does not replace it")
    func fewer() {
        var core = ArbiterCoreTests.serving(3)
        #expect(
            core.handle(.signal(.terminalOutput), at: at(1)) == [.say(.workersWanted(2)), .tell(1, .drain)])
        #expect(core.handle(.report(1, .draining), at: at(2)) == [])
        #expect(core.handle(.ended(1, .exited(0)), at: at(3)) == [])
        #expect(core.handle(.signal(.terminalOutput), at: at(4)).deeds == [.tell(2, .drain)])
    }

    @Test("TTOU ends a worker that still boots first")
    func booting() {
        var core = ArbiterCoreTests.serving(2)
        _ = core.handle(.signal(.terminalInput), at: at(0))
        #expect(core.handle(.signal(.terminalOutput), at: at(1)).deeds == [.tell(3, .stop)])
    }

    @Test("TTOU never ends the last worker, and TTIN stops at the limit")
    func bounds() {
        var core = ArbiterCoreTests.serving(1)
        #expect(core.handle(.signal(.terminalOutput), at: at(1)) == [.say(.workersAtLimit(1))])
        for _ in 1..<Limits.workersMax { _ = core.handle(.signal(.terminalInput), at: at(2)) }
        #expect(core.handle(.signal(.terminalInput), at: at(3)) == [.say(.workersAtLimit(Limits.workersMax))])
    }

    @Test("TTOU does not disturb a reload")
    func duringReload() {
        var core = ArbiterCoreTests.serving(2)
        _ = core.handle(.signal(.hangUp), at: at(0))
        #expect(core.handle(.signal(.terminalOutput), at: at(1)).deeds == [.tell(2, .drain)])
        #expect(core.handle(.report(1, .reloaded), at: at(2)) == [.say(.reloaded(generation: 2, workers: 1))])
    }

    @Test("a worker that is missing anyway is simply not replaced after TTOU")
    func missing() {
        var core = ArbiterCoreTests.serving(2, timeout: 0)
        _ = core.handle(.ended(2, .exited(1)), at: at(0))
        _ = core.handle(.ended(3, .exited(3)), at: at(1))
        #expect(core.handle(.signal(.terminalOutput), at: at(2)).deeds == [])
        #expect(core.handle(.tick, at: at(60_000)) == [])
    }

    @Test("WINCH drains all workers and keeps the arbiter; HUP starts as many again")
    func rest() {
        var core = ArbiterCoreTests.serving(2, timeout: 0)
        _ = core.handle(.signal(.terminalInput), at: at(0))
        #expect(
            core.handle(.signal(.windowChanged), at: at(1)) == [
                .say(.resting), .tell(1, .drain), .tell(2, .drain), .tell(3, .stop),
            ])
        #expect(core.handle(.signal(.windowChanged), at: at(2)) == [])
        for serial: Serial in [1, 2, 3] { #expect(core.handle(.ended(serial, .exited(0)), at: at(3)) == []) }
        #expect(core.nextDeadline == nil)
        #expect(
            core.handle(.signal(.hangUp), at: at(4)).deeds == [
                .reopenLogs, .spawn(4, generation: 2), .spawn(5, generation: 2), .spawn(6, generation: 2),
            ])
    }

    @Test("while resting TTIN starts one worker, and TERM ends the arbiter")
    func resting() {
        var core = ArbiterCoreTests.serving(2)
        _ = core.handle(.signal(.windowChanged), at: at(1))
        #expect(core.handle(.signal(.terminalOutput), at: at(2)).deeds == [])
        #expect(core.handle(.signal(.terminalInput), at: at(3)).deeds == [.spawn(3, generation: 1)])
        var other = ArbiterCoreTests.serving(1)
        _ = other.handle(.signal(.windowChanged), at: at(1))
        _ = other.handle(.ended(1, .exited(0)), at: at(2))
        #expect(other.handle(.signal(.terminate), at: at(3)).deeds == [.closeListeners, .exit(0)])
    }

    @Test(
        "while stopping there is nothing to add, to let go or to reload",
        arguments: [.terminalInput, .terminalOutput, .windowChanged, .hangUp] as [Signal])
    func stopping(_ signal: Signal) {
        var core = ArbiterCoreTests.serving(2)
        _ = core.handle(.signal(.quit), at: at(1))
        #expect(core.handle(.signal(signal), at: at(2)) == [.say(.ignored(signal))])
    }
}

@Suite("Reloading")
struct ReloadTests {
    @Test("HUP tells one worker after the other")
    func inTurn() {
        var core = ArbiterCoreTests.serving(3)
        #expect(
            core.handle(.signal(.hangUp), at: at(0)).deeds == [
                .reopenLogs, .tell(1, .reopenLogs), .tell(2, .reopenLogs), .tell(3, .reopenLogs),
                .tell(1, .reload(generation: 2)),
            ])
        #expect(core.handle(.report(2, .reloaded), at: at(1)) == [])
        #expect(core.handle(.report(1, .reloaded), at: at(2)) == [.tell(2, .reload(generation: 2))])
        #expect(core.handle(.report(2, .reloaded), at: at(3)) == [.tell(3, .reload(generation: 2))])
        #expect(core.handle(.report(3, .reloaded), at: at(4)) == [.say(.reloaded(generation: 2, workers: 3))])
        #expect(core.generation == 2)
    }

    @Test("a router that does not come up leaves the old one to all workers")
    func failure() {
        var core = ArbiterCoreTests.serving(3)
        _ = core.handle(.signal(.hangUp), at: at(0))
        #expect(
            core.handle(.report(1, .reloadFailed("syntax")), at: at(1))
                == [.say(.reloadFailed(name(1), "syntax", reloaded: 0, left: 2))])
        #expect(core.handle(.tick, at: at(60_000)) == [])
        // And can be tried again.
        #expect(core.handle(.signal(.hangUp), at: at(2)).deeds.last == .tell(1, .reload(generation: 3)))
    }

    @Test("HUP during a round is one more round, however often it comes")
    func burst() {
        var core = ArbiterCoreTests.serving(2)
        _ = core.handle(.signal(.hangUp), at: at(0))
        for _ in 0..<20 { #expect(core.handle(.signal(.hangUp), at: at(1)) == []) }
        #expect(core.handle(.report(1, .reloaded), at: at(2)) == [.tell(2, .reload(generation: 2))])
        #expect(core.handle(.report(2, .reloaded), at: at(3)).deeds.last == .tell(1, .reload(generation: 3)))
        _ = core.handle(.report(1, .reloaded), at: at(4))
        #expect(core.handle(.report(2, .reloaded), at: at(5)) == [.say(.reloaded(generation: 3, workers: 2))])
    }

    @Test("a worker that boots meanwhile is told when it is ready")
    func booting() {
        var core = ArbiterCoreTests.serving(2)
        _ = core.handle(.ended(2, .exited(1)), at: at(9000))
        _ = core.handle(.signal(.hangUp), at: at(9001))
        #expect(core.handle(.report(1, .reloaded), at: at(9002)) == [])
        #expect(core.handle(.report(3, .ready), at: at(9003)).deeds == [.tell(3, .reload(generation: 2))])
        #expect(core.handle(.report(3, .reloaded), at: at(9004)).notes == [.reloaded(generation: 2, workers: 2)])
    }

    @Test("a worker that dies of its reload, or never answers, ends the round")
    func noAnswer() {
        var core = ArbiterCoreTests.serving(2)
        _ = core.handle(.signal(.hangUp), at: at(9000))
        let actions = core.handle(.ended(1, .signaled(11, coreDumped: false)), at: at(9001))
        #expect(actions.notes.first == .reloadFailed(name(1), "it died of SIGSEGV", reloaded: 0, left: 1))
        #expect(actions.deeds == [.spawn(3, generation: 2)])
        var other = ArbiterCoreTests.serving(2, timeout: 0)
        _ = other.handle(.signal(.hangUp), at: at(0))
        #expect(other.nextDeadline == at(30_000))
        #expect(
            other.handle(.tick, at: at(30_000))
                == [.say(.reloadFailed(name(1), "it did not answer", reloaded: 0, left: 1))])
    }

    @Test("a worker that leaves is not waited for")
    func leaving() {
        var core = ArbiterCoreTests.serving(2)
        _ = core.handle(.signal(.hangUp), at: at(9000))
        _ = core.handle(.report(2, .draining), at: at(9001))
        #expect(core.handle(.report(1, .reloaded), at: at(9002)) == [.say(.reloaded(generation: 2, workers: 1))])
    }

    @Test("HUP means nothing while stopping, and TERM ends a round")
    func stopping() {
        var core = ArbiterCoreTests.serving(2)
        _ = core.handle(.signal(.hangUp), at: at(0))
        _ = core.handle(.signal(.terminate), at: at(1))
        #expect(core.handle(.report(1, .reloaded), at: at(2)) == [])
        #expect(core.handle(.signal(.hangUp), at: at(3)) == [.say(.ignored(.hangUp))])
    }
}

@Suite("Upgrading")
struct UpgradeTests {
    /// An arbiter with one worker and a successor that runs as process 500.
    static func upgrading(isReady: Bool = true) -> ArbiterCore {
        var core = ArbiterCoreTests.serving(1)
        _ = core.handle(.signal(.user2), at: at(1))
        _ = core.handle(.successorSpawned(pid: 500), at: at(1))
        if isReady { _ = core.handle(.successorReport(pid: 500, .ready), at: at(2)) }
        return core
    }

    @Test("USR2 starts one successor, which counts on where we are; our own numbers go on far behind its")
    func start() {
        var core = ArbiterCoreTests.serving(2)
        #expect(core.handle(.signal(.user2), at: at(1)) == [.spawnSuccessor(generation: 2, lastSerial: 2)])
        _ = core.handle(.successorSpawned(pid: 500), at: at(1))
        #expect(core.handle(.signal(.user2), at: at(2)) == [.say(.upgradePending(pid: 500))])
        #expect(
            core.handle(.successorReport(pid: 500, .ready), at: at(3)) == [
                .say(.successorReady(pid: 500)), .tell(1, .shareListeners), .tell(2, .shareListeners),
            ])
        #expect(core.handle(.signal(.user2), at: at(4)) == [.say(.upgradePending(pid: 500))])
        #expect(
            core.handle(.ended(1, .exited(1)), at: at(9000)).deeds == [.spawn(1_000_003, generation: 1)])
    }

    @Test(
        "QUIT and TERM to us complete it: the names are the successor's before we close anything",
        arguments: [
            .quit, .terminate, .interrupt,
        ] as [Signal])
    func complete(_ signal: Signal) {
        var core = Self.upgrading()
        let actions = core.handle(.signal(signal), at: at(10))
        #expect(actions.deeds == [.handOver, .closeListeners, .tell(1, .drain)])
        #expect(actions.notes.contains(.handingOver(pid: 500, isReady: true)))
        // Its further life is none of ours.
        #expect(core.handle(.successorReport(pid: 500, .draining), at: at(11)) == [])
        #expect(
            core.handle(.successorEnded(pid: 500, .exited(0)), at: at(12)) == [
                .say(.successorLeft(pid: 500, .exited(0)))
            ])
        #expect(core.handle(.ended(1, .exited(0)), at: at(13)) == [.exit(0)])
    }

    @Test("we may be told to end before the successor is ready: then that is said")
    func hasty() {
        var core = Self.upgrading(isReady: false)
        let actions = core.handle(.signal(.quit), at: at(10))
        #expect(actions.deeds == [.handOver, .closeListeners, .tell(1, .drain)])
        #expect(actions.notes.contains(.handingOver(pid: 500, isReady: false)))
    }

    @Test(
        "a successor that is told to end gives us back our name at once, and the next upgrade may begin while it drains"
    )
    func backedOut() {
        var core = Self.upgrading()
        #expect(
            core.handle(.successorReport(pid: 500, .draining), at: at(5)) == [
                .takeBack, .say(.upgradeBackedOut(pid: 500)),
            ])
        #expect(
            core.handle(.signal(.user2), at: at(6)).deeds == [
                .spawnSuccessor(generation: 2, lastSerial: 1_000_001)
            ])
        _ = core.handle(.successorSpawned(pid: 501), at: at(6))
        #expect(
            core.handle(.successorEnded(pid: 500, .exited(0)), at: at(7)) == [
                .say(.successorLeft(pid: 500, .exited(0)))
            ])
        #expect(core.successor == 501)
    }

    @Test("a successor that fails to boot changes nothing, and its reason is said")
    func bootFailure() {
        var core = Self.upgrading(isReady: false)
        #expect(core.handle(.successorReport(pid: 500, .bootFailed("syntax")), at: at(5)) == [])
        #expect(
            core.handle(.successorEnded(pid: 500, .exited(3)), at: at(6)) == [
                .takeBack, .say(.upgradeFailed("syntax")),
            ])
        var silent = Self.upgrading(isReady: false)
        #expect(
            silent.handle(.successorEnded(pid: 500, .signaled(11, coreDumped: false)), at: at(6)).notes == [
                .upgradeFailed("it died of SIGSEGV")
            ])
        var missing = ArbiterCoreTests.serving(1)
        _ = missing.handle(.signal(.user2), at: at(1))
        #expect(
            missing.handle(.successorFailed("no such file"), at: at(1)) == [
                .takeBack, .say(.upgradeFailed("no such file")),
            ])
    }

    @Test("a successor that dies later leaves us as we were")
    func death() {
        var core = Self.upgrading()
        let status = ExitStatus.signaled(9, coreDumped: false)
        #expect(
            core.handle(.successorEnded(pid: 500, status), at: at(6)) == [
                .takeBack, .say(.successorDied(pid: 500, status)),
            ])
        #expect(core.handle(.signal(.quit), at: at(7)).deeds == [.closeListeners, .tell(1, .drainLast)])
    }

    @Test("a successor counts on, and starts no upgrade while its own is open")
    func successor() {
        var core = ArbiterCore(settings: settings(workers: 1), generation: 5, lastSerial: 40, origin: 99)
        #expect(core.handle(.start, at: at(0)) == [.spawn(41, generation: 5)])
        #expect(core.handle(.signal(.user2), at: at(1)) == [.say(.ownUpgradeOpen(origin: 99))])
        #expect(core.handle(.originLeft, at: at(2)) == [.say(.servesAlone(origin: 99))])
        #expect(
            core.handle(.signal(.user2), at: at(3)).deeds == [.spawnSuccessor(generation: 6, lastSerial: 41)])
    }

    @Test("USR2 means nothing while stopping")
    func stopping() {
        var core = ArbiterCoreTests.serving(1)
        _ = core.handle(.signal(.quit), at: at(1))
        #expect(core.handle(.signal(.user2), at: at(2)) == [.say(.ignored(.user2))])
    }
}
