// What the arbiter decides: pure, without a clock, a process or a descriptor. `Arbiter.swift` tells it what happened and
// does what it says. Its tests are lists of events and actions, and a simulation that throws everything at it.

public import Config
public import Control
public import Linux

/// Names a worker for ever: serials are given out once.
public struct Serial: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let number: UInt64
    public init(_ number: UInt64) { self.number = number }
    public static func < (left: Serial, right: Serial) -> Bool { left.number < right.number }
    public var description: String { String(number) }
}

/// The arbiter's state and its rules.
public struct ArbiterCore {
    /// What it is told about.
    public enum Event: Equatable, Sendable {
        /// The listeners are bound: serve.
        case start
        case signal(Signal)
        /// The worker that was to be spawned runs.
        case spawned(Serial, pid: Int32)
        /// It could not be started, for this reason.
        case spawnFailed(Serial, String)
        case report(Serial, Report)
        /// It has ended; whatever it had reported before came before.
        case ended(Serial, ExitStatus)
        /// The successor that was to be spawned runs.
        case successorSpawned(pid: Int32)
        /// It could not be started, for this reason.
        case successorFailed(String)
        case successorReport(pid: Int32, Report)
        case successorEnded(pid: Int32, ExitStatus)
        /// The arbiter that started us with USR2 has been told to end, or is gone.
        case originLeft
        /// A router there has said something to all workers.
        case originTells(String)
        /// Certificates and keys have been read, and are others than before.
        case tlsReloaded
        /// They cannot be used, for this reason; those from before go on.
        case tlsReloadFailed(String)
        /// There is a new ticket key.
        case ticketKeyRenewed
        /// The heartbeats on the scoreboard.
        case heartbeats([Serial: Instant])
        /// Time has passed: at `nextDeadline` or earlier.
        case tick
    }

    /// What it wants done, in this order.
    public enum Action: Equatable, Sendable {
        case spawn(Serial, generation: UInt64)
        case tell(Serial, Command)
        /// SIGKILL.
        case kill(Serial)
        /// Give up the arbiter's copies; what is queued belongs to the workers.
        case closeListeners
        case reopenLogs
        /// Read certificates and keys anew.
        case reloadTLS
        /// Make a new ticket key.
        case renewTicketKey
        /// Start the new arbiter of an upgrade and give it our name: routers it starts begin with this generation, workers
        /// with the next serial.
        case spawnSuccessor(generation: UInt64, lastSerial: Serial)
        /// The upgrade has come to nothing: the name is ours again.
        case takeBack
        /// We have been told to end while there is a successor: the addresses and the name are its own.
        case handOver
        case say(Note)
        /// What a router has said to all workers goes to all other arbiters that we know.
        case passOn(String, from: Speaker)
        /// The last action.
        case exit(Int32)
    }

    /// Where something that is for all workers came from.
    public enum Speaker: Equatable, Sendable {
        case worker(Serial)
        case successor(pid: Int32)
        case origin
    }

    /// The arbiter's own life. Each phase leads to the next ones below it only.
    public enum Phase: Equatable, Sendable {
        /// Workers that end are replaced.
        case running
        /// QUIT: workers finish what they have, however long that takes.
        case draining
        /// TERM, INT: the same until the deadline.
        case stopping(deadline: Instant)
        /// Workers were told to stop at once; at the deadline they are killed.
        case halting(deadline: Instant)
        /// Workers were killed; at the deadline the arbiter ends, whether they have gone or not.
        case killing(deadline: Instant)
        /// `exit` was said.
        case stopped
    }

    /// What a worker is doing, as far as the arbiter knows.
    enum Stage: Equatable {
        /// Its router has not answered `hello` yet. It accepts nothing.
        case booting
        case serving(since: Instant)
        /// It drains or stops, was told to or not; it is nobody to count on.
        case leaving
    }

    struct Worker {
        let serial: Serial
        var pid: Int32?
        var stage = Stage.booting
        /// What it said before it exited.
        var bootFailure: String?
        var heartbeat: Instant?
        /// How long the heartbeat has stood still under our eyes.
        var silentMilliseconds: Int64 = 0

        var name: WorkerName { WorkerName(serial: serial, pid: pid) }
    }

    /// An upgrade: there is one at a time, and it is over when the successor ends, is told to, or we are.
    struct Upgrade {
        var pid: Int32?
        var isReady = false
        /// What it said before it exited.
        var bootFailure: String?
    }

    /// A round of HUP: workers are told one after the other.
    struct ReloadRound {
        var waiting: [Serial]
        /// Who was told, and until when it has to answer.
        var asked: (serial: Serial, deadline: Instant)?
        var done = 0
        /// HUP came again: another round follows.
        var isToBeRepeated = false
    }

    /// A worker that dies before it has served so long has failed, and the next one is started later and later.
    static let stableMilliseconds: Int64 = 5_000
    static let backoffMilliseconds: ClosedRange<Int64> = 100...5_000
    /// A worker answers `reload` when the new router's `hello` has come or failed to (10 s); this is for one that never
    /// does.
    static let reloadMilliseconds: Int64 = 30_000
    /// Workers that we start after a successor has been given the next serials count on from far behind those.
    static let serialsForSuccessor: UInt64 = 1_000_000
    static let killAfterMilliseconds = Int64(Limits.killAfterMilliseconds)

    /// How many workers there are to be: as many as the options say, then what TTIN, TTOU and WINCH make of it.
    public private(set) var wanted: Int
    /// What HUP goes back to after WINCH.
    private var wantedBeforeRest: Int?
    let gracefulMilliseconds: Int64
    /// 0: no watchdog.
    let silenceMilliseconds: Int64

    public private(set) var phase = Phase.running
    /// What routers started now belong to.
    public private(set) var generation: UInt64
    /// In the order of their serials.
    private(set) var workers: [Worker] = []
    var lastSerial: UInt64
    var upgrade: Upgrade?
    var isHandedOver = false
    /// The process of the arbiter that started us, while that upgrade is open.
    var origin: Int32?
    private(set) var hasEverBeenReady = false
    private var failures = 0
    private var lastFailure: Instant?
    /// When missing workers may be started.
    private var spawnAt = Instant(nanoseconds: 0)
    private var round: ReloadRound?
    /// When the next ticket key is to be made, nil without TLS towards clients.
    private(set) var ticketKeyDue: Instant?
    private let hasTLS: Bool
    private var watchAt: Instant?
    private var lastWatch: Instant?
    private var exitStatus: Int32 = 0
    var actions: [Action] = []

    /// A successor counts on where the arbiter before it was.
    public init(
        settings: Settings, generation: UInt64 = 1, lastSerial: Serial = Serial(0), origin: Int32? = nil,
        ticketKeyDue: Instant? = nil
    ) {
        hasTLS = settings.tls != nil
        self.ticketKeyDue = ticketKeyDue
        self.origin = origin
        self.generation = generation
        self.lastSerial = lastSerial.number
        wanted = settings.workers
        gracefulMilliseconds = Int64(settings.gracefulTimeoutMilliseconds)
        // A worker writes its heartbeat once in a while; less than two whiles would kill healthy ones.
        let least = 2 * Limits.heartbeatMilliseconds
        silenceMilliseconds =
            settings.workerTimeoutMilliseconds == 0 ? 0 : Int64(max(settings.workerTimeoutMilliseconds, least))
    }

    /// Whether a round of HUP is under way.
    var isReloading: Bool { round != nil }

    /// The next moment at which something is due though nothing happens; nil when nothing is.
    public var nextDeadline: Instant? {
        var deadlines: [Instant] = []
        switch phase {
        case .running:
            if isMissingWorkers { deadlines.append(spawnAt) }
            if let asked = round?.asked { deadlines.append(asked.deadline) }
            if let watchAt { deadlines.append(watchAt) }
            if let ticketKeyDue { deadlines.append(ticketKeyDue) }
        case .draining: if let watchAt { deadlines.append(watchAt) }
        case .stopping(let deadline), .halting(let deadline), .killing(let deadline): deadlines.append(deadline)
        case .stopped: break
        }
        return deadlines.min()
    }

    /// Whether `heartbeats` should be told now.
    public func wantsHeartbeats(at now: Instant) -> Bool { watchAt.map { now >= $0 } ?? false }

    /// Takes one event and says what is to be done.
    public mutating func handle(_ event: Event, at now: Instant) -> [Action] {
        guard phase != .stopped else { return [] }
        actions = []
        switch event {
        case .start:
            if silenceMilliseconds > 0 { watchAt = now }
            if hasTLS { ticketKeyDue = ticketKeyDue ?? Self.nextTicketKey(after: now) }
        case .signal(let signal): handle(signal, at: now)
        case .spawned(let serial, let pid): update(serial) { $0.pid = pid }
        case .spawnFailed(let serial, let reason):
            update(serial) { $0.bootFailure = reason }
            lose(serial, nil, at: now)
        case .report(let serial, let report): handle(report, of: serial, at: now)
        case .ended(let serial, let status): lose(serial, status, at: now)
        case .successorSpawned(let pid): upgrade?.pid = pid
        case .successorFailed(let reason): endUpgrade(.upgradeFailed(reason))
        case .successorReport(let pid, let report): handle(report, ofSuccessor: pid)
        case .successorEnded(let pid, let status): loseSuccessor(pid, status)
        case .originLeft:
            if let origin, phase == .running { say(.servesAlone(origin: origin)) }
            origin = nil
        case .originTells(let line): tellEverybody(line, from: .origin)
        case .tlsReloaded:
            say(.tlsReloaded)
            tellAll(.renewTLS)
        case .tlsReloadFailed(let reason): say(.tlsReloadFailed(reason))
        case .ticketKeyRenewed: tellAll(.renewTicketKeys)
        case .heartbeats(let beats): watch(beats, at: now)
        case .tick: break
        }
        passTime(at: now)
        defer { actions = [] }
        return actions
    }

    // MARK: Signals

    private mutating func handle(_ signal: Signal, at now: Instant) {
        switch signal {
        case .quit: if phase == .running { drain(because: signal, until: nil) }
        case .terminate, .interrupt:
            switch phase {
            case .running, .draining:
                drain(because: signal, until: now.advanced(byMilliseconds: gracefulMilliseconds))
            case .stopping: halt(.secondSignal(signal), at: now)
            case .halting, .killing, .stopped: break
            }
        case .hangUp:
            guard phase == .running else { return say(.ignored(signal)) }
            if let before = wantedBeforeRest { want(before) }
            // Certificates are for themselves: a router that does not come up does not keep an old one in use.
            if hasTLS { actions.append(.reloadTLS) }
            reload()
        case .user1:
            say(.reopeningLogs)
            reopenLogs()
        case .user2: startUpgrade()
        case .terminalInput, .terminalOutput, .windowChanged:
            guard phase == .running else { return say(.ignored(signal)) }
            switch signal {
            case .terminalInput: addWorker()
            case .terminalOutput: removeWorker()
            default: rest()
            }
        // They never reach us: SIGCHLD becomes `ended`, KILL and PIPE have no meaning here.
        case .child, .kill, .brokenPipe: break
        }
    }

    private mutating func drain(because signal: Signal, until deadline: Instant?) {
        let isFirst = phase == .running
        phase = deadline.map { .stopping(deadline: $0) } ?? .draining
        round = nil
        say(.stopping(signal, withinMilliseconds: deadline == nil ? nil : gracefulMilliseconds))
        guard isFirst else { return }
        // Whoever is on the other side of an upgrade goes on accepting.
        let isLast = upgrade == nil && origin == nil
        handOver()
        actions.append(.closeListeners)
        for index in workers.indices { letGo(index, isLast: isLast) }
    }

    // MARK: More workers and fewer

    private mutating func want(_ count: Int) {
        wanted = count
        wantedBeforeRest = nil
    }

    private mutating func addWorker() {
        guard wanted < Limits.workersMax else { return say(.workersAtLimit(wanted)) }
        want(wanted + 1)
        say(.workersWanted(wanted))
        // One that was alone takes whole crowds of clients at once.
        guard wanted == 2 else { return }
        for worker in workers where worker.stage != .leaving { actions.append(.tell(worker.serial, .shareListeners)) }
    }

    /// One fewer, down to one. A worker that does not serve yet goes first; of those that do, the oldest.
    private mutating func removeWorker() {
        guard wanted > 1 else { return say(.workersAtLimit(wanted)) }
        want(wanted - 1)
        say(.workersWanted(wanted))
        let counted = workers.indices.filter { workers[$0].stage != .leaving }
        guard counted.count > wanted else { return }
        // Whoever was told to reload is waited for; there is another one, for one is to remain.
        let index =
            counted.last { workers[$0].stage == .booting }
            ?? counted.first { workers[$0].serial != round?.asked?.serial }
        if let index { letGo(index) }
    }

    /// WINCH: no workers, until HUP. The listeners stay, and clients wait in their queues.
    private mutating func rest() {
        guard wantedBeforeRest == nil else { return }
        wantedBeforeRest = wanted
        wanted = 0
        round = nil
        say(.resting)
        for index in workers.indices { letGo(index) }
    }

    /// Has a worker leave: one that still boots has accepted nothing, so it has nothing to finish.
    private mutating func letGo(_ index: Int, isLast: Bool = false) {
        switch workers[index].stage {
        case .booting: actions.append(.tell(workers[index].serial, .stop))
        case .serving: actions.append(.tell(workers[index].serial, isLast ? .drainLast : .drain))
        case .leaving: return
        }
        workers[index].stage = .leaving
    }

    private mutating func halt(_ note: Note, at now: Instant) {
        say(note)
        phase = .halting(deadline: now.advanced(byMilliseconds: Self.killAfterMilliseconds))
        for worker in workers { actions.append(.tell(worker.serial, .stop)) }
    }

    // MARK: Workers

    private mutating func handle(_ report: Report, of serial: Serial, at now: Instant) {
        guard let worker = workers.first(where: { $0.serial == serial }) else { return }
        switch report {
        case .ready:
            guard worker.stage == .booting else { return }
            update(serial) { $0.stage = .serving(since: now) }
            say(hasEverBeenReady ? .workerReady(worker.name) : .ready(workers: wanted))
            hasEverBeenReady = true
        case .bootFailed(let reason): update(serial) { $0.bootFailure = reason }
        case .draining:
            guard worker.stage != .leaving else { return }
            update(serial) { $0.stage = .leaving }
            say(.drainsByItself(worker.name))
        case .reloaded:
            guard round?.asked?.serial == serial else { return }
            round?.asked = nil
            round?.done += 1
        case .reloadFailed(let reason):
            guard round?.asked?.serial == serial else { return }
            endRound(failedIn: worker.name, reason)
        case .logsReopened, .tlsRenewed: break
        case .tlsNotRenewed(let reason): say(.tlsNotRenewed(worker.name, reason))
        case .logRefused(let reason): say(.logRefused(worker.name, reason))
        case .tellOthers(let line): tellEverybody(line, from: .worker(serial))
        }
    }

    /// What is for all workers, everywhere: arbiters of a chain of upgrades pass it on to their neighbours.
    mutating func tellEverybody(_ line: String, from speaker: Speaker) {
        // Draining ones too: their connections live on.
        for worker in workers where speaker != .worker(worker.serial) {
            actions.append(.tell(worker.serial, .told(line)))
        }
        actions.append(.passOn(line, from: speaker))
    }

    /// A worker is gone, or never came (no status).
    private mutating func lose(_ serial: Serial, _ status: ExitStatus?, at now: Instant) {
        guard let index = workers.firstIndex(where: { $0.serial == serial }) else { return }
        if hasSettled(at: now) { failures = 0 }
        let worker = workers.remove(at: index)
        let reason = worker.bootFailure ?? status.map { "it \($0)" } ?? "no reason was given"
        guard phase == .running else {
            // One that could not boot either has the reason that was said already.
            if let status, status != .exited(0), worker.bootFailure == nil { say(.left(worker.name, status)) }
            return
        }
        if round?.asked?.serial == serial { endRound(failedIn: worker.name, reason) }
        switch worker.stage {
        case .booting:
            guard hasEverBeenReady else {
                exitStatus = 3
                actions.append(.closeListeners)
                // Whoever said why has said whose fault it is; one that was killed could not.
                let said = worker.bootFailure ?? status.map { "\(worker.name) \($0) before it was ready" } ?? reason
                halt(.cannotBoot(said), at: now)
                return
            }
            failures += 1
            let pause = postponeSpawning(at: now)
            say(.bootFailed(worker.name, reason, retryMilliseconds: pause))
        case .serving(let since):
            let pause = postponeSpawning(at: now)
            if now.milliseconds(since: since) < Self.stableMilliseconds { failures += 1 }
            say(.died(worker.name, status ?? .exited(0), next: Serial(lastSerial + 1), retryMilliseconds: pause))
        case .leaving:
            if let status, status != .exited(0) { say(.left(worker.name, status)) }
        }
    }

    /// Whether a worker that was started after the last failure has served for a while: then all is well again.
    private func hasSettled(at now: Instant) -> Bool {
        workers.contains { worker in
            guard case .serving(let since) = worker.stage else { return false }
            return now.milliseconds(since: since) >= Self.stableMilliseconds && since >= lastFailure ?? since
        }
    }

    /// Says how long the next start waits after this loss: not at all when all was well, then 100 ms, doubling up to 5 s.
    private mutating func postponeSpawning(at now: Instant) -> Int64 {
        lastFailure = now
        guard failures > 0 else {
            spawnAt = now
            return 0
        }
        let doubled = Self.backoffMilliseconds.lowerBound << Int64(min(failures - 1, 10))
        spawnAt = max(spawnAt, now.advanced(byMilliseconds: min(doubled, Self.backoffMilliseconds.upperBound)))
        return spawnAt.milliseconds(since: now)
    }

    private var isMissingWorkers: Bool { workers.count(where: { $0.stage != .leaving }) < wanted }

    private mutating func update(_ serial: Serial, _ change: (inout Worker) -> Void) {
        guard let index = workers.firstIndex(where: { $0.serial == serial }) else { return }
        change(&workers[index])
    }

    mutating func say(_ note: Note) { actions.append(.say(note)) }

    // MARK: Reloading

    private mutating func reload() {
        guard round == nil else {
            // What changed since the round began may have been read already by some: all are told again.
            round?.isToBeRepeated = true
            return
        }
        generation += 1
        let serials = workers.filter { $0.stage != .leaving }.map(\.serial)
        round = ReloadRound(waiting: serials)
        say(.reloading(generation: generation))
        reopenLogs()
    }

    /// In every process: one that boots or drains writes to the log, too. Ours first, for it may have to make the files.
    private mutating func reopenLogs() {
        actions.append(.reopenLogs)
        for worker in workers { actions.append(.tell(worker.serial, .reopenLogs)) }
    }

    /// Tells the next worker, when nobody is being waited for. One that still boots may have started the old router, so
    /// it is waited for and told, too.
    private mutating func continueRound(at now: Instant) {
        guard phase == .running, let current = round else { return }
        if let asked = current.asked {
            guard let worker = workers.first(where: { $0.serial == asked.serial }), now >= asked.deadline else {
                return
            }
            endRound(failedIn: worker.name, "it did not answer")
            return continueRound(at: now)
        }
        while let serial = round?.waiting.first {
            guard let worker = workers.first(where: { $0.serial == serial }), worker.stage != .leaving else {
                round?.waiting.removeFirst()
                continue
            }
            guard worker.stage != .booting else { return }
            round?.waiting.removeFirst()
            round?.asked = (serial, now.advanced(byMilliseconds: Self.reloadMilliseconds))
            actions.append(.tell(serial, .reload(generation: generation)))
            return
        }
        say(.reloaded(generation: generation, workers: current.done))
        round = nil
        if current.isToBeRepeated {
            reload()
            continueRound(at: now)
        }
    }

    private mutating func endRound(failedIn worker: WorkerName, _ reason: String) {
        guard let ended = round else { return }
        round = nil
        say(.reloadFailed(worker, reason, reloaded: ended.done, left: ended.waiting.count))
        if ended.isToBeRepeated { reload() }
    }

    // MARK: TLS

    /// Those that boot have got the old ones. Whoever leaves accepts nobody any more.
    private mutating func tellAll(_ command: Command) {
        for worker in workers where worker.stage != .leaving { actions.append(.tell(worker.serial, command)) }
    }

    private static func nextTicketKey(after now: Instant) -> Instant {
        now.advanced(byMilliseconds: Int64(Limits.ticketKeyMilliseconds))
    }

    // MARK: Time

    private mutating func passTime(at now: Instant) {
        switch phase {
        case .running:
            continueRound(at: now)
            if let due = ticketKeyDue, now >= due {
                // Counted from now: after a pause of days one is made, and not one for each time that was missed.
                ticketKeyDue = Self.nextTicketKey(after: now)
                actions.append(.renewTicketKey)
            }
            while isMissingWorkers, now >= spawnAt {
                lastSerial += 1
                workers.append(Worker(serial: Serial(lastSerial)))
                actions.append(.spawn(Serial(lastSerial), generation: generation))
            }
        case .stopping(let deadline) where !workers.isEmpty && now >= deadline:
            halt(.outOfTime(workers: workers.count, afterMilliseconds: gracefulMilliseconds), at: now)
        case .halting(let deadline) where !workers.isEmpty && now >= deadline:
            phase = .killing(deadline: now.advanced(byMilliseconds: Self.killAfterMilliseconds))
            for worker in workers {
                say(.killing(worker.name))
                actions.append(.kill(worker.serial))
            }
        case .killing(let deadline) where !workers.isEmpty && now >= deadline: exit()
        case .draining, .stopping, .halting, .killing: if workers.isEmpty { exit() }
        case .stopped: break
        }
    }

    private mutating func exit() {
        phase = .stopped
        actions.append(.exit(exitStatus))
    }

    /// Kills workers whose heartbeat stands still. Only time in which we looked counts: when the arbiter itself was
    /// stopped, or the whole machine, its workers are not to blame.
    private mutating func watch(_ beats: [Serial: Instant], at now: Instant) {
        guard silenceMilliseconds > 0 else { return }
        let interval = min(Int64(Limits.heartbeatMilliseconds), silenceMilliseconds / 4)
        let passed = lastWatch.map { min(max(0, now.milliseconds(since: $0)), 2 * interval) } ?? 0
        lastWatch = now
        watchAt = now.advanced(byMilliseconds: interval)
        for index in workers.indices {
            guard let beat = beats[workers[index].serial], workers[index].silentMilliseconds < silenceMilliseconds
            else { continue }
            guard beat == workers[index].heartbeat else {
                workers[index].heartbeat = beat
                workers[index].silentMilliseconds = 0
                continue
            }
            workers[index].silentMilliseconds += passed
            guard workers[index].silentMilliseconds >= silenceMilliseconds else { continue }
            // Its death comes as an event and is answered then.
            say(.silent(workers[index].name, milliseconds: silenceMilliseconds))
            actions.append(.kill(workers[index].serial))
        }
    }
}
